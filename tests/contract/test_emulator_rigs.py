"""The contract of an emulator, held by every implementation there is.

On an instrument behind PyVISA, and owned by another process behind ZeroMQ: the same tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.errors import FaultError, LimitError, StateError
from hil.mechanics.gyro_geometry import lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.rigs.base import RigState
from hil.rigs.emulator_base import AbstractEmulatorRig, EmulatorMode
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.safety.limits import LimitedEmulator
from hil.types import Array
from tests.system.rigs import address, mirror, until
from tests.unit.instruments.emulators import coefficients, nudges, rig_of, server_of, shipped

Maker = Callable[[Path], contextlib.AbstractContextManager[AbstractEmulatorRig]]
NETWORK = GyroNetwork(lattice(3, 3, wrap="x"))
DRIVEN, RECORDED = np.array([0, 6]), np.array([2, 4])
VALUES = coefficients(NETWORK.spring_count)


@contextlib.contextmanager
def on_an_instrument(tmp_path: Path) -> Iterator[AbstractEmulatorRig]:
    config = shipped(ideal=True)
    with server_of(config) as server, LimitedEmulator(rig_of(config, server.url)) as rig:
        yield rig


@contextlib.contextmanager
def remote(tmp_path: Path) -> Iterator[AbstractEmulatorRig]:
    config = shipped(ideal=True)
    with mirror(config, tmp_path), RemoteEmulatorRig(address(config), client="test") as rig:
        yield rig


RIGS: list[Maker] = [on_an_instrument, remote]


@pytest.fixture(params=RIGS, ids=lambda make: make.__name__)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AbstractEmulatorRig]:
    with request.param(tmp_path) as made:
        yield made


def truth(values: Array, inputs: Array, initial: Array | None = None) -> Array:
    """Return the states (cases, steps + 1, n, 4) of the equations."""
    n = NETWORK.n
    mass, length, gamma, stiffness = np.split(values, [n, 2 * n, 3 * n])
    p = GyroParameters(mass, length, gamma, stiffness)
    cases, steps, _ = inputs.shape
    start = None if initial is None else initial.reshape(cases, n, 4)
    return NETWORK.adaptive(
        p, inputs.reshape(cases, steps, -1, 2), 0.05, inputs=DRIVEN, initial=start, tolerance=1e-7
    )


def test_its_life_goes_in_order(rig: AbstractEmulatorRig) -> None:
    with pytest.raises(StateError, match=r"is unconfigured; call configure\(\) first"):
        rig.activate()
    info = rig.configure()
    assert info.size == len(VALUES)
    with pytest.raises(StateError, match=r"is inactive; call activate\(\) first"):
        rig.run(nudges(1))
    rig.activate()
    with pytest.raises(StateError, match=r"set_coefficients\(\) first"):
        rig.run(nudges(1))
    rig.set_coefficients(VALUES)
    assert rig.run(nudges(1)).states.shape == (1, 21, len(info.channels))
    rig.deactivate()
    rig.activate()
    rig.run(nudges(1))
    states = [rig.state]
    rig.close()
    rig.close()
    states.append(rig.state)
    assert states == [RigState.ACTIVE, RigState.UNCONFIGURED]


def test_it_runs_the_equations_in_si(rig: AbstractEmulatorRig) -> None:
    info = rig.configure()
    rig.activate()
    applied = rig.set_coefficients(VALUES)
    np.testing.assert_allclose(applied, VALUES, rtol=1e-6)
    np.testing.assert_array_equal(rig.read_coefficients(), applied)
    inputs = nudges(3)
    initial = np.random.default_rng(1).uniform(-0.1, 0.1, (3, info.state))
    for start in (None, initial):
        expected = truth(applied, inputs, start)[:, :, RECORDED].reshape(3, 21, -1)
        traces = rig.run(inputs, start)
        np.testing.assert_allclose(traces.states, expected, atol=5e-4)
        coarse = rig.run(inputs, start, every=10)
        np.testing.assert_allclose(coarse.states, traces.states[:, ::10], atol=1e-9)


def test_the_time_of_a_run_is_known_before_and_holds(rig: AbstractEmulatorRig) -> None:
    info = rig.configure()
    assert info.time_scale == 1e-3
    rig.activate()
    rig.set_coefficients(VALUES)
    before = rig.status()
    predicted = info.run_time(7, 20)
    assert predicted == pytest.approx(7 * (1e-4 + 20 * 0.05 * 1e-3))
    traces = rig.run(nudges(7))
    assert traces.predicted == pytest.approx(predicted)
    assert traces.took == pytest.approx(predicted, rel=1e-3)
    assert traces.device_us - before.device_us == pytest.approx(1e6 * predicted, rel=1e-3)


def test_runs_and_cases_are_counted(rig: AbstractEmulatorRig) -> None:
    info = rig.configure()
    rig.activate()
    rig.set_coefficients(VALUES)
    first, second = rig.run(nudges(3)), rig.run(nudges(5))
    assert second.run == first.run + 1
    assert second.sequence == first.sequence + 3
    many = rig.run(nudges(info.max_cases + 3, steps=2))
    assert many.sequence == second.sequence + 5
    assert len(many.states) == info.max_cases + 3
    assert rig.status().mode is EmulatorMode.HALT


def test_limits_hold(rig: AbstractEmulatorRig) -> None:
    info = rig.configure()
    rig.activate()
    low, high = info.bounds()
    applied = rig.set_coefficients(np.where(np.arange(info.size) % 2, 1e6, -1e6))
    np.testing.assert_allclose(applied, np.where(np.arange(info.size) % 2, high, low), rtol=1e-6)
    with pytest.raises(LimitError, match="not a number"):
        rig.set_coefficients(np.full(info.size, np.nan))
    with pytest.raises(LimitError, match="shape"):
        rig.set_coefficients(np.zeros(3))
    rig.set_coefficients(VALUES)
    for bad in (1.001 * info.input_limit, np.nan, np.inf):
        inputs = nudges(2)
        inputs[1, 3, 2] = bad
        with pytest.raises(LimitError, match="case 1, step 3, force_x 7"):
            rig.run(inputs)
    for inputs, every in ((nudges(1)[0], 1), (nudges(1)[:, :, :3], 1), (nudges(1), 3)):
        with pytest.raises(LimitError):
            rig.run(inputs, every=every)
    with pytest.raises(LimitError, match="initial state"):
        rig.run(nudges(2), np.zeros((1, info.state)))
    assert rig.run(nudges(1)).run == 1  # nothing was run before
    assert rig.state is RigState.ACTIVE


def test_an_overload_halts_names_the_element_and_latches(rig: AbstractEmulatorRig) -> None:
    rig.configure()
    rig.activate()
    applied = rig.set_coefficients(VALUES)
    hard = nudges(4)
    hard[2, :, 0] = 20.0  # pushes gyroscope 1 over the edge, in case 2 alone
    with pytest.raises(FaultError, match=r"case 2 overloaded gyroscope 1"):
        rig.run(hard)
    assert rig.state is RigState.FAULT
    assert "gyroscope 1" in rig.fault
    with pytest.raises(FaultError, match=r"clear\(\)"):
        rig.run(nudges(1))
    rig.clear()
    assert rig.status().overload == ()
    np.testing.assert_array_equal(rig.read_coefficients(), applied)
    rig.activate()
    rig.run(nudges(4))


def test_a_stop_latches_until_it_is_cleared(rig: AbstractEmulatorRig) -> None:
    rig.configure()
    rig.activate()
    rig.set_coefficients(VALUES)
    rig.stop("hand on the button")
    rig.poll()
    until(lambda: rig.state is RigState.FAULT)
    for call in (rig.activate, lambda: rig.run(nudges(1))):
        with pytest.raises(FaultError, match=r"hand on the button.*clear\(\)"):
            call()
    rig.clear()
    assert (rig.state, rig.fault) == (RigState.INACTIVE, "")
    rig.activate()
    rig.run(nudges(1))


def test_calibration_finds_what_an_ideal_machine_was_told(rig: AbstractEmulatorRig) -> None:
    rig.configure()
    rig.activate()
    applied = rig.set_coefficients(VALUES)
    found = rig.calibrate()
    np.testing.assert_array_equal(found.applied, applied)
    np.testing.assert_allclose(found.effective, applied, rtol=2e-3)
    assert found.residual < 1e-3
    assert rig.run(nudges(1)).states.shape == (1, 21, 8)  # what is recorded is as before
