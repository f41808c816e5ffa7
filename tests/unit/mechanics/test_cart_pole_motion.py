from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from hil.errors import MechanicsError
from hil.mechanics.cart_pole import CartPole, CartPoleParameters
from hil.mechanics.cart_pole_motion import CartPoleMotion, CartPoleState
from hil.types import AnyArray, Array

HANGING = CartPoleState(math.pi, 0.0, 0.0, 0.0)
STIFF = 1e6  # N or N·m of dry friction: nothing moves it
DRY = CartPoleParameters(
    cart_viscous=0.5, pivot_viscous=0.01, cart_coulomb=3.0, pivot_coulomb=0.05, breakaway=1.3
)


def travel(
    motion: CartPoleMotion, state: CartPoleState, forces: Sequence[float], dt: float = 1e-3
) -> Array:
    """Return the states (N + 1, 4) under one force a step."""
    states = [state]
    for u in forces:
        states.append(motion.step(states[-1], u, dt))
    return np.array(states)


def energy(motion: CartPoleMotion, states: Array) -> AnyArray:
    return CartPole(motion.parameters).energy(states[:, :2], states[:, 2:])


def jolts(seed: int, count: int, each: int, peak: float = 20.0) -> list[float]:
    """Return random forces, each held for a number of steps."""
    random = np.random.default_rng(seed)
    forces: list[float] = np.repeat(random.uniform(-peak, peak, count), each).tolist()
    return forces


def test_without_friction_it_is_the_smooth_equation() -> None:
    p = CartPoleParameters(cart_viscous=0.3, pivot_viscous=0.02)
    start, u = CartPoleState(math.pi / 6, 1.0, 0.0, 0.0), np.array([2.0])

    def slope(_: float, x: Array) -> AnyArray:
        return np.concatenate((x[2:], CartPole(p).acceleration(x[:2], x[2:], u)))

    exact = solve_ivp(slope, (0.0, 2.0), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    np.testing.assert_allclose(travel(CartPoleMotion(p), start, [2.0] * 2000)[-1], exact, atol=1e-9)


def test_a_sliding_cart_stops_where_and_when_it_should() -> None:
    # No gravity and a seized pivot: two kilograms under 3 N, from 1.201 m/s.
    motion = CartPoleMotion(CartPoleParameters(gravity=0.0, pivot_coulomb=STIFF, cart_coulomb=3.0))
    states = travel(motion, CartPoleState(0.3, 0.0, 0.0, 1.201), [0.0] * 1000)
    rests = int(np.flatnonzero(states[:, 3] == 0.0)[0])
    assert rests == math.ceil(2.0 * 1.201 / 3.0 / 1e-3)
    assert states[-1, 1] == pytest.approx(0.5 * 2.0 * 1.201**2 / 3.0, abs=1e-12)
    assert np.ptp(states[rests:], axis=0).max() == 0.0, "it creeps"
    assert np.ptp(states[:, 0]) == 0.0


def test_each_swing_loses_what_the_pivot_takes() -> None:
    p = CartPoleParameters(cart_coulomb=STIFF, pivot_coulomb=0.2)
    motion = CartPoleMotion(p)
    states = travel(motion, CartPoleState(math.pi - 0.8, 0.0, 0.0, 0.0), [0.0] * 10000)
    theta, rate = states[:, 0] - math.pi, states[:, 2]
    # Energy down to wherever it turned, and dry friction times the way there.
    way = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(theta)))))
    lost = energy(motion, states)[0] - energy(motion, states)
    turns = np.flatnonzero(np.diff(np.sign(rate)) != 0)
    assert len(turns) > 5
    np.testing.assert_allclose(lost[::50], 0.2 * way[::50], atol=2e-5)
    # It comes to rest off the bottom, where gravity no longer exceeds friction, for good.
    assert rate[-1] == 0.0
    assert theta[-1] != 0.0
    assert 9.81 * 0.5 * abs(math.sin(theta[-1])) <= 0.2
    assert np.ptp(states[:, 1]) == 0.0


def test_below_breakaway_nothing_moves_at_all() -> None:
    motion = CartPoleMotion(DRY)
    for force in (3.89, -3.89):  # breakaway is 1.3 · 3 N
        assert (travel(motion, HANGING, [force] * 3000) == np.array(HANGING)).all()
    moved = travel(motion, HANGING, [3.91] * 100)
    assert moved[-1, 1] > 0.0
    # In motion 3 N oppose it, so that 3.5 N keep going what they could not start.
    further = travel(motion, CartPoleState(*moved[-1].tolist()), [3.5] * 50)
    assert (np.diff(further[:, 1]) > 0).all()


