"""A serial line that drops, flips, repeats and swaps: the right answer, or a named error."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Iterator

import numpy as np
import pytest
import serial

from hil.config import build
from hil.errors import SchemaError
from hil.messages import wire
from hil.messages.frame import FrameParser, encode
from hil.rigs.spring_network import SpringNetworkRig
from hil.safety.deadman import Minting
from tests.system.rigs import spring_config


class NoisyLine:
    """Stands between host and board and damages what passes, frame by frame."""

    def __init__(self, board_port: str, rate: float) -> None:
        self._board = serial.Serial(board_port, timeout=0)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.rate = rate
        self.damaged = 0
        self._rng = np.random.default_rng(11)
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        waiting = {"host": b"", "board": b""}
        while True:
            ready, _, _ = select.select([self._master, self._board.fd, self._wake], [], [])
            if self._wake in ready:
                return
            if self._master in ready:
                data = waiting["host"] + os.read(self._master, 65536)
                *frames, waiting["host"] = data.split(b"\0")
                self._board.write(self._through(frames))
            if self._board.fd in ready:
                data = waiting["board"] + self._board.read(65536)
                *frames, waiting["board"] = data.split(b"\0")
                os.write(self._master, self._through(frames))

    def _through(self, frames: list[bytes]) -> bytes:
        passed: list[bytes] = []
        for frame in frames:
            if self._rng.random() >= self.rate:
                passed.append(frame)
                continue
            self.damaged += 1
            kind = self._rng.integers(5)
            if kind == 0:  # cut short
                passed.append(frame[: len(frame) // 2])
            elif kind == 1:  # one bit
                flipped = bytearray(frame or b"\1")
                flipped[int(self._rng.integers(len(flipped)))] ^= 1 << int(self._rng.integers(8))
                passed.append(bytes(flipped))
            elif kind == 2:  # twice
                passed += [frame, frame]
            elif kind == 3:  # before its predecessor
                passed.insert(max(0, len(passed) - 1), frame)
            else:  # lost in noise
                passed.append(self._rng.bytes(int(self._rng.integers(1, 300))))
        return b"".join(frame + b"\0" for frame in passed)

    def close(self) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        self._board.close()
        for descriptor in (self._master, self._slave, self._wake, self._end):
            os.close(descriptor)


@contextlib.contextmanager
def rig_behind(rate: float) -> Iterator[tuple[SpringNetworkRig, NoisyLine]]:
    config = spring_config(ideal=True)
    assert config.board is not None
    with build(config.board, "board", rig=config.rig, clock="virtual", ideal=True) as port:
        line = NoisyLine(port, 0.0)
        rig = build(config.rig, "rig", tokens=Minting(1_000_000), clock="virtual", port=line.port)
        try:
            with rig:
                rig.configure()
                rig.activate()
                line.rate = rate
                yield rig, line
                line.rate = 0.0
        finally:
            line.close()


def test_a_noisy_line_costs_time_and_never_the_answer() -> None:
    """Three frames in a hundred damaged, both ways: the same numbers, all of it counted."""
    rng = np.random.default_rng(0)
    stiffness = rng.uniform(80, 200, 28)
    loads = rng.uniform(-0.05, 0.05, (16, 24))
    with rig_behind(0.0) as (rig, _):
        applied = rig.set_stiffness(stiffness)
        clean = rig.settle(loads)
    with rig_behind(0.03) as (rig, line):
        for _ in range(4):
            np.testing.assert_array_equal(rig.set_stiffness(stiffness), applied)
            measured = rig.settle(loads)
            np.testing.assert_array_equal(measured.displacement, clean.displacement)
            np.testing.assert_array_equal(measured.elongation, clean.elongation)
        line.rate = 0.0
        state = rig.device.query()
        assert line.damaged > 10
        assert rig.link.counters.retransmits > 0
        assert state.bad_frames + state.unknown > 0
        assert rig.link.parser.counters.bad_frames > 0


def test_a_million_bytes_of_garbage_and_the_board_still_answers() -> None:
    """Both ends: the C firmware hears it here, the host in tests/unit/messages."""
    rng = np.random.default_rng(1)
    config = spring_config(ideal=True)
    assert config.board is not None
    with (
        build(config.board, "board", rig=config.rig, clock="virtual", ideal=True) as port,
        serial.Serial(port, timeout=5) as line,
    ):
        good = encode(wire.StateRequest(0), 9)
        for start in range(0, 1_000_000, 5000):
            junk = rng.bytes(5000)
            if start % 3 == 1:  # truncated and flipped frames between the noise
                damaged = bytearray(good)
                damaged[int(rng.integers(len(good) - 1))] ^= 0x10
                junk = good[: len(good) // 2] + b"\0" + bytes(damaged) + junk
            line.write(junk)
            line.reset_input_buffer()
        line.write(b"\0" + encode(wire.InfoRequest(wire.SCHEMA_CRC), 1) + good)
        parser = FrameParser()
        answers: dict[int, object] = {}
        while 9 not in answers:
            data = line.read(line.in_waiting or 1)
            assert data, "the board does not answer any more"
            answers |= {frame.seq: frame.message for frame in parser.feed(data)}
        state = answers[9]
        assert isinstance(state, wire.State)
        assert state.bad_frames > 1000
        assert state.mode == wire.Mode.INACTIVE


def test_another_schema_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Firmware of another version: one line with both numbers."""

    config = spring_config(ideal=True)
    assert config.board is not None
    with build(config.board, "board", rig=config.rig, clock="virtual", ideal=True) as port:
        rig = build(config.rig, "rig", tokens=Minting(1), clock="virtual", port=port)
        monkeypatch.setattr(wire, "SCHEMA_CRC", 0x12345678)
        with rig, pytest.raises(SchemaError, match=r"this host speaks 0x12345678; build and fl"):
            rig.configure()
