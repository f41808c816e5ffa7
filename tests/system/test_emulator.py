"""An emulator behind a mirror: ZeroMQ in front, PyVISA behind, an instrument that may end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import Config
from hil.errors import FaultError, LeaseError, StateError
from hil.links.visa import VisaLink
from hil.messages import bus
from hil.rigs.base import RigState
from hil.rigs.emulator_base import Traces
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.rigs.session import stop_rig
from hil.services import foreground, owner
from tests.system.rigs import address, hil, mirror, until
from tests.unit.instruments.emulators import CONFIG, SMALL, coefficients, nudges, shipped

SPRINGS = 21


@contextlib.contextmanager
def instrument(port: int, *settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an instrument by itself, as one would by hand; yields its process and its address."""
    small = [f"{key}={json.dumps(value)}" for key, value in SMALL.items() if key != "rig.geometry"]
    words = [word for setting in (*small, *settings) for word in ("--set", setting)]
    process = subprocess.Popen(
        [sys.executable, "-m", "sim.instruments.server", str(CONFIG), "--port", str(port), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        process.stdout.close()


def on_its_own(url: str, **more: Any) -> Config:
    """Return the configuration of a rig whose instrument is not ours to start."""
    config = shipped(clock="wall", rig__port=url, rig__timeout=1.0, **more)
    return Config(name=config.name, rig=config.rig, clock="wall", mirror={"lease": 60.0})


def client(config: Config, name: str = "test") -> RemoteEmulatorRig:
    return RemoteEmulatorRig(address(config), client=name)


def ready(rig: RemoteEmulatorRig) -> None:
    rig.configure()
    rig.set_coefficients(coefficients(rig.info.coefficients[3].count))
    rig.activate()


@pytest.mark.smoke
def test_a_batch_through_zeromq_and_pyvisa(tmp_path: Path) -> None:
    config = shipped(ideal=True)
    with mirror(config, tmp_path), client(config) as rig:
        ready(rig)
        traces = rig.run(nudges(5))
        assert traces.states.shape == (5, 21, 8)
        assert traces.took == pytest.approx(traces.predicted)
        report = owner.status(config)
        assert report is not None
        assert (report.state, report.measurements, report.simulated) == ("active", 5, True)
        assert report.port.startswith("TCPIP::127.0.0.1::")
        assert report.info["time_scale"] == 1e-3
        with client(config, "other") as other, pytest.raises(LeaseError, match="test"):
            other.configure()


def test_another_kind_of_command_is_refused(tmp_path: Path) -> None:
    config = shipped()
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        with pytest.raises(StateError, match="the rig this mirror owns is an emulator"):
            rig.session.ask(bus.ReadStiffness, bus.Applied, leased=False)


def test_a_run_on_a_killed_and_restarted_instrument(tmp_path: Path) -> None:
    """Killed in the middle of a run: a latched fault, then `hil clear`, and it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ("clock=wall", "ideal=true")
    with contextlib.ExitStack() as stack:
        process, url = stack.enter_context(instrument(port, *settings))
        config = on_its_own(url, rig__time_scale=0.2)
        stack.enter_context(mirror(config, tmp_path))
        rig = stack.enter_context(client(config))
        ready(rig)
        before = rig.run(nudges(1))
        timer = threading.Timer(0.5, lambda: os.kill(process.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(Exception, match="instrument TCPIP") as error:
            rig.run(nudges(50))
        timer.join()
        assert "\n" not in str(error.value)
        report = owner.status(config)
        assert report is not None
        assert report.state == "fault"
        with pytest.raises(FaultError):
            rig.activate()
        stack.enter_context(instrument(port, *settings))
        rig.clear()
        assert rig.state is RigState.INACTIVE
        ready_again: Traces
        rig.set_coefficients(coefficients(rig.info.coefficients[3].count))
        rig.activate()
        ready_again = rig.run(nudges(1))
        assert ready_again.run == 1
        np.testing.assert_array_equal(ready_again.states, before.states)


def test_a_stop_in_a_run_needs_no_lease(tmp_path: Path) -> None:
    config = shipped(clock="wall", rig__time_scale=0.2)
    with mirror(config, tmp_path), client(config) as rig:
        ready(rig)
        timer = threading.Timer(0.5, stop_rig, (address(config), "hand on the button"))
        timer.start()
        with pytest.raises(FaultError, match="hand on the button"):
            rig.run(nudges(100))
        timer.join()
        rig.clear()
        rig.activate()
        rig.run(nudges(1))


def test_a_mirror_waits_for_an_instrument_that_is_off(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = on_its_own(f"TCPIP::127.0.0.1::{port}::SOCKET")
    with mirror(config, tmp_path):
        report = owner.status(config)
        assert report is not None
        assert re.search("cannot be reached", report.fault)
        with instrument(port):
            until(lambda: _state(config) == "inactive")
            with client(config) as rig:
                ready(rig)
                rig.run(nudges(2))


def _state(config: Config) -> str:
    report = owner.status(config)
    return report.state if report else ""


def test_hil_clear_leads_out_of_a_fault(tmp_path: Path) -> None:
    config = shipped()
    with mirror(config, tmp_path):
        stop_rig(address(config), "hand on the button")
        until(lambda: _state(config) == "fault")
        assert foreground.clear(config) == "inactive"


def test_the_instrument_by_hand_and_hil_validate() -> None:
    with instrument(0) as (_, url):
        link = VisaLink(url)
        link.open()
        assert link.query("*IDN?").startswith("hil,GYRO-EMULATOR,")
        link.close()
    assert hil("validate", str(CONFIG), "--sim").returncode == 0
