"""The plant against physics written out again, and against its own past."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError, FaultError
from hil.mechanics.cart_pole import CartPole, CartPoleParameters
from hil.mechanics.cart_pole_motion import CartPoleMotion, CartPoleState
from hil.messages.wire import Target
from sim.rigs.cart_pole_plant import CartPoleEvent, CartPolePlant, CartPolePlantSettings

HANGING = (math.pi, 0.0, 0.0, 0.0)
RIG = {"force_max": 20.0, "name": "not looked at"}


def plant(ideal: bool = False, seed: int = 0, **table: Any) -> CartPolePlant:
    settings = check(table, CartPolePlantSettings, "plant")
    return CartPolePlant(settings, rig=RIG, seed=seed, ideal=ideal)


def push(plant: CartPolePlant, time_us: int, force: float) -> float:
    return float(plant.write(time_us, Target.FORCE, 0, [force])[0])


def test_nothing_moves_before_the_first_force_and_then_the_pole_falls() -> None:
    held = plant(start=(0.2, 0.1, 0.0, 0.0))
    push(held, 0, 0.0)
    assert held.state(5_000_000) == (0.2, 0.1, 0.0, 0.0)
    push(held, 5_000_000, 1e-9)
    assert held.state(5_300_000).theta > 0.21
    free = plant(start=(0.2, 0.1, 0.0, 0.0), held=False)
    assert free.state(0).theta == 0.2
    assert free.state(300_000).theta == pytest.approx(held.state(5_300_000).theta, abs=1e-6)


def test_without_friction_a_free_swing_keeps_its_energy() -> None:
    swing = plant(start=(2.0, 0.0, 1.0, -0.5), held=False)
    energies = []
    for time_us in range(0, 3_000_000, 7_000):
        state = swing.state(time_us)
        swing.look(time_us, 1000, 1)
        q = np.array([state.theta, state.x])
        energies.append(CartPole().energy(q, np.array([state.theta_dot, state.x_dot])))
    assert np.ptp(energies) < 1e-6


def test_the_motor_lags_and_the_command_travels() -> None:
    """Hanging, the momentum of cart and pole is what the motor gave: known in closed form."""
    lag, delay, force = 0.004, 0.0025, 10.0
    driven = plant(start=HANGING, motor_lag=lag, delay=delay)
    push(driven, 1_000, force)
    for t in (0.0, 0.002, 0.0025, 0.003, 0.006, 0.02):
        state = driven.state(1_000 + round(t * 1e6))
        on = max(0.0, t - delay)
        expected = force * (on - lag * (1 - math.exp(-on / lag)))
        momentum = 2.0 * state.x_dot + 0.5 * math.cos(state.theta) * state.theta_dot
        # Hanging still, nothing else acts sideways on both together.
        assert momentum == pytest.approx(expected, abs=1e-9)
    immediate = plant(start=HANGING, motor_lag=lag, delay=delay, ideal=True)
    push(immediate, 1_000, force)
    state = immediate.state(11_000)
    momentum = 2.0 * state.x_dot + 0.5 * math.cos(state.theta) * state.theta_dot
    assert momentum == pytest.approx(force * 0.01, abs=1e-9)


def test_a_command_on_its_way_arrives_though_another_was_sent_after_it() -> None:
    driven = plant(start=HANGING, delay=0.005)
    push(driven, 0, 10.0)
    push(driven, 3_000, 0.0)
    state = driven.state(20_000)
    momentum = 2.0 * state.x_dot + 0.5 * math.cos(state.theta) * state.theta_dot
    assert momentum == pytest.approx(10.0 * 0.003, abs=1e-9)


def test_encoders_round_to_their_steps() -> None:
    table: dict[str, Any] = {"start": (0.1234567, 0.0123456, 0.0, 0.0), "angle_counts": 4096}
    ((angle, position),) = plant(**table, position_step=5e-5).look(0, 1000, 1)
    assert angle == pytest.approx(round(0.1234567 * 4096 / math.tau) * math.tau / 4096, abs=1e-15)
    assert position == pytest.approx(0.01235, abs=1e-15)
    assert plant(**table, position_step=5e-5, ideal=True).look(0, 1000, 1) == [
        (0.1234567, 0.0123456)
    ]


def test_noise_is_of_the_seed_and_of_time_alone() -> None:
    flaws: dict[str, Any] = {"angle_noise": 1e-3, "position_noise": 1e-4}
    one = plant(seed=3, **flaws).look(1_000, 1_000, 2000)
    again = plant(seed=3, **flaws)
    assert [again.look(t, 1_000, 1)[0] for t in range(1_000, 2_001_000, 1_000)] == one
    assert plant(seed=4, **flaws).look(1_000, 1_000, 2000) != one
    spread = np.std(one, axis=0)
    np.testing.assert_allclose(spread, [1e-3, 1e-4], rtol=0.1)
    assert plant(seed=3, ideal=True, **flaws).look(1_000, 1_000, 1) == [(0.0, 0.0)]


def test_a_write_takes_back_what_was_seen_ahead() -> None:
    table: dict[str, Any] = {
        "start": (0.3, 0.0, 0.0, 0.0),
        "motor_lag": 0.003,
        "delay": 0.0017,
        "held": False,
    }
    ahead, stepwise = plant(**table), plant(**table)
    begun_us = 0
    for write_us, force in ((3_400, 5.0), (21_000, -7.0), (21_000, 2.0), (40_999, 0.0)):
        ahead.look(begun_us, 1_000, 60)
        for time_us in range(begun_us, write_us + 1, 1_000):
            stepwise.look(time_us, 1_000, 1)
        begun_us = write_us
        assert push(ahead, write_us, force) == push(stepwise, write_us, force) == force
        assert ahead.events[-1] == stepwise.events[-1]
    assert ahead.look(41_000, 1_000, 20)[-1] == pytest.approx(
        stepwise.look(41_000, 1_000, 20)[-1], abs=1e-9
    )
    with pytest.raises(FaultError, match="backwards, from 40999 us to 39000 us"):
        ahead.look(39_000, 1_000, 1)


def test_looking_further_ahead_changes_no_bit() -> None:
    table: dict[str, Any] = {
        "start": (0.3, 0.0, 0.0, 0.0),
        "motor_lag": 0.003,
        "delay": 0.0017,
        "held": False,
    }
    far, near = plant(**table), plant(**table)
    for period in range(10):
        far_seen = far.look(period * 20_000 + 1_000, 1_000, 20)
        near_seen = [near.look(period * 20_000 + 1_000 * i, 1_000, 1)[0] for i in range(1, 21)]
        assert far_seen == near_seen
        force = 3.0 * (-1) ** period
        push(far, (period + 1) * 20_000, force)
        push(near, (period + 1) * 20_000, force)


def test_an_impulse_changes_momentum_by_its_size() -> None:
    """On the cart, J = Δ(∂L/∂ẋ); on the tip also, and about the pivot J l cos θ."""
    blows = ({"time": 0.01, "cart": 0.7}, {"time": 0.02, "tip": -0.4})
    hit = plant(start=HANGING, impulses=blows, parameters={"gravity": 0.0})
    assert hit.state(9_999) == HANGING

    def momentum(state: CartPoleState) -> np.ndarray:
        q, v = np.array(state[:2]), np.array(state[2:])
        return np.asarray(CartPole().momentum(q, v))

    np.testing.assert_allclose(momentum(hit.state(10_000)), [0.0, 0.7], atol=1e-12)
    before = hit.state(19_999)
    change = momentum(hit.state(20_000)) - momentum(before)
    np.testing.assert_allclose(change, [-0.4 * 0.5 * math.cos(before.theta), -0.4], atol=1e-4)


def test_a_mass_changes_at_its_time_and_no_earlier() -> None:
    """Before, between and after, each stretch is what a plant of those masses does from there."""
    free: dict[str, Any] = {"start": (0.3, 0.1, 0.0, -0.4), "held": False}
    changes = ({"time": 0.0205, "pole_mass": 1.5}, {"time": 0.01, "cart_mass": 1.5})
    changed = plant(changes=changes, **free)
    changed.look(0, 1_000, 1)
    state, at = CartPoleState(*free["start"]), 0
    for masses, until in (((1.0, 1.0), 10_000), ((1.5, 1.0), 20_500), ((1.5, 1.5), 50_000)):
        motion = CartPoleMotion(CartPoleParameters(cart_mass=masses[0], pole_mass=masses[1]))
        while at < until:
            step = min(1_000, until - at)
            state, at = motion.step(state, 0.0, step * 1e-6), at + step
        np.testing.assert_allclose(changed.state(at), state, rtol=1e-9)
    far, near = plant(changes=changes, **free), plant(changes=changes, **free)
    looks = [near.look(at, 1_000, 1)[0] for at in range(0, 51_000, 1_000)]
    assert far.look(0, 1_000, 51) == looks  # however far was looked ahead of it
    with pytest.raises(ConfigError, match=r"nothing changes at 1.0 s"):
        plant(changes=({"time": 1.0},))


def test_a_push_from_outside_is_a_force_like_any_other() -> None:
    free: dict[str, Any] = {"start": (0.3, 0.1, 0.0, 0.0), "held": False}
    pushed, driven, both = plant(push=2.0, **free), plant(**free), plant(push=-2.0, **free)
    push(driven, 0, 2.0)
    push(both, 0, 4.0)
    pushed.look(0, 1_000, 1)  # time begins
    assert pushed.state(500_000) == driven.state(500_000) == both.state(500_000)
    assert pushed.unloaded  # it is nobody's command


def test_a_stuck_encoder_says_its_last_reading_and_the_other_is_right() -> None:
    free: dict[str, Any] = {"start": (0.3, 0.0, 0.0, 0.0), "held": False, "angle_noise": 1e-4}
    fault = {"channel": "angle", "kind": "stuck", "begin": 0.02, "end": 0.03}
    seen = plant(faults=(fault,), **free).look(0, 1_000, 50)
    good = plant(**free).look(0, 1_000, 50)
    assert [x for _, x in seen] == [x for _, x in good]
    angles, right = [a for a, _ in seen], [a for a, _ in good]
    assert angles == right[:20] + [right[19]] * 10 + right[30:]


def test_what_is_stuck_does_not_depend_on_how_far_was_looked() -> None:
    fault = {"channel": "position", "kind": "stuck", "begin": 0.033}
    table: dict[str, Any] = {"start": (0.3, 0.0, 0.0, 0.0), "held": False, "faults": (fault,)}
    far, near = plant(**table), plant(**table)
    for period in range(5):
        start = period * 20_000
        push(far, start, period - 2.0)
        push(near, start, period - 2.0)
        seen = far.look(start + 1_000, 1_000, 40)[:20]  # half of it does not come to pass
        assert seen == [near.look(start + 1_000 * i, 1_000, 1)[0] for i in range(1, 21)]


def test_an_encoder_that_is_off_gives_no_reading() -> None:
    fault = {"channel": "position", "kind": "off", "begin": 0.001}
    (first, second) = plant(faults=(fault,)).look(0, 1_000, 2)
    assert first == (0.0, 0.0)
    assert second[0] == 0.0
    assert math.isnan(second[1])


def test_its_motor_saturates_and_its_record_says_what_was() -> None:
    seen: list[CartPoleEvent] = []
    settings = CartPolePlantSettings(start=HANGING)
    noted = CartPolePlant(settings, rig=RIG, watch=seen.append)
    unloaded = [noted.unloaded]
    assert push(noted, 5, 30.0) == 20.0
    unloaded.append(noted.unloaded)
    assert push(noted, 1_005, 0.0) == 0.0
    unloaded.append(noted.unloaded)
    assert unloaded == [True, False, True]
    assert [(event.time_us, event.force) for event in seen] == [(5, 20.0), (1_005, 0.0)]
    assert list(noted.events) == seen
    line = seen[1].line()
    assert (line["time_us"], line["max"], line["state"]) == (1_005, 0.0, list(seen[1].state))
    assert seen[1].state.x_dot > 0


@pytest.mark.parametrize(
    ("target", "offset", "values"),
    [
        (Target.STIFFNESS, 0, [1.0]),
        (Target.FORCE, 1, [1.0]),
        (Target.FORCE, 0, [1.0, 2.0]),
        (Target.FORCE, 0, [math.nan]),
    ],
)
def test_what_it_has_not_is_a_fault(target: Target, offset: int, values: list[float]) -> None:
    with pytest.raises(FaultError, match="force"):
        plant().write(0, target, offset, values)


def test_it_cannot_start_beyond_its_stops() -> None:
    with pytest.raises(ConfigError, match=r"start: the cart at 2.0 m is beyond its stops"):
        plant(start=(0.0, 2.0, 0.0, 0.0), parameters={"stops": (-1.0, 1.0)})
    with pytest.raises(ConfigError, match="seed: -1"):
        plant(seed=-1)
