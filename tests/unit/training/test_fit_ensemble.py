"""Intervals of an ensemble cover what they say, on samples nobody has seen."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.mechanics.multibody.double_pendulum import DoublePendulum
from hil.models.ensemble import EnsembleModel
from hil.models.fnode import FnodeSettings
from hil.training.fit_ensemble import EnsembleSettings, coverage, fit_ensemble
from hil.training.flow import Samples

NETWORK = FnodeSettings(nq=2, nu=0, angles=(0, 1), hidden=(16, 16), skip=False)


def swings(count: int, seed: int, wide: float = 1.0) -> Samples:
    """Return accelerations of a double pendulum with noise, at random states."""
    random = np.random.default_rng(seed)
    q = random.uniform(-wide, wide, (count, 2))
    v = random.normal(0.0, wide, (count, 2))
    a = DoublePendulum().acceleration(q, v, np.zeros(2))
    return Samples(q, v, np.zeros((count, 0)), a + 0.05 * random.normal(size=a.shape))


@pytest.fixture(scope="module")
def model() -> EnsembleModel:
    return fit_ensemble(EnsembleSettings(network=NETWORK), swings(400, 1), seed=1)


def test_ninety_percent_cover_ninety_percent(model: EnsembleModel) -> None:
    found = coverage(model, swings(3000, 2))
    assert ((found > 0.85) & (found < 0.95)).all(), found
    low, high = model.interval(*swings(200, 3)[:3])
    spread = swings(200, 3).a.std(axis=0)
    assert ((high - low).mean(axis=0) < 0.5 * spread).all(), "wide enough to cover anything"


def test_outside_the_data_the_interval_widens(model: EnsembleModel) -> None:
    inside, outside = swings(200, 5), swings(200, 6, wide=2.5)
    widths = [np.diff(model.interval(*s[:3]), axis=0).mean() for s in (inside, outside)]
    assert widths[1] > 2 * widths[0]


def test_too_few_to_calibrate_are_refused() -> None:
    with pytest.raises(ConfigError, match="20 samples, 6 of them to calibrate on"):
        fit_ensemble(EnsembleSettings(network=NETWORK), swings(20, 1), seed=0)
