"""Steps of a cart-pole in free motion, compiled: nothing is held, nothing is hit.

One function does the arithmetic for one step and for many, so that both give the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from hil.compiled import in_order
from hil.mechanics.cart_pole import CartPoleParameters
from hil.types import Array


def constants(p: CartPoleParameters) -> Array:
    """Return the parameters as the functions here take them."""
    lo, hi = p.stops or (-math.inf, math.inf)
    return np.array(
        [
            p.cart_mass, p.pole_mass, p.length, p.gravity, p.cart_viscous, p.pivot_viscous,
            p.cart_coulomb, p.pivot_coulomb, lo, hi,
        ]
    )  # fmt: skip


@in_order
def _slopes(
    p: Array, pivot: int, cart: int, u: float, theta: float, omega: float, speed: float
) -> tuple[float, float]:
    """Return (θ̈, ẍ): `cart_pole.accelerations`, each operation in its order."""
    sine, cosine = math.sin(theta), math.cos(theta)
    arm = p[1] * p[2] * sine
    lever = (-p[5] * omega - p[7] * pivot + p[3] * arm) / p[2]
    force = u - p[4] * speed - p[6] * cart + arm * omega * omega
    inertia = p[0] + p[1] * sine * sine
    turn = ((p[0] + p[1]) / p[1] * lever - cosine * force) / (p[2] * inertia)
    return turn, (force - cosine * lever) / inertia


@in_order
def free_step(
    p: Array, pivot: int, cart: int, u: float, h: float,
    theta: float, x: float, omega: float, speed: float,
) -> tuple[float, float, float, float]:  # fmt: skip
    """Return θ, x, θ̇, ẋ one Runge-Kutta step of fourth order on.

    p: `constants`; pivot, cart: the signs of the velocities against which dry friction acts;
    u: N, held over h, s.
    """
    half, sixth = 0.5 * h, h / 6.0
    a1, b1 = _slopes(p, pivot, cart, u, theta, omega, speed)
    omega2, speed2 = omega + half * a1, speed + half * b1
    a2, b2 = _slopes(p, pivot, cart, u, theta + half * omega, omega2, speed2)
    omega3, speed3 = omega + half * a2, speed + half * b2
    a3, b3 = _slopes(p, pivot, cart, u, theta + half * omega2, omega3, speed3)
    omega4, speed4 = omega + h * a3, speed + h * b3
    a4, b4 = _slopes(p, pivot, cart, u, theta + h * omega3, omega4, speed4)
    return (
        theta + sixth * (omega + 2.0 * (omega2 + omega3) + omega4),
        x + sixth * (speed + 2.0 * (speed2 + speed3) + speed4),
        omega + sixth * (a1 + 2.0 * (a2 + a3) + a4),
        speed + sixth * (b1 + 2.0 * (b2 + b3) + b4),
    )


@in_order
def free_steps(p: Array, state: tuple[float, float, float, float], u: Array, h: float) -> Array:
    """Return θ, x, θ̇, ẋ after each step that is free from its beginning to its end, (steps, 4).

    u: (n,), N, held over h, s, each; no more than n steps. It ends before a step in which
    something with dry friction is or comes to rest, the cart meets a stop, or a number is not
    finite.
    """
    found = np.empty((len(u), 4))
    dry_cart, dry_pivot, lo, hi = p[6] > 0.0, p[7] > 0.0, p[8], p[9]
    theta, x, omega, speed = state
    for k in range(len(u)):
        if (dry_pivot and omega == 0.0) or (dry_cart and speed == 0.0) or not lo < x < hi:
            return found[:k]
        pivot, cart = (-1 if omega < 0.0 else 1), (-1 if speed < 0.0 else 1)
        theta, x, omega, speed = free_step(p, pivot, cart, u[k], h, theta, x, omega, speed)
        stopped = (dry_pivot and pivot * omega <= 0.0) or (dry_cart and cart * speed <= 0.0)
        if stopped or not lo < x < hi or not math.isfinite(theta + x + omega + speed):
            return found[:k]
        found[k, 0], found[k, 1], found[k, 2], found[k, 3] = theta, x, omega, speed
    return found
