"""The bus's hand-packed answers against the declared messages, and its end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hil.messages import wire
from hil.messages.frame import Frame, FrameParser, encode
from hil.types import Array
from sim.boards.plant_bus import PlantBus


class RampPlant:
    """Channel i reads i + time; actuators halve what they are told."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.largest = 0.0

    @property
    def unloaded(self) -> bool:
        """Whether the newest write was all zeros."""
        return self.largest == 0

    def write(self, time_us: int, target: int, offset: int, values: Any) -> Array:
        """Halve the values."""
        self.largest = np.abs(values).max()
        return np.asarray(values) / 2

    def release(self, time_us: int) -> None:
        """Be safe."""
        self.largest, self.released_us = 0.0, time_us

    def sample(self, time_us: int) -> Array:
        """Return a ramp."""
        return np.arange(self.channels, dtype=np.float64) + time_us


@contextmanager
def served(plant: RampPlant) -> Iterator[tuple[PlantBus, socket.socket]]:
    """Run a bus in a thread; give the bus and the firmware's end of it."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    bus = PlantBus(ours, plant)
    thread = threading.Thread(target=bus.run)
    thread.start()
    with ours, theirs:
        try:
            yield bus, theirs
        finally:
            bus.hang_up()
            thread.join()


def heard(end: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes."""
    data = b""
    while len(data) < size:
        data += end.recv(size - len(data))
    return data


def test_a_sample_of_many_channels_is_answered_in_the_declared_frames() -> None:
    with served(RampPlant(100)) as (_, end):
        end.sendall(encode(wire.PlantSample(7), 513))
        frames: list[Frame] = []
        parser = FrameParser()
        while len(frames) < 2:
            frames += parser.feed(end.recv(4096))
    assert [frame.seq for frame in frames] == [513, 513]
    first, second = (frame.message for frame in frames)
    assert first == wire.PlantSense(7, 0, 64, 100, 0, tuple(i + 7.0 for i in range(64)))
    assert isinstance(second, wire.PlantSense)
    assert (second.offset, second.count, second.total) == (64, 36, 100)
    assert second.values[:36] == tuple(i + 71.0 for i in range(36))


def test_its_bytes_are_those_of_the_frame_codec() -> None:
    write = wire.PlantWrite(9, wire.Target.FORCE, 4, 3, 0, (0.5, -1.0, 2.0) + (0.0,) * 29)
    applied = wire.PlantApplied(wire.Target.FORCE, 4, 3, 0, (0.25, -0.5, 1.0) + (0.0,) * 29)
    expected = encode(applied, 77)
    with served(RampPlant(4)) as (_, end):
        end.sendall(encode(write, 77))
        assert heard(end, len(expected)) == expected


def test_noise_on_the_bus_is_counted_and_answered_by_nothing() -> None:
    sense = encode(wire.PlantSense(1, 0, 2, 2, 0, (1.0, 2.0) + (0.0,) * 62), 2)
    with served(RampPlant(2)) as (bus, end):
        end.sendall(b"\x05garbage\0" + encode(wire.StateRequest(0), 1))
        end.sendall(encode(wire.PlantSample(1), 2))
        assert heard(end, len(sense)) == sense
        assert bus.parser.counters.bad_frames == 1


def test_it_knows_whether_the_outputs_are_safe() -> None:
    write = wire.PlantWrite(9, wire.Target.FORCE, 0, 1, 0, (1.0,) + (0.0,) * 31)
    zero = wire.PlantWrite(10, wire.Target.FORCE, 0, 1, 0, (0.0,) * 32)
    size = len(encode(wire.PlantApplied(wire.Target.FORCE, 0, 1, 0, (0.5,) + (0.0,) * 31)))
    with served(RampPlant(2)) as (bus, end):
        assert bus.unloaded.wait(30)
        end.sendall(encode(write))
        heard(end, size)
        assert not bus.unloaded.is_set()
        end.sendall(encode(zero))
        assert bus.unloaded.wait(30)


def test_it_ends_when_the_firmware_does() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        bus = PlantBus(ours, RampPlant(2))
        theirs.close()
        bus.run()
    assert not bus.hung_up
