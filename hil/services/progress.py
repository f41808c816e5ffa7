"""Visible progress of a training run, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hil.training.events import EpochDone, Event

LINE_S = 2.0  # between two lines where stderr is no terminal


class TrainingProgress:
    """A bar on a terminal, a line every two seconds elsewhere; a context manager.

    unit: what is counted, where it is not epochs. plain: lines in any case, because the
    terminal is a person's who is asked things.
    """

    def __init__(
        self, epochs: int, say: Callable[[str], None], unit: str = "epoch", plain: bool = False
    ) -> None:
        console = Console(stderr=True)
        self._epochs, self._unit = epochs, unit
        self._say = say
        self._lines = plain or not console.is_terminal
        self._spoken = time.monotonic()
        self._accuracy = ""
        self._bar = Progress(
            TextColumn(unit),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=self._lines,
        )
        self._task = self._bar.add_task("epoch", total=epochs, figures="")

    def show(self, event: Event) -> None:
        """Show what an event brought."""
        if not isinstance(event, EpochDone):
            return
        if event.train is not None and event.test is not None:
            self._accuracy = (
                f", accuracy train {event.train.accuracy:.3f} test {event.test.accuracy:.3f}"
            )
        self.advance(event.epoch, f"loss {event.loss:.4g}{self._accuracy}")

    def advance(self, epoch: int, figures: str) -> None:
        """Show that an epoch, from 1, is over, and what it brought."""
        self._bar.update(self._task, completed=epoch, figures=figures)
        now = time.monotonic()
        due = now - self._spoken >= LINE_S or epoch == self._epochs
        if self._lines and due:
            self._spoken = now
            self._say(f"{self._unit} {epoch}/{self._epochs}: {figures}")

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
