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
STIFFNESS_ROUNDING = 1e-13  # of its largest: a smaller eigenvalue of D is lost to rounding
SHIFT = 1e-11  # of the largest eigenvalue, makes a singular stiffness matrix solvable
ROUNDS = 5  # of inverse iteration
SEED = 1


class Modes(NamedTuple):
    """The softest motions of a network."""

    zero: Array  # (dof, modes), orthonormal, each stretches no bond
    conditioning: float  # smallest over largest eigenvalue of D, zero modes left out


def softest_modes(compat: Any) -> Modes:
    """Return the zero modes of a compatibility matrix (bonds × dof, any weights)."""
    if compat.shape[1] <= DENSE_DOF:
        full = compat if isinstance(compat, np.ndarray) else compat.toarray()
        _, sigma, right = np.linalg.svd(full, full_matrices=True)
        sigma = np.concatenate([sigma, np.zeros(compat.shape[1] - len(sigma))])
        return _modes(sigma, right.T, float(sigma[0]))
    return _by_inverse_iteration(csr_array(compat))


def _by_inverse_iteration(compat: Any) -> Modes:
    matrix = (compat.T @ compat).tocsc()
    largest = float(abs(matrix).sum(axis=0).max())  # bounds the largest eigenvalue
    dof = compat.shape[1]
    solver = splu(matrix + SHIFT * largest * eye_array(dof, format="csc"))
    block = 4
    while True:
        basis = np.random.default_rng(SEED).standard_normal((dof, block))
        for _ in range(ROUNDS):
            basis, _ = np.linalg.qr(solver.solve(basis))
        _, sigma, right = np.linalg.svd(compat @ basis, full_matrices=False)
        modes = _modes(sigma, basis @ right.T, largest**0.5)
        if modes.zero.shape[1] < block or block == dof:
            return modes
        block = min(2 * block, dof)


def _modes(sigma: Array, motions: Array, largest: float) -> Modes:
    zero = sigma <= STIFFNESS_ROUNDING**0.5 * largest
    smallest = float(sigma[~zero].min(initial=np.inf))
    conditioning = (smallest / largest) ** 2 if np.isfinite(smallest) else 0.0
    return Modes(motions[:, zero], conditioning)
