"""Stepping q̈ = f(q, v, u), the input held in a step.

Every method is a `Stepper`, of one signature; `STEPPERS` names them. Leapfrog and its
compositions (Yoshida, Physics Letters A 150, 1990) are symplectic where f does not depend
on v: the energy of a conservative system then stays near its value for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.integrate import solve_ivp

from hil.errors import RunError
from hil.types import AnyArray, Array

Acceleration = Callable[[AnyArray, AnyArray, AnyArray], AnyArray]
"""q̈ (…, nq) from q, v (…, nq) and u (…, nu)."""


class Stepper(Protocol):
    """Returns the state x = (q, v), (…, 2 nq), after dt in s, in `steps` equal steps."""

    def __call__(
        self, acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
    ) -> AnyArray:
        """Step on from x under u (…, nu), held over all of dt."""


def rk4(
    acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the state x = (q, v), (…, 2 nq), after dt in s, in `steps` equal steps.

    u: (…, nu), held over all of dt (zero-order hold). Fourth order in dt / steps.
    """
    n = x.shape[-1] // 2

    def slope(state: AnyArray) -> AnyArray:
        q, v = state[..., :n], state[..., n:]
        return np.concatenate((v, acceleration(q, v, u)), axis=-1)

    h = dt / steps
    for _ in range(steps):
        k1 = slope(x)
        k2 = slope(x + 0.5 * h * k1)
        k3 = slope(x + 0.5 * h * k2)
        k4 = slope(x + h * k3)
        x = x + (h / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return x


def midpoint(
    acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the state after dt by the explicit midpoint rule; as `rk4`, of second order."""
    n, h = x.shape[-1] // 2, dt / steps

    def slope(state: AnyArray) -> AnyArray:
        q, v = state[..., :n], state[..., n:]
        return np.concatenate((v, acceleration(q, v, u)), axis=-1)

    for _ in range(steps):
        x = x + h * slope(x + 0.5 * h * slope(x))
    return x


def leapfrog(
    acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the state after dt by kick, drift, kick; as `rk4`, of second order.

    Where f depends on v it is of first order and not symplectic.
    """
    return _composed((1.0,), acceleration, x, u, dt, steps)


def yoshida4(
    acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the state after dt by three leapfrogs a step, of fourth order; see `leapfrog`."""
    outer = 1 / (2 - 2 ** (1 / 3))
    return _composed((outer, 1 - 2 * outer, outer), acceleration, x, u, dt, steps)


def yoshida6(
    acceleration: Acceleration, x: AnyArray, u: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the state after dt by seven leapfrogs a step, of sixth order; see `leapfrog`."""
    return _composed((*SIXTH, 1 - 2 * sum(SIXTH), *SIXTH[::-1]), acceleration, x, u, dt, steps)


SIXTH = (0.784513610477560, 0.235573213359357, -1.17767998417887)
"""Solution A of Yoshida's table 1, from the outside in; the middle makes the sum 1."""


def _composed(
    parts: tuple[float, ...],
    acceleration: Acceleration,
    x: AnyArray,
    u: AnyArray,
    dt: float,
    steps: int,
) -> AnyArray:
    n = x.shape[-1] // 2
    q, v = x[..., :n], x[..., n:]
    for _ in range(steps):
        for part in parts:
            h = part * dt / steps
            v = v + 0.5 * h * acceleration(q, v, u)
            q = q + h * v
            v = v + 0.5 * h * acceleration(q, v, u)
    return np.concatenate((q, v), axis=-1)


STEPPERS: dict[str, Stepper] = {
    "rk4": rk4, "midpoint": midpoint, "leapfrog": leapfrog, "yoshida4": yoshida4,
    "yoshida6": yoshida6,
}  # fmt: skip


def adaptive(
    acceleration: Acceleration,
    x: Array,
    u: Array,
    times: Array,
    *,
    rtol: float = 1e-11,
    atol: float = 1e-12,
) -> Array:
    """Return the states (n, 2 nq) at times (n,) in s, from x (2 nq,) at the first of them.

    u: (nu,), held. Dormand & Prince's eighth-order pair with error control (SciPy's DOP853).
    Raises RunError when the step becomes too small: the motion is not smooth, or diverges.
    """
    n = len(x) // 2

    def slope(_: float, state: Array) -> AnyArray:
        return np.concatenate([state[n:], acceleration(state[:n], state[n:], u)])

    found = solve_ivp(slope, (times[0], times[-1]), x, "DOP853", times, rtol=rtol, atol=atol)
    if not found.success or not np.isfinite(found.y).all():
        raise RunError(f"integration from {times[0]} to {times[-1]} s: {found.message}")
    states: Array = found.y.T
    return states


def held_inputs(
    acceleration: Acceleration,
    x: AnyArray,
    inputs: AnyArray,
    dt: float,
    steps: int = 1,
    step: Stepper = rk4,
) -> AnyArray:
    """Return the states (N + 1, …, 2 nq) from x under inputs (N, …, nu), each held for dt."""
    states = [np.asarray(x)]
    for u in inputs:
        states.append(step(acceleration, states[-1], u, dt, steps))
    return np.stack(states)
