from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hil.errors import MechanicsError
from hil.mechanics.cart_pole import CartPole, CartPoleParameters
from hil.mechanics.integrate import held_inputs, rk4
from hil.types import AnyArray, Array

UNEVEN = CartPoleParameters(cart_mass=1.3, pole_mass=0.4, length=0.7, gravity=9.7)
RUBBING = CartPoleParameters(
    cart_mass=1.3, pole_mass=0.4, length=0.7, cart_viscous=0.8, pivot_viscous=0.05
)
NO_FORCE = np.zeros(1)
# The start of the published scenario, and one that turns over.
STARTS = [(np.pi / 6, 1.0, 0.0, 0.0), (0.1, 0.0, 9.0, -2.0)]


def draw(count: int, seed: int = 0) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(seed)
    q, v = random.normal(0.0, 2.0, (count, 2)), random.normal(0.0, 3.0, (count, 2))
    return q, v, random.normal(0.0, 10.0, (count, 1))


def solve(cart_pole: CartPole, start: Any, u: Array, end: float, times: Any = None) -> Array:
    """Return states (time, 4) by SciPy's eighth-order method."""

    def slope(_: float, x: Array) -> AnyArray:
        return np.concatenate((x[2:], cart_pole.acceleration(x[:2], x[2:], u)))

    found = solve_ivp(
        slope, (0.0, end), start, method="DOP853", rtol=1e-12, atol=1e-13, t_eval=times
    )
    assert found.success
    states: Array = found.y.T
    return states


def lagrangian(p: CartPoleParameters, q: Array, v: Array) -> float:
    """Return kinetic less potential energy, J, from where the two bodies are."""

    def bodies(at: AnyArray) -> AnyArray:
        theta, x = at
        return np.array([x, 0 * x, x + p.length * np.sin(theta), p.length * np.cos(theta)])

    velocity = bodies(q + 1e-30j * v).imag / 1e-30
    mass = np.array([p.cart_mass, p.cart_mass, p.pole_mass, p.pole_mass])
    return float(0.5 * mass @ velocity**2 - p.pole_mass * p.gravity * bodies(q)[3])


def euler_lagrange(p: CartPoleParameters, q: Array, v: Array, u: float) -> Array:
    """Return q̈ of d/dt ∂L/∂v − ∂L/∂q = (0, u), every slope of L by central differences."""
    one = np.eye(2)
    small = 1e-4

    def momentum(at: Array) -> Array:
        # L is a square in v: differences over any step are exact.
        return np.array([(lagrangian(p, at, v + e) - lagrangian(p, at, v - e)) / 2 for e in one])

    mass = np.array(
        [
            [
                lagrangian(p, q, v + a + b)
                - lagrangian(p, q, v + a)
                - lagrangian(p, q, v + b)
                + lagrangian(p, q, v)
                for b in one
            ]
            for a in one
        ]
    )
    by_q = np.array(
        [
            (lagrangian(p, q + small * e, v) - lagrangian(p, q - small * e, v)) / (2 * small)
            for e in one
        ]
    )
    drift = (momentum(q + small * v) - momentum(q - small * v)) / (2 * small)
    return np.linalg.solve(mass, by_q - drift + np.array([0.0, u]))


def test_it_is_the_equation_of_its_lagrangian() -> None:
    cart_pole = CartPole(UNEVEN)
    q, v, u = draw(20)
    expected = [
        euler_lagrange(UNEVEN, at, moving, float(force[0]))
        for at, moving, force in zip(q, v, u, strict=True)
    ]
    found = cart_pole.acceleration(q, v, u)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_mass_matrix_and_energy_are_those_of_the_lagrangian() -> None:
    cart_pole = CartPole(UNEVEN)
    q, v, _ = draw(20)
    potential = np.array([-lagrangian(UNEVEN, at, np.zeros(2)) for at in q])
    kinetic = potential + [lagrangian(UNEVEN, *row) for row in zip(q, v, strict=True)]
    np.testing.assert_allclose(cart_pole.energy(q, v), kinetic + potential, rtol=1e-12)
    by_matrix = 0.5 * (v[:, None] @ cart_pole.mass_matrix(q) @ v[..., None])[:, 0, 0]
    np.testing.assert_allclose(by_matrix, kinetic, rtol=1e-12)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("parameters", [CartPoleParameters(), UNEVEN])
