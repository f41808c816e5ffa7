"""What can go wrong between an emulator and its instrument, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hil.errors import (
    ConfigError,
    FaultError,
    HilError,
    LimitError,
    LinkError,
    SchemaError,
    StateError,
)
from hil.rigs.base import RigState
from hil.rigs.emulator import EmulatorRig
from hil.types import Array
from sim.instruments.scpi import Call
from sim.instruments.server import InstrumentServer
from tests.unit.instruments.emulators import coefficients, nudges, rig_of, server_of, shipped

Pair = tuple[EmulatorRig, InstrumentServer]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A rig that is ready to run, and its instrument."""
    config = shipped()
    with server_of(config) as server, rig_of(config, server.url) as rig:
        ready(rig)
        yield rig, server


@pytest.fixture
def slow() -> Iterator[Pair]:
    """The same on a machine that takes its time: half a second for each case."""
    config = shipped(clock="wall", ideal=True, rig__time_scale=0.5, rig__timeout=0.5)
    with server_of(config) as server, rig_of(config, server.url) as rig:
        ready(rig)
        yield rig, server


def ready(rig: EmulatorRig) -> Array:
    rig.configure()
    rig.activate()
    return rig.set_coefficients(coefficients(rig.network.spring_count))


def meanwhile(rig: EmulatorRig, action: Callable[[], object]) -> HilError:
    """Do something while a run is under way; return how the run ended."""
    timer = threading.Timer(0.3, action)
    timer.start()
    try:
        with pytest.raises(HilError) as error:
            rig.run(nudges(60))
    finally:
        timer.join()
    assert "\n" not in str(error.value)
    return error.value


def test_pulling_the_socket_in_a_run_is_a_latched_fault(slow: Pair) -> None:
    rig, server = slow
    before = rig.run(nudges(1))
    error = meanwhile(rig, server.drop)
    assert isinstance(error, LinkError)
    assert (rig.state, rig.fault) == (RigState.FAULT, str(error))
    with pytest.raises(FaultError, match=r"clear\(\)"):
        rig.run(nudges(1))
    rig.clear()
    assert rig.state is RigState.INACTIVE
    rig.activate()
    after = rig.run(nudges(1))  # its coefficients are still there
    assert after.run == before.run + 2
    np.testing.assert_array_equal(after.states, before.states)


def test_a_run_stops_when_it_is_told_to(slow: Pair) -> None:
    rig, server = slow
    error = meanwhile(rig, lambda: rig.stop("hand on the button"))
    assert isinstance(error, FaultError)
    assert rig.fault == "hand on the button"
    rig.clear()
    rig.activate()
    assert rig.run(nudges(1)).took >= 0.5 * 20 * 0.05
    assert server.instrument.device_us > 0


def test_a_run_on_the_wall_clock_takes_its_time(slow: Pair) -> None:
    rig, _ = slow
    started = time.monotonic()
    traces = rig.run(nudges(1))
    assert time.monotonic() - started >= traces.predicted
    assert traces.predicted == pytest.approx(0.5 * 20 * 0.05 + 1e-4)
    assert traces.took >= traces.predicted - 1e-5


def test_somebody_at_the_instrument_ends_the_run(slow: Pair) -> None:
    rig, server = slow
    instrument = server.instrument
    error = meanwhile(rig, lambda: instrument.answer([Call("MODE", ("IC",))]))
    assert isinstance(error, FaultError)
    assert "somebody at the instrument" in str(error)


def test_a_bad_command_is_refused_and_nothing_is_latched(pair: Pair) -> None:
    rig, _ = pair
    for command, kind in (
        ("FOO:BAR 3", SchemaError),
        ("RUN:STEP", SchemaError),
        ("RUN:STEP fast", SchemaError),
        ("RUN:STEP -1", LimitError),
        ("RUN:BATC 10,7,3", LimitError),
        ("MODE OP", StateError),
    ):
        with pytest.raises(kind, match="refused"):
            rig.instrument.command(command)
    assert rig.state is RigState.ACTIVE
    rig.run(nudges(2))


