"""From the slopes of a model at a point to the dynamics of one period.

The model is q̈ = f(q, v, u) with x = (q, v). Linearised at (x̄, ū) the affine term
f(x̄, ū) − A x̄ − B ū is kept: a model with f(0) ≠ 0, or a point that is no equilibrium, has
one.
"""

from __future__ import annotations

import numpy as np

from hil.control.compiled import compiled
from hil.mechanics.integrate import rk4
from hil.models.base import AbstractDynamics, Linearisation
from hil.types import Array


def contiguous(here: Linearisation) -> tuple[Array, Array, Array]:
    """Return the three arrays in the one layout the compiled functions are compiled for."""
    return (
        np.ascontiguousarray(here.acceleration, dtype=float),
        np.ascontiguousarray(here.by_state, dtype=float),
        np.ascontiguousarray(here.by_input, dtype=float),
    )


@compiled
def affine(
    acceleration: Array, by_state: Array, by_input: Array, x: Array, u: Array
) -> tuple[Array, Array, Array]:
    """Return A (nx, nx), B (nx, nu), c (nx,) with ẋ ≈ A x + B u + c around (x, u)."""
    nq, nx = by_state.shape
    nu = by_input.shape[1]
    a, b, c = np.zeros((nx, nx)), np.zeros((nx, nu)), np.zeros(nx)
    for i in range(nq):
        a[i, nq + i] = 1.0
        total = acceleration[i]
        for j in range(nx):
            a[nq + i, j] = by_state[i, j]
            total -= by_state[i, j] * x[j]
        for j in range(nu):
            b[nq + i, j] = by_input[i, j]
            total -= by_input[i, j] * u[j]
        c[nq + i] = total
    return a, b, c


@compiled
def held(a: Array, b: Array, c: Array, dt: float, order: int) -> tuple[Array, Array, Array]:
    """Return the period of ẋ = A x + B u + c under a held input, to an order of dt.

    Order 1 is forward Euler; order 4 is what one RK4 step makes of an affine system: the
    Taylor series of the matrix exponential.
    """
    nx = a.shape[0]
    series = np.eye(nx) * dt  # dt (I + dt A/2 (I + dt A/3 (…)))
    for m in range(order, 1, -1):
        series = np.eye(nx) * dt + (a @ series) * (dt / m)
    return np.eye(nx) + a @ series, series @ b, series @ c


@compiled
def period(
    acceleration: Array, by_state: Array, by_input: Array, x: Array, u: Array,
    dt: float, order: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return A (1, nx, nx), B (1, nx, nu), c (1, nx) of one period, linearised at (x, u)."""
    a, b, c = affine(acceleration, by_state, by_input, x, u)
    a, b, c = held(a, b, c, dt, order)
    return (
        a.reshape((1, a.shape[0], a.shape[1])),
        b.reshape((1, b.shape[0], b.shape[1])),
        c.reshape((1, len(c))),
    )


def step_slopes(
    model: AbstractDynamics, x: Array, u: Array, dt: float, order: int
) -> tuple[Array, Array, Array]:
    """Return A, B, c of one nonlinear step from (x, u): exact slopes of Euler or RK4.

    x: (nx,). u: (nu,), held. x⁺ = A x + B u + c holds exactly at the point itself.
    """
    if order == 1:
        a, b, c = affine(*contiguous(model.linearise(x, u)), x, u)
        return held(a, b, c, dt, 1)
    nx = len(x)
    slope, by_x, by_u = np.zeros(nx), np.zeros((nx, nx)), np.zeros((nx, len(u)))
    total, total_x, total_u = np.zeros(nx), np.eye(nx), np.zeros((nx, len(u)))
    total += x
    for share, weight in ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6)):
        at = x + share * dt * slope
        here = contiguous(model.linearise(at, u))
        slope, by_x, by_u = _chained(*here, at, by_x, by_u, share * dt)
        total += weight * dt * slope
        total_x += weight * dt * by_x
        total_u += weight * dt * by_u
    return total_x, total_u, total - total_x @ x - total_u @ u


@compiled
def _chained(
    acceleration: Array, by_state: Array, by_input: Array, at: Array,
    by_x: Array, by_u: Array, reach: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return ẋ at a Runge–Kutta stage and its slopes by the start and the input."""
    nq, nx = by_state.shape
    slope, f = np.empty(nx), np.zeros((nx, nx))
    g = np.zeros((nx, by_input.shape[1]))
    for i in range(nq):
        slope[i] = at[nq + i]
        slope[nq + i] = acceleration[i]
        f[i, nq + i] = 1.0
        f[nq + i] = by_state[i]
        g[nq + i] = by_input[i]
    return slope, f + reach * (f @ by_x), g + reach * (f @ by_u)


def advance(model: AbstractDynamics, x: Array, u: Array, dt: float, order: int) -> Array:
    """Return the state (nx,) after one period with u (nu,) held: Euler or one RK4 step."""
    state, held_input = x[None], u[None]
    if order == 4:
        after: Array = rk4(model.acceleration, state, held_input, dt)[0]
        return after
    q, v = x[: model.nq], x[model.nq :]
    return x + dt * np.concatenate([v, model.acceleration(q[None], v[None], held_input)[0]])


def linearised(
    model: AbstractDynamics, x: Array, u: Array, dt: float, order: int
) -> tuple[Array, Array, Array]:
    """Return A (1, nx, nx), B (1, nx, nu), c (1, nx): `period` at (x, u) of a model."""
    return period(*contiguous(model.linearise(x, u)), x, u, dt, order)
