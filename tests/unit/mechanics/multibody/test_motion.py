"""Motions of multibody systems: exact solutions, Hamilton's equations, constraints, steppers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hil.errors import MechanicsError
from hil.mechanics.integrate import STEPPERS, Stepper, adaptive, held_inputs, rk4
from hil.mechanics.multibody.double_pendulum import DoublePendulum
from hil.mechanics.multibody.slider_crank import GUIDE, SLIDER, SliderCrank, SliderCrankParameters
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.types import AnyArray, Array

TIMES = np.linspace(0.0, 4.0, 81)
NONE = np.zeros(1)
RUBBING = SliderCrankParameters(friction=0.4, slider_viscous=0.05, pin_viscous=0.02)


def test_a_damped_mass_swings_as_the_books_say() -> None:
    p = SpringChainParameters(masses=(10.0,), stiffness=(50.0,), damping=(2.0,))
    decay, rate = 0.1, np.sqrt(5.0 - 0.01)
    shape = np.cos(rate * TIMES) + decay / rate * np.sin(rate * TIMES)
    start = np.array([1.0, 0.0])
    exact = np.exp(-decay * TIMES) * shape
    np.testing.assert_allclose(SpringChain(p).motion(start, TIMES)[:, 0], exact, atol=1e-13)
    found = adaptive(SpringChain(p).acceleration, start, NONE, TIMES)
    np.testing.assert_allclose(found[:, 0], exact, atol=1e-11)


def test_the_triple_mass_moves_as_its_exponential() -> None:
    p = SpringChainParameters(masses=(100.0, 10.0, 1.0), stiffness=(50.0,) * 3, damping=(2.0,) * 3)
    chain, start = SpringChain(p), np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    found = adaptive(chain.acceleration, start, np.zeros(3), TIMES)
    np.testing.assert_allclose(found, chain.motion(start, TIMES), atol=1e-10)
    assert chain.energy(found[-1, :3], found[-1, 3:]) < chain.energy(start[:3], start[3:])


def test_a_chain_needs_one_spring_per_mass() -> None:
    with pytest.raises(MechanicsError, match="1 masses, 2 stiffness and 1 damping"):
        SpringChain(SpringChainParameters(stiffness=(1.0, 2.0)))


def test_hamiltons_equations_are_lagranges() -> None:
    """The same motion in momenta and in velocities; H, by differences, gives the flow."""
    system, start = DoublePendulum(), np.array([3 * np.pi / 7, 3 * np.pi / 4])

    def slope(_: float, x: Array) -> AnyArray:
        return np.concatenate(system.flow(x[:2], x[2:], np.zeros(2)))

    still = np.concatenate([start, np.zeros(2)])
    momenta = solve_ivp(slope, (0, 4), still, "DOP853", TIMES, rtol=1e-12, atol=1e-13).y.T
    motion = adaptive(system.acceleration, still, np.zeros(2), TIMES, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(momenta[:, :2], motion[:, :2], atol=1e-9)
    p = system.momentum(motion[:, :2], motion[:, 2:])
    np.testing.assert_allclose(momenta[:, 2:], p, atol=1e-8)
    energy = system.hamiltonian(momenta[:, :2], momenta[:, 2:])
    assert np.ptp(energy) < 1e-9
    assert np.ptp(motion[:, 0]) > 1.0, "nothing moved"
    one, h, q = np.eye(2), 1e-6, motion[20, :2]
    by_q = [(system.hamiltonian(q + s * h, p[20]) / (2 * h)) for e in one for s in (e, -e)]
    force = -np.array([by_q[0] - by_q[1], by_q[2] - by_q[3]])
    np.testing.assert_allclose(system.flow(q, p[20], np.zeros(2))[1], force, rtol=1e-7)


def test_partitioned_and_augmented_form_are_one_motion() -> None:
    """All nine coordinates integrated with their multipliers stay with the one of the crank."""
    system = SliderCrank(RUBBING)
    start = np.array([0.4, 3.0])
    times = TIMES[:21]
    crank = adaptive(system.acceleration, start, NONE, times)
    q, v = crank[:, :1], crank[:, 1:]
    z = system.coordinates(q)
    assert np.abs(system.constraints(z)).max() <= 1e-10
    a, _ = system.multipliers(q, v, NONE)
    np.testing.assert_allclose(a[:, 2:3], system.acceleration(q, v, NONE), rtol=1e-9, atol=1e-9)

    def slope(_: float, x: Array) -> AnyArray:
        moved = system.multipliers(x[2:3], x[11:12], NONE)[0]
        return np.concatenate([x[9:], moved])

    near = [system.coordinates(q[0] + h) for h in (1e-7, -1e-7)]
    first = (near[0] - near[1]) / 2e-7 * v[0]
    whole = solve_ivp(
        slope, (0, times[-1]), np.concatenate([z[0], first]), "DOP853", times,
        rtol=1e-10, atol=1e-11,
    ).y.T  # fmt: skip
    np.testing.assert_allclose(whole[:, :9], z, atol=1e-6)


def test_friction_follows_the_force_of_the_guide() -> None:
    """The guide's force from Newton for rod and slider alone, friction from its product."""
    system, p = SliderCrank(RUBBING), RUBBING
    random = np.random.default_rng(1)
    q, v = random.uniform(0, 6.28, (40, 1)), random.normal(0.0, 8.0, (40, 1))
    z = system.coordinates(q)
    a, forces = system.multipliers(q, v, NONE)
    h = 1e-7
    speed = (system.coordinates(q + h * v) - system.coordinates(q - h * v))[:, SLIDER] / (2 * h)
    normal = -forces[:, GUIDE]  # on the slider
    friction = -p.friction * np.abs(normal) * np.tanh(speed / p.creep)
    spring = p.stiffness * (p.rest - z[:, SLIDER]) - p.slider_viscous * speed
    pull = p.masses[2] * a[:, SLIDER] - spring - friction  # of the rod on the slider, along x
    axis = np.stack([np.cos(z[:, 5]), np.sin(z[:, 5])], 1) * p.rod / 2
    rod = p.masses[1] * (a[:, 3:5] + [0.0, p.gravity])  # sum of the forces of both pins on it
    # Moments about its middle: J φ̈ = axis × (far − near), near = rod − far, far = −(pull, lift).
    rate = (system.coordinates(q + h * v) - system.coordinates(q - h * v))[:, 5] / (2 * h)
    bend = p.pin_viscous * (v[:, 0] - rate)
    moment = p.inertias[1] * a[:, 5] - bend + axis[:, 0] * rod[:, 1] - axis[:, 1] * rod[:, 0]
    lift = (2 * axis[:, 1] * pull - moment) / (2 * axis[:, 0])
    np.testing.assert_allclose(normal, p.masses[2] * p.gravity - lift, rtol=1e-6, atol=1e-6)
    assert (normal > 0).any()
    assert (normal < 0).any(), "one side only"


