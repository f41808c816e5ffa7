"""The calibrated twin: it asks for a calibration when the rig has drifted, not otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.calibrated import SpringCalibration
from hil.rigs.twin import WINDOW, SpringNetworkTwin
from hil.types import Array
from tests.unit.rigs.calibrations import GEOMETRY, RANGE, record
from tests.unit.sim.rig import at_rest

NETWORK = SpringNetwork.from_geometry(GEOMETRY)
NOISE = 0.01 / np.sqrt(8) * RANGE  # of a load case
Change = Callable[[Array, Array], tuple[Array, Array]]  # stiffness, gain


def watched(windows: int, change: Change, zero: Array | float = 0.0, seed: int = 0) -> str:
    """Return what a twin says after load cases on a rig that is another one by now."""
    random = np.random.default_rng(seed)
    twin = SpringNetworkTwin(NETWORK, SpringCalibration(record(), 24, 28), samples=8)
    for _ in range(windows * WINDOW // 32):
        k = random.uniform(90.0, 180.0, 28)
        loads = random.uniform(-0.01, 0.01, (32, 24))
        true, gain = change(k, np.ones(52))
        reading = gain * at_rest(true, loads) + zero + NOISE * random.standard_normal((32, 52))
        reading = np.clip(reading, -RANGE, RANGE)
        twin.residual(k, loads, reading[:, 24:], reading[:, :24])
    return twin.recalibrate


def one(values: Array, at: int, factor: float) -> Array:
    found = values.copy()
    found[at] *= factor
    return found


def test_noise_alone_asks_for_nothing() -> None:
    for seed in range(5):
        assert watched(2, lambda k, g: (k, g), seed=seed) == ""


@pytest.mark.parametrize(
    ("change", "zero", "words"),
    [
        (lambda k, g: (k, one(g, 33, 1.04)), 0.0, "elongation of bond 10 reads"),
        (lambda k, g: (k, g), 0.02 * RANGE[3] * np.eye(52)[3], "node 3 along y reads .* at rest"),
        (lambda k, g: (one(k, 9, 0.9), g), 0.0, "run `hil calibrate`"),
    ],
    ids=["gain", "zero", "stiffness"],
)
def test_a_drift_asks_for_a_calibration(change: Change, zero: Array, words: str) -> None:
    said = watched(1, change, zero)
    assert "\n" not in said
    assert re.search(words, said), said


def test_a_small_change_and_a_sensor_at_its_end_ask_for_nothing() -> None:
    assert watched(2, lambda k, g: (k, one(g, 33, 1.004))) == ""
    twin = SpringNetworkTwin(NETWORK, SpringCalibration(record(), 24, 28), samples=8)
    random = np.random.default_rng(0)
    for _ in range(WINDOW // 32):
        loads = random.uniform(-0.2, 0.2, (32, 24))  # far beyond the sensors
        reading = np.clip(at_rest(np.full(28, 100.0), loads), -RANGE, RANGE)
        twin.residual(np.full(28, 100.0), loads, reading[:, 24:], reading[:, :24])
    assert twin.recalibrate == ""


def test_without_a_calibration_it_follows_nothing() -> None:
    twin = SpringNetworkTwin(NETWORK)
    loads = np.full((WINDOW, 24), 0.01)
    e = at_rest(np.full(28, 100.0), loads)[:, 24:]
    assert twin.residual(np.full(28, 100.0), loads, 1.1 * e) == pytest.approx(0.1)
    assert twin.recalibrate == ""
