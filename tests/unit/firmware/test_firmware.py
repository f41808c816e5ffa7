"""The firmware: its C tests, and the host board driven over its pty by a fake plant."""

from __future__ import annotations

import random
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import pytest
import serial
from cobs import cobs

from hil.messages import wire as w
from hil.messages.frame import HEADER, Frame, FrameParser, encode
from hil.messages.layout import Message

ROOT = Path(__file__).parents[3]
FIRMWARE = ROOT / "firmware"
START_US = 1_000_000
PATIENCE = 30.0  # s, after which a test gives up on an event; never a measured time
LATE_US = 500_000  # a loaded machine may run the deadman this much late, by device time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the host board is for Linux")

M = TypeVar("M", bound=Message)


def make(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(FIRMWARE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host board with address and undefined-behaviour sanitizers."""
    build = tmp_path_factory.mktemp("firmware")
    made = make("host", "SANITIZE=1", "DEFINES=-DPLANT_TIMEOUT_MS=1000", f"BUILD={build}")
    assert made.returncode == 0, made.stderr
    return build / "hil-firmware"


def golden_line(kind: int, flags: int, seq: int, payload: bytes) -> str:
    body = HEADER.pack(kind, flags, seq) + payload
    frame = cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"
    return f"{kind} {flags} {seq} {payload.hex() or '-'} {frame.hex()}\n"


def golden_frames() -> str:
    """Frames packed by Python: every size, with few and many zeros, and full COBS blocks."""
    rng = random.Random(7)
    lines = []
    for size in range(273):
        for zeros in (0, 1, 9):
            payload = bytes(
                0 if rng.randrange(10) < zeros else rng.randrange(256) for _ in range(size)
            )
            head = (rng.randrange(256), rng.randrange(256), rng.randrange(1 << 16))
            lines.append(golden_line(*head, payload))
    full = 0
    while full < 20:  # bodies of exactly one full block: 254 bytes without a zero
        payload = bytes(rng.randrange(1, 256) for _ in range(246))
        body = HEADER.pack(1, 2, 0x0304) + payload
        if 0 not in body + zlib.crc32(body).to_bytes(4, "little"):
            lines.append(golden_line(1, 2, 0x0304, payload))
            full += 1
    for cls in w.MESSAGES:
        message = cls.unpack(bytes(rng.randrange(64) for _ in range(cls.STRUCT.size)))
        frame = encode(message, seq=258)
        lines.append(f"{cls.TYPE} 0 258 {message.pack().hex()} {frame.hex()}\n")
    return "".join(lines)


def test_c_tests_pass_and_frames_equal_those_of_python(tmp_path: Path) -> None:
    golden = tmp_path / "golden.txt"
    golden.write_text(golden_frames())
    ran = make("test", f"BUILD={tmp_path / 'build'}", f"GOLDEN={golden}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"golden frames: {len(golden.read_text().splitlines())}" in ran.stdout
    for name in FIRMWARE.glob("tests/test_*.c"):
        assert f"{name.stem}: " in ran.stdout


def test_the_command_of_the_readme_builds_the_host_board(tmp_path: Path) -> None:
    readme = (FIRMWARE / "README.md").read_text()
    (command,) = (line for line in readme.splitlines() if line.startswith("cc "))
    words = shlex.split(command)
    words[words.index("-o") + 1] = str(tmp_path / "hil-firmware")
    files = [str(f.relative_to(ROOT)) for word in words if "*" in word for f in ROOT.glob(word)]
    words = [word for word in words if "*" not in word] + files
    built = subprocess.run(
        [*words, "-Werror"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr


def test_app_is_portable() -> None:
    allowed = {"math.h", "string.h", "stdbool.h", "stddef.h", "stdint.h", "assert.h"}
    allowed |= {"hal.h", "wire.h"} | {path.name for path in FIRMWARE.glob("app/*.h")}
    for path in FIRMWARE.glob("app/*.[ch]"):
        text = path.read_text()
        included = {
            line.split()[1].strip('"<>') for line in text.splitlines() if "#include" in line
        }
        assert included <= allowed, path
        assert "malloc" not in text


def test_generated_header_is_fresh() -> None:
    assert (FIRMWARE / "generated" / "wire.h").read_text() == w.header()


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
        self.serial.close()
        self.plant.mine.shutdown(socket.SHUT_RDWR)
        _, errors = self.process.communicate(timeout=PATIENCE)
        self.plant.thread.join(PATIENCE)
        self.plant.mine.close()
        assert self.process.returncode == 0
        assert "Sanitizer" not in errors and "runtime error" not in errors, errors


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


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    made = Start(program)
    yield made
    for board in made.boards:
        board.close()


def float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


@pytest.mark.parametrize(("dof", "bonds"), [(24, 28), (64, 64), (1, 1)])
def test_values_are_those_of_the_plant_and_virtual_time_is_exact(
    start: Start, dof: int, bonds: int
) -> None:
    board = start("virtual", dof=dof, bonds=bonds)
    board.activate()
    stiffness = [60.0 + i for i in range(bonds)]
    board.write(w.Target.STIFFNESS, 0, stiffness)
    board.ask(w.Apply(bonds), w.State)
    assert board.read(w.Target.APPLIED_STIFFNESS, 0, bonds) == [k + 0.5 for k in stiffness]
    loads = [[0.001 * (i + 1) * (-1) ** case for i in range(dof)] for case in range(3)]
    for case, load in enumerate(loads):
        board.write(w.Target.FORCE, case, load)
    before = len(board.plant.events)
    state = board.ask(w.Run(START_US + 900_000, 1, 1, 3, 0), w.State)
    assert (state.run, state.device_us) == (w.RunStatus.RUNNING, START_US)
    done = board.wait_done()
    assert (done.status, done.cases_done, done.batch) == (w.RunStatus.DONE, 3, 1)
    assert done.device_us == START_US + 3 * 1300 + 1000
    for case, load in enumerate(loads):
        expected = [float32(1e-3 * float32(f)) for f in load]
        assert board.read(w.Target.DISPLACEMENT, case, dof) == expected
        assert board.read(w.Target.ELONGATION, case, bonds) == [float(i) for i in range(bonds)]
        measured = board.ask(w.CaseRequest(case), w.Case)
        assert measured.device_us == START_US + case * 1300 + 1300
        assert (measured.flags, measured.samples, measured.batch) == (w.CaseFlag.SETTLED, 4, 1)
    pieces = range(0, dof, w.VALUES)
    times: list[tuple[int, str]] = []
    for case in range(3):
        t = START_US + case * 1300
        times += [(t, "force") for _ in pieces]
        times += [(t + 1000 + 100 * i, "sample") for i in range(4)]
    times += [(START_US + 3 * 1300, "force") for _ in pieces]
    events = board.plant.events[before:]
    assert [(e.time_us, e.what) for e in events] == times
    assert not any(any(e.values) for e in events[-len(pieces) :])
    assert board.state().device_us == done.device_us  # virtual time stands still when idle


def test_requests_in_a_batch_do_not_change_what_the_plant_sees(start: Start) -> None:
    records = []
    for disturbed in (False, True):
        board = start("virtual")
        board.activate()
        board.write(w.Target.FORCE, 0, [0.1] * 24)
        if disturbed:

            def disturb(message: Message, index: int, board: Board = board) -> None:
                # The board waits for this answer: the request is there when it goes on.
                board.serial.write(encode(w.StateRequest(0), 1000 + index))

            board.plant.answer = disturb
        board.ask(w.Run(START_US + 900_000, 1, 1, 16, 0), w.State)
        assert board.wait_done().status == w.RunStatus.DONE
        board.plant.answer = lambda message, index: None
        records.append(board.plant.events)
        assert board.state().frames > (80 if disturbed else 0)
    assert records[0] == records[1]


def test_a_million_bytes_of_garbage_are_counted_and_survived(start: Start) -> None:
    board = start("virtual")
    board.activate()
    before = board.state()
    rng = random.Random(11)
    counted = 0
    for _ in range(250):
        noise = rng.randbytes(4000)
        board.serial.write(noise + b"\0")
        counted += sum(1 for chunk in noise.split(b"\0") if chunk)
    after = board.state()
    seen = after.bad_frames + after.unknown + after.frames - 1
    assert seen - before.bad_frames - before.unknown - before.frames == counted
    assert after.mode == w.Mode.ACTIVE


def test_hosts_come_and_go(start: Start, tmp_path: Path) -> None:
    link = tmp_path / "port"
    board = start("virtual", "--link", str(link))
    assert link.resolve() == Path(board.port)
    board.activate()
    for _ in range(3):
        board.serial.write(b"half a frame")
        board.serial.close()
        board.connect()
        board.serial.write(b"\0")
        assert board.state().mode == w.Mode.ACTIVE
    assert board.state().bad_frames == 3


@pytest.mark.parametrize("host", ["closes its port", "sends and never reads"])
def test_forces_are_zero_when_the_token_runs_out(start: Start, host: str) -> None:
    board = start("wall")
    board.activate(watchdog_us=300_000, settle_us=50_000_000)
    board.write(w.Target.FORCE, 0, [0.1] * 24)
    now = board.state().device_us
    assert now > START_US
    state = board.ask(w.Run(now + 10_000_000, 1, 1, 1, 0), w.State)  # cut to the watchdog
    ends = state.device_us + 300_000
    if host == "closes its port":
        board.serial.close()
    else:
        board.serial.write_timeout = PATIENCE
        for _ in range(3000):  # 150 kB of answers: more than a pty holds
            board.serial.write(encode(w.StateRequest(0)))
    board.plant.wait_for(lambda events: any(any(e.values) for e in events))
    board.plant.wait_for(lambda events: not any(events[-1].values))
    safe = board.plant.events[-1]
    assert safe.what == "force" and len(safe.values) == 24
    assert ends - LATE_US < safe.time_us < ends + LATE_US
    assert board.plant.events[-2].time_us <= state.device_us + LATE_US  # and nothing between
    board.serial.close()
    board.connect()
    board.serial.reset_input_buffer()
    state = board.state()
    assert (state.mode, state.fault) == (w.Mode.FAULT, w.Fault.TOKEN_EXPIRED)
    assert (state.run, state.expired) == (w.RunStatus.EXPIRED, 1)


def mangle(frame: bytes, **changes: object) -> bytes:
    """Return an honest answer with some fields changed."""
    (good,) = FrameParser().feed(frame)
    values = {f.name: getattr(good.message, f.name) for f in type(good.message).LAYOUT}
    return encode(type(good.message)(**{**values, **changes}))


@pytest.mark.parametrize(
    ("what", "fault", "spoil"),
    [
        ("sample", w.Fault.SENSOR, lambda honest: b"nonsense\0"),
        ("sample", w.Fault.SENSOR, lambda honest: honest[:40] + b"\0"),
        ("sample", w.Fault.SENSOR, lambda honest: mangle(honest, time_us=1)),
        ("sample", w.Fault.SENSOR, lambda honest: mangle(honest, count=51)),
        ("sample", w.Fault.SENSOR, lambda honest: mangle(honest, total=64)),
        ("sample", w.Fault.SENSOR, lambda honest: mangle(honest, offset=64)),
        ("sample", w.Fault.SENSOR, lambda honest: mangle(honest, values=(float("nan"),) * 64)),
        ("sample", w.Fault.SENSOR, lambda honest: encode(w.StateRequest(0))),
        ("force", w.Fault.ACTUATOR, lambda honest: b"\x01\x01\x01\0"),
        ("force", w.Fault.ACTUATOR, lambda honest: mangle(honest, offset=1)),
        ("force", w.Fault.ACTUATOR, lambda honest: mangle(honest, count=60000)),
        ("force", w.Fault.ACTUATOR, lambda honest: mangle(honest, target=w.Target.STIFFNESS)),
        ("stiffness", w.Fault.ACTUATOR, lambda honest: encode(w.PlantSample(0))),
    ],
)
def test_a_plant_that_talks_nonsense_is_a_fault(
    start: Start, what: str, fault: w.Fault, spoil: Callable[[bytes], bytes]
) -> None:
    board = start("virtual")
    board.activate()
    board.write(w.Target.STIFFNESS, 0, [100.0] * 28)
    board.write(w.Target.FORCE, 0, [0.1] * 24)
    plant = board.plant

    def lie(message: Message, index: int) -> bytes | None:
        kinds = {w.Target.FORCE: "force", w.Target.STIFFNESS: "stiffness"}
        kind = kinds[w.Target(message.target)] if isinstance(message, w.PlantWrite) else "sample"
        if kind != what:
            return None
        plant.answer = lambda message, index: None  # once
        return spoil(plant.honest(message))

    plant.answer = lie
    if what == "stiffness":
        board.ask(w.Apply(28), w.State)
    else:
        board.ask(w.Run(START_US + 900_000, 1, 1, 1, 0), w.State)
        assert board.wait_done().status == w.RunStatus.FAILED
    state = board.state()
    assert (state.mode, state.fault) == (w.Mode.FAULT, fault)
    assert plant.events[-1].what == "force" and not any(plant.events[-1].values)
    board.ask(w.ModeRequest(w.Mode.CLEAR), w.State)
    board.activate()  # an honest plant again: the bus has found its way back
    board.write(w.Target.FORCE, 0, [0.1] * 24)
    board.ask(w.Run(board.state().device_us + 900_000, 1, 1, 1, 0), w.State)
    assert board.wait_done().status == w.RunStatus.DONE


def test_a_silent_plant_is_a_fault_in_wall_time(start: Start) -> None:
    board = start("wall")
    board.activate()
    silent = board.plant
    silent.answer = lambda message, index: b"" if isinstance(message, w.PlantSample) else None
    board.ask(w.Run(board.state().device_us + 900_000, 1, 1, 1, 0), w.State)
    assert board.wait_done().status == w.RunStatus.FAILED
    assert board.state().fault == w.Fault.SENSOR


def test_a_plant_that_hangs_up_ends_the_board(start: Start) -> None:
    board = start("virtual")
    board.plant.mine.shutdown(socket.SHUT_RDWR)
    assert board.process.wait(PATIENCE) == 0
    with pytest.raises(OSError):  # for the host it is a device that was unplugged
        board.serial.write(b"\0")
        board.serial.read(1)


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_a_signal_makes_outputs_safe_first(
    start: Start, clock: Literal["virtual", "wall"], tmp_path: Path
) -> None:
    link = tmp_path / "port"
    board = start(clock, "--link", str(link))
    board.activate(settle_us=50_000_000, watchdog_us=10_000_000)
    board.write(w.Target.FORCE, 0, [0.1] * 24)
    loaded = threading.Event()

    def slow(message: Message, index: int) -> None:
        # In virtual time the signal must come while the forces are on, so before the answer.
        if isinstance(message, w.PlantWrite) and any(message.values) and not loaded.is_set():
            board.process.send_signal(signal.SIGTERM)
            loaded.set()

    board.plant.answer = slow
    ends = board.state().device_us + 9_000_000
    board.ask(w.Run(ends, 1, 1, 1, 0), w.State)
    assert loaded.wait(PATIENCE)
    assert board.process.wait(PATIENCE) == 0
    safe = board.plant.events[-1]
    assert safe.what == "force"
    assert not any(safe.values)
    assert safe.time_us < ends  # it was the signal, not the deadman
    assert not link.is_symlink()


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--plant-fd 0 --dof 24 --bonds 28 --clock soon",
        "--plant-fd 0 --dof 65 --bonds 28 --clock wall",
        "--plant-fd 0 --dof 24x --bonds 28 --clock wall",
        "--plant-fd 0 --dof 24 --bonds 28 --clock wall --start-us -1",
        "--plant-fd 999 --dof 24 --bonds 28 --clock wall",
        "--plant-fd 0 --dof 24 --bonds 28 --clock wall more",
    ],
)
def test_a_wrong_command_line_is_told(program: Path, words: str) -> None:
    ran = subprocess.run(
        [str(program), *words.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "hil-firmware" in ran.stderr and "Sanitizer" not in ran.stderr
