"""The host board as a process, a plant that is a thread, and a host at the port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import serial

from hil.messages import wire as w
from hil.messages.frame import Frame, FrameParser, encode
from hil.messages.layout import Message

ROOT = Path(__file__).parents[3]
FIRMWARE = ROOT / "firmware"
START_US = 1_000_000
PATIENCE = 30.0  # s, after which a test gives up on an event; never a measured time

M = TypeVar("M", bound=Message)


def make(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(FIRMWARE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Event:
    """One exchange on the plant bus."""

    time_us: int
    what: str  # force, stiffness or sample
    offset: int = 0
    values: tuple[float, ...] = ()


Answer = Callable[[Message, int], bytes | None]


@dataclass
class FakePlant:
    """Answers on the plant bus and writes down what was asked; `answer` may interfere."""

    dof: int
    bonds: int
    answer: Answer = lambda message, index: None  # None: the honest answer
    events: list[Event] = field(default_factory=list)
    forces: list[float] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.forces = [0.0] * self.dof
        self.mine, self.theirs = socket.socketpair()
        self.thread = threading.Thread(target=self.serve)

    def channels(self) -> list[float]:
        """Displacement: a thousandth of the force; elongation: the channel number."""
        return [1e-3 * f for f in self.forces] + [float(i) for i in range(self.bonds)]

    def honest(self, message: Message) -> bytes:
        if isinstance(message, w.PlantWrite):
            applied = message.values
            if message.target == w.Target.FORCE:
                self.forces[message.offset : message.offset + message.count] = message.values[
                    : message.count
                ]
            else:
                applied = tuple(v + 0.5 for v in message.values)
            return encode(w.PlantApplied(message.target, message.offset, message.count, 0, applied))
        assert isinstance(message, w.PlantSample)
        values, frames = self.channels(), b""
        for at in range(0, len(values), w.CHANNELS):
            piece = values[at : at + w.CHANNELS]
            padded = tuple(piece + [0.0] * (w.CHANNELS - len(piece)))
            frames += encode(w.PlantSense(message.time_us, at, len(piece), len(values), 0, padded))
        return frames

    def serve(self) -> None:
        parser = FrameParser()
        with contextlib.suppress(ConnectionError):  # hung up in the middle of an exchange
            while data := self.mine.recv(65536):
                for frame in parser.feed(data):
                    self.take(frame)

    def take(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, w.PlantWrite):
            what = "force" if message.target == w.Target.FORCE else "stiffness"
            values = message.values[: message.count]
            event = Event(message.time_us, what, message.offset, values)
        else:
            assert isinstance(message, w.PlantSample)
            event = Event(message.time_us, "sample")
        other = self.answer(message, len(self.events))
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()
        self.mine.sendall(self.honest(message) if other is None else other)

    def wait_for(self, condition: Callable[[list[Event]], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.events), PATIENCE), self.events


class Board:
    """The host board as a process, and a host at its port."""

    def __init__(self, program: Path, plant: FakePlant, clock: str, *more: str) -> None:
        self.plant = plant
        words = [str(program), "--plant-fd", str(plant.theirs.fileno())]
        words += ["--dof", str(plant.dof), "--bonds", str(plant.bonds), "--clock", clock]
        words += ["--start-us", str(START_US), "--device-id", "42", *more]
        self.process = subprocess.Popen(
            words,
            pass_fds=[plant.theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        plant.theirs.close()
        plant.thread.start()
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip().removeprefix("port=")
        assert self.port, self.process.stderr and self.process.stderr.read()
        self.seq = 0
        self.ended = False
        self.errors = ""  # what the firmware said on stderr, once it has ended
        self.connect()

    def connect(self) -> None:
        self.serial = serial.Serial(self.port, timeout=PATIENCE)
        self.parser = FrameParser()
        self.pending: list[Frame] = []

    def receive(self) -> Frame:
        while not self.pending:
            data = self.serial.read(1)
            assert data, "the board is silent"
            self.pending += self.parser.feed(data + self.serial.read(self.serial.in_waiting))
        return self.pending.pop(0)

    def ask(self, message: Message, expected: type[M]) -> M:
        self.seq += 1
        self.serial.write(encode(message, self.seq))
        while (frame := self.receive()).seq != self.seq:
            pass
        assert isinstance(frame.message, expected), frame.message
        return frame.message

    def state(self) -> w.State:
        return self.ask(w.StateRequest(0), w.State)

    def wait_done(self) -> w.RunDone:
        while not isinstance(message := self.receive().message, w.RunDone):
            pass
        return message

    def write(self, target: w.Target, load_case: int, values: list[float]) -> None:
        for at in range(0, len(values), w.VALUES):
            piece = values[at : at + w.VALUES]
            padded = tuple(piece + [0.0] * (w.VALUES - len(piece)))
            self.ask(w.Write(target, load_case, at, len(piece), padded), w.State)

    def read(self, target: w.Target, load_case: int, size: int) -> list[float]:
        values: list[float] = []
        while len(values) < size:
            count = min(w.VALUES, size - len(values))
            got = self.ask(w.Read(target, load_case, len(values), count), w.Values)
            values += got.values[: got.count]
        return values

    def activate(self, watchdog_us: int = 1_000_000, settle_us: int = 1000) -> None:
        info = self.ask(w.InfoRequest(w.SCHEMA_CRC), w.Info)
        assert (info.schema, info.device_id) == (w.SCHEMA_CRC, 42)
        assert (info.dof, info.bonds) == (self.plant.dof, self.plant.bonds)
        self.ask(w.Setup(0.2, 50.0, 200.0, 0.0, watchdog_us, settle_us, 0, 100, 4), w.State)
        self.ask(w.ModeRequest(w.Mode.ACTIVE), w.State)

    def close(self) -> None:
        """End the board; may be called twice."""
        self.serial.close()
        if self.ended:
            return
        self.ended = True
        self.plant.mine.shutdown(socket.SHUT_RDWR)
        _, self.errors = self.process.communicate(timeout=PATIENCE)
        self.plant.thread.join(PATIENCE)
        self.plant.mine.close()
        assert self.process.returncode == 0, self.errors
        assert "Sanitizer" not in self.errors
        assert "runtime error" not in self.errors


class Start:
    """Makes boards for one test and ends them."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.boards: list[Board] = []

    def __call__(
        self, clock: Literal["virtual", "wall"], *more: str, dof: int = 24, bonds: int = 28
    ) -> Board:
        self.boards.append(Board(self.program, FakePlant(dof, bonds), clock, *more))
        return self.boards[-1]
