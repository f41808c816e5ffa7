"""Cart-pole whose pole is a uniform rod of mass m and length 2l, on a cart M pushed by u.

q = (θ, x), θ = 0 upright, as in `hil.mechanics.cart_pole`, where the pole is a point mass. The
centre of the rod is at (x + l sin θ, l cos θ), its moment of inertia about it ⅓ m l²:

    4/3 m l² θ̈ + m l cos θ ẍ = m g l sin θ − β θ̇
    m l cos θ θ̈ + (M + m) ẍ = u − b ẋ + m l sin θ θ̇²
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray


class RodCartPoleParameters(Parameters, frozen=True, kw_only=True):
    """A cart, a rod and their friction; the values of Santos, Ekal & Ventura (L4DC 2022)."""

    cart_mass: Annotated[float, Meta(gt=0, description="M, kg")] = 1.0
    rod_mass: Annotated[float, Meta(gt=0, description="m, kg")] = 0.1
    half_length: Annotated[float, Meta(gt=0, description="l, from pivot to centre, m")] = 0.5
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    cart_viscous: Annotated[float, Meta(ge=0, description="b, N·s/m")] = 0.0
    pivot_viscous: Annotated[float, Meta(ge=0, description="β, N·m·s/rad")] = 0.0


class RodCartPole(AbstractMultibody):
    """The equations above; q = (θ, x) in rad and m, u = (force on the cart) in N.

    Raises MechanicsError for parameters out of range.
    """

    Settings = RodCartPoleParameters

    nq, nu = 2, 1

    def __init__(self, parameters: RodCartPoleParameters | None = None) -> None:
        self.parameters = checked(parameters or RodCartPoleParameters(), "rod cart-pole")

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return (…, 2, 2), in kg·m², kg·m and kg."""
        p = self.parameters
        coupling = p.rod_mass * p.half_length * np.cos(q[..., 0])
        matrix = np.empty((*coupling.shape, 2, 2), dtype=coupling.dtype)
        matrix[..., 0, 0] = 4 / 3 * p.rod_mass * p.half_length**2
        matrix[..., 0, 1] = matrix[..., 1, 0] = coupling
        matrix[..., 1, 1] = p.cart_mass + p.rod_mass
        return matrix

    def potential(self, q: AnyArray) -> AnyArray:
        """Return m g l cos θ, (…), J; zero where the rod is level."""
        p = self.parameters
        return np.asarray(p.rod_mass * p.gravity * p.half_length * np.cos(q[..., 0]))

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return the right sides, (…, 2), in N·m and N."""
        p = self.parameters
        swing = p.rod_mass * p.half_length * np.sin(q[..., 0])
        torque = p.gravity * swing - p.pivot_viscous * v[..., 0]
        push = u[..., 0] - p.cart_viscous * v[..., 1] + swing * v[..., 0] ** 2
        return np.stack(np.broadcast_arrays(torque, push), axis=-1)