def test_energy_and_horizontal_momentum_are_kept(
    parameters: CartPoleParameters, start: Any
) -> None:
    cart_pole = CartPole(parameters)
    states = solve(cart_pole, start, NO_FORCE, 10.0)
    q, v = states[:, :2], states[:, 2:]
    energy, momentum = cart_pole.energy(q, v), cart_pole.momentum(q, v)[:, 1]
    assert np.abs(np.ptp(q[:, 0])) > 1.0, "nothing moved"
    assert np.abs(energy - energy[0]).max() < 1e-10
    assert np.abs(momentum - momentum[0]).max() < 1e-10


def test_a_force_brings_its_impulse_and_its_work() -> None:
    cart_pole, u = CartPole(UNEVEN), np.array([3.7])
    states = solve(cart_pole, STARTS[0], u, 2.0)
    q, v = states[:, :2], states[:, 2:]
    work = u[0] * (q[:, 1] - q[0, 1])
    energy, momentum = cart_pole.energy(q, v), cart_pole.momentum(q, v)[:, 1]
    np.testing.assert_allclose(energy - energy[0], work, atol=1e-10)
    assert momentum[-1] - momentum[0] == pytest.approx(u[0] * 2.0, abs=1e-10)


def test_viscous_friction_only_takes_and_takes_its_power() -> None:
    cart_pole, small = CartPole(RUBBING), 1e-6
    states = solve(cart_pole, STARTS[1], NO_FORCE, 10.0, np.linspace(0.0, 10.0, 501))
    energy = cart_pole.energy(states[:, :2], states[:, 2:])
    assert (np.diff(energy) < 0).all()
    q, v, u = draw(20)
    a = cart_pole.acceleration(q, v, u)
    ahead, behind = (cart_pole.energy(q + h * v, v + h * a) for h in (small, -small))
    power = u[:, 0] * v[:, 1] - 0.8 * v[:, 1] ** 2 - 0.05 * v[:, 0] ** 2
    np.testing.assert_allclose((ahead - behind) / (2 * small), power, rtol=1e-6, atol=1e-6)


def test_small_swings_about_hanging_have_their_frequency() -> None:
    p = UNEVEN
    times = np.linspace(0.0, 5.0, 5001)
    theta = solve(CartPole(p), (np.pi + 1e-4, 0.0, 0.0, 0.0), NO_FORCE, 5.0, times)[:, 0] - np.pi
    rate = np.sqrt(p.gravity * (p.cart_mass + p.pole_mass) / (p.length * p.cart_mass))
    np.testing.assert_allclose(theta, 1e-4 * np.cos(rate * times), atol=1e-4 * 1e-6)


def test_a_push_to_the_right_fells_an_upright_pole_to_the_left() -> None:
    turn, push = CartPole().acceleration(np.zeros(2), np.zeros(2), np.ones(1))
    assert (turn, push) == (-2.0, 1.0)


def test_an_impulse_obeys_newton_for_each_body() -> None:
    p, (q, v, _) = UNEVEN, draw(20)
    cart_pole = CartPole(p)
    cart, tip = np.random.default_rng(3).normal(0.0, 2.0, (2, 20))
    jump = cart_pole.jump(q, cart=cart, tip=tip)
    # The rod is massless: across it, the mass feels nothing but the impulse on the tip.
    across = np.stack((np.cos(q[:, 0]), -np.sin(q[:, 0])), axis=1)
    mass = np.stack((jump[:, 1], np.zeros(20)), axis=1) + p.length * across * jump[:, :1]
    np.testing.assert_allclose((p.pole_mass * mass * across).sum(1), tip * across[:, 0])
    gained = cart_pole.momentum(q, v + jump) - cart_pole.momentum(q, v)
    np.testing.assert_allclose(gained[:, 1], cart + tip)


