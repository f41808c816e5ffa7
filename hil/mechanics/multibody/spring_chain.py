"""Masses in a row, each tied to the one before by a spring and a damper, the first to a wall.

q = displacements from rest. With Δ the differences to the neighbour before (the wall at 0),

    M q̈ = −Δᵀ (k Δq + d Δq̇) + u

One mass is the mass–spring(–damper), three are the triple mass of Wang, Wang & Negrut
(arXiv 2509.00183).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta
from scipy.linalg import expm

from hil.errors import MechanicsError
from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray, Array


class SpringChainParameters(Parameters, frozen=True, kw_only=True):
    """Masses, springs and dampers from the wall outwards, one of each per mass."""

    masses: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...], Meta(min_length=1, description="kg")
    ] = (10.0,)
    stiffness: Annotated[
        tuple[Annotated[float, Meta(ge=0)], ...], Meta(min_length=1, description="k, N/m")
    ] = (50.0,)
    damping: Annotated[
        tuple[Annotated[float, Meta(ge=0)], ...], Meta(min_length=1, description="d, N·s/m")
    ] = (0.0,)


class SpringChain(AbstractMultibody):
    """The equation above; q in m, u a force in N on each mass.

    Raises MechanicsError for parameters out of range or of unequal number.
    """

    Settings = SpringChainParameters

    def __init__(self, parameters: SpringChainParameters | None = None) -> None:
        self.parameters = p = checked(parameters or SpringChainParameters(), "spring chain")
        count = len(p.masses)
        if not len(p.stiffness) == len(p.damping) == count:
            raise MechanicsError(
                f"spring chain: {count} masses, {len(p.stiffness)} stiffness and "
                f"{len(p.damping)} damping; give one of each per mass"
            )
        stretch = np.eye(count) - np.eye(count, k=-1)
        self._mass = np.diag(p.masses)
        self._stiffness = stretch.T @ np.diag(p.stiffness) @ stretch
        self._damping = stretch.T @ np.diag(p.damping) @ stretch

    @property
    def nq(self) -> int:
        """Number of masses."""
        return len(self._mass)

    @property
    def nu(self) -> int:
        """Number of inputs: a force on each mass."""
        return len(self._mass)

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return the masses on a diagonal, (…, nq, nq), kg."""
        return np.broadcast_to(self._mass, (*q.shape[:-1], *self._mass.shape))

    def potential(self, q: AnyArray) -> AnyArray:
        """Return the energy of the springs, (…), J."""
        return np.asarray(0.5 * (q * (q @ self._stiffness)).sum(-1))

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return the force on each mass, (…, nq), N."""
        return np.asarray(u - q @ self._stiffness - v @ self._damping)

    def motion(self, x: Array, times: Array) -> Array:
        """Return the free motion from x = (q, v), (nx,), at times (n,) in s: (n, nx), exact."""
        count = self.nq
        system = np.zeros((2 * count, 2 * count))
        system[:count, count:] = np.eye(count)
        system[count:, :count] = -np.linalg.solve(self._mass, self._stiffness)
        system[count:, count:] = -np.linalg.solve(self._mass, self._damping)
        return np.stack([expm(system * t) @ x for t in times])
