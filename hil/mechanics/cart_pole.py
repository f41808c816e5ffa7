"""Cart-pole: a point mass m on a massless rod of length l, on a cart M pushed by u.

q = (θ, x). θ = 0 is upright; the mass is at (x + l sin θ, l cos θ), so that a push to the
right makes an upright pole fall to the left. From the Lagrangian

    L = ½ (M + m) ẋ² + m l cos θ θ̇ ẋ + ½ m l² θ̇² − m g l cos θ

d/dt ∂L/∂q̇ − ∂L/∂q = Q gives, with the friction b on the cart and β on the pivot,

    m l² θ̈ + m l cos θ ẍ = m g l sin θ − β θ̇
    m l cos θ θ̈ + (M + m) ẍ = u − b ẋ + m l sin θ θ̇²

This file is the smooth part: arrays of any leading dimensions, real or complex. Dry
friction and end stops are no function of the state; `cart_pole_motion` steps through them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from hil.mechanics.parameters import checked
from hil.types import AnyArray


class CartPoleParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Masses, lengths, friction and end stops of a cart-pole, in SI.

    The dry friction of the cart does not follow its load: in a belt-driven carriage the
    preload of the guide outweighs what the pole adds and takes away.
    """

    cart_mass: Annotated[float, Meta(gt=0, description="M, kg")] = 1.0
    pole_mass: Annotated[float, Meta(gt=0, description="m, at the end of the rod, kg")] = 1.0
    length: Annotated[float, Meta(gt=0, description="l, from the pivot to the mass, m")] = 0.5
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    cart_viscous: Annotated[float, Meta(ge=0, description="b, N·s/m")] = 0.0
    pivot_viscous: Annotated[float, Meta(ge=0, description="β, N·m·s/rad")] = 0.0
    cart_coulomb: Annotated[float, Meta(ge=0, description="dry friction when sliding, N")] = 0.0
    pivot_coulomb: Annotated[float, Meta(ge=0, description="dry friction turning, N·m")] = 0.0
    breakaway: Annotated[
        float, Meta(ge=1, description="dry friction at rest, over that in motion, 1")
    ] = 1.0
    stops: Annotated[
        tuple[float, float] | None, Meta(description="where the cart is stopped, [lo, hi], m")
    ] = None
    restitution: Annotated[
        float, Meta(ge=0, le=1, description="speed after a stop over speed before, 1")
    ] = 0.0

    def __post_init__(self) -> None:
        """Refuse what a range cannot say."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                raise ValueError(f"`{name}` must be finite, found {value}")
        if self.stops is not None and not self.stops[0] < self.stops[1]:
            raise ValueError(f"`stops` must be [lo, hi] with lo < hi, found {list(self.stops)}")


class CartPole:
    """The smooth equations of a cart-pole; see the module for them.

    Arrays are (…, 2) for q = (θ, x) in rad and m and for v = (θ̇, ẋ), (…, 1) for u in N; the
    leading dimensions broadcast. Complex arrays give the complex-step derivative.
    Raises MechanicsError for parameters out of range.
    """

    Settings = CartPoleParameters

    def __init__(self, parameters: CartPoleParameters | None = None) -> None:
        self.parameters = checked(parameters or CartPoleParameters(), "cart-pole")

    def acceleration(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return (θ̈, ẍ), (…, 2), under a force u on the cart and viscous friction."""
        p = self.parameters
        omega = v[..., 0]
        torque = -p.pivot_viscous * omega
        force = u[..., 0] - p.cart_viscous * v[..., 1]
        sine, cosine = np.sin(q[..., 0]), np.cos(q[..., 0])
        turn, push = accelerations(p, sine, cosine, omega, torque, force)
        found = np.empty((*turn.shape, 2), dtype=turn.dtype)  # both have the shape of all
        found[..., 0], found[..., 1] = turn, push
        return found

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return (…, 2, 2): ∂²L/∂q̇², in kg·m², kg·m and kg."""
        p = self.parameters
        coupling = p.pole_mass * p.length * np.cos(q[..., 0])
        matrix = np.empty((*coupling.shape, 2, 2), dtype=coupling.dtype)
        matrix[..., 0, 0] = p.pole_mass * p.length**2
        matrix[..., 0, 1] = matrix[..., 1, 0] = coupling
        matrix[..., 1, 1] = p.cart_mass + p.pole_mass
        return matrix

    def energy(self, q: AnyArray, v: AnyArray) -> AnyArray:
        """Return kinetic plus potential energy, (…), J; zero with the rod level, at rest."""
        p = self.parameters
        kinetic = 0.5 * np.einsum("...i,...ij,...j->...", v, self.mass_matrix(q), v)
        return np.asarray(kinetic + p.pole_mass * p.gravity * p.length * np.cos(q[..., 0]))

    def momentum(self, q: AnyArray, v: AnyArray) -> AnyArray:
        """Return ∂L/∂q̇, (…, 2): its second entry is the horizontal momentum, N·s."""
        return np.asarray(np.einsum("...ij,...j->...i", self.mass_matrix(q), v))

    def jump(self, q: AnyArray, *, cart: Any = 0.0, tip: Any = 0.0) -> AnyArray:
        """Return the change of v, (…, 2), by horizontal impulses on cart and mass, N·s.

        cart, tip: numbers or (…). An impulse lasts no time, so friction and gravity, being
        bounded, have no part in it.
        """
        p = self.parameters
        sine, cosine = np.sin(q[..., 0]), np.cos(q[..., 0])
        # An impulse enters where a force does: on the mass it has the lever l cos θ.
        pair = inverse_mass(p, sine, cosine, tip * p.length * cosine, cart + tip)
        return np.stack(np.broadcast_arrays(*pair), axis=-1)


def inverse_mass(p: CartPoleParameters, sine: Any, cosine: Any, torque: Any, force: Any) -> Any:
    """Return M(q)⁻¹ (torque, force) as a pair, by arithmetic alone: numbers or arrays."""
    inertia = p.cart_mass + p.pole_mass * sine * sine  # what the cart's force moves, kg
    lever = torque / p.length
    return (
        ((p.cart_mass + p.pole_mass) / p.pole_mass * lever - cosine * force) / (p.length * inertia),
        (force - cosine * lever) / inertia,
    )


def accelerations(
    p: CartPoleParameters, sine: Any, cosine: Any, omega: Any, torque: Any, force: Any
) -> Any:
    """Return the pair (θ̈, ẍ) under the torque on the pivot and the force on the cart."""
    swing = p.pole_mass * p.length * sine
    return inverse_mass(p, sine, cosine, torque + p.gravity * swing, force + swing * omega * omega)
