"""What is asked of the system is told, given back, and never a reason not to run."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hil.realtime import SCHED_FIFO, LinuxSystem, RealTime, RealTimeSettings

ROOT = Path(__file__).parents[3]
ALL = RealTimeSettings(priority=7, timer_slack=1, cpus=(0,), freeze_gc=True)


class Recorded(LinuxSystem):
    """Notes what is set; refuses what it is told to."""

    def __init__(self, *refused: str) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._refused = refused

    def _note(self, name: str, value: Any, before: Any) -> Any:
        if name in self._refused:
            raise PermissionError(1, "Operation not permitted")
        self.calls.append((name, value))
        return before

    def set_scheduler(self, policy_and_priority: tuple[int, int]) -> tuple[int, int]:
        found: tuple[int, int] = self._note("scheduler", policy_and_priority, (0, 0))
        return found

    def set_timer_slack(self, nanoseconds: int) -> int:
        return int(self._note("slack", nanoseconds, 50_000))

    def set_cpus(self, cpus: set[int]) -> set[int]:
        found: set[int] = self._note("cpus", cpus, {0, 1})
        return found


def test_everything_granted_is_given_back_in_reverse() -> None:
    system = Recorded()
    with RealTime(ALL, system) as realtime:
        assert not gc.isenabled()
        asked = [("slack", 1), ("cpus", {0}), ("scheduler", (SCHED_FIFO, 7))]
        assert system.calls == asked
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert system.calls[3:] == [("scheduler", (0, 0)), ("cpus", {0, 1}), ("slack", 50_000)]
    assert [answer.line for answer in realtime.answers] == [
        "real time: timer slack 1 ns", "real time: CPUs 0",
        "real time: SCHED_FIFO priority 7", "real time: garbage collection off",
    ]  # fmt: skip


def test_a_refusal_is_one_line_and_not_undone() -> None:
    system = Recorded("scheduler")
    with RealTime(ALL, system) as realtime:
        pass
    assert ("scheduler", (0, 0)) not in system.calls
    (line,) = [a.line for a in realtime.answers if a.refused]
    assert line.startswith(
        "real time: SCHED_FIFO priority 7: refused (Operation not permitted); going on without: "
    )
    assert "limits.conf" in line
    assert "\n" not in line


def test_nothing_is_asked_by_default() -> None:
    system = Recorded()
    with RealTime(RealTimeSettings(), system) as realtime:
        assert gc.isenabled()
    assert not system.calls
    assert not realtime.answers


def test_a_cpu_that_is_not_there_is_refused() -> None:
    before = os.sched_getaffinity(0)
    with RealTime(RealTimeSettings(cpus=(4095,))) as realtime:
        assert os.sched_getaffinity(0) == before
    assert "of these 4095 cannot be had" in realtime.answers[0].line


def children() -> set[int]:
    """Return the processes this one started that are still there."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                found.add(int(stat.parent.name))
    return found


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no SCHED_IDLE")
def test_cpus_are_kept_awake_by_who_lets_everybody_else_go_first() -> None:
    """One process per CPU, seen in /proc, of the lowest priority; gone with the wish."""
    before = children()
    with RealTime(RealTimeSettings(awake=True)) as realtime:
        started = children() - before
        found = [(os.sched_getscheduler(pid), os.sched_getaffinity(pid)) for pid in started]
    assert [answer.line for answer in realtime.answers] == ["real time: CPUs kept awake"]
    assert {policy for policy, _ in found} == {os.SCHED_IDLE}
    assert sorted(cpu for _, cpus in found for cpu in cpus) == sorted(os.sched_getaffinity(0))
    assert not children() & started


UNPRIVILEGED = """
import json, os, resource
from hil.realtime import RealTime, RealTimeSettings
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
slack = lambda: int(open("/proc/self/timerslack_ns").read())
before = slack()
wishes = RealTimeSettings(priority=5, timer_slack=1, cpus=(min(os.sched_getaffinity(0)),))
with RealTime(wishes) as r:
    inside = slack(), len(os.sched_getaffinity(0))
print(json.dumps([before, inside, slack(), [a.line for a in r.answers]]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_the_system_itself_refuses_and_grants() -> None:
    """A process without rights: no real-time priority; short timers and a CPU it may have."""
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, inside, after, lines = json.loads(done.stdout)
    assert inside == [1, 1]
    assert after == before
    assert lines[:1] == ["real time: timer slack 1 ns"]
    assert "SCHED_FIFO priority 5: refused (Operation not permitted)" in lines[2]
