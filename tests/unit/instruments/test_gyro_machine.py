"""The analog machine: exact without errors, and with them as far off as theory says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hil.mechanics.gyro_geometry import GyroGeometry, lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import Array
from sim.instruments.gyro_machine import AnalogErrors, GyroMachine
from sim.instruments.machine import Batch, MachineError, Scales

GEOMETRY = lattice(4, 4)
NETWORK = GyroNetwork(GEOMETRY)
ONE = GyroGeometry(np.zeros((1, 2)), np.zeros((0, 2), dtype=np.int64))
SCALES = Scales(position=1.0, velocity=4.0, force=10.0, time=1e-3)


def parameters(seed: int = 0) -> GyroParameters:
    random = np.random.default_rng(seed)
    return GyroParameters(
        random.uniform(0.5, 2.0, 16), random.uniform(0.5, 2.0, 16), random.normal(0.0, 1.0, 16),
        random.uniform(5.0, 20.0, NETWORK.spring_count),
    )  # fmt: skip


def batch(steps: int = 40, cases: int = 3, run: int = 1, device_us: int = 0) -> Batch:
    random = np.random.default_rng(7)
    return Batch(
        parameters(), SCALES, np.array([0, 5]), random.uniform(-0.1, 0.1, (cases, steps, 2, 2)),
        np.zeros((cases, 16, 4)), 0.05, run, 0, device_us,
    )  # fmt: skip


def played(errors: AnalogErrors, what: Batch, seed: int = 1, trim: bool = False) -> Array:
    machine = GyroMachine(errors, seed)
    machine.wire(GEOMETRY)
    if trim:
        machine.trim()
    machine.begin(what)
    return np.stack([machine.advance() for _ in range(what.nudges.shape[1])], axis=1)


def distance(a: Array, b: Array) -> float:
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


def test_without_errors_it_is_the_equation() -> None:
    what = batch()
    unit = np.array([1.0, 1.0, 4.0, 4.0])
    truth = NETWORK.adaptive(what.parameters, 10.0 * what.nudges, 0.05, inputs=what.driven)
    assert distance(played(AnalogErrors(), what) * unit, truth[:, 1:]) < 2e-4


@pytest.mark.parametrize("product", [300.0, 1000.0])  # GBW·τ
def test_a_lag_is_that_of_poles_in_the_integrators(product: float) -> None:
    """One gyroscope with its poles as states of their own, integrated by a stiff solver."""
    delta = 1.0 / (2.0 * np.pi * product)
    p = GyroParameters(1.0, 1.0, 0.8, np.zeros(0), drag=0.05).broadcast(1, 0)
    network = GyroNetwork(ONE)

    def slope(_: float, x: Array) -> Array:
        q, v, dq, dv = x[:2], x[2:4], x[4:6], x[6:8]
        a = network.acceleration(p, q[None], v[None])[0]
        return np.concatenate((dq, dv, (v - dq) / delta, (a - dv) / delta))

    start = np.array([0.3, 0.0, 0.0, 0.5])
    full = np.concatenate((start, np.zeros(4)))  # OP begins from rest
    times = np.linspace(0.0, 10.0, 201)[1:]
    truth = solve_ivp(slope, (0.0, 10.0), full, method="BDF", t_eval=times, rtol=1e-8, atol=1e-10)
    unit = np.array([1.0, 1.0, 4.0, 4.0])
    found = {}
    for name, bandwidth in (("ideal", 0.0), ("lagging", product * 1000.0)):
        machine = GyroMachine(AnalogErrors(gain_bandwidth=bandwidth, loading=False), 0)
        machine.wire(ONE)
        machine.begin(
            Batch(p, SCALES, np.array([0]), np.zeros((1, 200, 1, 2)), (start / unit)[None, None],
                  0.05, 1, 0, 0)
        )  # fmt: skip
        found[name] = np.stack([machine.advance()[0, 0] for _ in range(200)]) * unit
    with_poles = truth.y[:4].T
    error = distance(with_poles, found["ideal"])
    predicted = distance(found["lagging"], found["ideal"])
    assert 1 / 1.2 < predicted / error < 1.2
    assert distance(found["lagging"], with_poles) < 0.25 * error


def test_the_error_falls_with_bandwidth_and_with_the_multipliers_pole() -> None:
    ideal = played(AnalogErrors(), batch())
    for part in (AnalogErrors(gain_bandwidth=5e5), AnalogErrors(multiplier_pole=5e5)):
        better = AnalogErrors(
            gain_bandwidth=4 * part.gain_bandwidth, multiplier_pole=4 * part.multiplier_pole
        )
        slow, fast = (distance(played(errors, batch()), ideal) for errors in (part, better))
        assert 3.0 < slow / fast < 5.0  # as 1/f


def test_mismatch_is_a_factor_on_each_coefficient_drawn_once() -> None:
    errors = AnalogErrors(mismatch=0.01)
    first = played(errors, batch())
    np.testing.assert_array_equal(first, played(errors, batch(run=2)))
    assert 1e-3 < distance(first, played(AnalogErrors(), batch())) < 0.2
    assert distance(first, played(errors, batch(), seed=2)) > 1e-3


def test_noise_depends_on_seed_and_run_alone() -> None:
    errors = AnalogErrors(noise=1e-3)
    first = played(errors, batch())
    np.testing.assert_array_equal(first, played(errors, batch()))
    assert distance(first, played(errors, batch(run=2))) > 1e-4
    assert distance(first, played(errors, batch(), seed=2)) > 1e-4
    rest = Batch(
        parameters(), SCALES, np.array([0]), np.zeros((2000, 1, 1, 2)), np.zeros((2000, 16, 4)),
        0.05, 1, 0, 0,
    )  # fmt: skip
    assert played(errors, rest).std() == pytest.approx(1e-3, rel=0.02)


def test_offsets_move_the_integrators_until_they_are_trimmed() -> None:
    ideal = played(AnalogErrors(), batch())
    errors = AnalogErrors(offset=1e-2)
    before = distance(played(errors, batch()), ideal)
    assert before > 0.01
    assert distance(played(errors, batch(), trim=True), ideal) < 0.05 * before


def test_coefficients_drift_with_the_hours() -> None:
    ideal, errors = played(AnalogErrors(), batch()), AnalogErrors(drift=0.01)
    at = [distance(played(errors, batch(device_us=h * 3_600_000_000)), ideal) for h in (0, 1, 2)]
    assert at[0] == 0.0
    assert 1.6 < at[2] / at[1] < 2.4


def test_integrators_clip_and_nothing_is_ever_not_a_number() -> None:
    what = batch(steps=80)
    hard = Batch(
        what.parameters,
        SCALES,
        what.driven,
        np.sign(what.nudges),
        what.initial + 0.9,
        0.05,
        1,
        0,
        0,
    )
    states = played(AnalogErrors(saturation=1.1), hard)
    assert np.isfinite(states).all()
    assert np.abs(states).max() == pytest.approx(1.1)


def test_what_cannot_be_followed_is_refused() -> None:
    machine = GyroMachine(AnalogErrors(), 0)
    with pytest.raises(MachineError, match="no network"):
        machine.begin(batch())
    machine.wire(GEOMETRY)
    stiff = GyroParameters(1e-6, 1.0, 0.0, 50.0)
    what = batch()
    with pytest.raises(MachineError, match="too fast"):
        machine.begin(Batch(stiff, SCALES, what.driven, what.nudges, what.initial, 0.05, 1, 0, 0))
