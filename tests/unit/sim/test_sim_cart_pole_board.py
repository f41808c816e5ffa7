"""A cart-pole behind the firmware's pty: balanced, repeated, killed, late, at its ends."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.errors import ConfigError, DeadmanError, FaultError, LimitError
from hil.messages import wire
from hil.rigs.base import AbstractDynamicRig, AbstractTokens, DynamicSample, RigState, Token
from hil.safety.deadman import Minting
from tests.unit.sim.cart_pole import CONFIG, balance, board_of, double_of, rig_of, shipped
from tests.unit.sim.host_side import HostSide, Watched, children
from tests.unit.sim.rig import shipped as spring

pytestmark = pytest.mark.usefixtures("cache")
ROOT = CONFIG.parents[1]
TILTED = (0.1, 0.0, 0.0, 0.0)
HANGING = (math.pi, 0.0, 0.0, 0.0)


def record_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_linear_regulator_balances_the_pole_for_ten_seconds_over_the_wire() -> None:
    config = shipped(board__plant__start=TILTED)
    with board_of(config) as port, rig_of(config, port) as rig:
        info = rig.configure()
        assert info.period_us == 20_000
        rig.activate()
        samples = balance(rig, 10.0)
    assert [s.sequence for s in samples] == list(range(1, 502))
    assert all(s.missed == 0 and not s.flags for s in samples)
    times = np.array([s.device_us for s in samples])
    np.testing.assert_array_equal(np.diff(times), 20_000)
    assert samples[0].y[0] == pytest.approx(0.1, abs=2e-3)
    y = np.array([s.y for s in samples])
    assert np.abs(y[:, 0]).max() < 0.2
    assert np.abs(y[-100:]).max() < 0.1


def test_it_gives_the_samples_the_double_gives_and_again_the_same_bytes() -> None:
    config = shipped(seed=5, board__plant__start=TILTED)

    def over_the_wire() -> bytes:
        with board_of(config) as port, rig_of(config, port) as rig:
            rig.configure()
            rig.activate()
            return told(balance(rig, 4.0))

    def told(samples: list[DynamicSample]) -> bytes:
        return b"".join(np.array([*s.y, *s.u, s.device_us, s.sequence]).tobytes() for s in samples)

    first = over_the_wire()
    assert over_the_wire() == first
    with double_of(config) as double:
        double.configure()
        double.activate()
        assert told(balance(double, 4.0)) == first
    with double_of(shipped(seed=6, board__plant__start=TILTED)) as other:
        other.configure()
        other.activate()
        assert told(balance(other, 4.0)) != first


OWNER = """
import sys
import numpy as np
from tests.unit.sim.cart_pole import board_of, rig_of, shipped
from hil.safety.deadman import Minting

config = shipped(board__plant__start=(3.14, 0.0, 0.0, 0.0), board__record=sys.argv[1])
board = board_of(config)
rig = rig_of(config, board.open(), Minting(150_000))
rig.configure()
rig.activate()
for _ in range(10):
    sample = rig.read()
    rig.write(np.array([0.5]))
