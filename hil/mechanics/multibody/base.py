"""The contract of a multibody system in independent coordinates.

    M(q) q̈ = force(q, q̇, u),   E = ½ q̇ᵀ M(q) q̇ + V(q),   p = M(q) q̇

A system is its mass matrix, its potential and its generalised force; the rest follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from hil.types import AnyArray


class AbstractMultibody(ABC):
    """Equations of motion; arrays of any leading dimensions, which broadcast, real or complex.

    q, v = q̇: (…, nq). u: (…, nu). SI. Complex arrays give the complex-step derivative.
    """

    @property
    @abstractmethod
    def nq(self) -> int:
        """Number of positions."""

    @property
    @abstractmethod
    def nu(self) -> int:
        """Number of inputs."""

    @abstractmethod
    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return M, (…, nq, nq), symmetric and positive definite."""

    @abstractmethod
    def potential(self, q: AnyArray) -> AnyArray:
        """Return the potential energy V, (…), J."""

    @abstractmethod
    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return M q̈, (…, nq): gravity, springs, damping, inputs, and centrifugal terms."""

    def acceleration(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return q̈, (…, nq)."""
        force = self.force(q, v, u)
        found: AnyArray = np.linalg.solve(self.mass_matrix(q), force[..., None])[..., 0]
        return found

    def momentum(self, q: AnyArray, v: AnyArray) -> AnyArray:
        """Return p = M v, (…, nq)."""
        return np.asarray(np.einsum("...ij,...j->...i", self.mass_matrix(q), v))

    def energy(self, q: AnyArray, v: AnyArray) -> AnyArray:
        """Return kinetic plus potential energy, (…), J."""
        return np.asarray(0.5 * (v * self.momentum(q, v)).sum(-1) + self.potential(q))
