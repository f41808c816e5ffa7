"""The host's side of the wire, in as few words as a test needs."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any

import numpy as np
import serial

from hil.messages import wire
from hil.messages.frame import FrameParser, encode
from hil.messages.layout import Message
from hil.types import Array

PATIENCE = 30.0  # s; far beyond what any answer takes


class HostSide:
    """Asks a device, one request at a time, and keeps every byte it said."""

    def __init__(self, port: str) -> None:
        self.port = serial.Serial(port, timeout=PATIENCE)
        self.said = b""
        self._parser = FrameParser()
        self._seq = 0

    def __enter__(self) -> HostSide:
        return self

    def __exit__(self, *exc: object) -> None:
        self.port.close()

    def hear(self) -> tuple[int, Any]:
        """Return sequence number and message of the next frame."""
        data = self.port.read_until(b"\0")
        assert data.endswith(b"\0"), "the device is silent"
        self.said += data
        (frame,) = self._parser.feed(data)
        return frame.seq, frame.message

    def ask(self, request: Message) -> Any:
        """Return the answer to a request; it must not be a refusal."""
        self._seq += 1
        self.port.write(encode(request, self._seq))
        while (heard := self.hear())[0] != self._seq:
            pass
        assert not isinstance(heard[1], wire.Refused), heard[1]
        return heard[1]

    def set_up(self, rig: dict[str, Any]) -> wire.Info:
        """Say hello, send limits and timing, activate."""
        info: wire.Info = self.ask(wire.InfoRequest(wire.SCHEMA_CRC))
        micro = {key: round(value * 1e6) for key, value in rig.items() if isinstance(value, float)}
        self.ask(
            wire.Setup(
                force_max=rig["force_max"],
                stiffness_low=rig["stiffness"][0],
                stiffness_high=rig["stiffness"][1],
                drift_max=rig["drift_max"],
                watchdog_us=micro["watchdog"],
                settle_us=micro["settle"],
                settle_timeout_us=micro["settle_timeout"],
                sample_period_us=micro["sample_period"],
                samples=rig["samples"],
            )
        )
        self.ask(wire.ModeRequest(wire.Mode.ACTIVE))
        return info

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what was applied."""
        self._write(wire.Target.STIFFNESS, 0, stiffness)
        self.ask(wire.Apply(len(stiffness)))
        return self._read(wire.Target.APPLIED_STIFFNESS, 0, len(stiffness))

    def start(self, loads: Array, token: int, life_us: int) -> wire.State:
        """Write load cases and run them as batch `token`; return the acknowledgement."""
        for case, load in enumerate(loads):
            self._write(wire.Target.FORCE, case, load)
        now = self.ask(wire.TimeRequest(0)).device_us
        state: wire.State = self.ask(wire.Run(now + life_us, token, token, len(loads), 0))
        return state

    def settle(self, loads: Array, token: int, bonds: int, life_us: int = 900_000) -> Array:
        """Run load cases and return what was measured: (cases, dof + bonds), m."""
        self.start(loads, token, life_us)
        while not isinstance(done := self.hear()[1], wire.RunDone):
            pass
        assert done.status == wire.RunStatus.DONE
        return np.array(
            [
                np.concatenate(
                    [
                        self._read(wire.Target.DISPLACEMENT, case, loads.shape[1]),
                        self._read(wire.Target.ELONGATION, case, bonds),
                    ]
                )
                for case in range(len(loads))
            ]
        )

    def _write(self, target: wire.Target, case: int, values: Array) -> None:
        padded = tuple(values) + (0.0,) * (wire.VALUES - len(values))
        self.ask(wire.Write(target, case, 0, len(values), padded))

    def _read(self, target: wire.Target, case: int, count: int) -> Array:
        return np.array(self.ask(wire.Read(target, case, 0, count)).values[:count])


def children(pid: int) -> list[int]:
    """Return the processes a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended while we looked
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


class Watched:
    """Processes to be waited for that are not ours to reap."""

    def __init__(self, *pids: int) -> None:
        self._handles = {pid: os.pidfd_open(pid) for pid in pids}

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def all_end(self) -> bool:
        """Return whether every process ended, waiting for it as long as it may take."""
        return all(select.select([h], [], [], PATIENCE)[0] for h in self._handles.values())
