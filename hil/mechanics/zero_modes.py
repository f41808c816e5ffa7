"""Rank of a network: the motions that stretch no bond, found before anything is solved.

The rank is taken from the compatibility matrix and not from the stiffness matrix, in
which the smallest singular value stands squared and drowns in rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import splu

from hil.types import Array

DENSE_DOF = 300  # up to here by singular value decomposition
# Of the largest eigenvalue of D. A smaller one leaves less than three digits of the
# answer, so the motion it belongs to counts as one that stretches no bond.
STIFFNESS_ROUNDING = 1e-13
SHIFT = 1e-11  # of the largest eigenvalue, makes a singular stiffness matrix solvable
ROUNDS = 5  # of inverse iteration
SEED = 1


class Modes(NamedTuple):
    """The softest motions of a network."""

    zero: Array  # (dof, modes), orthonormal, each stretches no bond
    conditioning: float  # smallest over largest eigenvalue of D but for the zero modes, 1


def softest_modes(compat: Any, most: int | None = None) -> Modes:
    """Return the zero modes of a compatibility matrix.

    compat: (bonds, dof), full or sparse, its rows weighted or not. most: how many zero
    modes are enough; a large network stops looking there.
    """
    bonds, dof = compat.shape
    if dof > DENSE_DOF:
        return _by_inverse_iteration(csr_array(compat), dof if most is None else most)
    full = compat if isinstance(compat, np.ndarray) else compat.toarray()
    _, sigma, right = np.linalg.svd(full, full_matrices=bonds < dof)
    sigma = np.concatenate([sigma, np.zeros(dof - len(sigma))])
    return _modes(sigma, right.T, float(sigma[0]))


def _by_inverse_iteration(compat: Any, most: int) -> Modes:
    """Take a few random motions to the softest there are, by solving with D + shift."""
    matrix = (compat.T @ compat).tocsc()
    largest = float(abs(matrix).sum(axis=0).max()) or 1.0  # bounds the largest eigenvalue
    dof = compat.shape[1]
    solver = splu(matrix + SHIFT * largest * eye_array(dof, format="csc"))
    block = 4
    while True:
        basis = np.random.default_rng(SEED).standard_normal((dof, block))
        for _ in range(ROUNDS):
            basis, _ = np.linalg.qr(solver.solve(basis))
        _, sigma, right = np.linalg.svd(compat @ basis, full_matrices=False)
        modes = _modes(sigma, basis @ right.T, largest**0.5)
        if modes.zero.shape[1] < block or block >= min(most, dof):
            return modes
        block = min(4 * block, dof)


def _modes(sigma: Array, motions: Array, largest: float) -> Modes:
    zero = sigma <= STIFFNESS_ROUNDING**0.5 * largest
    smallest = float(sigma[~zero].min(initial=np.inf))
    conditioning = (smallest / largest) ** 2 if np.isfinite(smallest) else 0.0
    return Modes(motions[:, zero], conditioning)
