"""Converters, draws and noise against what they are defined to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.config import check
from hil.errors import ConfigError
from sim.imperfections import Imperfections, TimeNoise, drift_rates, quantise, spread

REALS = st.floats(-10, 10)


def test_every_default_is_ideal() -> None:
    flaws = Imperfections()
    assert all(getattr(flaws, name) == 0 for name in flaws.__struct_fields__)


@pytest.mark.parametrize(
    "table",
    [{"adc_bits": 1}, {"dac_bits": 25}, {"sensor_noise": -0.1}, {"noise": 0.1}],
)
def test_settings_that_mean_nothing_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"plant\.imperfections"):
        check(table, Imperfections, "plant.imperfections")


@given(REALS, st.integers(2, 24))
def test_a_symmetric_converter_is_odd_and_within_half_a_step(value: float, bits: int) -> None:
    high = 3.0
    step = high / (2 ** (bits - 1) - 1)
    up, down = quantise(np.array([value, -value]), -high, high, bits)
    assert up == -down
    assert abs(up - min(max(value, -high), high)) <= step / 2 * (1 + 1e-9)


@given(REALS, st.integers(2, 24))
def test_what_a_converter_gives_it_gives_again(value: float, bits: int) -> None:
    for low, high in ((-3.0, 3.0), (68.75, 206.25)):
        once = quantise(np.array([value * 20]), low, high, bits)
        np.testing.assert_array_equal(quantise(once, low, high, bits), once)


def test_levels_are_as_many_as_the_bits_say() -> None:
    values = np.linspace(-2, 2, 10_001)
    assert len(np.unique(quantise(values, -1.0, 1.0, 5))) == 31
    assert len(np.unique(quantise(values, 0.0, 1.0, 5))) == 32


def test_ends_and_zero_are_exact() -> None:
    for bits in range(2, 25):
        np.testing.assert_array_equal(
            quantise(np.array([-0.7, 0.0, 0.7]), -0.2, 0.2, bits), [-0.2, 0.0, 0.2]
        )
        np.testing.assert_array_equal(
            quantise(np.array([0.0, 300.0]), 68.75, 206.25, bits), [68.75, 206.25]
        )


def test_no_bits_saturate_only() -> None:
    values = np.array([-5.0, 0.123456789, 5.0])
    np.testing.assert_array_equal(quantise(values, -1.0, 1.0, 0), [-1.0, 0.123456789, 1.0])


def test_rounding_errors_of_a_converter_are_uniform_over_a_step() -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 100_000)
    step = 1 / (2**11 - 1)
    error = (quantise(values, -1.0, 1.0, 12) - values) / step
    assert np.abs(error).max() <= 0.5 + 1e-9
    assert error.std() == pytest.approx(1 / np.sqrt(12), rel=0.01)


def test_noise_is_standard_normal_and_white_over_time_and_channels() -> None:
    source = TimeNoise(seed=7, channels=52)
    noise = np.array([source.at(1_000 * i).copy() for i in range(4000)])
    count = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(count)
    assert noise.std() == pytest.approx(1, abs=4 / np.sqrt(2 * count))
    assert np.mean(noise**4) == pytest.approx(3, abs=0.1)
    between_times = np.mean(noise[1:] * noise[:-1])
    between_channels = np.mean(noise[:, 1:] * noise[:, :-1])
    assert abs(between_times) < 4 / np.sqrt(count)
    assert abs(between_channels) < 4 / np.sqrt(count)


def test_noise_depends_on_time_and_seed_and_not_on_what_was_asked_before() -> None:
    one, other = TimeNoise(3, 52), TimeNoise(3, 52)
    times = [0, 1, 2, 999, 1000, 1001, 20_000, 2**40, 2**63 + 5]
    forwards = {t: one.at(t).copy() for t in times}
    backwards = {t: other.at(t).copy() for t in reversed(times)}
    for t in times:
        np.testing.assert_array_equal(forwards[t], backwards[t])
    np.testing.assert_array_equal(TimeNoise(3, 52).each(times), [*forwards.values()])
    every = np.array([*forwards.values(), TimeNoise(4, 52).at(0)])
    assert len(np.unique(every)) == every.size


def test_a_draw_does_not_depend_on_how_many_channels_there_are() -> None:
    np.testing.assert_array_equal(TimeNoise(3, 10).at(50), TimeNoise(3, 52).at(50)[:10])


def test_spread_has_the_deviation_asked_for_and_stays_positive() -> None:
    factors = spread(5, 1, 0.02, 20_000)
    assert factors.std() == pytest.approx(0.02, rel=0.02)
    assert factors.mean() == pytest.approx(1, abs=0.001)
    assert (spread(5, 1, 0.5, 20_000) > 0).all()
    np.testing.assert_array_equal(spread(5, 1, 0.0, 28), np.ones(28))


def test_spread_is_one_draw_per_seed_and_stream() -> None:
    base = spread(5, 1, 0.01, 28)
    np.testing.assert_array_equal(base, spread(5, 1, 0.01, 28))
    assert not np.isin(base, spread(6, 1, 0.01, 28)).any()
    assert not np.isin(base, spread(5, 2, 0.01, 28)).any()


def test_drift_is_per_hour() -> None:
    rates = drift_rates(2, 0.01, 20_000)
    assert (rates * 3600).std() == pytest.approx(0.01, rel=0.02)
