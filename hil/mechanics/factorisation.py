"""Stiffness matrix → something that solves D u = F for any number of loads.

What is fixed by the network (where a bond's stiffness lands in the stored matrix) is a
plan, made once. What is fixed by the stiffness is a factorisation, made once per
stiffness. Loads and displacements belong to the caller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from hil.errors import MechanicsError
from hil.types import AnyArray, IntArray

DENSE_DOF = 64  # up to here a full Cholesky beats a banded one
DENSE_ENTRIES = 2**15  # up to here a full array beats a sparse one at a product


def compact(matrix: Any) -> Any:
    """Return a sparse matrix as a full array where that is the faster of the two."""
    small = matrix.shape[0] * matrix.shape[1] <= DENSE_ENTRIES
    return matrix.toarray(order="F") if small else csr_array(matrix)


class AbstractFactorisation(ABC):
    """A stiffness matrix made ready to be solved with."""

    @abstractmethod
    def solve(self, load: AnyArray) -> AnyArray:
        """Return the displacements (batch, dof), m, under loads (batch, dof), N."""


class AbstractPlan(ABC):
    """How the stiffness matrix of one network is put together and factorised."""

    @abstractmethod
    def factorise(self, k: AnyArray) -> AbstractFactorisation:
        """Return the factorisation at stiffness k: (bonds,), N/m.

        Raises MechanicsError when the matrix is not positive definite.
        """


def make_plan(compat: Any) -> AbstractPlan:
    """Return the plan that suits the size of a compatibility matrix (bonds × dof)."""
    return DensePlan(compat) if compat.shape[1] <= DENSE_DOF else BandedPlan(compat)


class DensePlan(AbstractPlan):
    """Full storage and LAPACK's Cholesky: the least overhead for a small network."""

    def __init__(self, compat: Any) -> None:
        self.dof = compat.shape[1]
        bond, row, column, value = _contributions(csr_array(compat))
        entry = row * self.dof + column
        self._scatter = _scatter(entry, bond, value, self.dof**2, compat.shape[0])

    def factorise(self, k: AnyArray) -> AbstractFactorisation:
        """Return the Cholesky factor at stiffness k."""
        matrix = self._scatter.dot(k).reshape(self.dof, self.dof).T
        factor, info = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)
        if info:
            raise _indefinite()
        return DenseCholesky(factor)


class DenseCholesky(AbstractFactorisation):
    """A full lower Cholesky factor."""

    def __init__(self, factor: AnyArray) -> None:
        self._factor = factor

    def solve(self, load: AnyArray) -> AnyArray:
        """Return the displacements under loads."""
        solution, _ = lapack.dpotrs(self._factor, load.T, lower=1)
        return np.asarray(solution).T


class BandedPlan(AbstractPlan):
    """Band storage and LAPACK's banded Cholesky: work grows with dof times bandwidth².

    The degrees of freedom keep their order (row by row, in a lattice) or take that of
    reverse Cuthill–McKee, whichever has the narrower band.
    """

    def __init__(self, compat: Any) -> None:
        compat = csr_array(compat)
        bonds, self.dof = compat.shape
        bond, row, column, value = _contributions(compat)
        pattern = coo_array((np.ones(len(row)), (row, column)), (self.dof, self.dof)).tocsr()
        order = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
        place = np.empty_like(order)
        place[order] = np.arange(self.dof)
        self._order: IntArray | None = order
        if _reach(row, column) <= _reach(place[row], place[column]):
            place, self._order = np.arange(self.dof), None
        row, column = place[row], place[column]
        below = row >= column
        bond, row, column, value = bond[below], row[below], column[below], value[below]
        self.depth = int((row - column).max(initial=0)) + 1
        entry = column * self.depth + row - column
        self._scatter = _scatter(entry, bond, value, self.dof * self.depth, bonds)

    def factorise(self, k: AnyArray) -> AbstractFactorisation:
        """Return the Cholesky factor at stiffness k."""
        band = self._scatter.dot(k).reshape(self.dof, self.depth).T
        factor, info = lapack.dpbtrf(band, lower=1, overwrite_ab=1)
        if info:
            raise _indefinite()
        return BandedCholesky(factor, self._order)


class BandedCholesky(AbstractFactorisation):
    """A banded lower Cholesky factor, its rows in the plan's order."""

    def __init__(self, factor: AnyArray, order: IntArray | None) -> None:
        self._factor, self._order = factor, order

    def solve(self, load: AnyArray) -> AnyArray:
        """Return the displacements under loads.

        A batch that loads fewer degrees of freedom than it has cases is put together
        from the answers to a unit load on each of them.
        """
        loaded = np.flatnonzero(load.any(axis=0))
        if len(loaded) < len(load):
            unit = np.zeros((len(loaded), load.shape[1]))
            unit[np.arange(len(loaded)), loaded] = 1.0
            answers = self._solve(unit) if len(loaded) else unit
            return load[:, loaded] @ answers
        return self._solve(load)

    def _solve(self, load: AnyArray) -> AnyArray:
        ordered = load if self._order is None else load[:, self._order]
        solution, _ = lapack.dpbtrs(self._factor, ordered.T, lower=1)
        if self._order is None:
            return np.asarray(solution).T
        displacement = np.empty(load.shape)
        displacement[:, self._order] = solution.T
        return displacement


class SparseLU(AbstractFactorisation):
    """A general factorisation, for complex stiffness, whose matrix has no Cholesky factor."""

    def __init__(self, matrix: Any) -> None:
        try:
            self._lu = splu(csc_array(matrix, dtype=np.complex128))
        except RuntimeError:
            raise _indefinite() from None

    def solve(self, load: AnyArray) -> AnyArray:
        """Return the displacements under loads."""
        columns = np.asarray(load.T, dtype=np.complex128, order="F")
        return np.asarray(self._lu.solve(columns)).T


def _contributions(compat: Any) -> tuple[IntArray, IntArray, IntArray, AnyArray]:
    """Return bond, row, column and value of every term of D = Σ k compatᵀ compat."""
    size = np.diff(compat.indptr)  # degrees of freedom each bond acts on
    width = int(size.max(initial=0))
    slot = np.arange(width)
    at = np.minimum(compat.indptr[:-1, None] + slot, max(len(compat.indices) - 1, 0))
    there = slot < size[:, None]  # (bonds, width)
    dof = np.where(there, compat.indices[at], 0)
    value = np.where(there, compat.data[at], 0.0)
    pair = there[:, :, None] & there[:, None, :]
    bond, first, second = np.nonzero(pair)
    return (
        bond,
        dof[bond, first].astype(np.int64),
        dof[bond, second].astype(np.int64),
        value[bond, first] * value[bond, second],
    )


def _reach(row: IntArray, column: IntArray) -> int:
    """Return how far from the diagonal the farthest entry lies."""
    return int(np.abs(row - column).max(initial=0))


def _scatter(entry: IntArray, bond: IntArray, value: AnyArray, entries: int, bonds: int) -> Any:
    """Return the matrix that takes stiffness (bonds,) to the stored entries of D."""
    return compact(coo_array((value, (entry, bond)), (entries, bonds)).tocsr())


def _indefinite() -> MechanicsError:
    return MechanicsError(
        "spring network: its stiffness matrix cannot be factorised, the stiffness of its "
        "bonds spans too wide a range; bring the softest and the stiffest closer together"
    )
