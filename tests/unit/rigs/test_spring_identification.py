"""Identification against readings made by a dense solve: what can be known, and how well."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import RunError
from hil.mechanics.finite_springs import FiniteSpringNetwork
from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.spring_identification import (
    Identified,
    Prior,
    Readings,
    Reference,
    identify,
    levels,
    powers,
    predict,
)
from hil.types import Array
from tests.unit.sim.rig import at_rest

NETWORK = SpringNetwork.from_geometry(triangular_lattice(4))
LOW, HIGH = 68.75, 206.25
CURVE = powers(LOW, HIGH, 1)
LARGEST = np.full(52, 0.01)
NOISE = np.concatenate([np.full(24, 4e-6), np.full(28, 2e-6)])


class Truth:
    """A rig that is not what it says."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.gain = np.exp(0.1 * random.standard_normal(52))
        self.mismatch = np.exp(0.05 * random.standard_normal(28))
        self.zero = 1e-5 * random.standard_normal(52)
        self.drift = 1e-6 * random.standard_normal(52)
        self.random = random

    def measure(self, settings: int, cases: int, noise: Array | float) -> list[Readings]:
        found = []
        for number in range(settings):
            command = self.random.uniform(LOW, HIGH, 28)
            loads = self.random.uniform(-0.05, 0.05, (cases, 24))
            time = np.asarray(number * 10.0 + 0.03 * np.arange(cases), dtype=np.float64)
            reading = self.gain * at_rest(command * self.mismatch, loads)
            reading += self.zero + self.drift * time[:, None]
            reading += noise * self.random.standard_normal(reading.shape)
            found.append(Readings(command, loads, reading, time))
        return found

    def stiffness_error(self, found: Identified) -> Array:
        command = np.full(28, 150.0)
        k = command + (found.correction * CURVE(command)).sum(0)
        return np.asarray(k / (command * self.mismatch) - 1.0)


def known(truth: Truth, deviation: float = 1e-6) -> Prior:
    return Prior(reference=Reference(5, float(truth.gain[5]), deviation))


def test_without_noise_everything_is_found_once_one_length_is_known() -> None:
    truth = Truth()
    measured = truth.measure(4, 40, 0.0)
    found = identify(NETWORK, measured, CURVE, np.zeros(52), LARGEST, known(truth))
    np.testing.assert_allclose(found.gain, truth.gain, rtol=3e-6)
    assert np.abs(truth.stiffness_error(found)).max() < 3e-6
    np.testing.assert_allclose(found.drift, truth.drift, atol=1e-10)
    np.testing.assert_allclose(found.zero, truth.zero + truth.drift * found.since, atol=1e-9)


def test_forces_alone_leave_one_scale_and_nothing_else() -> None:
    truth = Truth(1)
    command, loads = np.full(28, 120.0), truth.random.uniform(-0.05, 0.05, (5, 24))
    longer = 1.3  # lengths times this, gains and stiffness over it: the same readings
    np.testing.assert_allclose(
        truth.gain * at_rest(command, loads),
        truth.gain / longer * at_rest(command / longer, loads),
        rtol=1e-12, atol=1e-18,
    )  # fmt: skip
    found = identify(NETWORK, truth.measure(4, 40, 0.0), CURVE, np.zeros(52), LARGEST, Prior())
    off = found.gain / truth.gain
    assert off.std() < 1e-6
    assert np.abs(truth.stiffness_error(found) - (off.mean() - 1.0)).max() < 1e-5
    # Its size: what 52 gains to 10 % and the mean level of 28 bonds to 5 % say together.
    assert abs(off.mean() - 1.0) < 4 * found.scale_deviation
    expected = (52 / 0.1**2 + 28 / 0.05**2) ** -0.5
    assert 0.9 * expected < found.scale_deviation < 1.1 * expected


