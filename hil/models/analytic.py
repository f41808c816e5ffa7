"""Dynamics from equations: the cart-pole, with its slopes in closed form."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from hil.mechanics.cart_pole import CartPole, CartPoleParameters, accelerations
from hil.models.base import AbstractDynamics, Linearisation
from hil.types import AnyArray, Array


class CartPoleModel(AbstractDynamics):
    """The smooth equations of `hil.mechanics.cart_pole`: q = (θ, x), u the force on the cart.

    Dry friction and end stops in the parameters are left out: at rest they have no slope,
    and a controller meets them as a disturbance and as a constraint.
    Raises MechanicsError for parameters out of range.
    """

    Settings: ClassVar[type[CartPoleParameters]] = CartPoleParameters

    def __init__(self, parameters: CartPoleParameters | None = None) -> None:
        self.cart_pole = CartPole(parameters)

    @property
    def parameters(self) -> CartPoleParameters:
        """Masses, length, gravity and viscous friction in use."""
        return self.cart_pole.parameters

    @property
    def nq(self) -> int:
        """Positions: θ in rad, x in m."""
        return 2

    @property
    def nu(self) -> int:
        """Inputs: the force on the cart in N."""
        return 1

    def acceleration(self, q: Array, v: Array, u: Array) -> AnyArray:
        """Return (θ̈, ẍ), (…, 2), for q, v (…, 2) and u (…, 1), real or complex."""
        alone = q.size == 2 and q.shape == v.shape and u.size == 1
        if alone and q.dtype.kind + v.dtype.kind + u.dtype.kind == "fff":
            return self._one(q, v, u)
        return self.cart_pole.acceleration(q, v, u)

    def _one(self, q: Array, v: Array, u: Array) -> Array:
        """Return the acceleration at one point, asked for in every period, in numbers."""
        p = self.parameters
        theta = q.item(0)
        omega, speed = v.ravel().tolist()
        sine, cosine = _sine_cosine(theta)
        torque, force = -p.pivot_viscous * omega, u.item(0) - p.cart_viscous * speed
        pair = accelerations(p, sine, cosine, omega, torque, force)
        return np.array(pair).reshape(q.shape)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and slopes at x (…, 4) and u (…, 1), by the chain rule.

        Leading dimensions are kept: acceleration (…, 2), by_state (…, 2, 4), by_input
        (…, 2, 1), in SI. What is not finite gives what is not a number and no error.
        """
        theta: Any
        if np.ndim(x) == 1:
            # One point is asked for in every period, and numbers are faster than arrays.
            theta, _, omega, speed = x.tolist()
            sine, cosine = _sine_cosine(theta)
            table = np.array(_slopes(self.parameters, sine, cosine, omega, speed, float(u[0])))
        else:
            theta, omega, speed = x[..., 0], x[..., 2], x[..., 3]
            sine, cosine = np.sin(theta), np.cos(theta)
            rows = _slopes(self.parameters, sine, cosine, omega, speed, u[..., 0])
            table = np.empty((*np.broadcast_shapes(x.shape[:-1], u.shape[:-1]), 2, 6))
            for i, row in enumerate(rows):
                for j, entry in enumerate(row):
                    table[..., i, j] = entry
        return Linearisation(table[..., 0], table[..., 1:5], table[..., 5:])


def _sine_cosine(angle: float) -> tuple[float, float]:
    """Return both of a number; NaN where `math` would raise and NumPy warns."""
    angle = angle if math.isfinite(angle) else math.nan
    return math.sin(angle), math.cos(angle)


def _slopes(
    p: CartPoleParameters, sine: Any, cosine: Any, omega: Any, speed: Any, force: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return θ̈ and ẍ, each with its slopes by θ, x, θ̇, ẋ and u; numbers or arrays."""
    total, length = p.cart_mass + p.pole_mass, p.length
    swing = p.pole_mass * length * sine
    torque = -p.pivot_viscous * omega
    force = force - p.cart_viscous * speed
    turn, push = accelerations(p, sine, cosine, omega, torque, force)
    torque = torque + p.gravity * swing
    force = force + swing * omega * omega
    inertia = p.cart_mass + p.pole_mass * sine * sine
    lever = 1.0 / (length * inertia)
    # Each acceleration is a numerator over the inertia, which itself turns with θ.
    by_inertia = 2.0 * p.pole_mass * sine * cosine
    centrifugal = p.pole_mass * length * cosine * omega * omega
    turn_theta = lever * (
        total * p.gravity * cosine + sine * force - cosine * centrifugal
    ) - turn * (by_inertia / inertia)
    push_theta = (
        centrifugal
        + sine * torque / length
        - p.pole_mass * p.gravity * cosine * cosine
        - push * by_inertia
    ) / inertia
    coriolis = 2.0 * swing * omega
    turn_omega = -lever * (total * p.pivot_viscous / (p.pole_mass * length) + cosine * coriolis)
    push_omega = (coriolis + cosine * p.pivot_viscous / length) / inertia
    return (
        (turn, turn_theta, 0.0, turn_omega, cosine * lever * p.cart_viscous, -cosine * lever),
        (push, push_theta, 0.0, push_omega, -p.cart_viscous / inertia, 1.0 / inertia),
    )
