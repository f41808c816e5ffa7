"""The front: accepts requests, checks them, lets lanes compute them, hands the answers out.

One thread. It waits on one descriptor for everything: messages, workers, and the next moment
at which a batch closes or a request is late.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
import zmq

from hil.config import Config
from hil.errors import InputError, LinkError
from hil.inference.lane import Lane
from hil.inference.queue import NEVER, Pending
from hil.inference.settings import inference_settings
from hil.inference.tally import Tally
from hil.links.zeromq import BusServer, send_frames
from hil.messages import bus
from hil.messages import inference as said
from hil.types import AnyArray

EVENTS, POLLIN, NOBLOCK = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.NOBLOCK)
FINE_S = 0.01  # shorter waits are to end in time
LOOK_S = 0.05  # longest wait before the end is looked for
AT_ONCE = 64  # messages taken in before the workers are heard again
NEEDED: dict[type[bus.Request], bus.Role] = {
    said.Describe: "observe", said.Ask: "operate", said.Swap: "admin",
}  # fmt: skip


class _Head(msgspec.Struct):
    """What is read of a message that is none, to answer it."""

    seq: int = 0


_HEAD = msgspec.msgpack.Decoder(_Head)


class Front:
    """Serves every model of a configuration until told to end; raises ConfigError."""

    def __init__(self, config: Config) -> None:
        self.address, self._keys, self.settings = inference_settings(config)
        self.lanes: dict[str, Lane] = {}
        self.tallies = {name: Tally() for name in self.settings.models}
        self.malformed = 0
        self._decoder = msgspec.msgpack.Decoder(said.InferenceRequest)
        self._epoll = select.epoll()
        self._server: BusServer | None = None
        self._router = -1  # descriptor that tells of messages
        self._touched = False  # the socket was used since it was found to have no message

    def serve(
        self,
        until: threading.Event,
        ready: Callable[[], None],
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer until `until` is set. Nothing listens before every model is warm.

        Raises what a model could not be started for.
        """
        try:
            for name, settings in self.settings.models.items():
                self.lanes[name] = Lane(name, settings, self)
            while not all(lane.ready for lane in self.lanes.values()):
                heard = self._wait()
                for lane in self.lanes.values():
                    lane.step(time.monotonic_ns(), heard)
                    lane.check_started()
                if until.is_set():
                    ending()
                    return
            for lane in self.lanes.values():
                lane.wait()
            self._server = BusServer(self.address, self._keys)
            # Who has gone is to be noticed, and counted.
            self._server.command.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._router = self._descriptor()
            self._epoll.register(self._router, select.EPOLLIN)
            self._touched = True
            ready()
            while not until.is_set():
                self._turn()
            ending()
        finally:
            self.close()

    def close(self) -> None:
        """End the workers, answer what waits, close the sockets; may be called twice."""
        for lane in self.lanes.values():
            lane.close()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._epoll.close()

    def describe(self) -> said.Described:
        """Return what is served, and how it is."""
        return said.Described(
            seq=0,
            t_ns=time.time_ns(),
            name=self.address.name,
            pid=os.getpid(),
            models=tuple(_report(lane, self.tallies[name]) for name, lane in self.lanes.items()),
            malformed=self.malformed,
        )

    # -- one turn -------------------------------------------------------------------------

    def _turn(self) -> None:
        ready = self._wait()
        if self._router in ready or self._touched:
            self._take_in()
        now = time.monotonic_ns()
        for lane in self.lanes.values():
            lane.step(now, ready)

    def _take_in(self) -> None:
        assert self._server is not None
        self._touched = True
        for _ in range(AT_ONCE):
            try:
                found = self._server.receive(wait=False)
            except TimeoutError:
                self._touched = False
                return
            more = self._touched = self._has_message()
            self._accept(*found, alone=not more)
            if not more:
                return  # what the answer may have used up the signal of is looked for in `_wait`

    def _has_message(self) -> bool:
        assert self._server is not None
        return bool(cast(int, self._server.command.getsockopt(EVENTS)) & POLLIN)

    def _wait(self) -> set[int]:
        """Return the descriptors on which something is to be heard."""
        due = min((lane.next_ns() for lane in self.lanes.values()), default=NEVER)
        seconds = min(max(due - time.monotonic_ns(), 0) * 1e-9, LOOK_S)
        # Reading and sending both may use up the signal of a message: look for one.
        if self._touched and self._has_message():
            seconds = 0.0
        elif seconds < FINE_S:  # `epoll` counts in ms; `select` on it in us
            select.select([self._epoll], [], [], seconds)
            seconds = 0.0
        return {descriptor for descriptor, _ in self._epoll.poll(seconds)}

    def _descriptor(self) -> int:
        assert self._server is not None
        return cast(int, self._server.command.getsockopt(zmq.FD))

    def watch(self, descriptor: int) -> None:
        """Listen to a worker, until it is closed."""
        self._epoll.register(descriptor, select.EPOLLIN)

    # -- requests -------------------------------------------------------------------------

    def _accept(self, sender: bytes, frames: list[bytes], role: bus.Role, *, alone: bool) -> None:
        now = time.monotonic_ns()
        try:
            request, arrays = bus.unpack(self._decoder, frames)
        except LinkError as error:
            self.malformed += 1
            seq = 0
            with contextlib.suppress(msgspec.DecodeError, RecursionError, IndexError):
                seq = _HEAD.decode(frames[0]).seq
            self._say(sender, said.Rejected, seq, reason=str(error))
            return
        needed = NEEDED[type(request)]
        if bus.ROLES.index(role) < bus.ROLES.index(needed):
            tag = request.__struct_config__.tag
            reason = f"{tag} needs the role {needed}, this key has {role}"
            self._say(sender, said.Rejected, request.seq, reason=reason)
        elif isinstance(request, said.Describe):
            report = msgspec.structs.replace(self.describe(), seq=request.seq)
            self._send(sender, report)
        elif isinstance(request, said.Swap):
            self._swap(sender, request)
        else:
            self._ask(sender, request, arrays, now, alone)

    def _swap(self, sender: bytes, request: said.Swap) -> None:
        lane = self.lanes.get(request.model)
        reason = lane.swap(request.path) if lane else self._unknown(request.model)
        if reason:
            self._say(sender, said.Rejected, request.seq, reason=reason)
        else:
            self._say(sender, said.Swapping, request.seq)

    def _ask(
        self, sender: bytes, ask: said.Ask, arrays: list[AnyArray], now: int, alone: bool
    ) -> None:
        lane = self.lanes.get(ask.model)
        if lane is None:
            self.malformed += 1
            self._say(sender, said.Rejected, ask.seq, reason=self._unknown(ask.model))
            return
        tally = self.tallies[lane.name]
        try:
            pending = self._admit(sender, lane, ask, arrays, now)
        except InputError as error:
            tally.rejected += 1
            self._say(sender, said.Rejected, ask.seq, tally, reason=f"{lane.name}: {error}")
            return
        if pending.deadline_ns <= now and pending.action == "reject":
            self.late(lane, pending)
        elif alone and lane.compute(pending):
            return
        elif not lane.queue.offer(pending):
            tally.busy += 1
            self._say(sender, said.Busy, ask.seq, tally, queued=len(lane.queue))

    def _admit(
        self, sender: bytes, lane: Lane, ask: said.Ask, arrays: list[AnyArray], now: int
    ) -> Pending:
        """Return a request as one that waits; raises InputError naming what is wrong."""
        operation = lane.operations.get(ask.operation)
        if operation is None:
            known = ", ".join(lane.operations)
            raise InputError(f"no operation {ask.operation!r}; it has {known}")
        asked = operation.fit(arrays)
        nbytes = operation.places(asked, lane.itemsize)[2]
        if nbytes > lane.settings.slot_bytes:
            raise InputError(
                f"{ask.operation}: {asked.rows} rows {dict(asked.sizes)} are {nbytes} bytes with "
                f"their answer, at most {lane.settings.slot_bytes} (slot_mib); ask in parts"
            )
        timeout_us = ask.timeout_us or lane.settings.default_timeout_us
        deadline = now + timeout_us * 1000 if timeout_us else NEVER
        deadline = min(deadline, now + ask.deadline_ns - time.time_ns())
        return Pending(
            operation, asked, arrays, nbytes, ask.priority, now, deadline, ask.timeout_action,
            (sender, ask.seq, arrays[0].dtype),
        )  # fmt: skip

    def _unknown(self, model: str) -> str:
        return f"no model {model!r} is served; there are {', '.join(self.lanes)}"

    # -- answers --------------------------------------------------------------------------

    def computed(
        self, lane: Lane, request: Pending, outputs: list[AnyArray], compute_ns: int, rows: int
    ) -> None:
        """Answer with a result."""
        sender, seq, dtype = request.reply_to
        outputs = [output.astype(dtype, copy=False) for output in outputs]
        total = time.monotonic_ns() - request.arrived_ns
        queued = request.sent_ns - request.arrived_ns
        tally = self.tallies[lane.name]
        tally.results += 1
        for stage, ns in zip(
            ("queue", "compute", "total"), (queued, compute_ns, total), strict=True
        ):
            tally.times[stage].add(ns * 1e-9)
        timing = said.Timing(
            queue_us=queued / 1e3, compute_us=compute_ns / 1e3, total_us=total / 1e3,
            batch_rows=rows,
        )  # fmt: skip
        reply = said.Result(
            seq=seq, t_ns=time.time_ns(), outputs=tuple(map(bus.ArrayRef.of, outputs)),
            timing=timing, version=lane.ready.version if lane.ready else "",
        )  # fmt: skip
        self._send(sender, reply, outputs, tally)

    def late(self, lane: Lane, request: Pending) -> None:
        """Answer that the time was over."""
        sender, seq, _ = request.reply_to
        tally = self.tallies[lane.name]
        tally.late += 1
        waited = (time.monotonic_ns() - request.arrived_ns) / 1e3
        self._say(sender, said.Late, seq, tally, waited_us=waited)

    def failed(self, lane: Lane, request: Pending, reason: str) -> None:
        """Answer that it could not be computed."""
        sender, seq, _ = request.reply_to
        tally = self.tallies[lane.name]
        tally.failed += 1
        self._say(sender, said.Failed, seq, tally, reason=reason)

    def _say(
        self, sender: bytes, kind: Callable[..., said.Answer], seq: int,
        tally: Tally | None = None, **fields: Any,
    ) -> None:  # fmt: skip
        self._send(sender, kind(seq=seq, t_ns=time.time_ns(), **fields), (), tally)

    def _send(
        self,
        sender: bytes,
        reply: said.Answer,
        arrays: list[AnyArray] | tuple[()] = (),
        tally: Tally | None = None,
    ) -> None:
        assert self._server is not None
        self._touched = True
        try:
            frames = [sender, *bus.pack(reply, *arrays)]
            send_frames(self._server.command, frames, NOBLOCK)
        except zmq.ZMQError:  # it has gone, or takes nothing in
            if tally is not None:
                tally.vanished += 1


def _report(lane: Lane, tally: Tally) -> said.ModelReport:
    ready = lane.ready

    def infos(fields: tuple[Any, ...]) -> tuple[said.FieldInfo, ...]:
        return tuple(said.FieldInfo(name=f.name, shape=f.shape) for f in fields)

    return said.ModelReport(
        name=lane.name,
        kind=ready.kind if ready else "",
        version=ready.version if ready else "",
        device=lane.settings.device,
        dtype=lane.settings.dtype,
        ready=ready is not None,
        pid=lane.pid,
        queued=len(lane.queue),
        operations=tuple(
            said.OperationInfo(name=o.name, inputs=infos(o.inputs), outputs=infos(o.outputs))
            for o in lane.operations.values()
        ),
        counts=tally.counts(lane),
        swap=lane.swap_report,
        trouble=lane.trouble,
    )
