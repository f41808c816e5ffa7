"""Two linearised gyroscopes on lucipy's emulator of a LUCIDAC, in process and over TCP."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.linalg import expm

from hil.config import load, settings_of
from hil.errors import (
    ConfigError,
    FaultError,
    LimitError,
    LinkError,
    PortError,
    RunError,
    StateError,
)
from hil.links.lucidac import RATES, load_lucipy
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.rigs.base import RigState
from hil.rigs.emulator_base import EmulatorMode
from hil.rigs.lucidac import LucidacRig, LucidacRigSettings
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.types import Array
from tests.system.rigs import address, mirror

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lucipy") is None,
    reason="lucipy is not installed (pip install 'hil[lucidac]')",
)

CONFIG = Path(__file__).parents[3] / "configs" / "lucidac.toml"
VALUES = np.array([1.0, 1.3, 1.0, 0.8, 1.5, -1.0, 5.0])  # mass, length, γ of both, stiffness
UNIT = np.tile([0.5, 0.5, 2.0, 2.0], 2)
Change = Callable[[dict[str, Any]], None]


def settings(**changes: Any) -> LucidacRigSettings:
    _, found = settings_of(load(CONFIG).rig, "rig")
    return msgspec.structs.replace(found, port="emu:/", **changes)  # type: ignore[no-any-return]


@contextlib.contextmanager
def ready(port: str = "emu:/", **changes: Any) -> Iterator[LucidacRig]:
    with LucidacRig(settings(**changes), port=port) as rig:
        rig.configure()
        rig.set_coefficients(VALUES)
        rig.activate()
        yield rig


class Device:
    """A LUCIDAC on a TCP port: lucipy's emulator behind lines, and what is done to it."""

    def __init__(self) -> None:
        self.emulation = load_lucipy().simulator.Emulation()
        self.change: Change = lambda message: None
        self.answers = 1 << 30  # so many lines, then nothing more
        self.hang_up = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Device:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                with client:
                    client.settimeout(0.05)
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        heard = b""
        while not self._end.is_set() and not self.hang_up:
            with contextlib.suppress(TimeoutError):
                piece = client.recv(65536)
                if not piece:
                    return
                *lines, heard = (heard + piece).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    self.change(message)
                    for answer in self.emulation.handle_request(json.dumps(message), True):
                        if self.answers > 0 and not self.hang_up:
                            self.answers -= 1
                            client.sendall(answer.encode())


def exact(values: Array, nudge: Array, start: Array, steps: int) -> Array:
    """Return the states (steps + 1, 8) of the linear equations: the matrix exponential."""
    mass, length, gamma, stiffness = np.split(values, [2, 4, 6])
    network = GyroNetwork(GyroGeometry(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0, 1]])))
    a = network.linearise(GyroParameters(mass, length, gamma, stiffness))  # of (q, v)
    whole = np.zeros((9, 9))
    whole[:8, :8], whole[4:8, 8] = a, nudge / np.repeat(mass, 2)
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    now = np.zeros(9)
    now[order], now[8] = start, 1.0
    return np.stack([(expm(whole * 0.05 * k) @ now)[order] for k in range(steps + 1)])


def both_cases(steps: int) -> tuple[Array, Array]:
    """Return a free case and one that is nudged: inputs, initial states."""
    inputs, initial = np.zeros((2, steps, 4)), np.zeros((2, 8))
    initial[0, 0], initial[0, 7] = 0.3, -0.5
    inputs[1, :, 0], inputs[1, :, 3] = 1.0, -0.5
    return inputs, initial


def test_its_emulator_gives_the_linear_trajectory_within_one_percent() -> None:
    steps = 100
    inputs, initial = both_cases(steps)
    with ready() as rig:
        traces = rig.run(inputs, initial)
        coarse = rig.run(inputs, initial, every=20)
    for case in range(2):
        truth = exact(VALUES, inputs[case, 0], initial[case], steps) / UNIT
        error = traces.states[case] / UNIT - truth
        assert np.sqrt((error**2).mean() / (truth**2).mean()) < 0.01
        assert np.abs(error).max() < 0.01 * np.abs(truth).max()
    np.testing.assert_allclose(coarse.states, traces.states[:, ::20], atol=1e-12)
    assert traces.states.shape == (2, 101, 8)
    assert traces.predicted == pytest.approx(2 * (1e-4 + 101 * 0.05 * 1e-3))
    assert traces.took == pytest.approx(traces.predicted, rel=1e-3)
    assert (traces.run, coarse.run, coarse.sequence) == (1, 2, 2)
    assert not traces.overloaded.any()


