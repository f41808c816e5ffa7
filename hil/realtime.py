"""What a loop may ask of the operating system to be on time, and what it was given.

Five things, each of which a system may refuse: a real-time priority (SCHED_FIFO), short
timers (Linux lets a sleep end up to 50 µs late to save power, `prctl(2)` PR_SET_TIMERSLACK),
CPUs of its own, CPUs that do not sleep between two periods (one that does wakes up slowly, and
in a virtual machine somebody else had it meanwhile), and no pause for Python's garbage
collector. A refusal is told in one line and the loop runs without: nothing here is needed to
be safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Annotated, Self, TypeVar

from msgspec import Meta

from hil.config import Settings

T = TypeVar("T")
SCHED_FIFO = 1  # <linux/sched.h>
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30  # <linux/prctl.h>
SPIN = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # anything else goes first, at once
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.getppid() == int(sys.argv[2]):  # outlives nobody, however they end
    for _ in range(100_000):
        pass
"""


class RealTimeSettings(Settings, frozen=True, kw_only=True):
    """What to ask for; nothing by default."""

    priority: Annotated[
        int, Meta(ge=0, le=99, description="SCHED_FIFO priority, 1; 0: the usual scheduler")
    ] = 0
    timer_slack: Annotated[
        int, Meta(ge=0, le=10**9, description="how late a timer may be, ns; 0: as the system has")
    ] = 0
    cpus: Annotated[tuple[int, ...], Meta(description="to run on, from 0; empty: all")] = ()
    awake: Annotated[
        bool,
        Meta(description="keep its CPUs busy with a process of the lowest priority (SCHED_IDLE)"),
    ] = False
    freeze_gc: Annotated[bool, Meta(description="no garbage collection during the loop")] = False


@dataclass(frozen=True)
class Answer:
    """What the system said to one wish."""

    asked: str
    refused: str  # "" where it was granted
    todo: str  # what would help

    @property
    def line(self) -> str:
        """Return it as one line for a person."""
        if not self.refused:
            return f"real time: {self.asked}"
        return f"real time: {self.asked}: refused ({self.refused}); going on without: {self.todo}"


class LinuxSystem:
    """The calls, on the calling thread; threads made later inherit all but the collector.

    Each setter raises OSError as the system refuses, and returns what was set before.
    """

    def set_scheduler(self, policy_and_priority: tuple[int, int]) -> tuple[int, int]:
        """Set policy and priority."""
        if not hasattr(os, "sched_setscheduler"):
            raise OSError("this system has no SCHED_FIFO")
        before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
        policy, priority = policy_and_priority
        os.sched_setscheduler(0, policy, os.sched_param(priority))
        return before

    def set_timer_slack(self, nanoseconds: int) -> int:
        """Set how late timers may be."""
        prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
        if prctl is None:
            raise OSError("this system has no prctl")
        before = int(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0))
        if prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds), 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return before

    def set_cpus(self, cpus: set[int]) -> set[int]:
        """Set where to run."""
        if not hasattr(os, "sched_setaffinity"):
            raise OSError("this system has no CPU affinity")
        before = os.sched_getaffinity(0)
        if not cpus <= before:  # the call itself is content with any of them
            away = ", ".join(map(str, sorted(cpus - before)))
            raise OSError(f"of these {away} cannot be had")
        os.sched_setaffinity(0, cpus)
        return before

    def keep_awake(self) -> Callable[[], None]:
        """Keep the CPUs this may run on from sleeping; return the way back."""
        if not hasattr(os, "SCHED_IDLE"):
            raise OSError("this system has no SCHED_IDLE")
        busy: list[subprocess.Popen[str]] = []

        def rest() -> None:
            for process in busy:
                process.kill()
                process.communicate()

        for cpu in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-IS", "-c", SPIN, str(cpu), str(os.getpid())]
            process = subprocess.Popen(
                command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            busy.append(process)
            assert process.stdout is not None
            if process.stdout.readline() != "\n":
                _, said = process.communicate()
                rest()
                raise OSError((said.splitlines() or ["its process ended"])[-1])
        return rest

    def freeze_gc(self) -> Callable[[], None]:
        """Stop the collector, with what there is out of its sight; return the way back."""
        if not gc.isenabled():  # somebody else's doing, and theirs to undo
            return lambda: None
        gc.collect()
        gc.freeze()
        gc.disable()

        def thaw() -> None:
            gc.enable()
            gc.unfreeze()

        return thaw


class RealTime:
    """Asks on entering, gives everything back on leaving; a context manager.

    answers: what came of it, in the order asked. Never raises for a refusal.
    """

    def __init__(self, settings: RealTimeSettings, system: LinuxSystem | None = None) -> None:
        self.answers: list[Answer] = []
        self._settings = settings
        self._system = system or LinuxSystem()
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        wanted, system = self._settings, self._system
        if wanted.timer_slack:
            self._ask(
                f"timer slack {wanted.timer_slack} ns",
                "this needs Linux",
                system.set_timer_slack,
                wanted.timer_slack,
            )
        if wanted.cpus:
            self._ask(
                f"CPUs {', '.join(map(str, wanted.cpus))}",
                f"this machine has {os.cpu_count()}, counted from 0, and a container may get fewer",
                system.set_cpus,
                set(wanted.cpus),
            )
        if wanted.awake:  # before a priority, which a process started later would have at first
            self._start("CPUs kept awake", "nothing else is lost", system.keep_awake)
        if wanted.priority:  # after the rest: what is asked last is had for the shortest time
            self._ask(
                f"SCHED_FIFO priority {wanted.priority}",
                "run as root, or give this user `rtprio` in /etc/security/limits.conf and log in "
                "again",
                system.set_scheduler,
                (SCHED_FIFO, wanted.priority),
            )
        if wanted.freeze_gc:
            self._start("garbage collection off", "", system.freeze_gc)
        return self

    def _start(self, asked: str, todo: str, call: Callable[[], Callable[[], object]]) -> None:
        try:
            undo = call()
        except OSError as error:
            self.answers.append(Answer(asked, error.strerror or str(error), todo))
            return
        self.answers.append(Answer(asked, "", ""))
        self._undo.append(undo)

    def _ask(self, asked: str, todo: str, call: Callable[[T], T], value: T) -> None:
        try:
            before = call(value)
        except OSError as error:
            self.answers.append(Answer(asked, error.strerror or str(error), todo))
            return
        self.answers.append(Answer(asked, "", ""))
        self._undo.append(partial(call, before))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._undo:
            with contextlib.suppress(OSError):  # less than now is never refused
                self._undo.pop()()
