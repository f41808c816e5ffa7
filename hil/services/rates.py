"""How fast a loop runs and what it missed, while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_S = 2.0  # between two lines where stderr is no terminal
SHOWN_S = 0.1  # between two changes of a bar: a loop has better to do


class Rates(msgspec.Struct, frozen=True):
    """Periods per second of wall time."""

    now: float  # over the last second that is over; over all of it before
    mean: float
    worst: float  # of all whole seconds; the mean before one is over
    missed: int  # periods without an input of their own in time, and samples never read


class RateMeter:
    """Counts periods by the seconds of a clock, which its user reads."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._second = 0  # at hand, from the start
        self._counted = 0  # in it
        self._total = 0
        self._now = self._worst = float("inf")
        self._missed = 0
        self._last = 0.0

    def count(self, at: float, missed: int) -> None:
        """Note one period that ended `at` s, with so much missed in it."""
        if self._start is None:
            self._start = at
        elapsed = at - self._start
        while elapsed >= self._second + 1:  # seconds without a period count as well
            self._now = float(self._counted)
            self._worst = min(self._worst, self._now)
            self._counted, self._second = 0, self._second + 1
        self._counted += 1
        self._total += 1
        self._missed += missed
        self._last = elapsed

    @property
    def rates(self) -> Rates:
        """The figures so far."""
        mean = (self._total - 1) / self._last if self._last > 0 else 0.0
        now, worst = (r if r < float("inf") else mean for r in (self._now, self._worst))
        return Rates(now, mean, worst, self._missed)


class ControlProgress:
    """A bar on a terminal, a line every two seconds elsewhere; a context manager."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        console = Console(stderr=True)
        self._total = total
        self._say = say
        self._lines = not console.is_terminal
        self._shown = time.monotonic()
        self._bar = Progress(
            TextColumn("period"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=self._lines,
            auto_refresh=False,  # no thread beside the loop
        )
        self._task = self._bar.add_task("period", total=total, figures="")

    def show(self, now: float, done: int, rates: Callable[[], Rates]) -> None:
        """Show how it goes, now and then: `now` s, monotonic; `done` periods."""
        if now - self._shown < (LINE_S if self._lines else SHOWN_S) and done < self._total:
            return
        self._shown = now
        figures = line(rates())
        if self._lines:
            self._say(f"period {done}/{self._total}: {figures}")
        else:
            self._bar.update(self._task, completed=done, figures=figures, refresh=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


def line(rates: Rates) -> str:
    """Return rates in a line for a person."""
    return (
        f"{rates.now:.0f} Hz now, {rates.mean:.0f} mean, {rates.worst:.0f} in the worst second, "
        f"{rates.missed} missed"
    )