@pytest.mark.parametrize(("speed", "time_scale"), [("fast", 3e-3), ("slow", 0.1)])
def test_the_speed_of_its_integrators_and_the_time_scale_cancel(
    speed: str, time_scale: float
) -> None:
    inputs, initial = both_cases(8)
    with ready(speed=speed, time_scale=time_scale) as rig:
        states = rig.run(inputs, initial).states
    truth = [exact(VALUES, inputs[case, 0], initial[case], 8) for case in range(2)]
    np.testing.assert_allclose(states / UNIT, np.array(truth) / UNIT, atol=2e-3)


def test_what_is_set_is_read_back_from_its_lanes() -> None:
    with Device() as device, ready(device.url) as rig:
        np.testing.assert_array_equal(rig.read_coefficients(), VALUES)
        inputs, initial = both_cases(4)
        rig.run(inputs, initial)
        np.testing.assert_array_equal(rig.read_coefficients(), VALUES)  # nudges do not count
        device.emulation.circuit["/0"]["/C"]["elements"][0] += 0.01
        with pytest.raises(FaultError, match="another circuit than was sent"):
            rig.read_coefficients()
        assert rig.state is RigState.FAULT
        rig.clear()
        np.testing.assert_array_equal(rig.read_coefficients(), VALUES)


def test_limits_hold() -> None:
    with ready() as rig:
        info = rig.info
        low, high = info.bounds()
        np.testing.assert_array_equal(rig.set_coefficients(np.minimum(VALUES, high)), VALUES)
        stiff = np.where(np.arange(7) < 2, low, np.where(np.arange(7) < 6, VALUES, high))
        rig.set_coefficients(stiff)
        with (
            ready(time_scale=5e-4) as faster,
            pytest.raises(LimitError, match=r"reaches 10; a rig\.time_scale 1\.\d times as long"),
        ):
            faster.set_coefficients(stiff)
        rig.set_coefficients(VALUES)
        np.testing.assert_array_equal(rig.read_coefficients(), VALUES)
        inputs, initial = both_cases(10)
        for wrong, start, text in (
            (inputs * 3.0, initial, "case 1, step 0, force_x 1"),
            (np.cumsum(inputs, 1) / 10, initial, "case 1: a LUCIDAC holds one nudge"),
            (inputs, initial * 2.0, "beyond one machine unit"),
            (np.zeros((1, 30_000, 4)), None, "takes 19999 at most"),
        ):
            with pytest.raises(LimitError, match=text):
                rig.run(wrong, start)
        assert rig.run(inputs, initial).run == 1  # nothing was run before
    with pytest.raises(ConfigError, match=r"rig\.time_scale: 1e-05 needs 8e\+06 samples/s"):
        LucidacRig(settings(time_scale=1e-5))


@pytest.mark.parametrize("halts", [True, False])
def test_an_overload_is_named_and_latches_where_it_shall(halts: bool) -> None:
    inputs, initial = both_cases(40)
    initial[1, :2] = 0.49, 0.49
    inputs[1] = 2.0
    with ready(halt_on_overload=halts) as rig:
        if not halts:
            traces = rig.run(inputs, initial)
            np.testing.assert_array_equal(traces.overloaded, [0.0, 1.0])
            assert traces.overload
            return
        with pytest.raises(FaultError, match=r"case 1 overloaded integrator .*clear\(\)"):
            rig.run(inputs, initial)
        assert rig.fault.startswith("overload of integrator")
        rig.clear()
        rig.activate()
        assert rig.status().overload == ()
        rig.run(inputs[:1], initial[:1])
        assert rig.status().mode is EmulatorMode.HALT


def test_a_run_that_was_cut_short_is_a_fault() -> None:
    def shorten(message: dict[str, Any]) -> None:
        if message["type"] == "start_run":  # as its firmware does on an overload
            message["msg"]["config"]["op_time"] //= 2

    inputs, initial = both_cases(40)
    with Device() as device, ready(device.url) as rig:
        device.change = shorten
        with pytest.raises(FaultError, match="an element that is not recorded"):
            rig.run(inputs, initial)
        assert rig.state is RigState.FAULT


