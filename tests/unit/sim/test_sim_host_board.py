"""The firmware behind its pty, with the plant on its bus: measured, repeated, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import Config, build
from hil.errors import ConfigError, InputError, LinkError, StateError
from hil.messages import wire
from sim.boards.host import HostBoard, HostBoardSettings
from sim.rigs.spring_network import SimSpringNetwork
from tests.unit.sim.host_side import HostSide, Watched, children
from tests.unit.sim.rig import CONFIG, shipped, some_loads, some_stiffness

pytestmark = pytest.mark.usefixtures("cache")
ROOT = CONFIG.parents[1]
BONDS = 28


def board_of(config: Config, **context: Any) -> HostBoard:
    """Return the board of a configuration, closed."""
    assert config.board is not None
    board: HostBoard = build(
        config.board,
        "board",
        rig=config.rig,
        clock=config.clock,
        seed=config.seed,
        ideal=config.ideal,
        **context,
    )
    return board


def float32(values: Any) -> Any:
    """Return values that the wire carries without rounding."""
    return np.asarray(values, dtype=np.float32).astype(float)


@pytest.mark.parametrize("ideal", [True, False], ids=["ideal", "imperfect"])
def test_through_the_wire_it_measures_what_the_double_measures(ideal: bool) -> None:
    config = shipped(seed=4, ideal=ideal)
    assert config.board is not None
    stiffness, batches = float32(some_stiffness()), float32(some_loads(32).reshape(2, 16, 24))
    table = config.rig | {
        "kind": "sim.rigs.spring_network:SimSpringNetwork",
        "plant": config.board["plant"],
    }
    double: SimSpringNetwork = build(table, "rig", seed=4, ideal=ideal)
    double.configure()
    double.activate()
    with board_of(config) as port, HostSide(port) as host:
        info = host.set_up(config.rig)
        assert (info.dof, info.bonds) == (24, BONDS)
        applied = host.set_stiffness(stiffness)
        np.testing.assert_allclose(applied, double.set_stiffness(stiffness), rtol=6e-8)
        for token, loads in enumerate(batches, 1):
            measured = host.settle(loads, token, BONDS)
            expected = double.settle(loads)
            both = np.concatenate([expected.displacement, expected.elongation], axis=1)
            # Half a unit in the last place of each sample, and of the mean.
            np.testing.assert_allclose(measured, both, rtol=2e-7, atol=1e-12)
        assert host.ask(wire.CaseRequest(15)).device_us == expected.device_us


def test_one_seed_gives_identical_bytes_and_records(tmp_path: Path) -> None:
    said, records = [], []
    for run, seed in enumerate((1, 1, 2)):
        record = tmp_path / f"record-{run}"
        config = shipped(seed=seed, board__record=str(record))
        with board_of(config) as port, HostSide(port) as host:
            host.set_up(config.rig)
            host.set_stiffness(some_stiffness())
            host.settle(some_loads(3), 1, BONDS)
            said.append(host.said)
        records.append(record.read_bytes())
    assert said[0] == said[1] != said[2]
    assert records[0] == records[1] == records[2]  # noise does not reach the actuators
    events = [json.loads(line) for line in records[0].splitlines()]
    assert {event["target"] for event in events} == {"force", "stiffness"}
    assert [e["time_us"] for e in events if e["target"] == "force"] == [
        0,
        0,
        27_000,
        54_000,
        81_000,
    ]
    assert max(e["max"] for e in events if e["target"] == "force") == pytest.approx(0.02, rel=0.05)
    assert events[-1]["max"] == 0.0


def test_it_starts_at_the_time_it_is_told_and_measures_as_if_never_ended() -> None:
    config, loads = shipped(seed=6), some_loads(4)
    with board_of(config) as port, HostSide(port) as host:
        host.set_up(config.rig)
        host.set_stiffness(some_stiffness())
        host.settle(loads[:2], 1, BONDS)
        between = host.ask(wire.TimeRequest(0)).device_us
        uninterrupted = host.settle(loads[2:], 2, BONDS)
    with board_of(config, start_us=between) as port, HostSide(port) as host:
        assert host.set_up(config.rig).device_us == between
        host.set_stiffness(some_stiffness())
        taken_up = host.settle(loads[2:], 1, BONDS)
    assert taken_up.tobytes() == uninterrupted.tobytes()


def test_ctrl_c_is_for_its_owner() -> None:
    board = board_of(shipped())
    with board as port, HostSide(port) as host:
        assert board.pid is not None
        assert os.getpgid(board.pid) != os.getpgrp()
        os.kill(board.pid, signal.SIGINT)
        assert isinstance(host.ask(wire.InfoRequest(wire.SCHEMA_CRC)), wire.Info)


def test_it_opens_once_and_closes_twice() -> None:
    board = board_of(shipped())
    with pytest.raises(StateError, match="call open"):
        board.wait()
    port = board.open()
    assert board.open() == port
    assert board.pid is not None
    (firmware,) = children(board.pid)
    with Watched(board.pid, firmware) as both:
        board.close()
        board.close()
        assert both.all_end()
    assert board.pid is None


OWNER = """
import json, sys
from tests.unit.sim.host_side import HostSide
from tests.unit.sim.rig import some_loads
from tests.unit.sim.test_sim_host_board import board_of, shipped