def test_a_tilted_pole_stands_below_the_breakaway_torque_of_its_pivot() -> None:
    p = CartPoleParameters(cart_coulomb=STIFF, pivot_coulomb=2.0, breakaway=1.2)
    # Gravity turns with 4.905 sin θ, up to 2.4 N·m are held: θ = 0.511.
    stays, falls = (CartPoleState(theta, 0.0, 0.0, 0.0) for theta in (0.51, 0.512))
    assert (travel(CartPoleMotion(p), stays, [0.0] * 1000) == np.array(stays)).all()
    assert travel(CartPoleMotion(p), falls, [0.0] * 1000)[-1, 0] > 0.6


def test_a_pole_goes_along_below_the_breakaway_torque_of_its_pivot() -> None:
    motion = CartPoleMotion(CartPoleParameters(pivot_coulomb=2.0, breakaway=1.2))
    upright = CartPoleState(0.0, 0.0, 0.0, 0.0)
    # Two kilograms under 9.5 N; the pivot has to turn the mass along with 2.375 N·m.
    states = travel(motion, upright, [9.5] * 1000)
    assert (states[:, 0] == 0.0).all()
    assert states[-1, 1] == pytest.approx(0.5 * 9.5 / 2.0, abs=1e-12)
    assert travel(motion, upright, [9.7] * 1000)[1, 0] < 0.0  # 2.425 N·m break it away


def test_a_growing_force_breaks_the_cart_away_when_it_should() -> None:
    motion = CartPoleMotion(DRY)
    forces = np.arange(0.0, 6.0, 0.001)
    states = travel(motion, HANGING, forces.tolist())
    first = int(np.flatnonzero(states[:, 3] != 0.0)[0]) - 1
    assert forces[first - 1] <= 3.9 < forces[first] + 1e-12


def test_a_swinging_pole_does_not_shake_a_cart_that_holds() -> None:
    motion = CartPoleMotion(CartPoleParameters(cart_coulomb=6.0))
    # Twice per swing the rod pulls with up to 1.5 N: less than what holds the cart.
    states = travel(motion, CartPoleState(math.pi - 0.3, 0.0, 0.0, 0.0), [0.0] * 5000)
    assert np.ptp(states[:, 1]) == 0.0
    assert np.abs(np.diff(energy(motion, states))).max() < 1e-9
    # Swinging wider it drags the cart, which stands still again between the drags.
    states = travel(motion, CartPoleState(math.pi - 1.5, 0.0, 0.0, 0.0), [0.0] * 5000)
    still = states[:, 3] == 0.0
    assert np.ptp(states[:, 1]) > 0.01
    assert 0.1 < still.mean() < 1.0
    assert np.abs(np.diff(still.astype(int))).sum() < 40, "it chatters"


def test_it_agrees_with_friction_smoothed_over_a_hair() -> None:
    p = CartPoleParameters(cart_coulomb=6.0, pivot_coulomb=0.2, pivot_viscous=0.01)
    start = CartPoleState(math.pi - 0.5, 0.0, 0.0, 0.0)
    forces = [12.0, 0.0, -14.0, 2.0]
    cart_pole, x = CartPole(p), np.array(start)
    for u in forces:

        def slope(_: float, x: Array, u: float = u) -> AnyArray:
            dry = np.tanh(x[2:] / 1e-5) * (p.pivot_coulomb, p.cart_coulomb)
            smooth = cart_pole.acceleration(x[:2], x[2:], np.array([u]))
            free = np.linalg.solve(cart_pole.mass_matrix(x[:2]), dry)
            return np.concatenate((x[2:], smooth - free))

        x = solve_ivp(slope, (0.0, 0.3), x, method="LSODA", rtol=1e-9, atol=1e-11).y[:, -1]
    found = travel(CartPoleMotion(p), start, np.repeat(forces, 300).tolist())
    assert (found[:, 3] == 0.0).sum() > 100, "it never stuck"
    np.testing.assert_allclose(found[-1], x, atol=2e-4)


