"""The stationary P of a Riccati recursion by doubling, and the small matrices it takes.

Nothing here allocates by size of a horizon; everything is copied into the compiled functions
that call it, where sizes are constants.
"""

from __future__ import annotations

import numpy as np

from hil.compiled import inlined
from hil.types import Array

DOUBLINGS = 40  # of the stationary P: 2^40 periods
DOUBLED = 1e-9  # relative change after which the next one, its square, is below rounding


@inlined
def solve_square(matrix: Array, right: Array) -> None:
    """Replace `right` (n, m) by matrix⁻¹ right; `matrix` is used up. Rows are exchanged."""
    n, m = right.shape
    for j in range(n):
        pivot = j
        for i in range(j + 1, n):
            if abs(matrix[i, j]) > abs(matrix[pivot, j]):
                pivot = i
        if pivot != j:
            for k in range(n):
                matrix[j, k], matrix[pivot, k] = matrix[pivot, k], matrix[j, k]
            for k in range(m):
                right[j, k], right[pivot, k] = right[pivot, k], right[j, k]
        inverse = 1.0 / matrix[j, j]
        for i in range(j + 1, n):
            share = matrix[i, j] * inverse
            for k in range(j + 1, n):
                matrix[i, k] -= share * matrix[j, k]
            for k in range(m):
                right[i, k] -= share * right[j, k]
    for i in range(n - 1, -1, -1):
        inverse = 1.0 / matrix[i, i]
        for k in range(m):
            right[i, k] *= inverse
        for j in range(i):
            for k in range(m):
                right[j, k] -= matrix[j, i] * right[i, k]


@inlined
def times(left: Array, right: Array, out: Array) -> None:
    """Fill `out` with left·right."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            for m in range(left.shape[1]):
                total += left[i, m] * right[m, j]
            out[i, j] = total


@inlined
def add_congruent(left: Array, middle: Array, out: Array) -> float:
    """Add left·middle, which is symmetric, to `out`; return the largest of its diagonal."""
    n, largest = len(out), 0.0
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for m in range(n):
                total += left[i, m] * middle[m, j]
            out[i, j] += total
            out[j, i] = out[i, j]
            if i == j:
                largest = max(largest, abs(total))
    return largest


@inlined
def stationary(a: Array, g: Array, p: Array) -> bool:
    """Turn p = Q into P = Q + AᵀP(I + GP)⁻¹A with G = BR⁻¹Bᵀ; return whether it was reached.

    a, g, p: (nx, nx); g is used up. By doubling: after j steps P is that of 2^j periods. Chu,
    Fan & Lin, Linear Algebra Appl. 396 (2005), algorithm SDA.
    """
    n = len(a)
    through, back = a.copy(), a.T.copy()  # A of 2^j periods, transposed
    work, both = np.empty((n, n)), np.empty((n, 2 * n))
    for _ in range(DOUBLINGS):
        times(g, p, work)
        for i in range(n):
            work[i, i] += 1.0
            for j in range(n):
                both[i, j], both[i, n + j] = through[i, j], g[i, j]
        solve_square(work, both)  # (I + GP)⁻¹ (A, G)
        times(p, both[:, :n], work)
        change = add_congruent(back, work, p)  # grows by what is positive: see the diagonal
        size = 0.0
        for i in range(n):
            size = max(size, p[i, i])
        if not size < np.inf:
            return False
        if change <= DOUBLED * size:
            return True
        for i in range(n):
            for j in range(n):
                total = 0.0
                for m in range(n):
                    total += both[i, n + m] * through[j, m]
                work[i, j] = total
        add_congruent(through, work, g)
        times(through, both[:, :n], work)
        for i in range(n):
            for j in range(n):
                through[i, j], back[j, i] = work[i, j], work[i, j]
    return False


@inlined
def invert(matrix: Array, lower: Array, root: Array) -> None:
    """Fill `lower` with the Cholesky factor L of a matrix (n, n) and `root` with L⁻ᵀ."""
    n = len(matrix)
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for m in range(j):
                total -= lower[i, m] * lower[j, m]
            lower[i, j] = np.sqrt(total) if i == j else total / lower[j, j]
    for j in range(n):
        for i in range(j, n):
            total = 1.0 if i == j else 0.0
            for m in range(j, i):
                total -= lower[i, m] * root[j, m]
            root[j, i] = total / lower[i, i]
