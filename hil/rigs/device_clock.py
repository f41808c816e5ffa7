"""What time it is on the device, and how far the host's clock is from it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from hil.links.serial import SerialLink
from hil.messages import wire
from hil.types import ClockKind

PROBES = 8


@dataclass(frozen=True)
class ClockOffset:
    """Device time minus host monotonic time, from the probe with the smallest round trip."""

    offset_us: float
    round_trip_us: float


class DeviceClock:
    """Device time: exact when a frame arrives, carried on by the host's clock in between.

    The estimate is never ahead of the device (a frame is older than its arrival), so a
    token minted from it expires early rather than late. Under the virtual clock device
    time stands still between frames, and no host clock is read.
    """

    def __init__(self, kind: ClockKind) -> None:
        self.kind = kind
        self.offset: ClockOffset | None = None
        self._device_us = 0
        self._seen: float | None = None  # host time of the newest frame, s

    def restart(self, device_us: int) -> None:
        """Begin again after a handshake; a device that rebooted starts at its own zero."""
        self.observe(device_us)
        self.offset = None

    def observe(self, device_us: int) -> None:
        """Take note of the device time of a frame that has just arrived."""
        self._device_us = device_us
        self._seen = time.monotonic() if self.kind == "wall" else None

    def now_us(self) -> int:
        """Return device time in microseconds."""
        if self._seen is None:  # virtual, or no frame yet
            return self._device_us
        return self._device_us + int((time.monotonic() - self._seen) * 1e6)

    def synchronise(self, link: SerialLink) -> None:
        """Estimate the clock offset from a few round trips; raises LinkError."""
        if self.kind == "virtual":
            return
        best: ClockOffset | None = None
        for _ in range(PROBES):
            sent = time.monotonic_ns()
            (answer,) = link.exchange([wire.TimeRequest(sent)])
            back = time.monotonic_ns()
            if isinstance(answer, wire.Time) and answer.host_ns == sent:
                trip = (back - sent) / 1e3
                if best is None or trip < best.round_trip_us:
                    best = ClockOffset(answer.device_us - (sent / 1e3 + trip / 2), trip)
        self.offset = best
