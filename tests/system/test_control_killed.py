"""Processes that die and cables that are pulled under a control loop, on the wall clock.

Judged by the plant's own record, on the device's clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.config import load
from hil.errors import PortError, RunError
from hil.rigs.base import RigState
from hil.services import owner
from tests.system.control import (
    BALANCE,
    PERIOD_US,
    WATCHDOG_US,
    active,
    assert_cleared,
    assert_in_time,
    assert_latched,
    balance,
    end_after,
    ended,
    forces,
    loop_of,
    report,
    run,
)
from tests.system.rigs import ROOT, board, events, kill, mirror, until


@pytest.mark.parametrize("victim", ["controller", "mirror"])
def test_a_killed_process_leaves_no_force(tmp_path: Path, victim: str) -> None:
    """kill −9 under the wall clock: zero within the watchdog of the last command."""
    record = tmp_path / "plant.jsonl"
    command = [
        *(sys.executable, "-m", "hil", "control", str(BALANCE), "--sim"),
        *("--runs", str(tmp_path), "--set", "clock=wall", "--set", f"board.record={record}"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: record.exists() and len(events(record)) > 50, seconds=60)
    seen = report(load(BALANCE, sim=True, overrides={"clock": "wall"}))
    kill(process.pid if victim == "controller" else seen.pid)
    _, said = process.communicate(timeout=60)
    if victim == "mirror":
        assert process.returncode == 1
        assert [line for line in said.splitlines() if line.startswith("hil: mirror at ipc://")]
    until(lambda: not owner.served_rigs())
    until(lambda: ended(record))
    assert_in_time(record)


def test_a_frozen_controller_is_answered_by_the_device(tmp_path: Path) -> None:
    """The controlling process hangs: its token runs out, the force is zero, the fault latched."""
    config, record = balance(tmp_path, clock="wall")
    with mirror(config, tmp_path), active(config) as rig:
        rig.read()
        rig.write(np.array([1.0]))
        until(lambda: ended(record))
        assert_in_time(record)
        assert end_after(record) >= WATCHDOG_US - PERIOD_US  # the token's whole life
        with pytest.raises(RunError):
            list(iter(rig.read, None))
        assert_latched(config, record, rig, "token")  # said by a read, or the mirror itself
        assert_cleared(config, rig)


RELAY = """
import os, select, sys, tty
board = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
host, slave = os.openpty()
tty.setraw(slave)
os.symlink(os.ttyname(slave), sys.argv[2] + ".new")
os.replace(sys.argv[2] + ".new", sys.argv[2])
while True:
    for end in select.select([board, host], [], [])[0]:
        os.write(host if end == board else board, os.read(end, 65536))
"""


@contextlib.contextmanager
def cable(board_port: Path, port: Path) -> Iterator[int]:
    """Run the cable between a board and a host as a process; yields its number."""
    port.unlink(missing_ok=True)
    words = [sys.executable, "-c", RELAY, str(board_port), str(port)]
    process = subprocess.Popen(words)
    try:
        until(port.exists)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_pulled_cable_is_a_fault_and_can_be_put_back(tmp_path: Path) -> None:
    """The link between mirror and firmware is killed: the deadman ends the force."""
    port = tmp_path / "cable"
    config = load(BALANCE, overrides={"rig.port": str(port)})
    record = tmp_path / "plant.jsonl"
    with (
        board(tmp_path, "clock=wall", config=ROOT / "configs/cart_pole.toml") as (board_port, _),
        contextlib.ExitStack() as first,
    ):
        pid = first.enter_context(cable(board_port, port))
        with mirror(config, tmp_path), active(config) as rig:
            with pytest.raises(RunError):
                run(loop_of(config, rig), at_40=lambda: kill(pid))
            until(lambda: ended(record))
            assert_in_time(record)
            until(lambda: report(config).state == "fault")
            first.close()
            with cable(board_port, port):
                assert report(config).state == "fault"  # latched although it is back
                rig.clear()
                assert rig.state is RigState.INACTIVE
                assert np.isfinite(rig.read().y).all()
                assert ended(record)
                rig.close()


def test_what_hangs_in_the_cable_does_not_act_when_it_goes_on(tmp_path: Path) -> None:
    """A cable that carries nothing for a while, then all of it: old commands are refused."""
    port = tmp_path / "cable"
    config = load(BALANCE, overrides={"rig.port": str(port)})
    record = tmp_path / "plant.jsonl"
    with (
        board(tmp_path, "clock=wall", config=ROOT / "configs/cart_pole.toml") as (board_port, _),
        cable(board_port, port) as pid,
        mirror(config, tmp_path),
        active(config) as rig,
    ):
        with pytest.raises(RunError):
            run(loop_of(config, rig), at_40=lambda: os.kill(pid, signal.SIGSTOP))
        until(lambda: ended(record))
        assert_in_time(record)
        until(lambda: report(config).state == "fault")
        count = len(forces(record))
        os.kill(pid, signal.SIGCONT)
        rig.clear()  # the answers it waits for come after everything that hung
        assert rig.state is RigState.INACTIVE
        rig.read()
        assert not any(force for _, force in forces(record)[count:])


def children(pid: int) -> list[int]:
    """Return the processes a process has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def firmware_of(mirror_pid: int) -> int:
    """Return the firmware's process under a mirror that has a simulated board."""
    (plant,) = children(mirror_pid)
    (firmware,) = children(plant)
    return firmware


def test_a_killed_firmware_leaves_no_force_and_a_fault(tmp_path: Path) -> None:
    """Its output stage falls by itself; the mirror says that the device is gone."""
    config, record = balance(tmp_path, clock="wall")
    with mirror(config, tmp_path), active(config) as rig:
        firmware = firmware_of(report(config).pid)
        with pytest.raises(RunError):
            run(loop_of(config, rig), at_40=lambda: kill(firmware))
        until(lambda: ended(record))
        assert end_after(record) <= WATCHDOG_US
        until(lambda: report(config).state == "fault")
        assert "port" in report(config).fault
        with pytest.raises(PortError, match="cannot be opened"):  # nothing is there to be cleared
            rig.clear()
