"""The firmware built for this machine, at the far end of a pty, with a simulated plant.

    this process ── stdin: order, lifeline ──▶ sim.boards.plant_bus ◀─ plant bus ─▶ firmware
         └───────────────────────────── pty ───────────────────────────────────────────┘

By hand: `python -m sim.boards.host configs/spring_network.toml --link /tmp/rig` keeps a
board running until Ctrl-C; another process then opens /tmp/rig.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from hil.config import Settings, build, check, environment, load, parse_overrides, settings_of
from hil.errors import ConfigError, HilError, InputError, LinkError, StateError
from hil.rigs.base import AbstractBoard
from hil.types import ClockKind
from sim.boards.build import build_firmware

START_S = 60.0  # longest wait for the port: a cold Python imports SciPy on a busy machine
GRACE_S = 2.0  # beyond the longest life of a token
END_S = 5.0  # beyond the grace, before the process is killed


class HostBoardSettings(Settings, frozen=True, kw_only=True):
    """The board table of a rig that is played on this machine."""

    plant: Annotated[dict[str, Any], Meta(description="table of the plant, a part of its own")]
    record: Annotated[str, Meta(description="file for the plant's own record, JSON lines")] = ""
    link: Annotated[str, Meta(description="symbolic link to the port")] = ""


class BoardRig(Settings, frozen=True, kw_only=True):
    """What the board needs to know of the rig it plays."""

    watchdog: Annotated[float, Meta(gt=0, le=60, description="longest life of a token, s")] = 1.0


class HostBoard(AbstractBoard):
    """Runs the firmware and its plant in processes of their own.

    rig: the rig table; clock: whose time the device keeps; start_us: device time at which
    it starts, microseconds. When this process ends in whatever way, the board waits for
    the firmware's deadman to make the forces zero, and ends too.
    """

    Settings: ClassVar[type[HostBoardSettings]] = HostBoardSettings

    def __init__(
        self,
        settings: HostBoardSettings,
        *,
        rig: dict[str, Any],
        clock: ClockKind = "virtual",
        seed: int = 0,
        ideal: bool = False,
        start_us: int = 0,
    ) -> None:
        settings_of(settings.plant, "board.plant")
        self.settings = settings
        self.port = ""
        known = {key: rig[key] for key in BoardRig.__struct_fields__ if key in rig}
        self._grace = check(known, BoardRig, "rig").watchdog + GRACE_S
        self._order: dict[str, Any] = {
            "plant": settings.plant,
            "rig": rig,
            "clock": clock,
            "seed": seed,
            "ideal": ideal,
            "start_us": start_us,
            "record": settings.record,
            "link": settings.link,
            "grace": self._grace,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process that plays the plant; None while the board is closed."""
        return self._process.pid if self._process else None

    def open(self) -> str:
        """Compile the firmware if need be, start it, and return the port it answers on.

        Raises InputError (no compiler, it does not compile, a setting the plant refuses),
        LinkError (the board did not start).
        """
        if self._process is not None:
            return self.port
        order = self._order | {"program": str(build_firmware(environment()))}
        home = str(Path(__file__).resolve().parents[2])  # where `sim` and `hil` are found
        path = os.pathsep.join(filter(None, [home, environment().get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sim.boards.plant_bus"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment(), "PYTHONPATH": path},
            process_group=0,  # Ctrl-C is for this process: the board ends after it
        )
        try:
            self.port = self._started(self._process, order)
        except BaseException:
            self.close()
            raise
        return self.port

    def wait(self) -> int:
        """Wait until the board ends by itself; return its exit status.

        Raises StateError when it is not open.
        """
        if self._process is None:
            raise StateError("simulated board: wait() needs it open; call open() first")
        return self._process.wait()

    def close(self) -> None:
        """Let the forces become zero, at most a token's life later, then end the board."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(self._grace + END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _started(self, process: subprocess.Popen[bytes], order: dict[str, Any]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
        line = b""
        deadline = time.monotonic() + START_S
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], left)
            piece = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not piece:
                raise LinkError(
                    "simulated board: it did not start"
                    + (f" within {START_S:.0f} s" if not ready else "; see the lines above")
                )
            line += piece
        answer = json.loads(line)
        if "error" in answer:
            raise (InputError if answer["input"] else LinkError)(answer["error"])
        return str(answer["port"])


def main(words: Sequence[str] | None = None) -> int:
    """Keep a board running until SIGINT or SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sim.boards.host",
        description="Run the firmware and a simulated plant behind a pty until Ctrl-C.",
        epilog="example: python -m sim.boards.host configs/spring_network.toml --link /tmp/rig",
    )
    parser.add_argument("config", help="TOML file with a simulation overlay beside it")
    parser.add_argument("--link", default="", help="symbolic link to make to the port")
    parser.add_argument("--record", default="", help="file for the plant's own record")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    asked = parser.parse_args(words)
    overrides = parse_overrides(asked.sets)
    overrides |= {f"board.{k}": v for k in ("link", "record") if (v := getattr(asked, k))}
    try:
        config = load(asked.config, sim=True, overrides=overrides, environ=environment())
        assert config.board is not None
        board = build(
            config.board,
            "board",
            rig=config.rig,
            clock=config.clock,
            seed=config.seed,
            ideal=config.ideal,
        )
        if not isinstance(board, HostBoard):
            raise ConfigError(f"board.kind: {config.board['kind']!r} is not this board")
        for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell had them ignored
            signal.signal(number, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt), board as port:
            print(json.dumps({"port": port, "link": asked.link}), flush=True)
            return board.wait() or 1  # it was not asked to end
    except HilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    from sim.boards import host  # the module a configuration names, not this copy of it

    sys.exit(host.main())
