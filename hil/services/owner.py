"""A mirror as a process: its lock, its simulated board, its signals; and starting one.

`python -m hil.services.owner` reads one JSON line with the resolved configuration from its
standard input, says `ready` or an error as one JSON line on its standard output, and ends
when the input ends: a mirror started by another process never outlives it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from hil import errors
from hil.config import Config, build
from hil.errors import HilError, LinkError, RunError
from hil.links.zeromq import runtime_directory
from hil.messages import bus
from hil.rigs.base import AbstractBoard
from hil.rigs.session import enquire
from hil.services.lock import hold
from hil.services.mirror import Mirror, bus_address

START_S = 60.0  # for a mirror to be ready: the firmware may have to be compiled first


class MirrorJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a mirror process is told: its configuration and the board's first plant time."""

    config: Config
    start_us: int = 0


def serve(job: MirrorJob, until: threading.Event, ready: Callable[[Mirror], None]) -> None:
    """Own the rig of a configuration until told to end.

    Raises LeaseError while another mirror owns it, InputError where the configuration or
    the device is wrong.
    """
    config = job.config
    with contextlib.ExitStack() as stack:
        stack.enter_context(owned(config))
        port = ""
        board: AbstractBoard | None = None
        if config.board is not None:
            board = build(
                config.board,
                "board",
                rig=config.rig,
                clock=config.clock,
                seed=config.seed,
                ideal=config.ideal,
                start_us=job.start_us,
            )
            port = stack.enter_context(board)
        mirror = Mirror(config, port, board)
        mirror.serve(until, lambda: ready(mirror))


def owned(config: Config) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a rig: one process owns it. Entering raises LeaseError."""
    address, _, _ = bus_address(config)
    return hold(
        _lock_file(address.name),
        address.where,
        f"rig {address.name}: another mirror owns it already (`hil status`); end that one first",
    )


def _lock_file(name: str) -> Path:
    return runtime_directory() / f"{name}.lock"


def served_at(name: str) -> str:
    """Return the address a rig's mirror wrote down when it started."""
    return _lock_file(name).read_text()


def served_rigs() -> list[str]:
    """Return the names of the rigs whose mirrors run on this machine, as this user."""
    names = []
    for path in sorted(runtime_directory().glob("*.lock")):
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                names.append(path.stem)
    return names


def status(config: Config) -> bus.StatusReport | None:
    """Return how the rig of a configuration is, None when no mirror serves it."""
    address, keys, _ = bus_address(config)
    if address.where == "ipc" and address.name not in served_rigs():
        return None
    try:
        report = enquire(address, bus.StatusRequest, keys)
    except LinkError:
        return None
    assert isinstance(report, bus.StatusReport)
    return report


class HostedMirror:
    """A mirror in a thread of this process, for a rig whose person sits at this terminal.

    A context manager. Entering raises what the mirror could not start for.
    """

    def __init__(self, job: MirrorJob) -> None:
        self._job = job
        self._end, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="mirror")
        self._mirror: Mirror | None = None
        self._error: Exception | None = None

    def __enter__(self) -> HostedMirror:
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *exc: object) -> None:
        self.interrupt()
        self._end.set()
        self._thread.join()

    def unwind(self, kind: object, error: object, trace: object) -> None:
        """Interrupt where an error, or Ctrl-C, leads out of what the mirror is used for."""
        if kind is not None:
            self.interrupt()

    def interrupt(self) -> None:
        """End what the person is being asked: nobody waits for it any more."""
        if self._mirror is not None:
            self._mirror.interrupt()

    def _run(self) -> None:
        try:
            serve(self._job, self._end, self._is_ready)
        except HilError as error:
            self._error = error
        finally:
            self._ready.set()

    def _is_ready(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._ready.set()


class ChildMirror:
    """A mirror in a process of its own, started by this one; a context manager.

    log: file its words go to. Entering raises what the mirror could not start for.
    """

    def __init__(self, job: MirrorJob, log: Path) -> None:
        self._job = job
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ChildMirror:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hil.services.owner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # ctrl-C is for us: we end it in order
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self._job).decode() + "\n")
        process.stdin.flush()
        timer = threading.Timer(START_S, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        answer = json.loads(line) if line else {"error": "RunError", "reason": self._silent()}
        if "error" in answer:
            self.close()
            raise _error(answer)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the mirror and wait for it; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _silent(self) -> str:
        return f"the mirror did not start within {START_S:g} s; its words are in {self._log}"


def _error(answer: dict[str, Any]) -> HilError:
    kind = getattr(errors, answer["error"], RunError)
    error: HilError = kind(answer["reason"])
    return error


def main() -> None:
    """Run as the child of another process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    job = msgspec.json.decode(sys.stdin.readline(), type=MirrorJob)

    def watch_lifeline() -> None:
        while os.read(0, 4096):  # whatever comes, only its end matters
            pass
        end.set()

    threading.Thread(target=watch_lifeline, name="lifeline", daemon=True).start()
    try:
        serve(job, end, lambda mirror: print(json.dumps({"ready": mirror.name}), flush=True))
    except HilError as error:
        print(json.dumps({"error": type(error).__name__, "reason": str(error)}), flush=True)
        print(f"mirror: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