config = shipped(clock="wall", rig__settle=10.0, rig__watchdog=0.5, board__record=sys.argv[1])
board = board_of(config)
with board as port, HostSide(port) as host:
    host.set_up(config.rig)
    run = host.start(some_loads(2), 1, 300_000)
    print(json.dumps([board.pid, run.device_us]), flush=True)
    sys.stdin.read()
"""


def test_kill_9_of_its_owner_ends_it_after_the_deadman_made_the_forces_zero(
    tmp_path: Path,
) -> None:
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
        pid, started_us = json.loads(owner.stdout.readline())
        (firmware,) = children(pid)
        with Watched(pid, firmware) as both:
            owner.kill()
            assert both.all_end()
    forces = [json.loads(line) for line in record.read_text().splitlines()]
    assert max(event["max"] for event in forces) > 0
    # A batch of two cases takes over 20 s: only the token can have ended it.
    assert forces[-1]["max"] == 0.0
    assert forces[-1]["time_us"] >= started_us + 290_000


def test_kill_9_of_the_plant_ends_the_firmware() -> None:
    board = board_of(shipped())
    with board:
        assert board.pid is not None
        (firmware,) = children(board.pid)
        with Watched(firmware) as watched:
            os.kill(board.pid, signal.SIGKILL)
            assert watched.all_end()
        assert board.wait() == -signal.SIGKILL


def test_kill_9_of_the_firmware_ends_the_plant(capfd: pytest.CaptureFixture[str]) -> None:
    board = board_of(shipped())
    with board:
        assert board.pid is not None
        os.kill(children(board.pid)[0], signal.SIGKILL)
        assert board.wait() == 1
    assert "the firmware ended (-9)" in capfd.readouterr().err


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match=r"apt install gcc libc6-dev$"):
        board_of(shipped()).open()


def test_what_the_plant_refuses_is_said_by_open(tmp_path: Path) -> None:
    loose = tmp_path / "loose.toml"
    loose.write_text(
        "nodes = [[0.0, 0.0], [0.1, 0.0], [0.1, 0.1]]\nbonds = [[1, 2], [2, 3]]\nfixed = [1]\n"
    )
    for overrides, words in (
        ({"rig__geometry": {"file": "nowhere.toml"}}, "nowhere.toml"),
        ({"rig__stiffness": [3.0, 2.0]}, "rig.stiffness"),
        ({"rig__geometry__lattice": 20}, "refused to start"),
        ({"board__record": str(tmp_path / "no" / "such")}, "board.record"),
    ):
        config = shipped(**overrides)
        if "file" in config.rig["geometry"]:
            config.rig["geometry"] = {"file": "nowhere.toml"}
        with pytest.raises(InputError, match=words) as caught:
            board_of(config).open()
        assert "\n" not in str(caught.value)


def test_an_unknown_key_of_the_plant_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"board\.plant: .*unknown field `mass`"):
        board_of(shipped(board__plant__mass=1.0))


def test_a_watchdog_that_is_no_time_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"rig\.watchdog"):
        board_of(shipped(rig__watchdog="soon"))


def test_a_board_that_dies_at_once_is_a_link_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LinkError, match="did not start"):
        board_of(shipped()).open()


def test_by_hand_it_runs_until_ctrl_c(tmp_path: Path) -> None:
    link, record = tmp_path / "rig", tmp_path / "record"
    words = [sys.executable, "-m", "sim.boards.host", str(CONFIG)]
    words += ["--link", str(link), "--record", str(record), "--set", "seed=3"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as by_hand:
        assert by_hand.stdout is not None
        port = json.loads(by_hand.stdout.readline())["port"]
        assert os.readlink(link) == port
        (plant,) = children(by_hand.pid)
        (firmware,) = children(plant)
        with HostSide(str(link)) as host, Watched(plant, firmware) as both:
            config = shipped()
            host.set_up(config.rig)
            host.settle(some_loads(1), 1, BONDS)
            by_hand.send_signal(signal.SIGINT)
            assert by_hand.wait() == 0
            assert both.all_end()
    assert not link.is_symlink()
    assert json.loads(record.read_text().splitlines()[-1])["max"] == 0.0


def test_by_hand_bad_input_is_one_line_and_exit_2() -> None:
    words = [sys.executable, "-m", "sim.boards.host", "no-such.toml"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_its_settings_default_to_no_record_and_no_link() -> None:
    settings = HostBoardSettings(plant={})
    assert (settings.record, settings.link) == ("", "")