print(board.pid, sample.device_us, flush=True)
sys.stdin.read()
"""


def test_kill_9_of_the_host_ends_in_zero_force_when_its_token_does(tmp_path: Path) -> None:
    record = tmp_path / "record"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(record)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pid, written_us = (int(word) for word in owner.stdout.readline().split())
        (firmware,) = children(pid)
        with Watched(pid, firmware) as both:
            assert record_of(record)[-1]["values"] == [0.5]  # time stands: nobody is gone yet
            owner.kill()
            assert both.all_end()
    last = record_of(record)[-1]
    assert (last["time_us"], last["values"]) == (written_us + 150_000, [0.0])


class Late(AbstractTokens):
    """Tokens that end before the next sample."""

    def __init__(self) -> None:
        self.sequence = 0

    def take(self, device_us: int) -> Token:
        """Return one of 7.5 ms."""
        self.sequence += 1
        return Token(self.sequence, device_us + 7_500)


@pytest.mark.parametrize("where", ["board", "process"])
def test_a_token_that_ends_between_two_samples_ends_the_force_and_latches(
    tmp_path: Path, where: str
) -> None:
    record = tmp_path / "record"
    config = shipped(board__plant__start=HANGING, board__record=str(record))

    def too_late(rig: AbstractDynamicRig) -> int:
        rig.configure()
        rig.activate()
        started_us = rig.read().device_us
        rig.write(np.array([2.0]))
        with pytest.raises(DeadmanError, match=r"the force is zero; clear\(\) first"):
            rig.read()
        assert rig.state is RigState.FAULT
        with pytest.raises(FaultError, match="token expired"):
            rig.write(np.array([1.0]))
        rig.clear()
        rig.activate()
        assert rig.read().u == 0.0
        return started_us

    if where == "board":
        with board_of(config) as port, rig_of(config, port, Late()) as rig:
            started_us = too_late(rig)
            changes = [(e["time_us"], e["values"][0]) for e in record_of(record)]
    else:
        with double_of(config, Late()) as double:
            started_us = too_late(double)
            assert double.plant is not None
            changes = [(event.time_us, event.force) for event in double.plant.events]
    at = changes.index((started_us, 2.0))
    assert changes[at + 1] == (started_us + 7_500, 0.0)
    assert not any(force for _, force in changes[at + 1 :])


@pytest.mark.parametrize("where", ["board", "process"])
def test_beyond_its_travel_the_cart_is_not_driven_outward_and_at_the_end_not_at_all(
    tmp_path: Path, where: str
) -> None:
    record = tmp_path / "record"
    config = shipped(
        board__plant__start=HANGING,
        board__record=str(record),
        rig__travel=0.02,
        rig__travel_hard=0.2,
    )
    seen: list[DynamicSample] = []

    def push_on(rig: AbstractDynamicRig) -> None:
        for _ in range(1000):
            seen.append(rig.read())
            rig.write(np.array([10.0]))

    def run_out(rig: AbstractDynamicRig) -> None:
        rig.configure()
        rig.activate()
        with pytest.raises(FaultError, match="TRAVEL"):
            push_on(rig)
        assert rig.state is RigState.FAULT

    if where == "board":
        with board_of(config) as port, rig_of(config, port) as rig:
            run_out(rig)
            forces = [event["max"] for event in record_of(record)]
    else:
        with double_of(config) as double:
            run_out(double)
            assert double.plant is not None
            forces = [event.force for event in double.plant.events]
    assert forces[-1] == 0.0
    beyond = [s for s in seen if s.y[1] > 0.02]
    assert len(beyond) > 1
    assert all(s.flags == ("interlock",) and s.u == 0.0 for s in beyond)


def until_stuck(rig: AbstractDynamicRig) -> int:
    """Balance until the device notices; return its time of the last good sample, us."""
    rig.configure()
    rig.activate()
    samples: list[DynamicSample] = []
    with pytest.raises(FaultError, match="device fault STUCK"):
        balance(rig, 5.0, seen=samples.append)
    assert rig.fault == "device fault STUCK"
    return samples[-1].device_us


@pytest.mark.parametrize("channel", ["angle", "position"])
def test_a_stuck_encoder_ends_board_and_double_at_the_same_tick(
    tmp_path: Path, channel: str
) -> None:
    record = tmp_path / "record"
    fault = {"channel": channel, "kind": "stuck", "begin": 0.25}
    config = shipped(
        board__plant__start=TILTED, board__plant__faults=[fault], board__record=str(record)
    )
    with board_of(config) as port, rig_of(config, port) as rig:
        seen_us = until_stuck(rig)
        (zero,) = [e["time_us"] for e in record_of(record)[-1:]]
        assert record_of(record)[-1]["values"] == [0.0]
    with double_of(config) as double:
        assert until_stuck(double) == seen_us
        assert double.plant is not None
        assert (double.plant.events[-1].time_us, double.plant.events[-1].force) == (zero, 0.0)
    assert seen_us < zero < seen_us + 20_000  # not at a sample: at the tick


def test_kill_9_of_the_firmware_lets_the_force_go(tmp_path: Path) -> None:
    record = tmp_path / "record"
    config = shipped(board__plant__start=TILTED, board__record=str(record))
    board = board_of(config)
    with board as port, rig_of(config, port) as rig:
        rig.configure()
        rig.activate()
        written_us = rig.read().device_us
        rig.write(np.array([2.0]))
        rig.read()
        assert board.pid is not None
        (firmware,) = children(board.pid)
        os.kill(firmware, signal.SIGKILL)
        assert board.wait() == 1
        *_, last, zero = record_of(record)
        assert (last["time_us"], last["values"], zero["values"]) == (written_us, [2.0], [0.0])


def test_inputs_outside_the_limits_never_reach_the_wire() -> None:
    config = shipped(board__plant__start=HANGING)
    with board_of(config) as port, rig_of(config, port) as rig:
        rig.configure()
        rig.activate()
        rig.read()
        assert rig.write(np.array([20.0])) == 20.0
        for bad in (20.001, -1e300, math.nan, math.inf):
            with pytest.raises(LimitError, match="outside ±20 N; nothing was changed"):
                rig.write(np.array([bad]))
        with pytest.raises(LimitError, match="shape"):
            rig.write(np.zeros(2))
        assert rig.read().u == 20.0
        assert rig.state is RigState.ACTIVE


def test_another_host_finds_the_device_safe_and_goes_on() -> None:
    """The first leaves with the force on: its token runs out, and the second is told."""
    config = shipped(board__plant__start=HANGING)
    with board_of(config) as port:
        with HostSide(port) as host:
            host.ask(wire.InfoRequest(wire.SCHEMA_CRC))
            host.ask(wire.CartPoleSetup(20.0, 1.0, 1.1, 200_000, 1_000, 20, 0.0))
            host.ask(wire.ModeRequest(wire.Mode.ACTIVE))
            driven = host.ask(wire.Drive(100_000, 1, 3.0))
            assert (driven.device_us, driven.force) == (0, 3.0)
        with rig_of(config, port) as rig:
            info = rig.configure()  # it leaves the fault the first one brought
            assert info.details["board"] == "host"
            sample = rig.read()
            assert sample.u == 0.0
            rig.activate()
            rig.write(np.array([1.0]))
            assert rig.read().u == 1.0
            assert rig.read().device_us > sample.device_us


def test_with_the_wall_clock_the_device_paces_and_the_token_lives_in_its_time() -> None:
    config = shipped(clock="wall", board__plant__start=HANGING, rig__watchdog=0.5)
    with board_of(config) as port, rig_of(config, port, Minting(500_000)) as rig:
        rig.configure()
        first, second = rig.read(), rig.read()
        assert second.sequence > first.sequence
        assert second.device_us > first.device_us
        rig.activate()
        began = rig.read()
        assert began.y[0] == pytest.approx(math.pi, abs=0.01)
        rig.write(np.array([1.0]))
        samples: list[DynamicSample] = []
        with pytest.raises(DeadmanError):
            samples.extend(iter(rig.read, None))
        assert samples[0].u == 1.0
        assert samples[-1].sequence > samples[0].sequence


def test_samples_nobody_looked_at_are_counted() -> None:
    config = shipped(board__plant__start=HANGING)
    with board_of(config) as port, rig_of(config, port) as rig:
        rig.configure()
        rig.activate()
        first = rig.read()
        for _ in range(4):
            rig.write(np.array([0.1]))
        later = rig.read()
        assert (later.sequence - first.sequence, later.missed) == (4, 3)
        assert later.device_us - first.device_us == 80_000
        assert rig.read().missed == 0  # not answered by a write: passed


def test_it_refuses_a_device_that_runs_something_else() -> None:
    with (
        board_of(spring()) as port,
        rig_of(shipped(), port) as rig,
        pytest.raises(ConfigError, match="runs application 1, this rig needs 2"),
    ):
        rig.configure()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rig__period", 0.0205, "not a multiple of rig.tick"),
        ("rig__travel", 1.1, "must be below rig.travel_hard"),
        ("rig__watchdog", 0.02, "at least 0.025 s"),
    ],
)
def test_settings_that_do_not_fit_are_refused(key: str, value: float, message: str) -> None:
    config = shipped(**{key: value})
    with pytest.raises(ConfigError, match=message):
        rig_of(config, "/dev/null")
    with pytest.raises(ConfigError, match=message):
        double_of(config)
