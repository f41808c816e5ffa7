"""The process that computes: one model, one batch at a time, until its front is gone.

`python -m hil.inference.worker JOB` is started by the front with one end of a channel. It is
killed without ado; what it was computing, the front still knows.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
import traceback

import msgspec

from hil.errors import HilError
from hil.inference.backend import Backend, load, make_backend, warm_up
from hil.inference.channel import (
    Channel,
    FieldSaid,
    Finished,
    NoStart,
    OperationSaid,
    Ready,
    Work,
)
from hil.inference.settings import WorkerJob
from hil.models.operation import Asked, Field, Operation


def serve(channel: Channel, backend: Backend) -> None:
    """Compute batches until the other end is gone."""
    decoder = msgspec.msgpack.Decoder(Work)
    while True:
        try:
            work = channel.receive(decoder)
        except EOFError:
            return
        assert work is not None
        begin = time.perf_counter_ns()
        try:
            compute(channel, work, backend)
            error = ""
        except Exception as found:  # noqa: BLE001 - a defect of a model is the answer to its batch
            traceback.print_exc()
            error = f"{type(found).__name__}: {found}"
        try:
            channel.send(Finished(work.slot, time.perf_counter_ns() - begin, error))
        except OSError:
            return


def compute(channel: Channel, work: Work, backend: Backend) -> None:
    """Compute one batch from and into its slot."""
    operation = backend.operations[work.operation]
    asked = Asked(work.rows, work.sizes)
    inputs, wanted = channel.arrays(work.slot, operation, asked, backend.dtype)
    for place, output in zip(wanted, backend.run(operation, inputs), strict=True):
        place[...] = output


def described(operation: Operation) -> OperationSaid:
    """Return an operation as the front is told of it."""

    def said(fields: tuple[Field, ...]) -> tuple[FieldSaid, ...]:
        return tuple(FieldSaid(*f) for f in fields)

    return OperationSaid(operation.name, said(operation.inputs), said(operation.outputs))


def main() -> None:
    """Run as the child of a front."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the front, which ends us
    job = msgspec.json.decode(sys.argv[1], type=WorkerJob)
    end = socket.socket(fileno=job.socket)
    channel = Channel(end, job.memory, job.model.slot_bytes)
    try:
        model, version = load(job.model, job.where)
        backend = make_backend(model, job.model, job.where)
        warm_up(backend, job.model)
    except HilError as error:
        channel.send(NoStart(type(error).__name__, str(error)))
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the front is told
        traceback.print_exc()
        channel.send(NoStart("RunError", f"{job.where}: {type(error).__name__}: {error}"))
        return
    kind = f"{type(model).__module__}:{type(model).__qualname__}"
    channel.send(Ready(kind, version, tuple(map(described, backend.operations.values()))))
    serve(channel, backend)


if __name__ == "__main__":
    main()
