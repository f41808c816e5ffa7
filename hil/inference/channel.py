"""Between the front and a worker: arrays in memory both see, small messages on a socket pair.

The socket pair keeps messages apart (SOCK_SEQPACKET) and ends with either process, so that a
worker that was killed is noticed at once. The memory is cut into slots: one batch is computed
while the next is being laid out. Pages are the system's only once they are touched.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from typing import Any, TypeVar

import msgspec

from hil.models.operation import Asked, Operation
from hil.types import AnyArray

SLOTS = 2
LAID = 1024  # views that are kept
MESSAGE_MAX = 64 * 1024  # bytes
M = TypeVar("M")


class Work(msgspec.Struct, frozen=True, tag="work", array_like=True):
    """Compute a batch: its arrays lie in a slot."""

    slot: int
    operation: str
    rows: int
    sizes: tuple[tuple[str, int], ...]


class FieldSaid(msgspec.Struct, frozen=True, array_like=True):
    """A field of an operation."""

    name: str
    shape: tuple[int | str, ...]


class OperationSaid(msgspec.Struct, frozen=True, array_like=True):
    """An operation without its function, which stays in the worker."""

    name: str
    inputs: tuple[FieldSaid, ...]
    outputs: tuple[FieldSaid, ...]


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    """The worker has its model and is warm."""

    kind: str
    version: str
    operations: tuple[OperationSaid, ...]


class Finished(msgspec.Struct, frozen=True, tag="finished", array_like=True):
    """A batch is done, its outputs lie in its slot; or `error` says why not."""

    slot: int
    compute_ns: int
    error: str


class NoStart(msgspec.Struct, frozen=True, tag="no_start", array_like=True):
    """The worker cannot serve: class of the error and its line."""

    error: str
    reason: str


Said = Ready | Finished | NoStart
_ENCODER = msgspec.msgpack.Encoder()


class Channel:
    """One end of both.

    Made by `Channel.pair()` in the front, by the numbers of its descriptors in the worker.
    """

    def __init__(self, end: socket.socket, memory: int, slot_bytes: int) -> None:
        self.socket, self.memory, self.slot_bytes = end, memory, slot_bytes
        self._map = mmap.mmap(memory, SLOTS * slot_bytes)
        view = memoryview(self._map)
        self._views = [view]
        self._slots = [view[k * slot_bytes : (k + 1) * slot_bytes] for k in range(SLOTS)]
        self._laid: dict[Any, tuple[list[AnyArray], list[AnyArray]]] = {}

    @classmethod
    def pair(cls, slot_bytes: int) -> tuple[Channel, socket.socket]:
        """Return the front's end, and the worker's socket to be inherited and closed."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("hil-inference")
        os.ftruncate(memory, SLOTS * slot_bytes)
        return cls(here, memory, slot_bytes), there

    def arrays(
        self, slot: int, operation: Operation, asked: Asked, dtype: str
    ) -> tuple[list[AnyArray], list[AnyArray]]:
        """Return the inputs and the outputs of a batch as they lie in a slot."""
        key = slot, operation.name, asked
        found = self._laid.get(key)
        if found is None:
            given, wanted, _ = operation.places(asked, int(dtype[2:]))
            memory = self._slots[slot]
            found = (
                [place.view(memory, dtype) for place in given],
                [place.view(memory, dtype) for place in wanted],
            )
            if len(self._laid) >= LAID:
                self._laid.clear()
            self._laid[key] = found
        return found

    def send(self, message: Any) -> None:
        """Send a message; raises OSError when the other end is gone."""
        self.socket.send(_ENCODER.encode(message))

    def receive(self, decoder: msgspec.msgpack.Decoder[M], *, wait: bool = True) -> M | None:
        """Return the next message, None when there is none yet; raises EOFError at the end."""
        try:
            said = self.socket.recv(MESSAGE_MAX, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            said = b""
        if not said:
            raise EOFError("the other end of the channel is gone")
        return decoder.decode(said)

    def close(self) -> None:
        """Let go of the socket and the memory."""
        self.socket.close()
        os.close(self.memory)
        with contextlib.suppress(BufferError):  # somebody still looks at it: it goes with them
            self._laid.clear()
            for view in (*self._slots, *self._views):
                view.release()
            self._map.close()
