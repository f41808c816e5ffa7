"""Double pendulum: two point masses on massless rods; angles from hanging.

q = (θ1, θ2). Mass 1 is at (l1 sin θ1, −l1 cos θ1), mass 2 hangs from it likewise. In
Hamilton's form, with p = M(q) q̇,

    H(q, p) = ½ pᵀ M(q)⁻¹ p + V(q),   q̇ = ∂H/∂p,   ṗ = −∂H/∂q + damping and inputs
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray


class DoublePendulumParameters(Parameters, frozen=True, kw_only=True):
    """Masses, rods and bearings; the values of Wang, Wang & Negrut (arXiv 2509.00183)."""

    masses: Annotated[tuple[float, float], Meta(description="m1, m2, kg")] = (1.0, 1.0)
    lengths: Annotated[tuple[float, float], Meta(description="l1, l2, m")] = (1.0, 1.0)
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    viscous: Annotated[tuple[float, float], Meta(description="β, against θ̇1 and θ̇2, N·m·s/rad")] = (
        0.0,
        0.0,
    )

    def __post_init__(self) -> None:
        """Refuse what a range of a pair cannot say."""
        for name in ("masses", "lengths"):
            if not min(getattr(self, name)) > 0:
                raise ValueError(f"`{name}` must be above 0, found {getattr(self, name)}")
        if min(self.viscous) < 0:
            raise ValueError(f"`viscous` must not be below 0, found {self.viscous}")


class DoublePendulum(AbstractMultibody):
    """The equations above; q in rad, u a torque on each angle in N·m.

    Raises MechanicsError for parameters out of range.
    """

    Settings = DoublePendulumParameters

    nq, nu = 2, 2

    def __init__(self, parameters: DoublePendulumParameters | None = None) -> None:
        self.parameters = p = checked(parameters or DoublePendulumParameters(), "double pendulum")
        (m1, m2), (l1, l2) = p.masses, p.lengths
        self._inertia = (m1 + m2) * l1**2, m2 * l2**2
        self._coupling = m2 * l1 * l2
        self._weight = np.array([(m1 + m2) * l1, m2 * l2]) * p.gravity
        self._viscous = np.array(p.viscous)

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return (…, 2, 2), kg·m²."""
        coupling = self._coupling * np.cos(q[..., 0] - q[..., 1])
        matrix = np.empty((*coupling.shape, 2, 2), dtype=coupling.dtype)
        matrix[..., 0, 0], matrix[..., 1, 1] = self._inertia
        matrix[..., 0, 1] = matrix[..., 1, 0] = coupling
        return matrix

    def potential(self, q: AnyArray) -> AnyArray:
        """Return V, (…), J; zero with both rods level."""
        return np.asarray(-np.cos(q) @ self._weight)

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return M q̈, (…, 2), N·m."""
        swing = self._coupling * np.sin(q[..., :1] - q[..., 1:])
        centrifugal = np.concatenate([-swing * v[..., 1:] ** 2, swing * v[..., :1] ** 2], -1)
        return np.asarray(centrifugal - self._weight * np.sin(q) - self._viscous * v + u)

    def hamiltonian(self, q: AnyArray, p: AnyArray) -> AnyArray:
        """Return H, (…), J, for momenta p (…, 2) in N·m·s."""
        speed = np.linalg.solve(self.mass_matrix(q), p[..., None])[..., 0]
        return np.asarray(0.5 * (p * speed).sum(-1) + self.potential(q))

    def flow(self, q: AnyArray, p: AnyArray, u: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return (q̇, ṗ), each (…, 2), of Hamilton's equations."""
        speed: AnyArray = np.linalg.solve(self.mass_matrix(q), p[..., None])[..., 0]
        # ∂(½ pᵀ M⁻¹ p)/∂q = −½ q̇ᵀ (∂M/∂q) q̇, and M turns with θ1 − θ2 alone.
        turn = -self._coupling * np.sin(q[..., 0] - q[..., 1]) * speed[..., 0] * speed[..., 1]
        push = np.stack([turn, -turn], -1) - self._weight * np.sin(q) - self._viscous * speed + u
        return speed, push
