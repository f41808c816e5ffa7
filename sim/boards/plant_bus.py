"""The far end of the plant bus: what the firmware's sensors and actuators are wired to.

Run as a program it is the process behind a `HostBoard`: it starts the firmware, plays the
plant, and ends both when its standard input closes, which the kernel does for it when the
process that started it is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import msgspec
import numpy as np
from cobs import cobs

from hil.config import build
from hil.errors import HilError, InputError
from hil.messages.frame import HEADER, FrameParser
from hil.messages.wire import (
    CHANNELS,
    VALUES,
    PlantApplied,
    PlantLook,
    PlantPose,
    PlantSample,
    PlantSense,
    PlantWrite,
)
from hil.types import Array, ClockKind
from sim.rigs.cart_pole_plant import CartPoleEvent, CartPolePlant
from sim.rigs.spring_network_plant import PlantEvent, SpringNetworkPlant

SENSE_HEAD = struct.Struct("<QHHHH")  # PlantSense up to its values
APPLIED_HEAD = struct.Struct("<HHHH")  # PlantApplied up to its values
Look = Callable[[int, int, int], list[tuple[float, float]]]
FIRMWARE_ENDS_S = 2.0  # after the plant hung up


class AbstractPlant(Protocol):
    """What the bus needs of a plant: actuators, sensors, and whether it is safe."""

    @property
    def unloaded(self) -> bool:
        """Whether every output is safe."""
        ...

    def write(self, time_us: int, target: int, offset: int, values: Any) -> Array:
        """Set actuators and return what they were set to."""
        ...

    def release(self, time_us: int) -> None:
        """Make every output safe, as an output stage does that nothing drives any more."""
        ...


@runtime_checkable
class AbstractSampledPlant(AbstractPlant, Protocol):
    """A plant of many channels that are sampled at once."""

    def sample(self, time_us: int) -> Array:
        """Return every sensor channel."""
        ...


@runtime_checkable
class AbstractLookedAtPlant(AbstractPlant, Protocol):
    """A plant with an angle and a position that is looked at many times a second."""

    def look(self, time_us: int, period_us: int, count: int) -> list[tuple[float, float]]:
        """Return angle and position at `count` times."""
        ...


class PlantBus:
    """Answers the firmware's PlantWrite, PlantSample and PlantLook frames on a socket."""

    def __init__(
        self, bus: socket.socket, plant: AbstractSampledPlant | AbstractLookedAtPlant
    ) -> None:
        self.parser = FrameParser()
        self.unloaded = threading.Event()  # every output of the plant is safe
        self.hung_up = False
        self._bus = bus
        self._plant = plant
        self._asked_us = 0  # newest device time the firmware named
        # Looked up once: an answer is waited for at every sample.
        self._sample = plant.sample if isinstance(plant, AbstractSampledPlant) else None
        self._look = plant.look if isinstance(plant, AbstractLookedAtPlant) else None
        self._sense = np.zeros(CHANNELS, dtype="<f4")
        self._applied = np.zeros(VALUES, dtype="<f4")

    def run(self) -> None:
        """Answer until the firmware, or `hang_up`, closes the bus; raises FaultError."""
        self._note_outputs()
        receive, feed = self._bus.recv, self.parser.feed
        with contextlib.suppress(ConnectionError):
            while data := receive(65536):
                if said := b"".join([self._answer(f.seq, f.message) for f in feed(data)]):
                    self._bus.sendall(said)

    def hang_up(self) -> None:
        """Close the bus from any thread: the firmware ends, and so does `run`."""
        self.hung_up = True
        with contextlib.suppress(OSError):
            self._bus.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Let the plant's outputs go, when the firmware that held them is no more."""
        self._plant.release(self._asked_us)
        self._note_outputs()

    def _note_outputs(self) -> None:
        if self._plant.unloaded:
            self.unloaded.set()
        else:
            self.unloaded.clear()

    def _answer(self, seq: int, message: object) -> bytes:
        if isinstance(message, PlantSample) and self._sample is not None:
            self._asked_us = message.time_us
            return self._sensed(seq, message.time_us, self._sample)
        if isinstance(message, PlantLook) and self._look is not None:
            self._asked_us = message.time_us
            return self._seen(seq, message, self._look)
        if isinstance(message, PlantWrite):
            self._asked_us = message.time_us
            count, offset = message.count, message.offset
            values = np.array(message.values[:count])
            applied = self._plant.write(message.time_us, message.target, offset, values)
            self._note_outputs()
            self._applied[:count] = applied
            head = APPLIED_HEAD.pack(message.target, offset, count, 0)
            return _frame(PlantApplied.TYPE, seq, head + self._applied.tobytes())
        return b""

    def _seen(self, seq: int, asked: PlantLook, look: Look) -> bytes:
        poses = look(asked.time_us, asked.period_us, asked.count)
        times = itertools.count(asked.time_us, asked.period_us)
        pack = PlantPose.STRUCT.pack
        return b"".join(
            _frame(PlantPose.TYPE, seq, pack(time_us, angle, position))
            for time_us, (angle, position) in zip(times, poses, strict=False)
        )

    def _sensed(self, seq: int, time_us: int, sample: Callable[[int], Array]) -> bytes:
        # Packed by hand: this is the answer the firmware waits for at every sample.
        values = sample(time_us)
        total = len(values)
        frames = []
        for offset in range(0, total, CHANNELS):
            piece = values[offset : offset + CHANNELS]
            self._sense[: len(piece)] = piece
            head = SENSE_HEAD.pack(time_us, offset, len(piece), total, 0)
            frames.append(_frame(PlantSense.TYPE, seq, head + self._sense.tobytes()))
        return b"".join(frames)


