"""Mirrors, boards and clients for the system tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hil.cli import main
from hil.config import Config, load
from hil.links.zeromq import Address
from hil.rigs.base import AbstractTokens
from hil.rigs.remote import RemoteRig
from hil.safety.deadman import Minting
from hil.services.mirror import bus_address
from hil.services.owner import ChildMirror, MirrorJob

ROOT = Path(__file__).parents[2]
SPRING = ROOT / "configs/spring_network.toml"
IRIS = ROOT / "configs/iris.toml"


def spring_config(sim: bool = True, **overrides: Any) -> Config:
    """Return the shipped spring network, `__` standing for the dots of keys."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(SPRING, sim=sim, overrides=dotted)


@contextlib.contextmanager
def mirror(config: Config, tmp_path: Path) -> Iterator[ChildMirror]:
    """Run a mirror in a process of its own."""
    with ChildMirror(MirrorJob(config), tmp_path / "mirror.log") as child:
        yield child


def address(config: Config) -> Address:
    """Return where the mirror of a configuration is."""
    return bus_address(config)[0]


def client(
    config: Config, name: str = "test", mint: Callable[[int], AbstractTokens] = Minting
) -> RemoteRig:
    """Return a client of the mirror of a configuration."""
    return RemoteRig(address(config), mint=mint, client=name)


@contextlib.contextmanager
def board(tmp_path: Path, *settings: str, config: Path = SPRING) -> Iterator[tuple[Path, Path]]:
    """Run a board by itself; yields its port and the plant's own record."""
    port, record = tmp_path / "port", tmp_path / "plant.jsonl"
    words = [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sim.boards.host", str(config)),
            *("--link", str(port), "--record", str(record), *words),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert "port" in json.loads(process.stdout.readline())
        yield port, record
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        process.stdout.close()


def events(record: Path, target: str = "force") -> list[dict[str, Any]]:
    """Return what the plant saw of one kind of actuator, in order."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    return [line for line in lines if str(line.get("target", "")).lower().endswith(target)]


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fails when it never holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.005)


def hil(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line and return how it ended."""
    command = [sys.executable, "-m", "hil", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **more)


def hil_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process: quick, for what it refuses before it starts."""
    out, said = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["hil", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(["hil", *words], code, out.getvalue(), said.getvalue())


def kill(pid: int) -> None:
    """Kill a process the hard way."""
    os.kill(pid, signal.SIGKILL)
