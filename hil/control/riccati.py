"""Linear-quadratic problem over a horizon, exactly, by a Riccati recursion.

    min ½ Σ (x_k − r)ᵀQ(x_k − r) + u_kᵀR u_k  +  ½ (x_N − r)ᵀP_N(x_N − r)
    s.t. x_{k+1} = A_k x_k + B_k u_k + c_k,   x_0 given,   x_N = r if pinned

With u_k = K_k x_k + k_k + H_k^{-½} v_k the recursion completes the square: what is left of
the cost is ½ Σ |v_k|². The plan without bounds and with a free end is v = 0; a pinned end
asks for the shortest v that reaches it; bounds ask for the shortest v within them. All of it
runs around the closed loop A + BK, so that an unstable plant does not spoil the numbers
(condensing around A alone grows as e^{6.26·2.5 s} = 6e6 on the cart-pole).

When the end is pinned P_N drops out of the problem; the stationary P is passed all the same,
since it keeps every K_k stabilising.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.compiled import compiled
from hil.types import Array


class Stages(NamedTuple):
    """Dynamics of every period; S = N, or 1 when all are alike."""

    a: Array  # (S, nx, nx)
    b: Array  # (S, nx, nu)
    c: Array  # (S, nx), never dropped: f at the point of linearisation is in it


class Cost(NamedTuple):
    """Weights of the problem."""

    q: Array  # (nx, nx)
    r: Array  # (nu, nu)
    end: Array  # (nx, nx), P_N
    pinned: bool  # x_N = r


class Factors(NamedTuple):
    """What depends on A, B and the weights only."""

    gain: Array  # (N, nu, nx), K
    closed: Array  # (N, nx, nx), A + BK
    root: Array  # (N, nu, nu), H^{-½}: upper, root·rootᵀ = H⁻¹
    drive: Array  # (N, nx, nu), B·root
    value: Array  # (N + 1, nx, nx), P
    reach: Array  # (nx, N·nu), ∂x_N/∂v


class Plan(NamedTuple):
    """Inputs and states of a plan, and the multipliers that prove it."""

    v: Array  # (N·nu,)
    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)
    end_force: Array  # (nx,), multiplier of x_N = r; zero when not pinned


@compiled
def factor(stages: Stages, cost: Cost, horizon: int) -> Factors:
    """Return the backward recursion of P and K over `horizon` periods."""
    nx, nu = stages.b.shape[1], stages.b.shape[2]
    last = stages.a.shape[0] - 1
    gain = np.empty((horizon, nu, nx))
    closed = np.empty((horizon, nx, nx))
    root = np.zeros((horizon, nu, nu))
    drive = np.empty((horizon, nx, nu))
    value = np.empty((horizon + 1, nx, nx))
    reach = np.empty((nx, horizon * nu))
    value[horizon] = cost.end
    through = np.eye(nx)  # ∂x_N/∂x_{k+1}
    through_next = np.empty((nx, nx))
    pa, pb = np.empty((nx, nx)), np.empty((nx, nu))
    lower = np.zeros((nu, nu))
    for k in range(horizon - 1, -1, -1):
        s = min(k, last)
        a, b, p = stages.a[s], stages.b[s], value[k + 1]
        for i in range(nx):
            for j in range(nx):
                total = 0.0
                for m in range(nx):
                    total += p[i, m] * a[m, j]
                pa[i, j] = total
            for j in range(nu):
                total = 0.0
                for m in range(nx):
                    total += p[i, m] * b[m, j]
                pb[i, j] = total
        for i in range(nu):  # Cholesky of H = R + BᵀPB, row by row
            for j in range(i + 1):
                total = cost.r[i, j]
                for m in range(nx):
                    total += b[m, i] * pb[m, j]
                for m in range(j):
                    total -= lower[i, m] * lower[j, m]
                lower[i, j] = np.sqrt(total) if i == j else total / lower[j, j]
        for j in range(nu):  # root = L⁻ᵀ, column by column: L·rootᵀ = I
            for i in range(j, nu):
                total = 1.0 if i == j else 0.0
                for m in range(j, i):
                    total -= lower[i, m] * root[k, j, m]
                root[k, j, i] = total / lower[i, i]
        for i in range(nx):
            for j in range(nu):
                total = 0.0
                for m in range(j + 1):
                    total += b[i, m] * root[k, m, j]
                drive[k, i, j] = total
        for i in range(nu):
            for j in range(nx):
                gain[k, i, j] = 0.0
        for m in range(nu):  # K = −H⁻¹BᵀPA = −root·(Pᵀdrive)ᵀA
            for j in range(nx):
                total = 0.0
                for i in range(nx):
                    total += drive[k, i, m] * pa[i, j]
                for i in range(m + 1):
                    gain[k, i, j] -= root[k, i, m] * total
        for i in range(nx):
            for j in range(nx):
                total = a[i, j]
                for m in range(nu):
                    total += b[i, m] * gain[k, m, j]
                closed[k, i, j] = total
        for i in range(nx):
            for j in range(i + 1):
                total = cost.q[i, j]
                for m in range(nx):
                    total += pa[m, i] * closed[k, m, j]
                value[k, i, j] = total
                value[k, j, i] = total
        for i in range(nx):
            for j in range(nu):
                total = 0.0
                for m in range(nx):
                    total += through[i, m] * drive[k, m, j]
                reach[i, k * nu + j] = total
            for j in range(nx):
                total = 0.0
                for m in range(nx):
                    total += through[i, m] * closed[k, m, j]
                through_next[i, j] = total
        through, through_next = through_next, through
    return Factors(gain, closed, root, drive, value, reach)


@compiled
def feedforward(factors: Factors, stages: Stages, cost: Cost, target: Array) -> Array:
    """Return k_k, (N, nu): what the affine terms and the target add to K x."""
    horizon, nu, nx = factors.gain.shape
    last = stages.a.shape[0] - 1
    found = np.empty((horizon, nu))
    slope, pull, ahead = np.zeros(nx), np.zeros(nx), np.empty(nx)  # p_{k+1}, Q r, P c + p
    for i in range(nx):
        for m in range(nx):
            slope[i] -= cost.end[i, m] * target[m]
            pull[i] += cost.q[i, m] * target[m]
    for k in range(horizon - 1, -1, -1):
        c = stages.c[min(k, last)]
        for i in range(nx):
            total = slope[i]
            for m in range(nx):
                total += factors.value[k + 1, i, m] * c[m]
            ahead[i] = total
        for i in range(nu):
            found[k, i] = 0.0
        for m in range(nu):
            total = 0.0
            for i in range(nx):
                total += factors.drive[k, i, m] * ahead[i]
            for i in range(m + 1):
                found[k, i] -= factors.root[k, i, m] * total
        for i in range(nx):
            total = -pull[i]
            for m in range(nx):
                total += factors.closed[k, m, i] * ahead[m]
            slope[i] = total
    return found


@compiled
def roll(
    factors: Factors, stages: Stages, push: Array, v: Array, inputs: Array, states: Array
) -> None:
    """Fill `inputs` (N, nu) and `states` (N + 1, nx) from states[0] and v (N·nu,)."""
    horizon, nu, nx = factors.gain.shape
    last = stages.a.shape[0] - 1
    for k in range(horizon):
        s = min(k, last)
        for i in range(nu):
            total = push[k, i]
            for m in range(nx):
                total += factors.gain[k, i, m] * states[k, m]
            for m in range(i, nu):
                total += factors.root[k, i, m] * v[k * nu + m]
            inputs[k, i] = total
        for i in range(nx):
            total = stages.c[s, i]
            for m in range(nx):
                total += factors.closed[k, i, m] * states[k, m]
            for m in range(nu):
                total += stages.b[s, i, m] * push[k, m] + factors.drive[k, i, m] * v[k * nu + m]
            states[k + 1, i] = total


@compiled
def solve_positive(matrix: Array, right: Array) -> Array:
    """Return matrix⁻¹ right for a symmetric positive definite matrix, by Cholesky."""
    n = len(right)
    lower, found = np.zeros((n, n)), right.copy()
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for m in range(j):
                total -= lower[i, m] * lower[j, m]
            lower[i, j] = np.sqrt(total) if i == j else total / lower[j, j]
        for m in range(i):
            found[i] -= lower[i, m] * found[m]
        found[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for m in range(i + 1, n):
            found[i] -= lower[m, i] * found[m]
        found[i] /= lower[i, i]
    return found


@compiled
def unbounded(
    factors: Factors, stages: Stages, cost: Cost, push: Array, start: Array, target: Array
) -> Plan:
    """Return the plan when no bound is asked for; NaN where the end cannot be reached."""
    horizon, nu, nx = factors.gain.shape
    v, force = np.zeros(horizon * nu), np.zeros(nx)
    inputs, states = np.empty((horizon, nu)), np.empty((horizon + 1, nx))
    states[0] = start
    roll(factors, stages, push, v, inputs, states)
    if cost.pinned:
        gram = np.empty((nx, nx))
        for i in range(nx):
            for j in range(i + 1):
                total = 0.0
                for m in range(horizon * nu):
                    total += factors.reach[i, m] * factors.reach[j, m]
                gram[i, j] = total
                gram[j, i] = total
        for _ in range(2):  # the second pass mends what the first lost to rounding
            more = solve_positive(gram, target - states[horizon])
            for i in range(nx):
                force[i] += more[i]
                for m in range(horizon * nu):
                    v[m] += more[i] * factors.reach[i, m]
            roll(factors, stages, push, v, inputs, states)
    return Plan(v, inputs, states, force)
