"""Stepping q̈ = f(q, v, u) by the classical Runge-Kutta method, the input held in a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hil.types import AnyArray

Acceleration = Callable[[AnyArray, AnyArray, AnyArray], AnyArray]
"""q̈ (…, nq) from q, v (…, nq) and u (…, nu)."""


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


def held_inputs(
    acceleration: Acceleration, x: AnyArray, inputs: AnyArray, dt: float, steps: int = 1
) -> AnyArray:
    """Return the states (N + 1, …, 2 nq) from x under inputs (N, …, nu), each held for dt."""
    states = [np.asarray(x)]
    for u in inputs:
        states.append(rk4(acceleration, states[-1], u, dt, steps))
    return np.stack(states)
