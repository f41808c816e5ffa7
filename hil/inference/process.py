"""A worker as the front sees it: a process, a channel, the batches that are with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass

import msgspec

from hil.inference.channel import SLOTS, Channel, Ready, Said, Work
from hil.inference.queue import Pending
from hil.inference.settings import ModelSettings, WorkerJob
from hil.models.operation import Asked, Field, Operation
from hil.types import AnyArray

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Batch:
    """What a worker was given; `requests` is empty where a candidate computes along."""

    slot: int
    operation: Operation
    asked: Asked
    requests: list[Pending]
    sent_ns: int


class WorkerProcess:
    """Starts at once, is ready later; killed by `close`."""

    def __init__(self, name: str, settings: ModelSettings) -> None:
        self.settings = settings
        self.dtype = "<f8" if settings.dtype == "float64" else "<f4"
        self.ready: Ready | None = None
        self.operations: dict[str, Operation] = {}
        self.batches: deque[Batch] = deque()
        self.started_ns = time.monotonic_ns()
        self._decoder = msgspec.msgpack.Decoder(Said)
        self._free = list(range(SLOTS))
        self.channel, theirs = Channel.pair(settings.slot_bytes)
        self.descriptor = self.channel.socket.fileno()
        try:
            descriptors = theirs.fileno(), self.channel.memory
            job = WorkerJob(name=name, model=settings, socket=descriptors[0], memory=descriptors[1])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hil.inference.worker", msgspec.json.encode(job).decode()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
                pass_fds=descriptors,
                env={**os.environ, **dict.fromkeys(THREADS, str(settings.threads))},
            )
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def has_room(self) -> bool:
        """Whether a batch can be laid out for it."""
        return self.ready is not None and bool(self._free)

    def give(self, requests: list[Pending], now: int) -> None:
        """Lay out a batch and have it computed; raises OSError when the worker is gone."""
        operation = requests[0].operation
        rows = sum(request.asked.rows for request in requests)
        asked = Asked(rows, requests[0].asked.sizes)
        slot = self._free.pop()
        self.batches.append(Batch(slot, operation, asked, requests, now))
        views, _ = self.channel.arrays(slot, operation, asked, self.dtype)
        end = 0
        for request in requests:
            begin, end = end, end + request.asked.rows
            for view, array in zip(views, request.arrays, strict=True):
                view[begin:end] = array
        self._send(slot, operation, asked)

    def give_copy(self, batch: Batch, inputs: list[AnyArray], now: int) -> None:
        """Have the inputs of somebody else's batch computed along."""
        slot = self._free.pop()
        self.batches.append(Batch(slot, batch.operation, batch.asked, [], now))
        views, _ = self.channel.arrays(slot, batch.operation, batch.asked, self.dtype)
        for view, array in zip(views, inputs, strict=True):
            view[...] = array
        self._send(slot, batch.operation, batch.asked)

    def _send(self, slot: int, operation: Operation, asked: Asked) -> None:
        self.channel.send(Work(slot, operation.name, asked.rows, asked.sizes))

    def listen(self) -> Said | None:
        """Return what the worker says, None when it is silent; raises EOFError at its end."""
        said = self.channel.receive(self._decoder, wait=False)
        if isinstance(said, Ready):
            self.ready = said
            self.operations = {
                o.name: Operation(
                    o.name,
                    tuple(Field(*f) for f in map(msgspec.structs.astuple, o.inputs)),
                    tuple(Field(*f) for f in map(msgspec.structs.astuple, o.outputs)),
                    _elsewhere,
                )
                for o in said.operations
            }
        return said

    def arrays(self, batch: Batch) -> tuple[list[AnyArray], list[AnyArray]]:
        """Return inputs and outputs of a batch as they lie there, until it is released."""
        return self.channel.arrays(batch.slot, batch.operation, batch.asked, self.dtype)

    def finished(self) -> Batch:
        """Return the batch that is done; the next one is being computed now."""
        return self.batches.popleft()

    def release(self, batch: Batch) -> None:
        """Let the slot of a finished batch be used again."""
        self._free.append(batch.slot)

    def kill(self) -> None:
        """End the process now; its end is heard on the channel."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End the process, wait for that, let go of everything."""
        self.kill()
        self._process.wait()
        self.channel.close()


def _elsewhere(*_: AnyArray) -> list[AnyArray]:
    raise AssertionError("computed by the worker")


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True
