"""Pendulum: a uniform rod of mass m and length l that turns about its end, driven by a torque.

q = (θ), upright at 0, as the pole of `hil.mechanics.cart_pole`. The centre of the rod is at
(½ l sin θ, ½ l cos θ) and its moment of inertia about the end is ⅓ m l²:

    ⅓ m l² θ̈ = ½ m g l sin θ − β θ̇ + u
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray


class PendulumParameters(Parameters, frozen=True, kw_only=True):
    """A rod and its bearing; the values of Santos, Ekal & Ventura (L4DC 2022)."""

    mass: Annotated[float, Meta(gt=0, description="m, kg")] = 1.0
    length: Annotated[float, Meta(gt=0, description="l, of the rod, m")] = 1.0
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    viscous: Annotated[float, Meta(ge=0, description="β, in the bearing, N·m·s/rad")] = 0.0


class Pendulum(AbstractMultibody):
    """The equation above; q = (θ) in rad, u = (torque) in N·m.

    Raises MechanicsError for parameters out of range.
    """

    Settings = PendulumParameters

    nq, nu = 1, 1

    def __init__(self, parameters: PendulumParameters | None = None) -> None:
        self.parameters = checked(parameters or PendulumParameters(), "pendulum")

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return ⅓ m l², (…, 1, 1), kg·m²."""
        p = self.parameters
        return np.full((*q.shape, 1), p.mass * p.length**2 / 3)

    def potential(self, q: AnyArray) -> AnyArray:
        """Return ½ m g l cos θ, (…), J; zero where the rod is level."""
        p = self.parameters
        return np.asarray(0.5 * p.mass * p.gravity * p.length * np.cos(q[..., 0]))

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return ⅓ m l² θ̈, (…, 1), N·m."""
        p = self.parameters
        return np.asarray(
            0.5 * p.mass * p.gravity * p.length * np.sin(q) - p.viscous * v + u,
        )