def test_calibration_finds_what_its_lanes_really_do() -> None:
    def weaken(message: dict[str, Any]) -> None:
        """Make every coefficient two percent too small: as if time went slower."""
        if message["type"] == "set_circuit":
            lanes = message["msg"]["config"]["/0"]["/C"]["elements"]
            message["msg"]["config"]["/0"]["/C"]["elements"] = [0.98 * lane for lane in lanes]

    with Device() as device, ready(device.url) as rig:
        ideal = rig.calibrate()
        np.testing.assert_allclose(ideal.effective, VALUES, rtol=2e-3)  # its solver's error
        np.testing.assert_array_equal(ideal.applied, VALUES)
        assert ideal.residual < 2e-3
        device.change = weaken
        found = rig.calibrate()
    # q̇ = 0.98 v is no gyroscope's: what fits best explains the frequencies, ω² ~ 1/length.
    assert np.all(found.effective[2:4] / VALUES[2:4] > 1.02)
    assert found.residual > 2 * ideal.residual


def test_its_life_goes_in_order_and_a_stop_latches() -> None:
    rig = LucidacRig(settings())
    with rig:
        with pytest.raises(StateError, match=r"call configure\(\) first"):
            rig.activate()
        info = rig.configure()
        assert (info.size, info.state, info.time_scale) == (7, 8, 1e-3)
        rig.activate()
        with pytest.raises(StateError, match=r"set_coefficients\(\) first"):
            rig.run(both_cases(4)[0])
        rig.set_coefficients(VALUES)
        rig.stop("hand on the button")
        with pytest.raises(FaultError, match="hand on the button"):
            rig.run(both_cases(4)[0])
        rig.clear()
        states = [rig.state]
        rig.activate()
        rig.run(both_cases(4)[0])
    states.append(rig.state)
    assert states == [RigState.INACTIVE, RigState.UNCONFIGURED]


@pytest.mark.parametrize("how", ["silent", "closed"])
def test_a_device_that_is_gone_is_a_fault_and_never_a_hang(how: str) -> None:
    inputs, initial = both_cases(4)
    with Device() as device, ready(device.url, timeout=0.3) as rig:
        expected = rig.run(inputs, initial).states
        if how == "silent":
            device.answers = 2
        else:
            device.hang_up = True
        with pytest.raises(LinkError, match="timed out" if how == "silent" else "closed|reset"):
            rig.run(inputs, initial)
        assert rig.state is RigState.FAULT
        device.answers, device.hang_up = 1 << 30, False
        rig.clear()
        rig.activate()
        np.testing.assert_array_equal(rig.run(inputs, initial).states, expected)
        assert rig.link.counters.reconnects == 1


def test_what_is_no_lucidac_is_said_in_one_line() -> None:
    for port in ("/dev/ttyACM0", "tcp://", "http://x"):
        with pytest.raises(PortError, match="not an endpoint"):
            LucidacRig(settings(), port=port).configure()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(LinkError, match="cannot be reached"):
        LucidacRig(settings(), port=f"tcp://127.0.0.1:{port}").configure()
    with pytest.raises(ConfigError, match=r"rig\.serial_number says 00-11"):
        LucidacRig(settings(serial_number="00-11")).configure()
    with Device() as device:
        device.emulation.mac = "x"
        device.change = lambda message: message.update(type="ping")
        with pytest.raises((LinkError, RunError), match=f"LUCIDAC {device.url}: "):
            LucidacRig(settings(), port=device.url).configure()


def test_a_mirror_serves_it(tmp_path: Path) -> None:
    config = load(CONFIG, overrides={"rig.port": "emu:/", "rig.name": f"lucidac-{os.getpid()}"})
    inputs, initial = both_cases(20)
    with ready() as rig:
        expected = rig.run(inputs, initial).states
    with mirror(config, tmp_path), RemoteEmulatorRig(address(config), client="test") as remote:
        remote.configure()
        remote.activate()
        np.testing.assert_array_equal(remote.set_coefficients(VALUES), VALUES)
        traces = remote.run(inputs, initial)
        np.testing.assert_array_equal(traces.states, expected)
        with pytest.raises(LimitError, match="holds one nudge"):
            remote.run(np.cumsum(inputs, 1) / 20, initial)


def test_its_rates_are_those_that_its_firmware_takes() -> None:
    assert list(RATES) == load_lucipy().LUCIDAC.allowed_sample_rates


def test_its_client_leaves_our_logging_alone() -> None:
    code = (
        "import logging; from hil.links.lucidac import load_lucipy; load_lucipy();"
        "root = logging.getLogger(); print(root.handlers, root.level)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["[]", "30"]