def test_shorter_steps_change_little_whatever_happens_in_them() -> None:
    p = CartPoleParameters(cart_coulomb=3.0, pivot_coulomb=0.1, stops=(-0.1, 0.1), restitution=0.3)
    forces = jolts(1, 5, 100)
    coarse = travel(CartPoleMotion(p), HANGING, forces)
    fine = travel(CartPoleMotion(p), HANGING, np.repeat(forces, 10).tolist(), 1e-4)[::10]
    assert np.abs(np.diff(coarse[:, 3])).max() > 0.5, "it never met a stop"
    assert (coarse[:, 3] == 0.0).sum() > 10, "it never stuck"
    np.testing.assert_allclose(coarse, fine, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_left_alone_it_only_loses_energy_and_ends_at_rest(seed: int) -> None:
    p = CartPoleParameters(
        cart_coulomb=2.0, pivot_coulomb=0.3, breakaway=1.2, stops=(-0.2, 0.3), restitution=0.5
    )
    motion = CartPoleMotion(p)
    start = np.random.default_rng(seed).uniform((-3.0, -0.2, -6.0, -2.0), (3.0, 0.3, 6.0, 2.0))
    states = travel(motion, CartPoleState(*start.tolist()), [0.0] * 15000)
    assert np.diff(energy(motion, states)).max() < 1e-9
    assert (states[-1, 2:] == 0.0).all()
    assert (states[-100:] == states[-1]).all()


def test_a_stop_gives_back_its_share_and_leaves_the_pole_its_momentum() -> None:
    for share in (0.0, 0.4, 1.0):
        p = CartPoleParameters(stops=(-1.0, 1.0), restitution=share)
        motion = CartPoleMotion(p)
        before = CartPoleState(0.7, 1.0, 2.0, 1.5)
        after = motion.step(before, 0.0, 0.0)
        assert after.x_dot == pytest.approx(-share * 1.5)
        momenta = [CartPole(p).momentum(np.array(s[:2]), np.array(s[2:])) for s in (before, after)]
        assert momenta[0][0] == pytest.approx(momenta[1][0])
        lost = -float(np.diff(energy(motion, np.array([before, after])))[0])
        # The share of the speed is a share squared of what can be lost: e = 1 keeps all.
        inelastic = CartPoleMotion(CartPoleParameters(stops=(-1.0, 1.0)))
        most = -float(
            np.diff(energy(motion, np.array([before, inelastic.step(before, 0.0, 0.0)])))[0]
        )
        assert lost == pytest.approx((1 - share**2) * most, abs=1e-12)


def test_a_cart_pressed_against_its_stop_rests_there_until_it_is_pulled_off() -> None:
    p = CartPoleParameters(stops=(-0.5, 0.5), restitution=0.7, pivot_viscous=0.05)
    states = travel(CartPoleMotion(p), HANGING, [60.0] * 4000 + [-60.0] * 50)
    pressed = states[:4001]
    assert pressed[:, 1].max() == 0.5
    bounces = int((np.diff(np.sign(pressed[:, 3])) < 0).sum())
    assert 3 < bounces < 100
    assert (pressed[-1000:, 1] == 0.5).all()
    assert (pressed[-1000:, 3] == 0.0).all()
    assert pressed[-1, 0] != pressed[-2, 0], "the pole goes on swinging"
    assert states[-1, 1] < 0.49


@pytest.mark.parametrize("force", [3.98, 60.0])
def test_a_cart_that_a_stop_holds_is_a_cart_that_stands(force: float) -> None:
    # At 3.98 N a free cart would run off below the tilted pole and leave the pivot unloaded;
    # the stop does not let it.
    dry: dict[str, Any] = {"pivot_coulomb": 0.5, "pivot_viscous": 0.05}
    start = CartPoleState(0.2, 0.5, 0.0, 0.0)
    stopped = travel(CartPoleMotion(CartPoleParameters(stops=(-0.5, 0.5), **dry)), start, [force])
    seized = travel(CartPoleMotion(CartPoleParameters(cart_coulomb=STIFF, **dry)), start, [force])
    assert stopped[-1, 0] > 0.2, "the pole stands"
    np.testing.assert_array_equal(stopped, seized)


def test_rebounds_that_are_too_slow_to_matter_end() -> None:
    motion = CartPoleMotion(CartPoleParameters(stops=(-1.0, 1.0), restitution=0.5))
    slow, fast = (
        motion.step(CartPoleState(math.pi, 1.0, 0.0, speed), 0.0, 0.0) for speed in (1.9e-3, 2.1e-3)
    )
    assert slow.x_dot == 0.0
    assert fast.x_dot == pytest.approx(-1.05e-3)


def test_a_blow_frees_a_cart_that_friction_holds() -> None:
    motion = CartPoleMotion(CartPoleParameters(cart_coulomb=3.0))
    # Hanging, the mass takes no part in the first instant of a blow on the cart.
    struck = motion.strike(HANGING, cart=0.5)
    assert struck.x_dot == pytest.approx(0.5)
    jump = CartPole().jump(np.array([0.4, 0.0]), cart=0.5, tip=-0.2)
    other = motion.strike(CartPoleState(0.4, 0.0, 1.0, 2.0), cart=0.5, tip=-0.2)
    np.testing.assert_allclose(other[2:], np.array([1.0, 2.0]) + jump)
    states = travel(motion, struck, [0.0] * 3000)
    assert states[-1, 1] > 0.0
    assert (states[-1000:, 3] == 0.0).all()


def test_a_blow_into_the_stop_it_leans_on_is_thrown_back() -> None:
    motion = CartPoleMotion(CartPoleParameters(stops=(-1.0, 1.0), restitution=0.5))
    struck = motion.strike(CartPoleState(math.pi, 1.0, 0.0, 0.0), cart=2.0)
    assert travel(motion, struck, [0.0])[-1, 3] == pytest.approx(-0.5 * 2.0, rel=1e-2)


def test_a_step_too_long_for_its_bounces_is_cut_short() -> None:
    # Two thousand elastic bounces of a heavy cart in one step.
    p = CartPoleParameters(cart_mass=1000.0, stops=(-1e-3, 1e-3), restitution=1.0)
    motion = CartPoleMotion(p)
    states = travel(motion, CartPoleState(math.pi, 0.0, 0.0, 20.0), [0.0], 0.2)
    assert abs(states[1, 1]) == 1e-3
    assert states[1, 3] == 0.0
    assert np.diff(energy(motion, states))[0] < 0.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cart=st.sampled_from([0.0, 0.5, 5.0]),
    pivot=st.sampled_from([0.0, 0.01, 1.0]),
    breakaway=st.sampled_from([1.0, 1.5, 4.0]),
    restitution=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_it_always_arrives_inside_its_stops(
    seed: int, cart: float, pivot: float, breakaway: float, restitution: float
) -> None:
    p = CartPoleParameters(
        cart_coulomb=cart,
        pivot_coulomb=pivot,
        breakaway=breakaway,
        restitution=restitution,
        stops=(-0.05, 0.08),
    )
    states = travel(CartPoleMotion(p), HANGING, jolts(seed, 20, 10), 2e-3)
    assert np.isfinite(states).all()
    assert states[:, 1].min() >= -0.05
    assert states[:, 1].max() <= 0.08


def test_equal_calls_give_equal_bits() -> None:
    first, second = (travel(CartPoleMotion(DRY), HANGING, jolts(2, 40, 20)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_what_cannot_be_is_refused() -> None:
    motion = CartPoleMotion(CartPoleParameters(stops=(-1.0, 1.0)))
    with pytest.raises(MechanicsError, match="beyond its stops"):
        motion.step(CartPoleState(0.0, 1.1, 0.0, 0.0), 0.0, 1e-3)
    with pytest.raises(MechanicsError, match="not finite"):
        motion.step(HANGING, math.nan, 1e-3)
    with pytest.raises(MechanicsError, match="shorter steps"):
        motion.step(CartPoleState(0.0, 0.0, 1e200, 0.0), 0.0, 1.0)
    with pytest.raises(MechanicsError, match="pole_mass"):
        CartPoleMotion(CartPoleParameters(pole_mass=0.0))


@pytest.mark.parametrize("parameters", [DRY, CartPoleParameters(stops=(-0.3, 0.3))])
def test_many_steps_in_one_call_are_the_same_steps_to_the_bit(
    parameters: CartPoleParameters,
) -> None:
    motion = CartPoleMotion(parameters)
    forces = np.array(jolts(3, 60, 20, 30.0))
    stepwise = travel(motion, CartPoleState(0.2, 0.0, 0.0, 0.0), forces.tolist())
    states, calls = [CartPoleState(0.2, 0.0, 0.0, 0.0)], 0
    while (done := len(states) - 1) < len(forces):
        smooth = motion.glide(states[-1], forces[done : done + 50], 1e-3)
        states += [CartPoleState(*row) for row in smooth.tolist()]
        if not len(smooth):  # something happens in this step
            states.append(motion.step(states[-1], forces[done], 1e-3))
        calls += 1
    assert np.array(states).tobytes() == stepwise.tobytes()
    assert calls < len(forces) / 4
    assert motion.glide(states[0], np.array([math.nan]), 1e-3).shape == (0, 4)
