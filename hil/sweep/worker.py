"""One point at a time: what every executor calls, and the process that the local one starts.

`python -m hil.sweep.worker` reads tasks from its standard input, a line each (msgpack in base64),
and answers each with a JSON line on its standard output. When the input ends it ends at once,
whatever it does: a worker never outlives the sweep that started it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec
from threadpoolctl import threadpool_limits

from hil.config import resolve
from hil.errors import HilError
from hil.recording.run import RESULTS, Run
from hil.sweep.base import AbstractJob, Cost, Reply, Result, Say, Task

COST = "cost.json"
LOG = "log.txt"
# How many threads a sum is split over changes its last bits, and workers fill the machine already.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def execute(task: Task) -> Reply:
    """Do one point; its result is written last, so that what has one is whole."""
    directory = Path(task.directory)
    if not directory.parent.is_dir():
        return Reply(
            task.index,
            f"{directory.parent}: {socket.gethostname()} does not see it; name --runs on a file "
            "system that all machines share",
        )
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)  # what a killed worker left
    directory.mkdir()
    with (directory / LOG).open("w") as log:

        def say(text: str) -> None:
            print(text, file=log, flush=True)

        try:
            # Bars and warnings belong into the log: the terminal is the sweep's.
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                _work(task, directory, say)
        except HilError as error:
            say(f"hil: {error}")
            return Reply(task.index, " ".join(str(error).split()))
        except Exception as error:  # noqa: BLE001  # a fault of one point is not the others'
            say(traceback.format_exc())
            return Reply(task.index, f"{type(error).__name__}: {error}; see {directory / LOG}")
    return Reply(task.index)


def _work(task: Task, directory: Path, say: Say) -> None:
    job: type[AbstractJob] = resolve(task.kind, "sweep")
    with _alone(), threadpool_limits(limits=1):
        job.prepare()
        begun, spent = time.monotonic(), _cpu_seconds()
        figures = job.run(task.point.work, directory, say)
        cost = Cost(
            cpu_seconds=_cpu_seconds() - spent,
            seconds=time.monotonic() - begun,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
    point = Run(directory)
    point.write_json(COST, cost)
    point.write_json(RESULTS, Result(task.digest, task.point.settings, figures))


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended, s."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Give a point a runtime directory of its own: rigs of one name stand side by side."""
    with tempfile.TemporaryDirectory(prefix="hil-") as runtime:
        mine = {**ONE_THREAD, "HIL_RUNTIME": runtime}
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def main() -> None:
    """Run as the child of a sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the sweep: it ends us
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a point prints is no answer
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            tasks.put(line)
        os._exit(1)

    threading.Thread(target=listen, name="lifeline", daemon=True).start()
    while True:
        reply = execute(msgspec.msgpack.decode(base64.b64decode(tasks.get()), type=Task))
        answers.write(msgspec.json.encode(reply).decode() + "\n")


if __name__ == "__main__":
    main()
