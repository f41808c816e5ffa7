"""The plan without bounds where all periods are alike and the end is charged, in one call.

Of what `riccati` solves this is the case of `terminal = "lqr"`: A, B, c the same all along, P_N
that of another point, so that P and K differ from period to period. Only K and k are kept, and
sizes are constants of the compiled code, one per (nx, nu), as in `steady`.

The plan is checked as `active_set.residual` checks one, and against the bounds. Whoever gets
one that does not pass goes to the general path; nothing here knows active bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from hil.compiled import compiled, inlined
from hil.control.active_set import Bounds
from hil.control.discretise import contiguous
from hil.control.doubling import invert, times
from hil.control.formulation import Formulation
from hil.control.plan_checks import Found, Limits, as_found, beyond, period, residual
from hil.types import Array


@inlined
def recursion(
    a: Array, b: Array, c: Array, q: Array, r: Array, end: Array, target: Array, gain: Array,
    push: Array,
) -> None:  # fmt: skip
    """Fill K (N, nu, nx) and k (N, nu) of u = K x + k, from the last period to the first."""
    nx, nu = b.shape
    value, pa, pb = end.copy(), np.empty((nx, nx)), np.empty((nx, nu))
    h, lower, root = np.empty((nu, nu)), np.zeros((nu, nu)), np.zeros((nu, nu))
    slope, ahead, pull = np.empty(nx), np.empty(nx), np.empty(nx)  # p, P c + p, Q r
    share, closed = np.empty((nu, nx + 1)), np.empty((nx, nx))
    for i in range(nx):
        slope[i], pull[i] = 0.0, 0.0
        for m in range(nx):
            slope[i] -= end[i, m] * target[m]
            pull[i] += q[i, m] * target[m]
    for k in range(len(gain) - 1, -1, -1):
        times(value, a, pa)
        times(value, b, pb)
        for i in range(nx):
            ahead[i] = slope[i]
            for m in range(nx):
                ahead[i] += value[i, m] * c[m]
        for i in range(nu):
            for j in range(nu):
                h[i, j] = r[i, j]
                for m in range(nx):
                    h[i, j] += b[m, i] * pb[m, j]
        invert(h, lower, root)  # H⁻¹ = root·rootᵀ
        for m in range(nu):  # −rootᵀ Bᵀ(P A, P c + p)
            for j in range(nx + 1):
                share[m, j] = 0.0
            for i in range(m + 1):
                for j in range(nx):
                    for n in range(nx):
                        share[m, j] -= root[i, m] * b[n, i] * pa[n, j]
                for n in range(nx):
                    share[m, nx] -= root[i, m] * b[n, i] * ahead[n]
        for i in range(nu):
            push[k, i] = 0.0
            for j in range(nx):
                gain[k, i, j] = 0.0
            for m in range(i, nu):
                push[k, i] += root[i, m] * share[m, nx]
                for j in range(nx):
                    gain[k, i, j] += root[i, m] * share[m, j]
        for i in range(nx):
            for j in range(nx):
                closed[i, j] = a[i, j]
                for m in range(nu):
                    closed[i, j] += b[i, m] * gain[k, m, j]
        for i in range(nx):  # P = Q + (P A)ᵀ(A + BK), p = (A + BK)ᵀ(P c + p) − Q r
            slope[i] = -pull[i]
            for m in range(nx):
                slope[i] += closed[m, i] * ahead[m]
            for j in range(i + 1):
                total = q[i, j]
                for m in range(nx):
                    total += pa[m, i] * closed[m, j]
                value[i, j] = total
                value[j, i] = total


@inlined
def follow(
    a: Array, b: Array, c: Array, gain: Array, push: Array, inputs: Array, states: Array
) -> None:
    """Fill inputs (N, nu) and states (N + 1, nx) from states[0]."""
    nx, nu = b.shape
    for k in range(len(inputs)):
        for i in range(nu):
            total = push[k, i]
            for m in range(nx):
                total += gain[k, i, m] * states[k, m]
            inputs[k, i] = total
        for i in range(nx):
            total = c[i]
            for m in range(nx):
                total += a[i, m] * states[k, m]
            for m in range(nu):
                total += b[i, m] * inputs[k, m]
            states[k + 1, i] = total


@cache
def solver(nx: int, nu: int) -> Callable[..., tuple[float, float, Array, Array]]:
    """Return the compiled function for nx states and nu inputs; compiles at its first call.

    acceleration, by_state, by_input: of the model at (x, u). weights: Q, P_N, R, flat. limits:
    (3, nu + nx), lowest, highest and scale of inputs and states. Returns by how much bounds
    are exceeded, the residual, inputs (N, nu) and states (N + 1, nx).
    """

    @compiled
    def solve(
        acceleration: Array, by_state: Array, by_input: Array, x: Array, u: Array, dt: float,
        order: int, weights: Array, start: Array, target: Array, limits: Array, horizon: int,
    ) -> tuple[float, float, Array, Array]:  # fmt: skip
        a, b, c = np.empty((nx, nx)), np.empty((nx, nu)), np.empty(nx)
        q = weights[: nx * nx].reshape((nx, nx))
        end = weights[nx * nx : 2 * nx * nx].reshape((nx, nx))
        r = weights[2 * nx * nx :].reshape((nu, nu))
        gain, push = np.empty((horizon, nu, nx)), np.empty((horizon, nu))
        inputs, states = np.empty((horizon, nu)), np.empty((horizon + 1, nx))
        period(acceleration, by_state, by_input, x, u, dt, order, a, b, c)
        recursion(a, b, c, q, r, end, target, gain, push)
        states[0] = start
        follow(a, b, c, gain, push, inputs, states)
        costate = np.empty(nx)
        for i in range(nx):
            costate[i] = 0.0
            for m in range(nx):
                costate[i] += end[i, m] * (states[horizon, m] - target[m])
        over = beyond(inputs, states, limits, horizon)
        error = residual(a, b, c, gain, q, r, inputs, states, target, costate)
        return over, error, inputs, states

    return solve


class ChargedPlans:
    """Plans without bounds of a formulation whose end is charged; compiles when made."""

    def __init__(self, formulation: Formulation) -> None:
        cost, settings, dynamics = formulation.cost, formulation.settings, formulation.dynamics
        self._solve = solver(dynamics.nx, dynamics.nu)
        self._weights = np.concatenate([cost.q.ravel(), cost.end.ravel(), cost.r.ravel()])
        bounds = formulation.bounds()
        self._limits = Limits(bounds)
        self._dt, self._order, self._horizon = settings.dt, formulation.order, settings.horizon
        rest, idle = np.zeros(dynamics.nx), np.zeros(dynamics.nu)
        self._at_origin = contiguous(dynamics.linearise(rest, idle)), rest, idle
        self.at_origin(rest, rest, bounds)

    def at_origin(self, start: Array, target: Array, bounds: Bounds) -> Found | None:
        """Return the plan with the model linearised at the origin, or None: bounds matter."""
        here, rest, idle = self._at_origin
        return self._plan(here, rest, idle, start, target, bounds)

    def at(
        self,
        here: tuple[Array, Array, Array],
        start: Array,
        u: Array,
        target: Array,
        bounds: Bounds,
    ) -> Found | None:
        """Return the plan with the model linearised at (start, u), or None: bounds matter.

        here: acceleration and its slopes by state and input, contiguous.
        """
        return self._plan(here, start, u, start, target, bounds)

    def _plan(
        self, here: tuple[Array, Array, Array], x: Array, u: Array, start: Array, target: Array,
        bounds: Bounds,
    ) -> Found | None:  # fmt: skip
        return as_found(
            *self._solve(
                *here, x, u, self._dt, self._order, self._weights, start, target,
                self._limits.of(bounds), self._horizon,
            )
        )  # fmt: skip
