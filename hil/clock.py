"""Time in the host: wall time, or the virtual time of a simulated plant."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from hil.types import ClockKind


class AbstractClock(ABC):
    """What time it is for everything that is recorded or published."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return the time in nanoseconds (Unix epoch for wall time)."""

    @abstractmethod
    def observe(self, device_us: int) -> None:
        """Take note of the device time, in microseconds, of the newest frame."""


class WallClock(AbstractClock):
    """Unix time that never steps: read once at the start, then monotonic."""

    def __init__(self) -> None:
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return Unix time in nanoseconds."""
        return self._epoch_ns + time.monotonic_ns()

    def observe(self, device_us: int) -> None:
        """Do nothing: the device does not set wall time."""


class VirtualClock(AbstractClock):
    """The plant's own time: it moves only when a frame of the plant arrives."""

    def __init__(self) -> None:
        self._now_ns = 0

    def now_ns(self) -> int:
        """Return plant time in nanoseconds since the plant was made."""
        return self._now_ns

    def observe(self, device_us: int) -> None:
        """Advance to `device_us` microseconds of plant time."""
        self._now_ns = device_us * 1000


def make_clock(kind: ClockKind) -> AbstractClock:
    """Return the clock a configuration names."""
    return VirtualClock() if kind == "virtual" else WallClock()