def test_a_guide_that_jams_is_named() -> None:
    system = SliderCrank(SliderCrankParameters(rod=1.1, friction=3.0))
    with pytest.raises(MechanicsError, match="the guide jams"):
        system.acceleration(np.array([1.4]), np.array([2.0]), NONE)
    with pytest.raises(ValueError, match="`rod` must be longer"):
        SliderCrankParameters(rod=0.5)


@pytest.mark.parametrize(
    ("name", "order"),
    [("rk4", 4), ("midpoint", 2), ("leapfrog", 2), ("yoshida4", 4), ("yoshida6", 6)],
)
def test_steppers_have_their_order(name: str, order: int) -> None:
    step: Stepper = STEPPERS[name]

    def pull(q: AnyArray, v: AnyArray, u: AnyArray) -> AnyArray:  # of q alone: separable
        return np.asarray(-np.sin(q) - 0.5 * np.sin(2 * q))

    x = np.array([0.8, 1.1, 0.3, -0.4])
    exact = adaptive(pull, x, NONE, np.array([0.0, 2.0]), rtol=1e-13, atol=1e-14)[-1]
    errors = [np.abs(step(pull, x, NONE, 2.0, n) - exact).max() for n in (20, 40)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)


def test_symplectic_steppers_keep_energy_and_runge_kutta_does_not() -> None:
    chain, x = SpringChain(), np.array([1.0, 0.0])
    inputs = np.zeros((3000, 1))

    def drift(step: Stepper) -> float:
        states = held_inputs(chain.acceleration, x, inputs, 0.3, step=step)
        energy = chain.energy(states[:, :1], states[:, 1:])
        return float(np.abs(energy[-100:] / energy[0] - 1).max())

    for name in ("leapfrog", "yoshida4", "yoshida6"):
        assert drift(STEPPERS[name]) < 0.15, name
    assert drift(rk4) > 0.5
