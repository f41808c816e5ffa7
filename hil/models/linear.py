"""Linear dynamics, q̈ = A (q, v, u, 1): what every learned model is to be compared with."""

from __future__ import annotations

import numpy as np

from hil.models.base import AbstractDynamics, Linearisation
from hil.types import Array


class LinearModel(AbstractDynamics):
    """Accelerations as a matrix (nq, 2 nq + nu + 1) times positions, velocities, inputs and 1."""

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix

    @classmethod
    def fit(cls, q: Array, v: Array, u: Array, a: Array) -> LinearModel:
        """Return the least squares of samples q, v, a (n, nq) and u (n, nu)."""
        table = np.concatenate([q, v, u, np.ones((len(q), 1))], axis=1)
        return cls(np.linalg.lstsq(table, a, rcond=None)[0].T)

    @property
    def nq(self) -> int:
        """Number of positions."""
        return len(self.matrix)

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return int(self.matrix.shape[1]) - 2 * self.nq - 1

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (n, nq), for q, v (n, nq) and u (n, nu), SI."""
        parts = np.split(self.matrix, [self.nq, 2 * self.nq, self.nx + self.nu], axis=1)
        found: Array = q @ parts[0].T + v @ parts[1].T + u @ parts[2].T + parts[3][:, 0]
        return found

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and slopes at x (nx,), u (nu,), or many."""
        value = np.concatenate([x, u, np.ones((*x.shape[:-1], 1))], axis=-1) @ self.matrix.T
        wide = (*x.shape[:-1], *self.matrix.shape)
        table = np.broadcast_to(self.matrix, wide).copy()
        return Linearisation(value, table[..., : self.nx], table[..., self.nx : -1])
