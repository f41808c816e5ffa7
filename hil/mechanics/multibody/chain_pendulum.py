"""Chain pendulum: point masses on massless rods, one hanging from the other, torque on the first.

q = (θ_1 … θ_n), the angle of every rod from upright, not from the rod before. With
μ_ij = Σ_{k ≥ max(i, j)} m_k, the mass that rods i and j both carry,

    M_ij = μ_ij l_i l_j cos(θ_i − θ_j),   V = Σ_i μ_ii g l_i cos θ_i

and d/dt ∂L/∂q̇ − ∂L/∂q = Q gives M θ̈ = −∂V/∂θ − Σ_j μ_ij l_i l_j sin(θ_i − θ_j) θ̇_j² + Q.
Three rods are the triple pendulum.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.errors import MechanicsError
from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray, Array

Positive = Annotated[float, Meta(gt=0)]


class ChainPendulumParameters(Parameters, frozen=True, kw_only=True):
    """Masses and rods, from the support outwards, and the friction of every pivot."""

    masses: Annotated[tuple[Positive, ...], Meta(min_length=1, description="kg")] = (1.0,) * 3
    lengths: Annotated[tuple[Positive, ...], Meta(min_length=1, description="m")] = (1.0,) * 3
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    viscous: Annotated[float, Meta(ge=0, description="β of every pivot, N·m·s/rad")] = 0.0


class ChainPendulum(AbstractMultibody):
    """The equations above; q (…, n) in rad, u (…, 1) the torque on the first rod in N·m.

    Raises MechanicsError for parameters out of range, or numbers of masses and rods that differ.
    """

    Settings = ChainPendulumParameters

    nu = 1

    def __init__(self, parameters: ChainPendulumParameters | None = None) -> None:
        self.parameters = p = checked(parameters or ChainPendulumParameters(), "chain pendulum")
        if len(p.masses) != len(p.lengths):
            raise MechanicsError(
                f"chain pendulum: {len(p.masses)} masses on {len(p.lengths)} rods; give one each"
            )
        carried: Array = np.cumsum(np.array(p.masses)[::-1])[::-1]  # by rod i, kg
        rods, order = np.array(p.lengths), np.arange(len(p.lengths))
        self._coupling = carried[np.maximum(order[:, None], order)] * np.outer(rods, rods)
        self._weight = carried * p.gravity * rods

    @property
    def nq(self) -> int:
        """Number of rods."""
        return len(self.parameters.masses)

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return (…, n, n), kg·m²."""
        return np.asarray(self._coupling * np.cos(q[..., :, None] - q[..., None, :]))

    def potential(self, q: AnyArray) -> AnyArray:
        """Return V, (…), J; zero with all rods level."""
        return np.asarray((self._weight * np.cos(q)).sum(axis=-1))

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return the right sides, (…, n), N·m."""
        turn = np.sin(q[..., :, None] - q[..., None, :])
        whirl = np.einsum("...ij,...j->...i", self._coupling * turn, v * v)
        # A pivot turns by the difference of its rods, and acts on both.
        relative = np.diff(v, axis=-1, prepend=np.zeros_like(v[..., :1]))
        friction = -self.parameters.viscous * relative
        friction = friction - np.concatenate(
            [friction[..., 1:], np.zeros_like(v[..., :1])], axis=-1
        )
        found = self._weight * np.sin(q) - whirl + friction
        drive = np.zeros(self.nq)
        drive[0] = 1.0
        return np.asarray(found + u * drive)
