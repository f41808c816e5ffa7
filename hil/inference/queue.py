"""Who is computed next, and with whom: a bounded queue that forms batches.

Pure: every call is told the time, nothing is waited for. Requests of one operation and equal
free sizes go together, in the order of priority, deadline, arrival. A batch closes when it is
full, when its oldest request has waited `max_queue_delay`, or when its earliest deadline less the
time such a batch takes has come, whichever is first. Words and order are those of Triton.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

from hil.messages.inference import LOWEST, Action
from hil.models.operation import Asked, Operation
from hil.types import AnyArray

AFTER_ALL = LOWEST + 1  # priority of what is late and to be done all the same
NEVER = 1 << 62  # ns
SLACK = 256  # entries of requests that no longer wait, beside as many as there are waiting
SMOOTHING = 0.2  # share of the newest batch in what a batch is expected to take

Key = tuple[str, tuple[tuple[str, int], ...]]


@dataclass(slots=True, eq=False)
class Pending:
    """A request that fits its operation and waits."""

    operation: Operation
    asked: Asked
    arrays: list[AnyArray]
    nbytes: int  # of its inputs and outputs
    priority: int
    arrived_ns: int
    deadline_ns: int  # NEVER: it has none
    action: Action = "reject"
    reply_to: Any = None
    attempts: int = 0  # to compute it, each ended by the worker's death
    waiting: bool = True  # in the queue
    sent_ns: int = 0

    @property
    def key(self) -> Key:
        """With whom it can be computed."""
        return self.operation.name, self.asked.sizes


@dataclass(frozen=True)
class QueueLimits:
    """How long a queue may get and how large a batch; a larger request is one by itself."""

    max_batch_size: int  # rows
    max_queue_delay_ns: int
    max_queue_size: int  # requests, of each priority
    max_batch_bytes: int
    batch_sizes: dict[str, int] = field(default_factory=dict)  # of operations with another one

    def rows(self, operation: str) -> int:
        """Return how many rows a batch of an operation has at most."""
        return self.batch_sizes.get(operation, self.max_batch_size)


class BatchQueue:
    """Requests that wait for one worker; times in ns, of one monotonic clock."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self._by_key: dict[Key, list[tuple[int, int, int, Pending]]] = {}
        self._by_deadline: list[tuple[int, int, Pending]] = []
        self._counts = [0] * (AFTER_ALL + 1)  # waiting, of each priority
        self._serial = 0
        self._expected: dict[Key, float] = {}  # ns a batch takes

    def __len__(self) -> int:
        return sum(self._counts)

    def offer(self, request: Pending) -> bool:
        """Take a request in; False: the queue of its priority is full."""
        if self._counts[request.priority] >= self.limits.max_queue_size:
            return False
        self._insert(request)
        return True

    def put_back(self, request: Pending) -> None:
        """Take in again what was taken out, whatever the bound."""
        request.waiting = True
        self._insert(request)

    def _insert(self, request: Pending) -> None:
        self._serial += 1
        self._counts[request.priority] += 1
        heap = self._by_key.setdefault(request.key, [])
        heapq.heappush(heap, (request.priority, request.deadline_ns, self._serial, request))
        if request.deadline_ns < NEVER:
            heapq.heappush(self._by_deadline, (request.deadline_ns, self._serial, request))
        most = 2 * len(self) + SLACK
        if len(heap) > most:
            _compact(heap)
        if len(self._by_deadline) > most:
            _compact(self._by_deadline)

    def _remove(self, request: Pending) -> None:
        request.waiting = False
        self._counts[request.priority] -= 1

    def expire(self, now: int) -> list[Pending]:
        """Return the requests that are late at `now`; those to be delayed wait on, after all."""
        late = []
        while self._by_deadline and self._by_deadline[0][0] <= now:
            _, _, request = heapq.heappop(self._by_deadline)
            if not request.waiting:
                continue
            self._remove(request)
            full = self._counts[AFTER_ALL] >= self.limits.max_queue_size
            if request.action == "reject" or full:
                late.append(request)
                continue
            _compact(self._by_key[request.key])  # it is to wait elsewhere
            request.priority, request.deadline_ns = AFTER_ALL, NEVER
            self.put_back(request)
        return late

    def next_ns(self) -> int:
        """Return when something is due: a batch closes or a request is late; or NEVER."""
        due = self.late_ns()
        return min([due, *(self._closes(key) for key in self._by_key)])

    def late_ns(self) -> int:
        """Return when the next request is late, or NEVER."""
        self._drop_taken()
        return self._by_deadline[0][0] if self._by_deadline else NEVER

    def take(self, now: int, *, full_only: bool = False) -> list[Pending]:
        """Return the batch to compute now, empty when none has closed.

        full_only: only one that cannot grow, and that nothing more urgent is to go before: what
        is sent ahead must not keep the worker from it. Late requests are to be expired before.
        """
        self._drop_taken()
        keys = sorted(self._by_key, key=lambda key: self._by_key[key][0][:3])
        if full_only:
            ready = [key for key in keys[:1] if self._is_full(key)]
        else:
            ready = [key for key in keys if self._closes(key) <= now]
        if not ready:
            return []
        heap = self._by_key[ready[0]]
        batch: list[Pending] = []
        rows = nbytes = 0
        most = self.limits.rows(heap[0][3].operation.name)
        while heap:
            request = heap[0][3]
            if request.waiting:
                rows += request.asked.rows
                nbytes += request.nbytes
                over = rows > most or nbytes > self.limits.max_batch_bytes
                if batch and (over or request.attempts):
                    break
                self._remove(request)
                batch.append(request)
            heapq.heappop(heap)
            if batch and batch[0].attempts:  # suspected of killing a worker: alone
                break
        return batch

    def goes_before(self, priority: int) -> bool:
        """Return whether something waits that a request of this priority would wait for."""
        return any(self._counts[: priority + 1])

    def took(self, key: Key, ns: int) -> None:
        """Learn how long a batch of a key took."""
        before = self._expected.get(key, float(ns))
        self._expected[key] = before + SMOOTHING * (ns - before)

    def drain(self) -> list[Pending]:
        """Return everything that waits, and be empty."""
        self._drop_taken()
        found = [entry[3] for heap in self._by_key.values() for entry in heap if entry[3].waiting]
        for request in found:
            self._remove(request)
        self._by_key.clear()
        self._by_deadline.clear()
        return found

    def _drop_taken(self) -> None:
        """Take what no longer waits off the tops of the heaps."""
        for key, heap in list(self._by_key.items()):
            while heap and not heap[0][3].waiting:
                heapq.heappop(heap)
            if not heap:
                del self._by_key[key]
        while self._by_deadline and not self._by_deadline[0][2].waiting:
            heapq.heappop(self._by_deadline)

    def _closes(self, key: Key) -> int:
        """Return when the batch of a key closes, 0 when it has."""
        if self.limits.max_queue_delay_ns == 0 or self._is_full(key):
            return 0
        waiting = [entry[3] for entry in self._by_key[key] if entry[3].waiting]
        oldest = min(request.arrived_ns for request in waiting)
        deadline = min(request.deadline_ns for request in waiting)
        needed = round(self._expected.get(key, 0.0))
        return min(oldest + self.limits.max_queue_delay_ns, deadline - needed)

    def _is_full(self, key: Key) -> bool:
        most = self.limits.rows(key[0])
        rows = nbytes = 0
        for *_, request in self._by_key[key]:
            if request.waiting:
                rows += request.asked.rows
                nbytes += request.nbytes
                if rows >= most or nbytes >= self.limits.max_batch_bytes or request.attempts:
                    return True
        return False


def _compact(heap: list[Any]) -> None:
    """Take what no longer waits out of a heap whose entries end with their request."""
    heap[:] = [entry for entry in heap if entry[-1].waiting]
    heapq.heapify(heap)
