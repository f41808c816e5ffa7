"""What the quick solvers share: the model of a period, and the checks of a plan.

Everything here is copied into the compiled functions that call it, where sizes are constants.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.compiled import inlined
from hil.control.active_set import TOLERANCE, Bounds
from hil.control.doubling import times
from hil.types import Array


class Found(NamedTuple):
    """A plan that keeps all bounds, and its largest KKT residual."""

    error: float
    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)


@inlined
def period(
    acceleration: Array, by_state: Array, by_input: Array, x: Array, u: Array, dt: float,
    order: int, a: Array, b: Array, c: Array,
) -> None:  # fmt: skip
    """Fill A, B and c of a period from the slopes at (x, u), as `discretise.period` has them."""
    nx, nu = b.shape
    nq = nx // 2
    slope, drive, rest = np.zeros((nx, nx)), np.zeros((nx, nu)), np.zeros((nx, 1))
    for i in range(nq):
        slope[i, nq + i], rest[i, 0] = 1.0, 0.0
        total = acceleration[i]
        for j in range(nx):
            slope[nq + i, j] = by_state[i, j]
            total -= by_state[i, j] * x[j]
        for j in range(nu):
            drive[nq + i, j] = by_input[i, j]
            total -= by_input[i, j] * u[j]
        rest[nq + i, 0] = total
    series, work = np.eye(nx) * dt, np.empty((nx, nx))
    for m in range(order, 1, -1):
        times(slope, series, work)
        for i in range(nx):
            for j in range(nx):
                series[i, j] = dt * ((1.0 if i == j else 0.0) + work[i, j] / m)
    times(slope, series, a)
    times(series, drive, b)
    for i in range(nx):
        a[i, i] += 1.0
        total = 0.0
        for j in range(nx):
            total += series[i, j] * rest[j, 0]
        c[i] = total


@inlined
def beyond(inputs: Array, states: Array, limits: Array, last: int) -> float:
    """Return by how much bounds are exceeded, in their scales; limits: (3, nu + nx)."""
    nu, nx = inputs.shape[1], states.shape[1]
    found = -np.inf
    for i in range(nu):
        highest, lowest = -np.inf, np.inf
        for k in range(len(inputs)):
            highest, lowest = max(highest, inputs[k, i]), min(lowest, inputs[k, i])
        over = max(highest - limits[1, i], limits[0, i] - lowest)
        found = max(found, over / limits[2, i])
    for i in range(nx):
        highest, lowest = -np.inf, np.inf
        for k in range(1, last + 1):
            highest, lowest = max(highest, states[k, i]), min(lowest, states[k, i])
        over = max(highest - limits[1, nu + i], limits[0, nu + i] - lowest)
        found = max(found, over / limits[2, nu + i])
    return found


@inlined
def residual(
    a: Array, b: Array, c: Array, gain: Array, q: Array, r: Array, inputs: Array, states: Array,
    target: Array, costate: Array,
) -> float:  # fmt: skip
    """Return the largest KKT residual but for bounds and end, as `active_set.residual` takes it.

    gain: (S, nu, nx), K of every period, S = N or 1. costate: (nx,), that of the end; it is used
    up. It goes back around the closed loop: λ = Q(x − r) + Aᵀλ⁺ + Kᵀ(Ru + Bᵀλ⁺), where what is in
    brackets is nothing for an optimum, and does not grow as around A alone.
    """
    horizon, nu = inputs.shape
    nx = len(target)
    last = gain.shape[0] - 1
    error, poison = 0.0, 0.0  # max() loses a NaN, a sum keeps it
    slope, before = np.empty(nu), np.empty(nx)
    for k in range(horizon - 1, -1, -1):
        for i in range(nx):
            total, size = c[i] - states[k + 1, i], 1.0
            for m in range(nx):
                term = a[i, m] * states[k, m]
                total, size = total + term, max(size, abs(term))
            for m in range(nu):
                term = b[i, m] * inputs[k, m]
                total, size = total + term, max(size, abs(term))
            gap = abs(total) / size
            error, poison = max(error, gap), poison + gap
        for i in range(nu):
            total, size = 0.0, 1.0
            for m in range(nu):
                term = r[i, m] * inputs[k, m]
                total, size = total + term, max(size, abs(term))
            for m in range(nx):
                term = b[m, i] * costate[m]
                total, size = total + term, max(size, abs(term))
            slope[i] = total
            gap = abs(total) / size
            error, poison = max(error, gap), poison + gap
        s = min(k, last)
        for j in range(nx):
            total = 0.0
            for m in range(nx):
                total += q[j, m] * (states[k, m] - target[m]) + a[m, j] * costate[m]
            for m in range(nu):
                total += gain[s, m, j] * slope[m]
            before[j] = total
        costate[:] = before
    return np.nan if np.isnan(poison) else error


@inlined
def missed(end: Array, target: Array) -> float:
    """Return by how much the end of a plan, (nx,), misses the target, relative to 1 + |r|."""
    worst, poison = 0.0, 0.0
    for i in range(len(target)):
        gap = abs(end[i] - target[i]) / (1.0 + abs(target[i]))
        worst, poison = max(worst, gap), poison + gap
    return np.nan if np.isnan(poison) else worst


class Limits:
    """Bounds as the compiled code takes them: (3, nu + nx), lowest, highest and scale."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._flat = np.array(
            [
                np.concatenate([bounds.input_low, bounds.state_low]),
                np.concatenate([bounds.input_high, bounds.state_high]),
                np.concatenate([bounds.input_scale, bounds.state_scale]),
            ]
        )

    def of(self, bounds: Bounds) -> Array:
        """Return them for bounds that differ from the first in their inputs only."""
        if bounds is self._bounds:
            return self._flat
        found, nu = self._flat.copy(), len(bounds.input_low)
        found[0, :nu], found[1, :nu] = bounds.input_low, bounds.input_high
        return found


def as_found(over: float, error: float, inputs: Array, states: Array) -> Found | None:
    """Return a plan that keeps all bounds, or None."""
    return Found(error, inputs, states) if over <= TOLERANCE else None