@pytest.mark.parametrize("size", [3, 400])
def test_a_block_of_the_wrong_length_is_refused_whole(pair: Pair, size: int) -> None:
    rig, _ = pair
    applied = rig.read_coefficients()
    with pytest.raises(LinkError, match="Invalid block data"):
        rig.instrument.command("COEF:DATA MASS", b"x" * size)
    np.testing.assert_array_equal(rig.read_coefficients(), applied)
    rig.run(nudges(2))


def test_a_block_that_ends_early_costs_the_connection(pair: Pair) -> None:
    rig, _ = pair
    resource = rig.link._resource
    assert resource is not None
    resource.write_raw(b"COEF:DATA MASS,#236abc\n")  # says 36, sends 4
    with pytest.raises(LinkError):
        rig.status()
    assert rig.state is RigState.FAULT
    rig.clear()
    rig.activate()
    rig.run(nudges(2))


def test_an_instrument_that_restarted_has_forgotten(pair: Pair) -> None:
    rig, server = pair
    url = server.url
    port = int(url.split("::")[2])
    server.close()
    with pytest.raises(LinkError):
        rig.run(nudges(1))
    with pytest.raises(LinkError, match="cannot be reached"):
        rig.clear()
    assert rig.state is RigState.FAULT
    config = shipped(board__port=port)
    with server_of(config) as again:
        assert again.url == url
        rig.clear()
        rig.activate()
        with pytest.raises(StateError, match=r"set_coefficients\(\) first"):
            rig.run(nudges(1))
        rig.set_coefficients(coefficients(rig.network.spring_count))
        assert rig.run(nudges(1)).run == 1
        rig.close()


def test_an_idle_rig_notices(pair: Pair) -> None:
    rig, server = pair
    rig.poll()
    assert not rig.fault
    server.drop()
    end = time.monotonic() + 10.0
    while not rig.fault and time.monotonic() < end:
        rig.poll()
        time.sleep(0.01)
    assert "instrument TCPIP" in rig.fault


def test_the_wrong_instrument_is_refused() -> None:
    config = shipped(rig__serial_number="OTHER")
    with (
        server_of(config) as server,
        rig_of(config, server.url) as rig,
        pytest.raises(ConfigError, match="SIM-0001"),
    ):
        rig.configure()


def test_overloads_are_flagged_case_by_case_where_they_do_not_halt() -> None:
    config = shipped(ideal=True, rig__halt_on_overload=False)
    with server_of(config) as server, rig_of(config, server.url) as rig:
        ready(rig)
        hard = nudges(4)
        hard[2, :, 0] = 20.0
        traces = rig.run(hard)
        np.testing.assert_array_equal(traces.overloaded, [0, 0, 1, 0])
        assert "gyroscope 1" in traces.overload
        assert rig.state is RigState.ACTIVE
        assert rig.status().overload == traces.overload  # until it is cleared


def test_coefficients_are_on_the_grid_of_their_bits(pair: Pair) -> None:
    rig, _ = pair
    values = coefficients(rig.network.spring_count)
    applied = rig.set_coefficients(values)
    for group, part in rig.info.slices().items():
        kind = next(g for g in rig.info.coefficients if g.name == group)
        assert 0.0 < np.abs(applied[part] - values[part]).max() <= kind.step / 2 * 1.001
        steps = (applied[part] - kind.low) / kind.step
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_calibration_finds_the_mismatch() -> None:
    """The factors that the simulated parts were drawn with are the truth."""
    config = shipped(board__errors={"mismatch": 0.02, "noise": 1e-3, "offset": 1e-3})
    with server_of(config) as server, rig_of(config, server.url) as rig:
        applied = ready(rig)
        found = rig.calibrate()
        machine = server.instrument.machine
        true = np.concatenate(machine._factors)  # type: ignore[attr-defined]
        seen = found.effective / applied
        assert np.abs(np.log(true)).max() > 0.03
        assert np.std(seen - true) < 0.25 * np.std(true)
        assert np.abs(seen - true).max() < 6.0 * np.max(found.deviation / np.abs(applied))
