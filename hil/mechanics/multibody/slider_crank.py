"""Slider-crank: crank, rod and slider in the plane, with Coulomb friction in the guide.

All coordinates z = (x, y, angle) of crank, rod, slider: 9, with 8 constraints (two pins'
worth at the ground, at crank and rod, at rod and slider; the guide keeps y and the angle of
the slider at 0). The independent coordinate is the angle of the crank. The friction in the
guide is F = −μ |N| tanh(ẋ / v₀), with N the multiplier of the guide: F and N are found together.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.errors import MechanicsError
from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.multibody.constrained import Partition, augmented, partition, recover
from hil.mechanics.parameters import Parameters, checked
from hil.types import AnyArray

INDEPENDENT = (2,)  # angle of the crank
SLIDER, GUIDE = 6, 6  # x of the slider among coordinates; its y among constraints


class SliderCrankParameters(Parameters, frozen=True, kw_only=True):
    """Bodies, spring, damping and friction; sizes of Wang, Wang & Negrut (arXiv 2509.00183)."""

    crank: Annotated[float, Meta(gt=0, description="length of the crank, m")] = 1.0
    rod: Annotated[float, Meta(gt=0, description="length of the rod, m")] = 4.0
    masses: Annotated[tuple[float, float, float], Meta(description="crank, rod, slider, kg")] = (
        1.0,
        1.0,
        1.0,
    )
    inertias: Annotated[
        tuple[float, float], Meta(description="crank and rod about their middle, kg·m²")
    ] = (0.1, 0.1)
    gravity: Annotated[float, Meta(ge=0, description="g, m/s²")] = 9.81
    stiffness: Annotated[float, Meta(ge=0, description="of the slider's spring, N/m")] = 1.0
    rest: Annotated[float, Meta(description="x of the slider with the spring slack, m")] = 4.0
    slider_viscous: Annotated[float, Meta(ge=0, description="in the guide, N·s/m")] = 0.0
    pin_viscous: Annotated[float, Meta(ge=0, description="between crank and rod, N·m·s/rad")] = 0.0
    friction: Annotated[float, Meta(ge=0, description="μ in the guide, 1")] = 0.0
    creep: Annotated[float, Meta(gt=0, description="v₀, where friction sets in, m/s")] = 0.05

    def __post_init__(self) -> None:
        """Refuse what a single range cannot say."""
        if not min(*self.masses, *self.inertias) > 0:
            raise ValueError("`masses` and `inertias` must be above 0")
        if not self.rod > self.crank:
            raise ValueError(
                f"`rod` must be longer than the crank, found {self.rod} ≤ {self.crank}"
            )


class SliderCrank(AbstractMultibody):
    """The mechanism above; q = (angle of the crank) in rad, u = (torque on it) in N·m.

    Raises MechanicsError for parameters out of range.
    """

    Settings = SliderCrankParameters

    nq, nu = 1, 1

    def __init__(self, parameters: SliderCrankParameters | None = None) -> None:
        self.parameters = p = checked(parameters or SliderCrankParameters(), "slider-crank")
        (crank, rod, slider), (about_crank, about_rod) = p.masses, p.inertias
        # The slider does not turn: any inertia will do.
        diagonal = [crank, crank, about_crank, rod, rod, about_rod, slider, slider, 1.0]
        self._mass = np.diag(diagonal)

    # --- all coordinates ---------------------------------------------------------------

    def coordinates(self, q: AnyArray) -> AnyArray:
        """Return z, (…, 9), of crank angles q (…, 1): dependent ones recovered by Newton."""
        angle = q[..., 0]
        r, l = self.parameters.crank, self.parameters.rod  # noqa: E741
        turn = -np.arcsin(r / l * np.sin(angle))
        pin, zero = (r * np.cos(angle), r * np.sin(angle)), np.zeros_like(angle)
        end = pin[0] + l * np.cos(turn)
        guess = (
            pin[0] / 2,
            pin[1] / 2,
            angle,
            (pin[0] + end) / 2,
            pin[1] / 2,
            turn,
            end,
            zero,
            zero,
        )
        return recover(self.constraints, self.jacobian, np.stack(guess, -1), INDEPENDENT)

    def constraints(self, z: AnyArray) -> AnyArray:
        """Return Φ(z), (…, 8), m and rad."""
        (a, b), (crank, rod) = self._halves(), self._axes(z)
        x1, x2, x3 = z[..., 0:2], z[..., 3:5], z[..., 6:8]
        pins = (x1 - a * crank, x1 + a * crank - x2 + b * rod, x2 + b * rod - x3, z[..., 7:9])
        return np.concatenate(pins, -1)

    def jacobian(self, z: AnyArray) -> AnyArray:
        """Return ∂Φ/∂z, (…, 8, 9)."""
        (a, b), (crank, rod) = self._halves(), self._axes(z)
        across = [np.stack([-axis[..., 1], axis[..., 0]], -1) for axis in (crank, rod)]
        found = np.zeros((*z.shape[:-1], 8, 9), dtype=z.dtype)
        for row, (body, sign) in enumerate([(0, 1), (0, 1), (3, 1)]):
            found[..., 2 * row, body] = found[..., 2 * row + 1, body + 1] = sign
        for row, body in ((2, 3), (4, 6)):
            found[..., row, body] = found[..., row + 1, body + 1] = -1.0
        found[..., 0:2, 2], found[..., 2:4, 2] = -a * across[0], a * across[0]
        found[..., 2:4, 5] = found[..., 4:6, 5] = b * across[1]
        found[..., 6, 7] = found[..., 7, 8] = 1.0
        return found

    def _gamma(self, z: AnyArray, rates: AnyArray) -> AnyArray:
        """Return −J̇ ż, (…, 8): what a turning body needs to keep its pins together."""
        (a, b), (crank, rod) = self._halves(), self._axes(z)
        crank = a * crank * rates[..., 2:3] ** 2
        rod = b * rod * rates[..., 5:6] ** 2
        return np.concatenate([-crank, crank + rod, rod, np.zeros_like(rod)], -1)

    def _halves(self) -> tuple[float, float]:
        return self.parameters.crank / 2, self.parameters.rod / 2

    @staticmethod
    def _axes(z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return unit vectors along crank and rod, (…, 2) each."""
        one, two = z[..., 2], z[..., 5]
        return (
            np.stack([np.cos(one), np.sin(one)], -1),
            np.stack([np.cos(two), np.sin(two)], -1),
        )

    def _loads(self, z: AnyArray, rates: AnyArray, u: AnyArray) -> AnyArray:
        """Return Q, (…, 9): everything but constraints and dry friction."""
        p = self.parameters
        pin = -p.pin_viscous * (rates[..., 2] - rates[..., 5])
        torque, pin = np.broadcast_arrays(u[..., 0] + pin, pin)
        found = np.zeros((*torque.shape, 9), dtype=np.result_type(z, rates, u))
        found[..., [1, 4, 7]] = -p.gravity * np.array(p.masses)
        found[..., 2], found[..., 5] = torque, -pin
        spring = p.stiffness * (p.rest - z[..., SLIDER])
        found[..., SLIDER] = spring - p.slider_viscous * rates[..., SLIDER]
        return found

    # --- the independent coordinate ----------------------------------------------------

    def _partition(self, q: AnyArray, v: AnyArray) -> tuple[AnyArray, AnyArray, Partition]:
        """Return z, ż and how they follow the crank."""
        z = self.coordinates(q)
        jacobian = self.jacobian(z)
        still = partition(jacobian, np.zeros(jacobian.shape[:-1]), INDEPENDENT)
        rates = (still.transform @ v[..., None])[..., 0]
        return z, rates, partition(jacobian, self._gamma(z, rates), INDEPENDENT)

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return BᵀMB, (…, 1, 1), kg·m²."""
        transform = self._partition(q, np.zeros_like(q))[2].transform
        return np.asarray(np.swapaxes(transform, -1, -2) @ self._mass @ transform)

    def potential(self, q: AnyArray) -> AnyArray:
        """Return gravity's and the spring's energy, (…), J."""
        p, z = self.parameters, self.coordinates(q)
        heights = z[..., [1, 4, 7]] @ np.array(p.masses)
        return np.asarray(p.gravity * heights + 0.5 * p.stiffness * (z[..., SLIDER] - p.rest) ** 2)

    def force(self, q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:
        """Return Bᵀ(Q − M c), (…, 1), N·m, friction included."""
        z, rates, follow = self._partition(q, v)
        loads = self._loads(z, rates, u)
        loads[..., SLIDER] += self._friction(z, rates, loads)
        moved = loads - follow.bias @ self._mass
        return np.asarray((np.swapaxes(follow.transform, -1, -2) @ moved[..., None])[..., 0])

    def multipliers(self, q: AnyArray, v: AnyArray, u: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return z̈ (…, 9) and λ (…, 8), N and N·m, of the augmented form, friction included."""
        z, rates, _ = self._partition(q, v)
        loads = self._loads(z, rates, u)
        loads[..., SLIDER] += self._friction(z, rates, loads)
        return augmented(self._mass, self.jacobian(z), loads, self._gamma(z, rates))

    def _friction(self, z: AnyArray, rates: AnyArray, loads: AnyArray) -> AnyArray:
        """Return F, (…), N: N is linear in F, and F in |N|.

        Raises MechanicsError where friction is so large that no N or several fit (Painlevé).
        """
        p = self.parameters
        if p.friction == 0.0:
            return np.zeros_like(loads[..., SLIDER])
        jacobian, gamma = self.jacobian(z), self._gamma(z, rates)
        push = np.zeros(9)
        push[SLIDER] = 1.0
        normal = augmented(self._mass, jacobian, loads, gamma)[1][..., GUIDE]
        gain = augmented(self._mass, jacobian, push, np.zeros(8))[1][..., GUIDE]
        slip = p.friction * np.tanh(rates[..., SLIDER] / p.creep)
        if (np.abs(slip * gain) >= 1).any():
            raise MechanicsError(f"slider-crank: friction {p.friction}: the guide jams")
        side = np.sign(np.real(normal))  # |N| = side N, and N keeps its side
        return np.asarray(-slip * side * normal / (1 + slip * side * gain))
