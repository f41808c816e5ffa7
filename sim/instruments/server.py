"""The instrument on a TCP port, in a thread or in a process of its own.

By hand: `python -m sim.instruments.server configs/emulator.toml --port 5025` keeps an
instrument running until Ctrl-C; any SCPI client can then talk to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from hil.config import (
    Settings,
    check,
    environment,
    load,
    parse_overrides,
)
from hil.errors import HilError, LinkError, PortError
from hil.rigs.base import AbstractBoard
from hil.types import ClockKind
from sim.circuits.machine import CircuitMachine
from sim.circuits.netlist import CircuitParts
from sim.instruments.gyro_machine import AnalogErrors, GyroMachine
from sim.instruments.instrument import Instrument
from sim.instruments.machine import AbstractMachine
from sim.instruments.registers import InstrumentSettings
from sim.instruments.scpi import MessageParser

START_S = 60.0  # longest wait for the port: a cold Python compiles on a busy machine
END_S = 5.0
LOOK_S = 0.1  # longest time between two looks at what else there is
READ = 1 << 18


class ServerSettings(Settings, frozen=True, kw_only=True):
    """The board table of an emulator that is played on this machine."""

    port: Annotated[int, Meta(ge=0, le=65535, description="on loopback; 0: a free one")] = 0
    instrument: InstrumentSettings = InstrumentSettings()
    errors: AnalogErrors = AnalogErrors()
    circuit: Annotated[
        CircuitParts | None, Meta(description="what ngspice plays in place of equations")
    ] = None


class InstrumentServer:
    """Serves one client at a time; the newest one takes over.

    In a thread: `start()`, `close()`. Here: `run()` until `stop()` from anywhere.
    """

    def __init__(self, instrument: Instrument, port: int = 0) -> None:
        self.instrument = instrument
        try:
            self._listener = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise PortError(f"instrument: port {port} cannot be had ({error.strerror})") from None
        self._wake, self._waker = socket.socketpair()
        self._client: socket.socket | None = None
        self._parser = MessageParser()
        self._drop = False
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The VISA resource string it answers on."""
        return f"TCPIP::127.0.0.1::{self._listener.getsockname()[1]}::SOCKET"

    def start(self) -> str:
        """Serve from a thread; return the resource string."""
        self._thread = threading.Thread(target=self.run, name="instrument")
        self._thread.start()
        return self.url

    def stop(self) -> None:
        """End `run`; from any thread or a signal handler."""
        with contextlib.suppress(OSError):
            self._waker.send(b"s")

    def drop(self) -> None:
        """Pull the plug of the client's connection; from any thread."""
        self._waker.send(b"d")

    def close(self) -> None:
        """End the thread and let go of the port; may be called twice."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._hang_up()
        for each in (self._listener, self._wake, self._waker):
            each.close()
        self.instrument.machine.close()

    def run(self) -> None:
        """Answer messages and play runs until `stop`."""
        while True:
            wanted = [self._listener, self._wake] + ([self._client] if self._client else [])
            wait = self.instrument.wait()
            ready, _, _ = select.select(
                wanted, [], [], LOOK_S if wait is None else min(wait, LOOK_S)
            )
            if self._wake in ready:
                if b"s" in self._wake.recv(64):
                    return
                self._hang_up()
                continue
            if self._listener in ready:
                self._hang_up()
                self._client, _ = self._listener.accept()
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._client.settimeout(END_S)  # for a client that does not take its answers
            elif self._client in ready:
                self._hear()
            elif stuck := self._parser.stuck():
                self.instrument.answer(stuck)
            self.instrument.advance()

    def _hear(self) -> None:
        assert self._client is not None
        try:
            data = self._client.recv(READ)
            if not data:
                self._hang_up()
            for message in self._parser.feed(data):
                if answer := self.instrument.answer(message):
                    self._client.sendall(answer)
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        self._parser = MessageParser()
        if client is not None:
            client.close()


class InstrumentBoard(AbstractBoard):
    """Runs the instrument in a process of its own, which ends with this one.

    rig, start_us: not needed; clock: whether a run takes the time it says.
    """

    Settings: ClassVar[type[ServerSettings]] = ServerSettings

    def __init__(
        self,
        settings: ServerSettings,
        *,
        rig: dict[str, Any] | None = None,
        clock: ClockKind = "wall",
        seed: int = 0,
        ideal: bool = False,
        start_us: int = 0,
    ) -> None:
        self.url = ""
        self._order = Order(settings, clock, seed, ideal)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process of the instrument; None while it is off."""
        return self._process.pid if self._process else None

    def open(self) -> str:
        """Switch it on; return its VISA resource string. Raises PortError, LinkError."""
        if self._process is not None:
            return self.url
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [home, environment().get("PYTHONPATH", "")]))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "sim.instruments.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment(), "PYTHONPATH": path},
            process_group=0,  # Ctrl-C is for this process: the instrument ends after it
        )
        try:
            self.url = _started(process, self._order)
        except BaseException:
            self.close()
            raise
        return self.url

    def close(self) -> None:
        """Switch it off."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Order(msgspec.Struct, frozen=True, array_like=True):
    """What the process of an instrument is told."""

    settings: ServerSettings
    clock: ClockKind
    seed: int
    ideal: bool


def make_instrument(order: Order) -> Instrument:
    """Return the instrument of an order."""
    settings = order.settings.instrument
    if order.ideal:
        settings = msgspec.structs.replace(settings, coefficient_bits=0, adc_bits=0, dac_bits=0)
    machine: AbstractMachine = GyroMachine(order.settings.errors, order.seed, order.ideal)
    if order.settings.circuit is not None and not order.ideal:
        machine = CircuitMachine(order.settings.circuit)
    return Instrument(settings, machine, order.clock)


def _started(process: subprocess.Popen[bytes], order: Order) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
    line, deadline = b"", time.monotonic() + START_S
    while not line.endswith(b"\n"):
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([process.stdout], [], [], left)
        piece = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not piece:
            raise LinkError("simulated instrument: it did not start; see the lines above")
        line += piece
    answer = json.loads(line)
    if "error" in answer:
        raise PortError(answer["error"])
    return str(answer["url"])


def _serve(order: Order, lifeline: int | None) -> int:
    try:
        server = InstrumentServer(make_instrument(order), order.settings.port)
    except HilError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return error.exit_code

    def watch() -> None:
        assert lifeline is not None
        while os.read(lifeline, 4096):  # whatever comes, only its end matters
            pass
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    if lifeline is not None:
        threading.Thread(target=watch, name="lifeline", daemon=True).start()
    print(json.dumps({"url": server.url}), flush=True)
    try:
        server.run()
    finally:
        server.close()
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Keep an instrument running; return the exit status."""
    words = sys.argv[1:] if words is None else words
    if not words:
        order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
        return _serve(order, sys.stdin.fileno())
    parser = argparse.ArgumentParser(
        prog="python -m sim.instruments.server",
        description="Play the analog emulator's instrument until Ctrl-C.",
        epilog="example: python -m sim.instruments.server configs/emulator.toml --port 5025",
    )
    parser.add_argument("config", help="TOML file with a simulation overlay beside it")
    parser.add_argument("--port", type=int, default=0, help="TCP port on loopback")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets")
    asked = parser.parse_args(words)
    try:
        overrides = parse_overrides([*asked.sets, f"board.port={asked.port}"])
        config = load(asked.config, sim=True, overrides=overrides, environ=environment())
        assert config.board is not None
        table = {key: value for key, value in config.board.items() if key != "kind"}
        settings = check(table, ServerSettings, "board")
    except HilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return _serve(Order(settings, config.clock, config.seed, config.ideal), None)


if __name__ == "__main__":
    sys.exit(main())
