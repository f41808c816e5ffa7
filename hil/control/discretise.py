"""From the slopes of a model at a point to the dynamics of one period.

The model is q̈ = f(q, v, u) with x = (q, v). Linearised at (x̄, ū) the affine term
f(x̄, ū) − A x̄ − B ū is kept: a model with f(0) ≠ 0, or a point that is no equilibrium, has
one.
"""

from __future__ import annotations

import numpy as np

from hil.compiled import compiled
from hil.mechanics.integrate import rk4
from hil.models.base import AbstractDynamics, Linearisation
from hil.types import Array

EULER = ((0.0, 1.0),)  # how far into the period each stage lies, and its weight
RUNGE_KUTTA = ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6))


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
    """Return A, B, c of one nonlinear step from each of n points: exact slopes of Euler or RK4.

    x: (n, nx). u: (n, nu), held. A (n, nx, nx), B (n, nx, nu), c (n, nx); x⁺ = A x + B u + c
    holds exactly at a point itself. The model is asked once per stage, for all points.
    """
    count, nx = x.shape
    slope, by_x = np.zeros((count, nx)), np.zeros((count, nx, nx))
    by_u = np.zeros((count, nx, u.shape[1]))
    step, step_x, step_u = np.zeros_like(slope), np.zeros_like(by_x), np.zeros_like(by_u)
    for share, weight in RUNGE_KUTTA if order == 4 else EULER:
        at = x + share * dt * slope
        here = contiguous(model.linearise(at, u))
        slope, by_x, by_u = _chained(*here, at, by_x, by_u, share * dt)
        step += weight * dt * slope
        step_x += weight * dt * by_x
        step_u += weight * dt * by_u
    return _affine_step(step, step_x, step_u, x, u)


@compiled
def _chained(
    acceleration: Array, by_state: Array, by_input: Array, at: Array,
    by_x: Array, by_u: Array, reach: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return ẋ at a Runge–Kutta stage and its slopes by the start and the input, n points."""
    count, nq, nx = by_state.shape
    nu = by_input.shape[2]
    slope, f, g = np.empty((count, nx)), np.empty((count, nx, nx)), np.empty((count, nx, nu))
    for k in range(count):
        for i in range(nq):
            slope[k, i] = at[k, nq + i]
            slope[k, nq + i] = acceleration[k, i]
            for j in range(nx):
                f[k, i, j] = reach * by_x[k, nq + i, j] + (1.0 if j == nq + i else 0.0)
                total = by_state[k, i, j]
                for m in range(nx):
                    total += reach * by_state[k, i, m] * by_x[k, m, j]
                f[k, nq + i, j] = total
            for j in range(nu):
                g[k, i, j] = reach * by_u[k, nq + i, j]
                total = by_input[k, i, j]
                for m in range(nx):
                    total += reach * by_state[k, i, m] * by_u[k, m, j]
                g[k, nq + i, j] = total
    return slope, f, g


@compiled
def _affine_step(
    step: Array, step_x: Array, step_u: Array, x: Array, u: Array
) -> tuple[Array, Array, Array]:
    """Return A, B, c of x⁺ = x + step, from the step's slopes by x (less the identity) and u."""
    count, nx, nu = step_u.shape
    a, c = np.empty((count, nx, nx)), np.empty((count, nx))
    for k in range(count):
        for i in range(nx):
            total = x[k, i] + step[k, i]
            for j in range(nx):
                a[k, i, j] = step_x[k, i, j] + (1.0 if i == j else 0.0)
                total -= a[k, i, j] * x[k, j]
            for j in range(nu):
                total -= step_u[k, i, j] * u[k, j]
            c[k, i] = total
    return a, step_u, c


def advance(model: AbstractDynamics, x: Array, u: Array, dt: float, order: int) -> Array:
    """Return the state after one period with u held, by Euler or one RK4 step.

    x: (nx,) or (n, nx); u: (nu,) or (n, nu); so is what is returned.
    """
    state, held_input = np.atleast_2d(x), np.atleast_2d(u)
    if order == 4:
        after: Array = rk4(model.acceleration, state, held_input, dt)
    else:
        q, v = state[:, : model.nq], state[:, model.nq :]
        slope = np.concatenate([v, model.acceleration(q, v, held_input)], axis=1)
        after = state + dt * slope
    return after.reshape(x.shape)


def linearised(
    model: AbstractDynamics, x: Array, u: Array, dt: float, order: int
) -> tuple[Array, Array, Array]:
    """Return A (1, nx, nx), B (1, nx, nu), c (1, nx): `period` at (x, u) of a model."""
    return period(*contiguous(model.linearise(x, u)), x, u, dt, order)
