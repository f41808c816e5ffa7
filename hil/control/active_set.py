"""The shortest v that keeps a plan within its bounds: a dual active set, in exact steps.

    min ½|v|²   s.t.   x_N(v) = r if pinned,   lo ≤ u_k(v) ≤ hi,   lo ≤ x_k(v) ≤ hi

in the coordinates of `riccati` (k = 1…N for the states, 1…N − 1 when the end is pinned; x_0
is measured and nobody's choice). A soft bound on a state may be exceeded by s at a cost of
½ρs²: it is a hard one with a coordinate of its own, a·v + t/√ρ ≥ b and ½t² more to minimise,
so that s = λ/ρ for its multiplier λ. The method is that of Goldfarb & Idnani (Math. Programming
27, 1983) with the identity as Hessian: start from the plan without bounds, take in the most
violated bound, drop those whose multiplier would turn negative. It ends after finitely many
steps at the optimum, or with a bound that no combination of the others can satisfy: the
proof that there is no plan. Always from cold: there is no earlier failure to be misled by.

Normals of active bounds are kept as Q R, Q by Gram-Schmidt done twice. A normal is one pass
of the adjoint through the closed loop; nothing of size (bounds × inputs) is ever built.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.compiled import compiled
from hil.control.riccati import Cost, Factors, Plan, Stages, roll
from hil.types import Array

SOLVED, INFEASIBLE, GAVE_UP = 0, 1, 2
TOLERANCE = 1e-9  # of a bound's violation, in units of `Bounds.scale`
DEPENDENT = 1e-9  # a normal whose part outside the others' span is smaller is dependent
PROVEN = 1e-6  # a smaller violation is no proof that there is no plan


class Bounds(NamedTuple):
    """Intervals of inputs and states; ±inf where there is none."""

    input_low: Array  # (nu,)
    input_high: Array  # (nu,)
    state_low: Array  # (nx,)
    state_high: Array  # (nx,)
    input_scale: Array  # (nu,), what counts as 1 when violations are compared
    state_scale: Array  # (nx,)
    state_give: Array  # (nx,), 1/ρ: by how much a bound gives way per multiplier; 0: hard


class Bounded(NamedTuple):
    """What the active set found."""

    plan: Plan
    code: int  # SOLVED, INFEASIBLE, GAVE_UP
    steps: int
    active: int  # bounds active at the end
    input_force: Array  # (N, nu), multipliers: > 0 at the upper bound, < 0 at the lower
    state_force: Array  # (N + 1, nx)


@compiled
def worst(
    inputs: Array, states: Array, bounds: Bounds, state_force: Array, last: int
) -> tuple[float, int, int, int]:
    """Return violation (in scales), period, component (states after inputs) and side.

    state_force: (N + 1, nx), multipliers, by which soft bounds give way. last: the last
    period whose state is bounded. The side is +1 above, −1 below.
    """
    found, where, which, side = -np.inf, -1, -1, 0
    horizon, nu = inputs.shape
    nx = states.shape[1]
    for k in range(horizon):
        for i in range(nu):
            scale = bounds.input_scale[i]
            above = (inputs[k, i] - bounds.input_high[i]) / scale
            below = (bounds.input_low[i] - inputs[k, i]) / scale
            if above > found:
                found, where, which, side = above, k, i, 1
            if below > found:
                found, where, which, side = below, k, i, -1
    for k in range(1, last + 1):
        for i in range(nx):
            scale = bounds.state_scale[i]
            give = bounds.state_give[i] * abs(state_force[k, i])
            above = (states[k, i] - bounds.state_high[i] - give) / scale
            below = (bounds.state_low[i] - states[k, i] - give) / scale
            if above > found:
                found, where, which, side = above, k, nu + i, 1
            if below > found:
                found, where, which, side = below, k, nu + i, -1
    return found, where, which, side


@compiled
def gradient(factors: Factors, where: int, which: int, out: Array) -> None:
    """Fill `out` (N·nu,) with the slope of one input or state by v."""
    nu, nx = factors.gain.shape[1], factors.gain.shape[2]
    adjoint, before = np.zeros(nx), np.empty(nx)
    out[:] = 0.0
    if which < nu:
        for m in range(which, nu):
            out[where * nu + m] = factors.root[where, which, m]
        adjoint[:] = factors.gain[where, which]
    else:
        adjoint[which - nu] = 1.0
    for k in range(where - 1, -1, -1):
        for m in range(nu):
            total = 0.0
            for i in range(nx):
                total += factors.drive[k, i, m] * adjoint[i]
            out[k * nu + m] = total
        for j in range(nx):
            total = 0.0
            for i in range(nx):
                total += factors.closed[k, i, j] * adjoint[i]
            before[j] = total
        adjoint, before = before, adjoint


@compiled
def outside(
    basis: Array, count: int, width: int, normal: Array, within: Array, rest: Array
) -> float:
    """Split `normal` into coordinates in the basis and the rest; return |rest|².

    width: how many of the coordinates are in use.
    """
    n = width
    rest[:n] = normal[:n]
    for j in range(count):
        within[j] = 0.0
    for _ in range(2):
        for j in range(count):
            total = 0.0
            for m in range(n):
                total += basis[j, m] * rest[m]
            within[j] += total
            for m in range(n):
                rest[m] -= total * basis[j, m]
    total = 0.0
    for m in range(n):
        total += rest[m] * rest[m]
    return total


@compiled
def back_substitute(upper: Array, count: int, right: Array, out: Array) -> None:
    """Fill `out` with upper⁻¹ right, both of length `count`."""
    for i in range(count - 1, -1, -1):
        total = right[i]
        for j in range(i + 1, count):
            total -= upper[i, j] * out[j]
        out[i] = total / upper[i, i]


@compiled
def drop(basis: Array, upper: Array, count: int, width: int, gone: int) -> None:
    """Take column `gone` out of the factorisation of `count` normals."""
    for j in range(gone, count - 1):
        for i in range(j + 2):
            upper[i, j] = upper[i, j + 1]
    for j in range(gone, count - 1):
        length = np.hypot(upper[j, j], upper[j + 1, j])
        cos, sin = upper[j, j] / length, upper[j + 1, j] / length
        for i in range(j, count - 1):
            above, below = upper[j, i], upper[j + 1, i]
            upper[j, i] = cos * above + sin * below
            upper[j + 1, i] = cos * below - sin * above
        for m in range(width):
            above, below = basis[j, m], basis[j + 1, m]
            basis[j, m] = cos * above + sin * below
            basis[j + 1, m] = cos * below - sin * above


@compiled
def bounded(
    factors: Factors,
    stages: Stages,
    cost: Cost,
    push: Array,
    target: Array,
    bounds: Bounds,
    free: Plan,
    max_steps: int,
) -> Bounded:
    """Return the plan within bounds; `free` is the plan without them."""
    horizon, nu, nx = factors.gain.shape
    n = horizon * nu
    ends = nx if cost.pinned else 0
    last = horizon - 1 if cost.pinned else horizon
    soft = 0
    for i in range(nx):
        soft += horizon if bounds.state_give[i] > 0.0 else 0
    most = n + soft  # coordinates: those of v, and one for every soft bound that is active
    width = n  # of them in use
    basis, upper = np.empty((most, most)), np.zeros((most, most))
    place = np.empty((most, 3), np.int64)  # period, component, side of every active bound
    own = np.empty(most, np.int64)  # its own coordinate, −1: hard
    free_own = np.ones(most, np.bool_)
    given = np.zeros((horizon + 1, nx), np.bool_)  # whose soft bound is active
    force = np.zeros(most)  # multipliers, ≥ 0 but for the equalities
    level = np.empty(most)  # what an active normal times v must be
    normal, rest = np.zeros(most), np.zeros(most)
    within, change = np.empty(most), np.empty(most)
    v = np.zeros(most)
    v[:n] = free.v
    inputs, states = free.inputs.copy(), free.states.copy()
    input_force, state_force = np.zeros((horizon, nu)), np.zeros((horizon + 1, nx))
    count, code, steps, stuck = 0, GAVE_UP, 0, False
    for i in range(ends):  # the equalities; v satisfies them from the start
        normal[:n] = factors.reach[i]
        size = np.sqrt(outside(basis, count, width, normal, within, rest))
        basis[count] = rest / size
        upper[:count, count] = within[:count]
        upper[count, count] = size
        place[count, 0], place[count, 1], place[count, 2] = horizon, nu + i, 0
        own[count] = -1
        force[count] = free.end_force[i]
        level[count] = np.dot(normal[:n], v[:n])
        count += 1

    while steps < max_steps:
        violation, where, which, side = worst(inputs, states, bounds, state_force, last)
        if not violation > TOLERANCE:
            code = SOLVED if violation <= TOLERANCE else GAVE_UP  # NaN compares with nothing
            break
        gradient(factors, where, which, normal)
        for m in range(n):
            normal[m] *= -side  # the bound reads normal·v ≥ level
        normal[n:width] = 0.0
        new = -1
        if which < nu:
            edge = bounds.input_high[which] if side > 0 else bounds.input_low[which]
            slack = side * (edge - inputs[where, which])
        else:
            edge = bounds.state_high[which - nu] if side > 0 else bounds.state_low[which - nu]
            slack = side * (edge - states[where, which - nu])
            if given[where, which - nu]:  # only rounding leads here
                break
            if bounds.state_give[which - nu] > 0.0:
                new = n
                while not free_own[new]:
                    new += 1
                width = max(width, new + 1)
                basis[:count, new] = 0.0
                normal[new], v[new] = np.sqrt(bounds.state_give[which - nu]), 0.0
        length = np.dot(normal[:width], normal[:width])
        wanted = np.dot(normal[:width], v[:width]) - slack
        taken = 0.0  # multiplier of the bound that is coming in
        while steps < max_steps:
            steps += 1
            size = outside(basis, count, width, normal, within, rest)
            back_substitute(upper, count, within, change)
            dual, gone = np.inf, -1
            for j in range(ends, count):
                if change[j] > 0.0 and force[j] < dual * change[j]:
                    dual, gone = force[j] / change[j], j
            independent = count < width and size > DEPENDENT * DEPENDENT * length
            primal = -slack / size if independent else np.inf
            if gone < 0 and not primal < np.inf:  # a NaN, too
                code = INFEASIBLE if not independent and violation > PROVEN else GAVE_UP
                stuck = True
                break
            step = min(primal, dual)
            for j in range(count):
                force[j] -= step * change[j]
            taken += step
            if independent:
                slack += step * size
                for m in range(width):
                    v[m] += step * rest[m]
            if primal <= dual:
                size = np.sqrt(size)
                basis[count, :width] = rest[:width] / size
                upper[:count, count] = within[:count]
                upper[count, count] = size
                place[count, 0], place[count, 1], place[count, 2] = where, which, side
                own[count] = new
                if new >= 0:
                    free_own[new] = False
                    given[where, which - nu] = True
                force[count], level[count] = taken, wanted
                count += 1
                break
            if own[gone] >= 0:
                free_own[own[gone]] = True
                v[own[gone]] = 0.0
                given[place[gone, 0], place[gone, 1] - nu] = False
                state_force[place[gone, 0], place[gone, 1] - nu] = 0.0
            drop(basis, upper, count, width, gone)
            for j in range(gone, count - 1):
                place[j], force[j], level[j] = place[j + 1], force[j + 1], level[j + 1]
                own[j] = own[j + 1]
            count -= 1
        if stuck:
            break
        roll(factors, stages, push, v, inputs, states)
        for j in range(ends, count):
            if own[j] >= 0:
                state_force[place[j, 0], place[j, 1] - nu] = place[j, 2] * force[j]

    if code == SOLVED:  # the point and its multipliers once more, from the active set alone
        for i in range(count):
            total = level[i]
            for j in range(i):
                total -= upper[j, i] * within[j]
            within[i] = total / upper[i, i]
        for m in range(width):
            total = 0.0
            for j in range(count):
                total += basis[j, m] * within[j]
            v[m] = total
        back_substitute(upper, count, within, force)
        roll(factors, stages, push, v, inputs, states)
    end_force = np.zeros(nx)
    state_force[:] = 0.0
    for j in range(count):
        where, which, side = place[j, 0], place[j, 1], place[j, 2]
        if side == 0:
            end_force[which - nu] = force[j]
        elif which < nu:
            input_force[where, which] += side * force[j]
        else:
            state_force[where, which - nu] += side * force[j]
    plan = Plan(v[:n], inputs, states, end_force)
    return Bounded(plan, code, steps, count - ends, input_force, state_force)


@compiled
def larger(error: float, gap: float) -> float:
    """Return the larger of two; a NaN stays."""
    return error if gap <= error or np.isnan(error) else gap


@compiled
def residual(
    factors: Factors,
    stages: Stages,
    cost: Cost,
    bounds: Bounds,
    target: Array,
    found: Bounded,
) -> float:
    """Return how far a plan is from optimal, 1: the largest of all KKT residuals.

    In the problem as it was given, not in v: dynamics, end, bounds, sign of multipliers and
    stationarity in every input, each over the size of its terms. The costate runs backwards
    through the closed loop, which leaves all of its error to the stationarity.
    """
    horizon, nu, nx = factors.gain.shape
    plan = found.plan
    last = stages.a.shape[0] - 1
    bounded_to = horizon - 1 if cost.pinned else horizon
    error, _, _, _ = worst(plan.inputs, plan.states, bounds, found.state_force, bounded_to)
    error = max(error, 0.0)
    costate, slope, before = np.zeros(nx), np.zeros(nu), np.empty(nx)
    for i in range(nx):
        for m in range(nx):
            costate[i] += cost.end[i, m] * (plan.states[horizon, m] - target[m])
        costate[i] += found.state_force[horizon, i] - plan.end_force[i]
        if cost.pinned:
            gap = abs(plan.states[horizon, i] - target[i]) / (1.0 + abs(target[i]))
            error = larger(error, gap)
    for k in range(horizon - 1, -1, -1):
        s = min(k, last)
        for i in range(nx):
            total, size = stages.c[s, i] - plan.states[k + 1, i], 1.0
            for m in range(nx):
                term = stages.a[s, i, m] * plan.states[k, m]
                total, size = total + term, max(size, abs(term))
            for m in range(nu):
                term = stages.b[s, i, m] * plan.inputs[k, m]
                total, size = total + term, max(size, abs(term))
            gap = abs(total) / size
            error = larger(error, gap)
        for i in range(nu):
            force = found.input_force[k, i]
            slope[i], total, size = force, force, 1.0 + abs(force)
            for m in range(nu):
                term = cost.r[i, m] * plan.inputs[k, m]
                slope[i], total, size = slope[i] + term, total + term, max(size, abs(term))
            for m in range(nx):
                term = stages.b[s, m, i] * costate[m]
                total, size = total + term, max(size, abs(term))
            gap = abs(total) / size
            error = larger(error, gap)
            if force != 0.0:  # it must sit at the bound its multiplier speaks of
                edge = bounds.input_high[i] if force > 0.0 else bounds.input_low[i]
                gap = abs(plan.inputs[k, i] - edge) / bounds.input_scale[i]
                error = larger(error, gap)
        for j in range(nx):
            force = found.state_force[k, j]
            total = force
            for m in range(nx):
                total += cost.q[j, m] * (plan.states[k, m] - target[m])
                total += factors.closed[k, m, j] * costate[m]
            for m in range(nu):
                total += factors.gain[k, m, j] * slope[m]
            before[j] = total
            if force != 0.0:
                edge = bounds.state_high[j] if force > 0.0 else bounds.state_low[j]
                edge += bounds.state_give[j] * force  # where a soft bound has given way to
                gap = abs(plan.states[k, j] - edge) / bounds.state_scale[j]
                error = larger(error, gap)
        costate, before = before, costate
    return error
