"""Every system against the Lagrangian of its mass points, and against SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hil.errors import MechanicsError
from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.multibody.chain_pendulum import ChainPendulum, ChainPendulumParameters
from hil.mechanics.multibody.double_pendulum import DoublePendulum, DoublePendulumParameters
from hil.mechanics.multibody.pendulum import Pendulum, PendulumParameters
from hil.mechanics.multibody.rod_cart_pole import RodCartPole, RodCartPoleParameters
from hil.mechanics.multibody.slider_crank import SliderCrank, SliderCrankParameters
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.types import AnyArray, Array

# A uniform rod moves as two halves of its mass at these places from its centre: the velocity
# is linear along it, so that two Gauss points give its energy exactly.
GAUSS = np.array([-1.0, 1.0]) / np.sqrt(3)


class Case(NamedTuple):
    """A system, where its mass points are, and which generalised forces act on it."""

    system: AbstractMultibody
    points: Callable[[AnyArray], AnyArray]  # q (nq,) to (points, 2), height second
    masses: Array
    springs: Callable[[AnyArray], float]  # energy, J
    forces: Callable[[Array, Array, Array], Array]  # of q, v and u, (nq,)
    gravity: float


def no_springs(q: AnyArray) -> float:
    return 0.0


def pendulum() -> Case:
    p = PendulumParameters(mass=1.3, length=0.8, gravity=9.7, viscous=0.2)
    along = p.length / 2 * (1 + GAUSS)

    def points(q: AnyArray) -> AnyArray:
        return np.stack([along * np.sin(q[0]), along * np.cos(q[0])], axis=1)

    return Case(
        Pendulum(p), points, np.full(2, p.mass / 2), no_springs, lambda q, v, u: u - 0.2 * v, 9.7
    )


def rod_cart_pole() -> Case:
    p = RodCartPoleParameters(
        cart_mass=1.2, rod_mass=0.3, half_length=0.6, gravity=9.7, cart_viscous=0.4,
        pivot_viscous=0.02,
    )  # fmt: skip
    along = p.half_length * (1 + GAUSS)

    def points(q: AnyArray) -> AnyArray:
        rod = np.stack([q[1] + along * np.sin(q[0]), along * np.cos(q[0])], axis=1)
        return np.concatenate([np.stack([q[1:2], 0 * q[1:2]], axis=1), rod])

    return Case(
        RodCartPole(p), points, np.array([1.2, 0.15, 0.15]), no_springs,
        lambda q, v, u: np.array([-0.02 * v[0], u[0] - 0.4 * v[1]]), 9.7,
    )  # fmt: skip


def triple_pendulum() -> Case:
    p = ChainPendulumParameters(
        masses=(1.2, 0.7, 0.5), lengths=(0.9, 0.6, 0.4), gravity=9.7, viscous=0.3
    )

    def points(q: AnyArray) -> AnyArray:
        rods = np.array(p.lengths)[:, None] * np.stack([np.sin(q), np.cos(q)], axis=1)
        return np.asarray(np.cumsum(rods, axis=0))

    def forces(q: Array, v: Array, u: Array) -> Array:
        pivots = -0.3 * np.diff(v, prepend=0.0)
        return np.asarray(pivots - np.append(pivots[1:], 0.0) + np.append(u, [0.0, 0.0]))

    return Case(ChainPendulum(p), points, np.array(p.masses), no_springs, forces, 9.7)


def spring_chain() -> Case:
    k, d = np.array([50.0, 40.0, 30.0]), np.array([2.0, 1.0, 0.5])
    p = SpringChainParameters(masses=(10.0, 3.0, 1.0), stiffness=tuple(k), damping=tuple(d))

    def springs(q: AnyArray) -> float:
        return float(0.5 * k @ np.diff(q, prepend=0.0) ** 2)

    def forces(v: Array, u: Array) -> Array:  # each damper pulls at both its ends
        pull = d * np.diff(v, prepend=0.0)
        return np.asarray(u - pull + np.append(pull[1:], 0.0))

    return Case(
        SpringChain(p), lambda q: np.stack([q, 0 * q], 1), np.array(p.masses), springs,
        lambda q, v, u: forces(v, u), 0.0,
    )  # fmt: skip


def double_pendulum() -> Case:
    p = DoublePendulumParameters(
        masses=(1.2, 0.7), lengths=(0.9, 1.3), gravity=9.7, viscous=(0.1, 0.2)
    )

    def points(q: AnyArray) -> AnyArray:
        return np.cumsum([[l * np.sin(a), -l * np.cos(a)] for l, a in zip(p.lengths, q)], 0)  # noqa: E741, B905

    return Case(
        DoublePendulum(p), points, np.array(p.masses), no_springs,
        lambda q, v, u: u - np.array([0.1, 0.2]) * v, 9.7,
    )  # fmt: skip


def slider_crank() -> Case:
    p = SliderCrankParameters(
        crank=0.8, rod=2.5, masses=(1.2, 0.7, 1.6), inertias=(0.2, 0.5), gravity=9.7,
        stiffness=3.0, rest=2.2, slider_viscous=0.3, pin_viscous=0.05,
    )  # fmt: skip
    apart = np.sqrt(np.array(p.inertias) / np.array(p.masses[:2]))  # two halves of a body

    def angles(q: AnyArray) -> AnyArray:
        return np.concatenate([q, -np.arcsin(p.crank / p.rod * np.sin(q))])

    def points(q: AnyArray) -> AnyArray:
        along = [np.stack([np.cos(a), np.sin(a)]) for a in angles(q)]
        crank, rod = p.crank / 2 * along[0], p.crank * along[0] + p.rod / 2 * along[1]
        bodies = [c + s * d * a for c, d, a in zip((crank, rod), apart, along) for s in (1, -1)]  # noqa: B905
        return np.array([*bodies, p.crank * along[0] + p.rod * along[1]])

    def forces(q: Array, v: Array, u: Array) -> Array:
        slide = points(q + 1e-30j).imag[-1, 0] / 1e-30
        bend = np.array([1, -1]) @ angles(q + 1e-30j).imag / 1e-30
        found: Array = u - (0.3 * slide**2 + 0.05 * bend**2) * v
        return found

    masses = np.array([0.6, 0.6, 0.35, 0.35, 1.6])
    return Case(
        SliderCrank(p), points, masses,
        lambda q: 1.5 * float(np.real(points(q))[-1, 0] - 2.2) ** 2, forces, 9.7,
    )  # fmt: skip


CASES = [pendulum, rod_cart_pole, triple_pendulum, spring_chain, double_pendulum, slider_crank]


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


def draw(system: AbstractMultibody, count: int) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(2)
    return (
        random.normal(0.0, 1.5, (count, system.nq)),
        random.normal(0.0, 2.0, (count, system.nq)),
        random.normal(0.0, 3.0, (count, system.nu)),
    )


def energies(case: Case, q: Array, v: Array) -> tuple[float, float]:
    """Return kinetic and potential energy of the points, J."""
    speed = case.points(q + 1e-30j * v).imag / 1e-30
    kinetic = 0.5 * float(case.masses @ (speed**2).sum(1))
    heights = np.real(case.points(q))[:, 1]
    return kinetic, case.gravity * float(case.masses @ heights) + case.springs(q)


def euler_lagrange(case: Case, q: Array, v: Array, u: Array) -> Array:
    """Return q̈ of d/dt ∂L/∂v − ∂L/∂q = forces, every slope of L by central differences."""
    one, small = np.eye(len(q)), 1e-4

    def lagrangian(at: Array, moving: Array) -> float:
        kinetic, potential = energies(case, at, moving)
        return kinetic - potential

    def momentum(at: Array) -> Array:  # exact: L is a square in v
        return np.array([(lagrangian(at, v + e) - lagrangian(at, v - e)) / 2 for e in one])

    mass = np.array(
        [
            [
                energies(case, q, a + b)[0] - energies(case, q, a)[0] - energies(case, q, b)[0]
                for b in one
            ]
            for a in one
        ]
    )
    by_q = np.array(
        [(lagrangian(q + small * e, v) - lagrangian(q - small * e, v)) / (2 * small) for e in one]
    )
    drift = (momentum(q + small * v) - momentum(q - small * v)) / (2 * small)
    return np.linalg.solve(mass, by_q - drift + case.forces(q, v, u))


def test_it_is_the_equation_of_its_lagrangian(case: Case) -> None:
    q, v, u = draw(case.system, 10)
    expected = [euler_lagrange(case, *row) for row in zip(q, v, u, strict=True)]
    found = case.system.acceleration(q, v, u)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_energy_is_that_of_its_points(case: Case) -> None:
    q, v, _ = draw(case.system, 10)
    found = case.system.energy(q, v) - case.system.energy(q[0], 0 * v[0])
    zero = energies(case, q[0], 0 * v[0])[1]
    expected = [sum(energies(case, *row)) - zero for row in zip(q, v, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_power_is_that_of_the_forces(case: Case) -> None:
    """dE/dt along the motion is what inputs and damping do."""
    q, v, u = draw(case.system, 10)
    a, h = case.system.acceleration(q, v, u), 1e-6
    ahead, behind = (case.system.energy(q + s * v, v + s * a) for s in (h, -h))
    power = [row[1] @ case.forces(*row) for row in zip(q, v, u, strict=True)]
    np.testing.assert_allclose((ahead - behind) / (2 * h), power, rtol=1e-6, atol=1e-5)


def test_rows_and_complex_numbers(case: Case) -> None:
    q, v, u = draw(case.system, 6)
    together = case.system.acceleration(q, v, u)
    for row in range(6):
        np.testing.assert_allclose(
            case.system.acceleration(q[row], v[row], u[row]), together[row], rtol=1e-12
        )
    direction = np.ones(case.system.nq)
    exact = case.system.acceleration(q + 1e-30j * direction, v, u).imag / 1e-30
    ahead, behind = (case.system.acceleration(q + s * direction, v, u) for s in (1e-6, -1e-6))
    np.testing.assert_allclose(exact, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-5)


def test_a_small_swing_of_a_rod_has_its_frequency() -> None:
    p = PendulumParameters(mass=0.7, length=0.9)
    rod, times = Pendulum(p), np.linspace(0, 5, 200)

    def slope(_: float, x: Array) -> AnyArray:
        return np.concatenate([x[1:], rod.acceleration(x[:1], x[1:], np.zeros(1))])

    found = solve_ivp(slope, (0, 5), [np.pi + 1e-4, 0], "DOP853", times, rtol=1e-12, atol=1e-14)
    rate = np.sqrt(1.5 * p.gravity / p.length)
    np.testing.assert_allclose(found.y[0] - np.pi, 1e-4 * np.cos(rate * times), atol=1e-10)


def test_a_rod_on_a_heavy_cart_is_a_pendulum() -> None:
    heavy = RodCartPole(RodCartPoleParameters(cart_mass=1e9, rod_mass=1.0, half_length=0.5))
    q, v, _ = draw(heavy, 10)
    found = heavy.acceleration(q, v, np.zeros(1))[:, 0]
    expected = Pendulum().acceleration(q[:, :1], v[:, :1], np.zeros(1))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_parameters_out_of_range_are_named() -> None:
    with pytest.raises(MechanicsError, match=r"pendulum: .*length"):
        Pendulum(PendulumParameters(length=0.0))
    with pytest.raises(MechanicsError, match=r"rod cart-pole: `cart_mass` must be finite"):
        RodCartPole(RodCartPoleParameters(cart_mass=float("inf")))