def _frame(kind: int, seq: int, payload: bytes) -> bytes:
    """Return what `hil.messages.frame.encode` makes of a payload that is packed already."""
    body = HEADER.pack(kind, 0, seq) + payload
    return bytes(cobs.encode(body + zlib.crc32(body).to_bytes(4, "little"))) + b"\0"


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What the board asks of its process, as one JSON line."""

    program: str  # the compiled firmware
    plant: dict[str, Any]
    rig: dict[str, Any]
    clock: ClockKind
    seed: int
    ideal: bool
    start_us: int
    record: str
    link: str
    grace: float  # s, longest wait for the outputs to become safe at the end


def main() -> int:
    """Play one board as the order on standard input says; return the exit status.

    The first line of standard output is JSON: the port, or what went wrong.
    """
    # Ctrl-C reaches a whole process group; this end of the wire outlives the other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(0, 65536)):
            return 1  # whoever wanted a board is gone already
        line += piece
    order = msgspec.json.decode(line, type=Order)
    with contextlib.ExitStack() as stack:
        try:
            bus, firmware, port = _set_up(order, stack)
        except HilError as error:
            _say({"error": str(error), "input": isinstance(error, InputError)})
            return error.exit_code
        _say({"port": port})
        threading.Thread(target=_lifeline, args=(bus, order.grace), daemon=True).start()
        try:
            bus.run()
        except HilError as error:
            print(f"simulated board: {error}", file=sys.stderr)
            return error.exit_code
        if not bus.hung_up:
            bus.release()
            print(f"simulated board: the firmware ended ({firmware.wait()})", file=sys.stderr)
            return 1
    return 0


def device_id(plant: dict[str, Any], rig: dict[str, Any], seed: int, ideal: bool) -> int:
    """Return the serial number of a simulated device: another plant is another device.

    What was measured on one must not be taken for another's.
    """
    made_of = {"plant": plant, "geometry": rig.get("geometry"), "seed": seed, "ideal": ideal}
    text = json.dumps(made_of, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _say(words: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(words), flush=True)


def _set_up(
    order: Order, stack: contextlib.ExitStack
) -> tuple[PlantBus, subprocess.Popen[str], str]:
    """Make the plant, start the firmware, and return the bus between them and the port."""
    watch = _recorder(stack.enter_context(_open_record(order.record)))
    plant: SpringNetworkPlant | CartPolePlant = build(
        order.plant, "board.plant", rig=order.rig, seed=order.seed, ideal=order.ideal, watch=watch
    )
    wired, size = _wired(plant)
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    command = [order.program, "--plant-fd", str(theirs.fileno()), *wired]
    command += ["--clock", order.clock, "--start-us", str(order.start_us)]
    command += ["--device-id", str(device_id(order.plant, order.rig, order.seed, order.ideal))]
    command += ["--link", order.link] if order.link else []
    with theirs:
        firmware = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            text=True,
        )
    stack.callback(_end, firmware)
    bus = PlantBus(ours, plant)
    stack.callback(bus.hang_up)
    assert firmware.stdout is not None
    port = firmware.stdout.readline().strip().removeprefix("port=")
    if not port:
        raise InputError(
            f"simulated board: the firmware (exit status {firmware.wait()}) refused to start for "
            f"{size}"
        )
    return bus, firmware, port


def _wired(plant: SpringNetworkPlant | CartPolePlant) -> tuple[list[str], str]:
    """Return what the firmware is to be told of its plant, and the same in words."""
    if isinstance(plant, CartPolePlant):
        return ["--app", "cart_pole"], "a cart-pole"
    dof, bonds = plant.network.dof, plant.network.bond_count
    words = f"{dof} degrees of freedom and {bonds} bonds; a smaller geometry may do"
    return ["--dof", str(dof), "--bonds", str(bonds)], words


def _open_record(path: str) -> contextlib.AbstractContextManager[TextIO | None]:
    if not path:
        return contextlib.nullcontext()
    try:
        return Path(path).open("w", buffering=1)  # a line is in the file before the next event
    except OSError as error:
        raise InputError(f"board.record: {path} cannot be written: {error.strerror}") from None


def _recorder(record: TextIO | None) -> Callable[[PlantEvent | CartPoleEvent], None] | None:
    if record is None:
        return None

    def note(event: PlantEvent | CartPoleEvent) -> None:
        record.write(json.dumps(event.line()) + "\n")

    return note


def _lifeline(bus: PlantBus, grace: float) -> None:
    """End the board when standard input closes, but not before its outputs are safe.

    Making them safe is the firmware's doing, as on a real device: its deadman runs on.
    """
    while os.read(0, 4096):
        pass
    bus.unloaded.wait(grace)
    bus.hang_up()


def _end(firmware: subprocess.Popen[str]) -> None:
    try:
        firmware.wait(FIRMWARE_ENDS_S)
    except subprocess.TimeoutExpired:
        firmware.kill()
        firmware.wait()
    if firmware.stdout is not None:
        firmware.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
