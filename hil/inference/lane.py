"""One model that is served: its queue, its worker, and the candidate that may take over.

A worker that dies is started again; what it was computing is computed again, each request by
itself, and a request with which a worker died twice is answered "failed".
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

import msgspec

from hil import errors
from hil.errors import HilError, RunError
from hil.inference.channel import Finished, NoStart, Ready
from hil.inference.direct import Direct
from hil.inference.process import Batch, WorkerProcess
from hil.inference.queue import NEVER, BatchQueue, Pending
from hil.inference.settings import ModelSettings
from hil.inference.shadow import Shadow
from hil.messages.inference import SwapReport
from hil.models.operation import Operation
from hil.types import AnyArray

ATTEMPTS = 2  # to compute a request that ends in a worker's death
WATCH_NS = 10_000_000  # between two looks at what takes too long
RETRY_NS = 2_000_000_000  # between two starts of a worker that does not get ready


class Desk(Protocol):
    """Who listens, and hands answers out."""

    def watch(self, descriptor: int) -> None:
        """Call `step` when there is something to hear."""

    def computed(
        self, lane: Lane, request: Pending, outputs: list[AnyArray], compute_ns: int, rows: int
    ) -> None:
        """Answer with a result; the arrays are to be sent or copied before this returns."""

    def late(self, lane: Lane, request: Pending) -> None:
        """Answer that the time was over."""

    def failed(self, lane: Lane, request: Pending, reason: str) -> None:
        """Answer that it could not be computed."""


class Lane:
    """Serves one model. `step` does what is due and never waits."""

    def __init__(self, name: str, settings: ModelSettings, desk: Desk) -> None:
        self.name, self.settings = name, settings
        self.queue = BatchQueue(settings.limits)
        self.batches = self.rows = self.restarts = self.swaps = 0
        self.trouble = ""
        self.swap_report = SwapReport()
        self.operations: dict[str, Operation] = {}
        self._desk = desk
        self._worker: WorkerProcess | None = None
        self._next_start = self._next_watch = 0
        self._candidate: WorkerProcess | None = None
        self._shadow: Shadow | None = None
        self._direct = Direct(settings, f"inference.models.{name}")
        self._compared: tuple[list[AnyArray], int] | None = None  # the present's answer, its time
        self._refused: HilError | None = None
        self._start(time.monotonic_ns())

    # -- what the front sees --------------------------------------------------------------

    @property
    def ready(self) -> Ready | None:
        """What the worker said when it was warm; None: it is not."""
        return self._worker.ready if self._worker else None

    @property
    def pid(self) -> int:
        """Of the worker, 0 when there is none."""
        return self._worker.pid if self._worker else 0

    @property
    def itemsize(self) -> int:
        """Of the numbers it computes with, bytes."""
        return 8 if self.settings.dtype == "float64" else 4

    def wait(self) -> None:
        """Wait until all of it is warm, once the worker is."""
        self._direct.wait()

    def check_started(self) -> None:
        """Raise why the worker could not start, if it could not."""
        if self._refused is not None:
            raise self._refused

    def next_ns(self) -> int:
        """Return when `step` has something to do by itself, or NEVER; what takes long apart."""
        found = NEVER
        if len(self.queue):
            found = self.queue.next_ns() if self._can_take() else self.queue.late_ns()
        return found if self._worker is not None else min(found, self._next_start)

    def swap(self, path: str) -> str:
        """Begin to try another stored model; return why not, "" if it began."""
        if self._candidate is not None:
            return f"{self.name}: a swap to {self.swap_report.path} is under way"
        settings = msgspec.structs.replace(self.settings, path=path, model=None)
        self._candidate = self._make(settings)
        self._shadow = None
        self.swap_report = SwapReport(state="warming", path=path)
        return ""

    def compute(self, request: Pending) -> bool:
        """Compute and answer a request here and now, if it is one for that; return whether."""
        if (
            self._candidate is not None  # which is to see it
            or self.ready is None
            or self.queue.limits.max_queue_delay_ns
            or self.queue.goes_before(request.priority)
            or not self._direct.takes(request)
        ):
            return False
        request.sent_ns = request.arrived_ns
        begin = time.perf_counter_ns()
        try:
            outputs = self._direct.run(request)
        except Exception as error:  # noqa: BLE001 - a defect of a model is the answer to it
            self._desk.failed(self, request, f"{type(error).__name__}: {error}")
            return True
        self.batches += 1
        self.rows += request.asked.rows
        took = time.perf_counter_ns() - begin
        self._desk.computed(self, request, outputs, took, request.asked.rows)
        return True

    def step(self, now: int, ready: set[int]) -> None:
        """Hear the workers, answer what is late, send what is due, watch what takes too long.

        ready: descriptors on which something is to be heard.
        """
        worker, candidate = self._worker, self._candidate
        if worker is not None and worker.descriptor in ready:
            self._hear_worker(now)
        if candidate is not None:
            if candidate.descriptor in ready:
                self._hear_candidate(now)
            self._decide(now)
        if len(self.queue):
            for request in self.queue.expire(now):
                self._desk.late(self, request)
        if self._worker is None and now >= self._next_start:
            self._start(now)
        self._dispatch(now)
        if now >= self._next_watch:
            self._next_watch = now + WATCH_NS
            self._watch(now)

    def close(self) -> None:
        """End the workers; what waits is answered "failed"."""
        waiting = self.queue.drain()
        for worker in (self._worker, self._candidate):
            if worker is not None:
                waiting += [r for batch in worker.batches for r in batch.requests]
                worker.close()
        self._worker = self._candidate = None
        for request in waiting:
            self._desk.failed(self, request, "the inference process ends")

    # -- the worker -----------------------------------------------------------------------

    def _start(self, now: int) -> None:
        self._next_start = now + RETRY_NS
        self._worker = self._make(self.settings)

    def _make(self, settings: ModelSettings) -> WorkerProcess:
        worker = WorkerProcess(self.name, settings)
        self._desk.watch(worker.descriptor)
        return worker

    def _hear_worker(self, now: int) -> None:
        while (worker := self._worker) is not None:
            try:
                said = worker.listen()
            except EOFError:
                self._died(worker, "the worker died", now)
                return
            if said is None:
                return
            if isinstance(said, Finished):
                self._finished(worker, said, now)
                if not worker.batches:
                    return  # what else there may be, its end, is heard the next time
            elif isinstance(said, NoStart):
                self._refused = _error(said)
                self._died(worker, said.reason, now)
                return
            else:
                self.operations, self.trouble = worker.operations, ""
                return

    def _finished(self, worker: WorkerProcess, said: Finished, now: int) -> None:
        batch = worker.finished()
        inputs, outputs = worker.arrays(batch)
        self.queue.took(batch.requests[0].key, now - batch.sent_ns)
        self.batches += 1
        self.rows += batch.asked.rows
        if len(batch.requests) == 1:
            self._direct.learn(batch.requests[0], said.compute_ns)
        if not said.error:
            self._let_compare(batch, inputs, outputs, said.compute_ns, now)
        self._dispatch(now)  # the next one is computed while this is answered
        end = 0
        for request in batch.requests:
            begin, end = end, end + request.asked.rows
            if said.error:
                self._desk.failed(self, request, said.error)
            else:
                mine = [output[begin:end] for output in outputs]
                self._desk.computed(self, request, mine, said.compute_ns, batch.asked.rows)
        worker.release(batch)

    def _can_take(self) -> bool:
        worker = self._worker
        accepted = self.swap_report.state == "accepted" and self._candidate is not None
        return worker is not None and worker.has_room and not worker.batches and not accepted

    def _dispatch(self, now: int) -> None:
        worker = self._worker
        if not len(self.queue):
            return
        if self.swap_report.state == "accepted" and self._candidate is not None:
            return  # the next batch is the candidate's
        while worker is not None and worker.has_room:
            ahead = bool(worker.batches)  # of one that is being computed: only if it is full
            requests = self.queue.take(now, full_only=ahead)
            if not requests:
                return
            for request in requests:
                request.sent_ns = now
            try:
                worker.give(requests, now)
            except OSError:
                return  # its end is heard on the channel, and what it has is put back

    def _died(self, worker: WorkerProcess, reason: str, now: int) -> None:
        was_ready, self._worker = worker.ready is not None, None
        batches = list(worker.batches)
        worker.close()
        self.trouble = reason
        self.restarts += 1
        print(f"inference: {self.name}: {reason}; starting another", file=sys.stderr)
        for place, batch in enumerate(batches):
            for request in batch.requests:
                request.attempts += place == 0  # the others were not begun
                if request.attempts >= ATTEMPTS:
                    self._desk.failed(self, request, f"{reason}, {ATTEMPTS} times, computing this")
                else:
                    self.queue.put_back(request)
        if was_ready:
            self._next_start = min(self._next_start, now)

    def _watch(self, now: int) -> None:
        """Kill what takes too long; its end is then heard."""
        for worker in (self._worker, self._candidate):
            if worker is None:
                continue
            slow_start = now >= worker.started_ns + self._ns(self.settings.start)
            stalled = worker.batches and now >= self._stalled_ns(worker)
            if stalled or (worker.ready is None and slow_start):
                worker.kill()

    def _stalled_ns(self, worker: WorkerProcess) -> int:
        return worker.batches[0].sent_ns + len(worker.batches) * self._ns(self.settings.stall)

    @staticmethod
    def _ns(seconds: float) -> int:
        return round(seconds * 1e9)

    # -- the candidate --------------------------------------------------------------------

    def _hear_candidate(self, now: int) -> None:
        while (worker := self._candidate) is not None:
            try:
                said = worker.listen()
            except EOFError:
                self._refuse("the candidate's worker died")
                return
            if said is None:
                return
            if isinstance(said, NoStart):
                self._refuse(said.reason)
            elif isinstance(said, Ready):
                if worker.operations != self.operations:
                    self._refuse("it has other operations than the present model")
                    return
                rule = self.settings.swap
                self._shadow = Shadow(rule, now + self._ns(rule.patience))
                self.swap_report = msgspec.structs.replace(self.swap_report, state="shadow")
            else:
                self._compare(worker, said)

    def _let_compare(
        self, batch: Batch, inputs: list[AnyArray], outputs: list[AnyArray], ns: int, now: int
    ) -> None:
        """Give a batch that was computed to the candidate, too, where that is idle."""
        candidate = self._candidate
        if candidate is None or self._shadow is None or candidate.batches:
            return
        self._compared = [output.copy() for output in outputs], ns
        try:
            candidate.give_copy(batch, inputs, now)
        except OSError:
            return  # its end is heard

    def _compare(self, worker: WorkerProcess, said: Finished) -> None:
        batch = worker.finished()
        assert self._shadow is not None
        assert self._compared is not None
        present, ns = self._compared
        if said.error:
            self._shadow.fail(said.error)
        else:
            names = [f"{batch.operation.name}: {f.name}" for f in batch.operation.outputs]
            _, outputs = worker.arrays(batch)
            self._shadow.add(names, present, outputs, said.compute_ns / max(ns, 1))
        worker.release(batch)

    def _decide(self, now: int) -> None:
        candidate, worker = self._candidate, self._worker
        if candidate is None or self._shadow is None:
            return
        report = self.swap_report
        if report.state == "shadow":
            verdict = self._shadow.verdict(now)
            self.swap_report = report = msgspec.structs.replace(
                report,
                batches=self._shadow.batches,
                deviation=self._shadow.deviation,
                slowdown=self._shadow.slowdown,
            )
            if verdict is None:
                return
            accepted, reason = verdict
            if not accepted:
                self._refuse(reason)
                return
            self.swap_report = msgspec.structs.replace(report, state="accepted", reason=reason)
        if candidate.batches or (worker is not None and worker.batches):
            return  # between two batches
        self._worker, self._candidate, self._shadow = candidate, None, None
        self.settings = candidate.settings
        self._direct = Direct(self.settings, f"inference.models.{self.name}")
        self.trouble = ""
        self.swaps += 1
        if worker is not None:
            worker.close()

    def _refuse(self, reason: str) -> None:
        candidate, self._candidate, self._shadow = self._candidate, None, None
        assert candidate is not None
        candidate.close()
        self.swap_report = msgspec.structs.replace(self.swap_report, state="refused", reason=reason)


def _error(said: NoStart) -> HilError:
    kind = getattr(errors, said.error, RunError)
    error: HilError = kind(said.reason)
    return error
