"""The plan without bounds where all periods are alike, in one compiled call.

Of what `riccati` solves this is the case that comes in nearly every period of a loop: A, B, c
the same all along, and the P_N of the recursion its stationary one. It is that when the end is
pinned, since then any P_N completes the square, and when P_N was made of these A and B. Then K
and H are the same in every period, P comes by doubling, and nothing of size N·nx² is kept.

The plan is checked as `active_set.residual` checks one, and against the bounds. Whoever gets
one that does not pass goes to the general path; nothing here knows active bounds.

Sizes are constants of the compiled code, one per (nx, nu): loops of four are unrolled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from hil.compiled import compiled, inlined
from hil.control.active_set import Bounds
from hil.control.discretise import contiguous
from hil.control.doubling import invert, solve_square, stationary, times
from hil.control.formulation import Formulation
from hil.control.plan_checks import Found, Limits, as_found, beyond, missed, period, residual
from hil.types import Array

ARRIVED = 1e-13  # gap at the end, over 1 + |r|, that another pass would not mend


class Steady(NamedTuple):
    """A, B, c of every period and what follows from them and the weights."""

    a: Array  # (nx, nx)
    b: Array  # (nx, nu)
    c: Array  # (nx,)
    value: Array  # (nx, nx), P
    gain: Array  # (nu, nx), K
    closed: Array  # (nx, nx), A + BK
    root: Array  # (nu, nu), H^{-½}: root·rootᵀ = H⁻¹
    drive: Array  # (nx, nu), B·root


@inlined
def steady(at: Steady, q: Array, r: Array) -> bool:
    """Fill P and what follows of A and B; return whether there is a stationary recursion."""
    nx, nu = at.b.shape
    lower, root, drive = np.zeros((nu, nu)), np.zeros((nu, nu)), np.empty((nx, nu))
    g, h, pd = np.zeros((nx, nx)), np.empty((nu, nu)), np.empty((nx, nu))
    invert(r, lower, root)
    times(at.b, root, drive)
    for i in range(nx):
        for j in range(nx):
            at.value[i, j] = q[i, j]
            at.closed[i, j] = at.a[i, j]
            for m in range(nu):
                g[i, j] += drive[i, m] * drive[j, m]
    if not stationary(at.a, g, at.value):
        return False
    times(at.value, at.b, pd)
    for i in range(nu):
        for j in range(nu):
            total = r[i, j]
            for m in range(nx):
                total += at.b[m, i] * pd[m, j]
            h[i, j] = total
            at.root[i, j] = 0.0
    invert(h, lower, at.root)
    times(at.b, at.root, at.drive)
    times(at.value, at.drive, pd)
    for i in range(nu):
        for j in range(nx):
            at.gain[i, j] = 0.0
    for m in range(nu):  # K = −H⁻¹BᵀPA = −root·(P·drive)ᵀA
        for j in range(nx):
            total = 0.0
            for i in range(nx):
                total += pd[i, m] * at.a[i, j]
            for i in range(m + 1):
                at.gain[i, j] -= at.root[i, m] * total
    for i in range(nx):
        for j in range(nx):
            for m in range(nu):
                at.closed[i, j] += at.b[i, m] * at.gain[m, j]
    return True


@inlined
def steady_push(at: Steady, q: Array, target: Array) -> tuple[Array, Array, Array]:
    """Return k, (nu,), what c and the target add to K x; c + B k, (nx,); P r + p, (nx,).

    Like P_N, the linear part p of the cost at a pinned end is free, and stationary here.
    """
    nx, nu = at.b.shape
    slope, ahead = np.empty((nx, 1)), np.empty(nx)  # p, P c + p
    work = np.empty((nx, nx))
    push, offset, end = np.zeros(nu), at.c.copy(), np.empty(nx)
    for i in range(nx):
        total = 0.0
        for m in range(nx):
            total += at.value[i, m] * at.c[m]
        ahead[i] = total
    for i in range(nx):  # p = (A + BK)ᵀ(P c + p) − Q r
        total = 0.0
        for m in range(nx):
            total += at.closed[m, i] * ahead[m] - q[i, m] * target[m]
            work[i, m] = (1.0 if i == m else 0.0) - at.closed[m, i]
        slope[i, 0] = total
    solve_square(work, slope)
    for i in range(nx):
        ahead[i] += slope[i, 0]
        total = slope[i, 0]
        for m in range(nx):
            total += at.value[i, m] * target[m]
        end[i] = total
    for m in range(nu):
        total = 0.0
        for i in range(nx):
            total -= at.drive[i, m] * ahead[i]
        for i in range(m + 1):
            push[i] += at.root[i, m] * total
        for i in range(nx):
            offset[i] += at.drive[i, m] * total
    return push, offset, end


@inlined
def roll(turned: Array, driven: Array, offset: Array, v: Array, states: Array) -> None:
    """Fill `states` (N + 1, nx) from states[0] and v (N, nu).

    turned: (nx, nx), (A + BK)ᵀ. driven: (nu, nx), drive transposed. Rows are added up, since
    what is added is then a vector of the machine.
    """
    nx = len(offset)
    for k in range(len(v)):
        for i in range(nx):
            states[k + 1, i] = offset[i]
        for m in range(v.shape[1]):
            for i in range(nx):
                states[k + 1, i] += driven[m, i] * v[k, m]
        for m in range(nx):
            for i in range(nx):
                states[k + 1, i] += turned[m, i] * states[k, m]


@inlined
def to_the_end(
    turned: Array, driven: Array, offset: Array, target: Array, v: Array, states: Array
) -> Array:
    """Make the plan end at the target by the shortest v; return the multiplier of that, (nx,)."""
    horizon, nu = v.shape
    nx = len(target)
    reach = np.empty((horizon, nu, nx))  # ∂x_N/∂v_k
    gram, work = np.zeros((nx, nx)), np.empty((nx, nx))
    force, more = np.zeros(nx), np.empty((nx, 1))
    reach[horizon - 1] = driven
    for k in range(horizon - 1, 0, -1):
        for m in range(nu):
            for i in range(nx):
                reach[k - 1, m, i] = turned[0, i] * reach[k, m, 0]
            for j in range(1, nx):
                for i in range(nx):
                    reach[k - 1, m, i] += turned[j, i] * reach[k, m, j]
    for k in range(horizon):
        for m in range(nu):
            for i in range(nx):
                for j in range(nx):
                    gram[i, j] += reach[k, m, i] * reach[k, m, j]
    for _ in range(2):  # the second pass mends what the first lost to rounding
        largest = 0.0
        for i in range(nx):
            more[i, 0] = target[i] - states[horizon, i]
            largest = max(largest, abs(more[i, 0]) / (1.0 + abs(target[i])))
        if largest <= ARRIVED:
            break
        work[:] = gram
        solve_square(work, more)
        for i in range(nx):
            force[i] += more[i, 0]
        for k in range(horizon):
            for m in range(nu):
                total = v[k, m]
                for i in range(nx):
                    total += more[i, 0] * reach[k, m, i]
                v[k, m] = total
        roll(turned, driven, offset, v, states)
    return force


@inlined
def planned(
    at: Steady, q: Array, r: Array, start: Array, target: Array, limits: Array, horizon: int
) -> tuple[float, float, Array, Array]:
    """Return by how much bounds are exceeded, the residual, inputs and states of the plan."""
    nx, nu = at.b.shape
    v = np.zeros((horizon, nu))
    inputs, states = np.empty((horizon, nu)), np.empty((horizon + 1, nx))
    turned, driven = at.closed.T.copy(), at.drive.T.copy()
    for i in range(nx):
        states[0, i] = start[i]
    push, offset, costate = steady_push(at, q, target)
    roll(turned, driven, offset, v, states)
    force = to_the_end(turned, driven, offset, target, v, states)
    for k in range(horizon):
        for i in range(nu):
            total = push[i]
            for m in range(nx):
                total += at.gain[i, m] * states[k, m]
            for m in range(i, nu):
                total += at.root[i, m] * v[k, m]
            inputs[k, i] = total
    for i in range(nx):
        costate[i] -= force[i]
    over = beyond(inputs, states, limits, horizon - 1)
    gain = at.gain.reshape((1, nu, nx))
    error = residual(at.a, at.b, at.c, gain, q, r, inputs, states, target, costate)
    return over, max(error, missed(states[horizon], target)), inputs, states


@inlined
def keep(at: Steady, kept: Array, fresh: bool) -> None:
    """Copy everything to `kept`, or back from there."""
    begin = 0
    for part in (at.a, at.b, at.closed, at.value, at.gain, at.root, at.drive):
        for i in range(part.shape[0]):
            for j in range(part.shape[1]):
                if fresh:
                    kept[begin] = part[i, j]
                else:
                    part[i, j] = kept[begin]
                begin += 1
    for i in range(len(at.c)):
        if fresh:
            kept[begin + i] = at.c[i]
        else:
            at.c[i] = kept[begin + i]


@cache
def solver(nx: int, nu: int) -> Callable[..., tuple[float, float, Array, Array]]:
    """Return the compiled function for nx states and nu inputs; compiles at its first call.

    kept: (`cells`,), the recursion of the last call with `fresh`. fresh: make one of the slopes
    at (x, u); else take what is kept. weights: Q, then R, flat. limits:
    (3, nu + nx), lowest, highest and scale of inputs and states. Returns by how much bounds
    are exceeded, the residual, inputs (N, nu) and states (N + 1, nx).
    """

    @compiled
    def solve(
        kept: Array, fresh: bool, acceleration: Array, by_state: Array, by_input: Array,
        x: Array, u: Array, dt: float, order: int, weights: Array, start: Array, target: Array,
        limits: Array, horizon: int,
    ) -> tuple[float, float, Array, Array]:  # fmt: skip
        at = Steady(
            np.empty((nx, nx)), np.empty((nx, nu)), np.empty(nx), np.empty((nx, nx)),
            np.empty((nu, nx)), np.empty((nx, nx)), np.empty((nu, nu)), np.empty((nx, nu)),
        )  # fmt: skip
        q = weights[: nx * nx].reshape((nx, nx))
        r = weights[nx * nx :].reshape((nu, nu))
        if fresh:
            period(acceleration, by_state, by_input, x, u, dt, order, at.a, at.b, at.c)
            if not steady(at, q, r):
                return np.inf, np.inf, np.empty((0, nu)), np.empty((0, nx))
        keep(at, kept, fresh)
        return planned(at, q, r, start, target, limits, horizon)

    return solve


def cells(nx: int, nu: int) -> int:
    """Return the length of what `solver` keeps."""
    return 3 * nx * nx + 3 * nx * nu + nx + nu * nu


class SteadyPlans:
    """Plans without bounds of a formulation whose end is pinned; compiles when made."""

    def __init__(self, formulation: Formulation) -> None:
        cost, settings = formulation.cost, formulation.settings
        nx, nu = formulation.dynamics.nx, formulation.dynamics.nu
        self._solve = solver(nx, nu)
        self._weights = np.concatenate([cost.q.ravel(), cost.r.ravel()])
        bounds = formulation.bounds()
        self._limits = Limits(bounds)
        self._dt, self._order, self._horizon = settings.dt, formulation.order, settings.horizon
        rest, idle = np.zeros(nx), np.zeros(nu)
        self._origin, self._moving = np.zeros(cells(nx, nu)), np.zeros(cells(nx, nu))
        self._at_origin = *contiguous(formulation.dynamics.linearise(rest, idle)), rest, idle
        over, *_ = self._call(self._origin, True, self._at_origin, rest, rest, bounds)
        self._usable = over < np.inf

    def at_origin(self, start: Array, target: Array, bounds: Bounds) -> Found | None:
        """Return the plan with the model linearised at the origin, or None: bounds matter."""
        if not self._usable:
            return None
        return as_found(*self._call(self._origin, False, self._at_origin, start, target, bounds))

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
        point = *here, start, u
        return as_found(*self._call(self._moving, True, point, start, target, bounds))

    def _call(
        self, kept: Array, fresh: bool, point: tuple[Array, ...], start: Array, target: Array,
        bounds: Bounds,
    ) -> tuple[float, float, Array, Array]:  # fmt: skip
        return self._solve(
            kept, fresh, *point, self._dt, self._order, self._weights, start, target,
            self._limits.of(bounds), self._horizon,
        )  # fmt: skip