def test_a_short_hard_push_is_an_impulse() -> None:
    cart_pole, start = CartPole(UNEVEN), np.array([0.4, 0.0, 1.0, -0.5])
    last = 1e-6
    after = solve(cart_pole, start, np.array([1.5 / last]), last)[-1]
    struck = start[2:] + cart_pole.jump(start[:2], cart=1.5)
    np.testing.assert_allclose(after[2:], struck, atol=1e-4)


def test_a_blow_on_the_tip_of_an_upright_pole_leaves_the_cart() -> None:
    np.testing.assert_allclose(CartPole().jump(np.zeros(2), tip=1.0), (2.0, 0.0), atol=1e-15)


def test_batches_are_their_rows() -> None:
    cart_pole, (q, v, u) = CartPole(RUBBING), draw(6)
    together = cart_pole.acceleration(q.reshape(2, 3, 2), v.reshape(2, 3, 2), u.reshape(2, 3, 1))
    assert together.shape == (2, 3, 2)
    for row, got in enumerate(together.reshape(6, 2)):
        np.testing.assert_array_equal(got, cart_pole.acceleration(q[row], v[row], u[row]))
    # One input for many states.
    spread = cart_pole.acceleration(q, v, u[0])
    np.testing.assert_array_equal(spread[4], cart_pole.acceleration(q[4], v[4], u[0]))


def test_complex_numbers_go_through() -> None:
    cart_pole, (q, v, u) = CartPole(RUBBING), draw(6)
    for moved, along in ((q, (1.0, 0.0)), (v, (1.0, 0.0)), (v, (0.0, 1.0)), (u, (1.0,))):
        step = np.array(along)

        def at(h: complex, moved: Array = moved, step: Array = step) -> AnyArray:
            place = [array + h * step if array is moved else array for array in (q, v, u)]
            return cart_pole.acceleration(*place)

        by_complex = at(1e-30j).imag / 1e-30
        by_difference = (at(1e-6) - at(-1e-6)) / 2e-6
        np.testing.assert_allclose(by_complex, by_difference, rtol=1e-6, atol=1e-6)


def test_runge_kutta_is_of_fourth_order() -> None:
    cart_pole, start, u = CartPole(UNEVEN), np.array(STARTS[1]), np.array([2.0])
    exact = solve(cart_pole, start, u, 0.4)[-1]
    errors = [
        np.abs(rk4(cart_pole.acceleration, start, u, 0.4, steps) - exact).max()
        for steps in (160, 320, 640)
    ]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(orders, 4.0, atol=0.2)


def test_inputs_are_held_one_after_the_other() -> None:
    cart_pole, start = CartPole(UNEVEN), np.array(STARTS[0])
    inputs = np.array([[5.0], [-3.0], [0.0]])
    states = held_inputs(cart_pole.acceleration, start, inputs, 0.05, steps=20)
    assert states.shape == (4, 4)
    expected = start
    for u, state in zip(inputs, states[1:], strict=True):
        expected = solve(cart_pole, expected, u, 0.05)[-1]
        np.testing.assert_allclose(state, expected, atol=1e-8)
    many = held_inputs(cart_pole.acceleration, np.tile(start, (5, 1)), inputs, 0.05, steps=20)
    np.testing.assert_array_equal(many[:, 3], states)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cart_mass": 0.0}, "cart_mass"),
        ({"length": -0.5}, "length"),
        ({"breakaway": 0.9}, "breakaway"),
        ({"restitution": 1.1}, "restitution"),
        ({"cart_coulomb": -1.0}, "cart_coulomb"),
    ],
)
def test_parameters_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(MechanicsError, match=message):
        CartPole(CartPoleParameters(**values))


def test_parameters_that_contradict_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="lo < hi"):
        CartPoleParameters(stops=(1.0, -1.0))
    with pytest.raises(ValueError, match="gravity"):
        CartPoleParameters(gravity=float("nan"))


def test_numbers_of_numpy_are_numbers() -> None:
    values: dict[str, Any] = {"cart_mass": np.float64(2.0), "length": np.int64(1)}
    assert CartPole(CartPoleParameters(**values)).parameters.cart_mass == 2.0
