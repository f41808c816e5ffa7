"""What every predictor keeps: shape, equal bits, nothing of what it was not given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hil.training.predictors import Prediction, fcnn, lstm
from hil.types import Array

Predictor = Callable[[Array, int, int], Prediction]


def small_fcnn(x: Array, n: int, seed: int) -> Prediction:
    return fcnn(x, n, seed=seed, hidden=(16, 16), updates=400)


def small_lstm(x: Array, n: int, seed: int) -> Prediction:
    return lstm(x, n, seed=seed, units=12, window=5, updates=500)


@pytest.fixture(params=[small_fcnn, small_lstm])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    found: Predictor = request.param
    return found


def turning(n: int) -> Array:
    """Return a point on a circle about (5, 5), of radii 1 and 100, (n, 2)."""
    time = np.arange(n) * 0.1
    return np.stack([5 + np.cos(time), 5 + 100 * np.sin(time)], axis=1)


def test_states_from_the_first_on(predictor: Predictor) -> None:
    known = turning(80)
    kept = known.copy()
    found = predictor(known, 100, 1)
    assert found.states.shape == (100, 2)
    assert found.updates > 10
    assert np.array_equal(known, kept)
    off = (found.states[:80] - known) / known.std(axis=0)
    assert np.sqrt((off**2).mean()) < 0.1, "it does not follow what it was shown"


def test_equal_seeds_give_equal_bits_and_others_do_not(predictor: Predictor) -> None:
    one, again, other = (predictor(turning(60), 70, seed).states for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_unit_of_a_state_does_not_matter(predictor: Predictor) -> None:
    unit = np.array([1000.0, 0.001])
    plain, other = predictor(turning(60), 66, 3), predictor(turning(60) * unit, 66, 3)
    if predictor is small_lstm:  # L-BFGS follows rounding
        np.testing.assert_allclose(other.states / unit, plain.states, rtol=1e-6)
    assert other.states.shape == plain.states.shape


def test_a_predictor_goes_on_with_what_it_was_shown() -> None:
    """A circle goes on being one for the window of states, not for the time alone."""
    truth = turning(120)
    found = small_lstm(truth[:100], 120, 0).states
    off = (found[100:] - truth[100:]) / truth.std(axis=0)
    assert np.sqrt((off**2).mean()) < 0.3
    np.testing.assert_allclose(found[:5], truth[:5], rtol=1e-12)  # the window it begins with