def test_deviations_are_honest_under_noise() -> None:
    z_gain, z_stiffness, chi = [], [], []
    for seed in range(4):
        truth = Truth(seed)
        measured = truth.measure(4, 60, NOISE)
        found = identify(NETWORK, measured, CURVE, NOISE, LARGEST, known(truth))
        z_gain.append((found.gain - truth.gain) / found.gain_deviation)
        curve = np.stack([truth.mismatch - 1, (truth.mismatch - 1) * (HIGH - LOW) / (HIGH + LOW)])
        z_stiffness.append((found.correction - curve) / found.correction_deviation)
        chi.append(found.chi_square)
    for z in (z_gain, z_stiffness):
        assert 0.6 < float(np.sqrt(np.mean(np.square(z)))) < 1.4
    assert abs(np.mean(chi) - 1.0) < 0.02


def test_other_readings_are_predicted_within_their_noise() -> None:
    truth = Truth(7)
    found = identify(NETWORK, truth.measure(3, 60, NOISE), CURVE, None, LARGEST, Prior())
    np.testing.assert_allclose(found.noise, NOISE, rtol=0.35)
    fresh = predict(NETWORK, found, truth.measure(2, 60, NOISE), CURVE, LARGEST)
    assert abs(fresh.chi_square - fresh.expected) < 4 * fresh.spread
    assert 1.0 < fresh.expected < 1.2  # parameters are not known for nothing
    truth.mismatch[3] *= 1.05  # a spring that has changed since is seen
    worn = predict(NETWORK, found, truth.measure(2, 60, NOISE), CURVE, LARGEST)
    assert worn.chi_square > worn.expected + 10 * worn.spread


def test_levels_follow_a_curve_that_is_no_line() -> None:
    truth = Truth(2)
    values = np.array([70.0, 130.0, 200.0])
    measured = []
    for shift in range(3):
        level = (np.arange(28) + shift) % 3
        bend = np.array([0.02, -0.03, 0.04])[level]
        command, loads = values[level], truth.random.uniform(-0.05, 0.05, (40, 24))
        reading = truth.gain * at_rest(command * (1 + bend), loads)
        measured.append(Readings(command, loads, reading, np.arange(40.0)))
    found = identify(NETWORK, measured, levels(values), np.zeros(52), LARGEST, known(truth))
    np.testing.assert_allclose(found.correction.mean(1), [0.02, -0.03, 0.04], atol=1e-5)
    assert found.correction.std(1).max() < 1e-5


def test_readings_at_the_end_of_a_sensor_do_not_count() -> None:
    truth = Truth(3)
    measured = truth.measure(3, 60, 0.0)
    end = float(np.quantile(np.abs(measured[0].reading[:, :24]), 0.9))
    largest = np.concatenate([np.full(24, 0.999 * end), np.full(28, 0.01)])
    for group in measured:
        np.clip(group.reading[:, :24], -end, end, out=group.reading[:, :24])
    found = identify(NETWORK, measured, CURVE, np.zeros(52), largest, known(truth))
    np.testing.assert_allclose(found.gain, truth.gain, rtol=1e-5)
    with pytest.raises(RunError, match="no reading is inside its range"):
        identify(NETWORK, measured, CURVE, np.zeros(52), np.full(52, 1e-12), Prior())


def test_springs_that_turn_know_the_length_scale() -> None:
    truth, exact = Truth(4), FiniteSpringNetwork.from_geometry(triangular_lattice(4))
    measured = []
    for shift in range(2):
        command = truth.random.uniform(90.0, 180.0, 28)
        loads = truth.random.uniform(-0.1, 0.1, (12, 24))
        found = exact.settle(command * truth.mismatch, loads)
        x = np.concatenate([found.displacement, found.elongation], axis=1)
        reading = truth.gain * x + NOISE * truth.random.standard_normal(x.shape)
        measured.append(Readings(command, loads, reading, 10.0 * shift + np.arange(12.0)))
    known = identify(exact, measured, CURVE, NOISE, 5 * LARGEST, Prior(drifts=False))
    assert known.scale_deviation < 0.002  # forces on a linear network: 0.0078
    assert abs(np.log(known.gain / truth.gain).mean()) < 4 * known.scale_deviation
    assert 0.7 < known.chi_square < 1.3
