"""The plant against a dense solve, and its converters, sensors and relaxation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hil.config import build
from hil.errors import ConfigError, FaultError
from hil.messages.wire import Target
from sim.rigs.spring_network_plant import PlantEvent, SpringNetworkPlant
from tests.unit.sim.rig import at_rest, shipped, some_loads, some_stiffness

LONG = 1_000_000  # us, a thousand time constants
FULL_SCALE = np.concatenate([np.tile([0.0006, 0.004], 12), np.full(28, 0.0015)])  # m, as shipped


def make(seed: int = 0, ideal: bool = False, **imperfections: Any) -> SpringNetworkPlant:
    """Return the shipped plant with nothing but the imperfections given."""
    config = shipped()
    assert config.board is not None
    table = config.board["plant"] | {"imperfections": imperfections}
    plant: SpringNetworkPlant = build(table, "board.plant", rig=config.rig, seed=seed, ideal=ideal)
    return plant


def test_it_comes_to_rest_where_a_dense_solve_says() -> None:
    plant = make()
    stiffness, load = some_stiffness(), some_loads(1)[0]
    np.testing.assert_array_equal(plant.write(0, Target.STIFFNESS, 0, stiffness), stiffness)
    np.testing.assert_array_equal(plant.write(0, Target.FORCE, 0, load), load)
    expected = at_rest(stiffness, load)[0]
    np.testing.assert_allclose(plant.sample(LONG), expected, rtol=0, atol=1e-15)


def test_it_relaxes_exponentially_from_one_equilibrium_to_the_next() -> None:
    plant = make()
    stiffness = some_stiffness()
    before, after = some_loads(2)
    plant.write(0, Target.STIFFNESS, 0, stiffness)
    plant.write(0, Target.FORCE, 0, before)
    plant.write(LONG, Target.FORCE, 0, after)
    start, end = at_rest(stiffness, np.array([before, after]))
    for elapsed in (0, 1, 500, 1000, 2500, 9000):
        expected = end + (start - end) * math.exp(-elapsed / 1000)  # settling_time is 1 ms
        np.testing.assert_allclose(plant.sample(LONG + elapsed), expected, rtol=0, atol=1e-15)


def test_a_change_on_the_way_starts_from_where_the_network_is() -> None:
    plant = make()
    first, second = some_loads(2)
    plant.write(0, Target.FORCE, 0, first)
    on_the_way = plant.sample(700)
    plant.write(700, Target.FORCE, 0, second)
    np.testing.assert_allclose(plant.sample(700), on_the_way, rtol=0, atol=1e-18)


def test_it_snaps_to_rest_once_the_residual_is_a_millionth_of_full_scale() -> None:
    plant = make()
    load = some_loads(1)[0]
    plant.write(0, Target.FORCE, 0, load)
    rest = plant.sample(LONG)
    peak = np.abs(rest / FULL_SCALE).max()
    snap_us = math.log(peak / 1e-6) * 1000
    assert np.abs(plant.sample(int(snap_us) - 2) - rest).max() > 0.9e-6 * 0.0006
    np.testing.assert_array_equal(plant.sample(int(snap_us) + 2), rest)


def test_after_an_unload_and_a_wait_it_is_at_zero_bit_for_bit() -> None:
    fresh, used = make(), make()
    for i, load in enumerate(some_loads(5)):
        used.write(i * 3000, Target.FORCE, 0, load)
    used.write(20_000, Target.FORCE, 0, -np.zeros(24))
    rest = used.sample(40_000)
    assert rest.tobytes() == np.zeros(52).tobytes()
    load = some_loads(1, seed=9)[0]
    for plant in (fresh, used):
        plant.write(50_000, Target.FORCE, 0, load)
    for elapsed in (0, 100, 20_000):
        after = fresh.sample(50_000 + elapsed), used.sample(50_000 + elapsed)
        assert after[0].tobytes() == after[1].tobytes()


def test_what_is_sampled_does_not_depend_on_samples_before() -> None:
    table: dict[str, Any] = {
        "sensor_noise": 0.01,
        "adc_bits": 12,
        "drift": 0.1,
        "sensor_gain": 0.01,
    }
    often, once = make(1, **table), make(1, **table)
    load = some_loads(1)[0]
    for plant in (often, once):
        plant.write(0, Target.FORCE, 0, load)
    for t in range(0, 20_000, 500):
        often.sample(t)
    assert often.sample(20_500).tobytes() == once.sample(20_500).tobytes()


def test_a_write_in_pieces_is_the_write_at_once() -> None:
    whole, pieces = make(), make()
    load, stiffness = some_loads(1)[0], some_stiffness()
    whole.write(5, Target.STIFFNESS, 0, stiffness)
    whole.write(5, Target.FORCE, 0, load)
    pieces.write(5, Target.STIFFNESS, 0, stiffness[:11])
    pieces.write(5, Target.STIFFNESS, 11, stiffness[11:])
    pieces.write(5, Target.FORCE, 10, load[10:])
    pieces.write(5, Target.FORCE, 0, load[:10])
    for t in (5, 300, LONG):
        np.testing.assert_array_equal(pieces.sample(t), whole.sample(t))


def test_actuators_are_quantised_and_saturate() -> None:
    plant = make(dac_bits=12)
    forces = np.array([0.0, 1e-5, 6e-5, 0.2, 5.0, -5.0])
    step = 0.2 / 2047
    np.testing.assert_allclose(
        plant.write(0, Target.FORCE, 0, forces), [0, 0, step, 0.2, 0.2, -0.2], atol=1e-15
    )
    stiffness = np.array([1.0, 68.75, 1000.0])
    applied = plant.write(0, Target.STIFFNESS, 2, stiffness)
    np.testing.assert_allclose(applied, [68.75, 68.75, 206.25], atol=1e-12)
    np.testing.assert_array_equal(plant.applied(Target.STIFFNESS)[2:5], applied)


def test_mismatch_multiplies_the_stiffness_that_was_applied() -> None:
    plants = [make(seed, stiffness_mismatch=0.05) for seed in (1, 1, 2)]
    stiffness, load = some_stiffness(), some_loads(1)[0]
    found = []
    for plant in plants:
        np.testing.assert_array_equal(
            plant.write(0, Target.STIFFNESS, 0, stiffness), stiffness
        )  # the actuator does not know of it
        plant.write(0, Target.FORCE, 0, load)
        found.append(plant.sample(LONG))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-6
    # The elongations tell the true stiffness: bond tensions balance the load either way.
    ideal = at_rest(stiffness, load)[0]
    assert 0.005 < np.abs(found[0] - ideal).max() / np.abs(ideal).max() < 0.2


def test_noise_has_the_deviation_asked_for_on_every_channel() -> None:
    plant = make(3, sensor_noise=0.01)
    readings = np.array([plant.sample(1000 * i) for i in range(4000)]) / FULL_SCALE
    assert np.abs(readings.mean(axis=0)).max() < 5 * 0.01 / math.sqrt(4000)
    np.testing.assert_allclose(readings.std(axis=0), 0.01, rtol=0.06)


def test_gain_and_drift_are_per_channel() -> None:
    load = some_loads(1)[0]
    true, gained, drifting = make(), make(4, sensor_gain=0.01), make(4, drift=0.02)
    for plant in (true, gained, drifting):
        plant.write(0, Target.FORCE, 0, load)
    hour = 3_600_000_000
    ratio = gained.sample(LONG) / true.sample(LONG)
    assert ratio.std() == pytest.approx(0.01, rel=0.3)
    moved = (drifting.sample(LONG + hour) - drifting.sample(LONG)) / FULL_SCALE
    assert moved.std() == pytest.approx(0.02, rel=0.3)
    halfway = (drifting.sample(LONG + hour // 2) - drifting.sample(LONG)) / FULL_SCALE
    np.testing.assert_allclose(halfway, moved / 2, atol=1e-12)


def test_sensors_saturate_and_ideal_ones_do_not() -> None:
    push = np.full(24, 0.2)
    clipped, free = make(adc_bits=12), make(ideal=True, adc_bits=12)
    for plant in (clipped, free):
        plant.write(0, Target.FORCE, 0, push)
    assert np.abs(free.sample(LONG)).max() > 0.004
    assert np.abs(clipped.sample(LONG) / FULL_SCALE).max() == 1.0


def test_readings_lie_on_the_levels_of_the_converter() -> None:
    plant = make(2, adc_bits=8, sensor_noise=0.01)
    plant.write(0, Target.FORCE, 0, some_loads(1)[0])
    codes = plant.sample(LONG) / FULL_SCALE * 127
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-9)
    assert len(np.unique(np.rint(codes))) > 10


def test_ideal_switches_every_imperfection_off_and_leaves_the_relaxation() -> None:
    flawed = make(
        7,
        ideal=True,
        adc_bits=4,
        dac_bits=4,
        stiffness_mismatch=0.1,
        sensor_noise=0.1,
        sensor_gain=0.1,
        drift=1.0,
    )
    load = some_loads(1)[0]
    flawed.write(0, Target.FORCE, 0, load)
    middle = np.full(28, (68.75 + 206.25) / 2)  # where the actuators stand when nobody set them
    rest = at_rest(middle, load)[0]
    np.testing.assert_allclose(flawed.sample(LONG), rest, rtol=0, atol=1e-15)
    np.testing.assert_allclose(flawed.sample(1000), rest * (1 - math.exp(-1)), atol=1e-15)


def test_it_keeps_its_own_record() -> None:
    seen: list[PlantEvent] = []
    config = shipped()
    assert config.board is not None
    plant: SpringNetworkPlant = build(
        config.board["plant"], "board.plant", rig=config.rig, ideal=True, watch=seen.append
    )
    unloaded = [plant.unloaded]
    plant.write(10, Target.FORCE, 3, [0.1, -0.15])
    unloaded.append(plant.unloaded)
    plant.write(20, Target.FORCE, 3, [0.0])
    plant.write(30, Target.FORCE, 0, np.zeros(24))
    assert [*unloaded, plant.unloaded] == [True, False, True]
    assert seen == list(plant.events)
    assert [(e.time_us, e.offset, e.largest) for e in seen] == [
        (10, 3, 0.15),
        (20, 3, 0.15),
        (30, 0, 0.0),
    ]
    assert seen[0].values == (0.1, -0.15)


@pytest.mark.parametrize(
    ("target", "offset", "values", "words"),
    [
        (Target.FORCE, 23, [0.0, 0.0], "FORCE 23 to 24 written"),
        (Target.STIFFNESS, 0, [math.nan], "not a finite number"),
        (Target.ELONGATION, 0, [0.0], "no actuators of target 4"),
    ],
)
def test_what_no_board_may_ask_is_a_fault(
    target: int, offset: int, values: list[float], words: str
) -> None:
    with pytest.raises(FaultError, match=words):
        make().write(0, target, offset, values)


def test_time_that_runs_backwards_is_a_fault() -> None:
    plant = make()
    plant.write(1000, Target.FORCE, 0, np.zeros(24))
    with pytest.raises(FaultError, match="backwards, from 1000 us to 999 us"):
        plant.sample(999)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed: -1"):
        make(-1)


def test_limits_the_wrong_way_round_are_refused() -> None:
    config = shipped(rig__stiffness=[200.0, 100.0])
    assert config.board is not None
    with pytest.raises(ConfigError, match=r"rig\.stiffness"):
        build(config.board["plant"], "board.plant", rig=config.rig)


def test_the_range_of_displacements_is_one_for_all_axes_or_one_for_each() -> None:
    config = shipped()
    assert config.board is not None
    for given, expected in ((0.002, [0.002, 0.002]), ([0.001, 0.002], [0.001, 0.002])):
        table = config.board["plant"] | {"displacement_range": given, "imperfections": {}}
        plant: SpringNetworkPlant = build(table, "board.plant", rig=config.rig)
        pull = np.full(24, 0.2)  # far out of every range
        plant.write(0, Target.FORCE, 0, pull)
        assert np.abs(plant.sample(LONG)[:24]).reshape(12, 2).max(axis=0).tolist() == expected
    table = config.board["plant"] | {"displacement_range": [0.001, 0.002, 0.003]}
    with pytest.raises(ConfigError, match="displacement_range: 3 values"):
        build(table, "board.plant", rig=config.rig)
