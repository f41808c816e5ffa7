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
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import serial
from cobs import cobs

from hil.messages import wire as w
from hil.messages.frame import HEADER, FrameParser, encode
from hil.messages.layout import Message
from tests.unit.firmware.harness import FIRMWARE, PATIENCE, ROOT, START_US, Board, Start, make

LATE_US = 500_000  # a loaded machine may run the deadman this much late, by device time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the host board is for Linux")


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
        told = []
        while not isinstance((frame := board.receive()).message, w.RunDone):
            assert isinstance(frame.message, w.State)
            told.append((frame.seq - 1000, frame.message.device_us))
        board.plant.answer = lambda message, index: None
        events = board.plant.events
        records.append(events)
        assert len(told) >= (80 if disturbed else 0)
        # Each was answered at the time of the exchange it was sent in, not later.
        assert told == [(index, events[index].time_us) for index, _ in told]
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


def test_a_host_that_does_not_read_loses_frames_and_not_the_stream(start: Start) -> None:
    board = start("virtual")
    board.activate()
    board.write(w.Target.STIFFNESS, 0, [100.0] * 28)
    before = len(board.plant.events)
    for _ in range(3000):  # 150 kB of answers: more than a pty holds
        board.serial.write(encode(w.StateRequest(0)))
    for _ in range(2):  # the second is not begun before the first was answered
        board.serial.write(encode(w.Apply(28)))
    board.plant.wait_for(lambda events: len(events) == before + 2)
    while board.serial.in_waiting:
        list(board.parser.feed(board.serial.read(board.serial.in_waiting)))
    assert board.parser.counters.frames < 3000
    assert board.state().frames > 3000  # the very next answer is whole


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
    assert safe.what == "force"
    assert len(safe.values) == 24
    assert ends - LATE_US < safe.time_us < ends + LATE_US
    assert board.plant.events[-2].time_us <= state.device_us + LATE_US  # and nothing between
    board.serial.close()
    board.connect()
    board.serial.reset_input_buffer()
    state = board.state()
    assert (state.mode, state.fault) == (w.Mode.FAULT, w.Fault.TOKEN_EXPIRED)
    assert (state.run, state.expired) == (w.RunStatus.EXPIRED, 1)
    board.close()
    assert ("taken by no host" in board.errors) == (host == "sends and never reads")


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
    assert plant.events[-1].what == "force"
    assert not any(plant.events[-1].values)
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
    with pytest.raises(serial.SerialException, match=r"readiness|Input/output"):
        board.serial.read(1)  # for the host it is a device that was unplugged


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
    assert "hil-firmware" in ran.stderr
    assert "Sanitizer" not in ran.stderr
