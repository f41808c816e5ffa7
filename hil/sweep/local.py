"""Points on this machine: worker processes, each told one point at a time.

Every worker is a process of its own, so that one that is killed takes only its own point with
it; a pool as a whole would break, and the other workers' points with it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO

import msgspec

from hil.sweep.base import ATTEMPTS, AbstractExecutor, Reply, Task
from hil.sweep.worker import ONE_THREAD


class _Worker:
    """A worker process, the task it has in hand, and what it has answered of it so far."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hil.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | ONE_THREAD,  # before its libraries are loaded
            start_new_session=True,  # ctrl-C is for us: we end it in order
        )
        self.task: Task | None = None
        self._heard = b""

    @property
    def input(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, task: Task) -> None:
        """Give it a task; if it is dead already, its output says so."""
        self.task = task
        with contextlib.suppress(BrokenPipeError):
            self.input.write(base64.b64encode(msgspec.msgpack.encode(task)) + b"\n")
            self.input.flush()

    def hear(self) -> Reply | None:
        """Return its answer once it is whole; raises EOFError when it has died."""
        some = os.read(self.output.fileno(), 1 << 16)
        if not some:
            raise EOFError
        self._heard += some
        line, newline, rest = self._heard.partition(b"\n")
        if not newline:
            return None
        self._heard, self.task = rest, None
        return msgspec.json.decode(line, type=Reply)

    def end(self) -> int:
        """Kill it and return how it ended, as a shell says it."""
        self.process.kill()
        for pipe in (self.input, self.output):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return self.process.wait()


class LocalExecutor(AbstractExecutor):
    """Worker processes of this machine; `workers` at once, by default one per processor."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.name = f"{self.workers} processes of this machine"
        self._workers: list[_Worker] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Do the tasks; see the base."""
        waiting = deque(tasks)
        deaths: dict[int, int] = {}
        with selectors.DefaultSelector() as selector:
            for _ in range(min(self.workers, len(waiting))):
                self._start(selector, waiting.popleft())
            while selector.get_map():
                for key, _ in selector.select():
                    worker: _Worker = key.data
                    task = worker.task
                    assert task is not None
                    try:
                        reply = worker.hear()
                    except EOFError:
                        selector.unregister(worker.output)
                        ended = self._bury(worker)
                        self.lost += 1
                        deaths[task.index] = deaths.get(task.index, 0) + 1
                        if deaths[task.index] < ATTEMPTS:
                            waiting.appendleft(task)
                        else:
                            yield Reply(task.index, _died(ended))
                        if waiting:
                            self._start(selector, waiting.popleft())
                        continue
                    if reply is None:
                        continue
                    if waiting:
                        worker.tell(waiting.popleft())
                    else:
                        selector.unregister(worker.output)
                        self._bury(worker)
                    yield reply

    def close(self) -> None:
        """Kill the workers; may be called twice."""
        while self._workers:
            self._workers.pop().end()

    def _start(self, selector: selectors.BaseSelector, task: Task) -> None:
        worker = _Worker()
        self._workers.append(worker)
        selector.register(worker.output, selectors.EVENT_READ, worker)
        worker.tell(task)

    def _bury(self, worker: _Worker) -> int:
        self._workers.remove(worker)
        return worker.end()


def _died(ended: int) -> str:
    how = f"by signal {-ended}" if ended < 0 else f"with exit code {ended}"
    return (
        f"its worker died {ATTEMPTS} times, the last time {how}; if memory is short, ask for "
        "fewer --workers"
    )
