"""What a sweep is made of: a job that names its points and does one, and who executes them.

A point is done in a directory of its own. Its result is a function of its description alone:
not of the process that does it, not of the order, not of its neighbours. That is why a sweep
gives the same bits here and on a cluster, and why what is done need not be done again.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

import msgspec

from hil.config import Table

ATTEMPTS = 3  # at a point whose worker was killed, before it is given up
Say = Callable[[str], None]
Figures = dict[str, Any]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One piece of a sweep.

    label: for people, and the first part of its directory's name. settings: what tells it from
    the other points. work: all that its result depends on. units: how much it is, in the job's
    unit.
    """

    label: str
    settings: Table
    work: Table
    units: int = 1

    def digest(self, kind: str) -> str:
        """Return the SHA-256 of what is to be done, in hexadecimal."""
        described = msgspec.msgpack.encode([kind, self.work], order="sorted")
        return hashlib.sha256(described).hexdigest()


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point as a worker is told of it; kind: the job's class.

    It travels as msgpack: limits may be infinite, and JSON has no word for that.
    """

    index: int
    kind: str
    point: Point
    directory: str

    @property
    def digest(self) -> str:
        """What is to be done, as a hexadecimal digest."""
        return self.point.digest(self.kind)


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a point ended; its result lies in its directory. error: one line, or nothing."""

    index: int
    error: str = ""


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a point came to, `results.json` of its directory: the same bits wherever it was done."""

    digest: str
    settings: Table
    figures: Figures


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a point took, `cost.json` of its directory; cpu_seconds: with its child processes."""

    cpu_seconds: float
    seconds: float
    worker: str  # machine and process


class Done(NamedTuple):
    """A point that is done, and where its files lie."""

    point: Point
    directory: Path
    result: Result
    cost: Cost


class Ending(msgspec.Struct, frozen=True):
    """What a job makes of all its points: figures for the JSON line, lines for a person."""

    figures: Figures = {}
    lines: list[str] = []
    plots: list[str] = []


class AbstractJob(ABC):
    """What is done at the points of a sweep; its file is all a new kind of sweep needs.

    unit: what a point is counted in.
    """

    unit: ClassVar[str] = "run"

    @abstractmethod
    def points(self) -> list[Point]:
        """Return the points in order; raises ConfigError before anything is done."""

    @staticmethod
    @abstractmethod
    def run(work: Table, directory: Path, say: Say) -> Figures:
        """Do one point in its empty directory and return its figures.

        A pure function of `work`: no figure may hold a time, a path or a process.
        """

    @staticmethod
    def prepare() -> None:
        """Do what a worker needs once, before its first point is timed: compile, say."""
        return

    def forecast(self, first: Done) -> list[str]:
        """Return what the first point that is done foretells of all, as lines."""
        return []

    @abstractmethod
    def finish(self, path: Path, done: Sequence[Done]) -> Ending:
        """Draw and return what the points came to.

        path: the sweep's directory. done: in the order of `points()`, those that failed left
        out.
        """


class AbstractExecutor(ABC):
    """Where points are done; a context manager.

    workers: how many at once. name: for people. lost: how many died with a point in hand, as far
    as it is told.
    """

    name: str
    workers: int
    lost: int = 0

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Iterator[Reply]:
        """Do the tasks and yield a reply for each, in the order in which they end.

        A worker that dies costs the point it had in hand one attempt of ATTEMPTS, and nothing
        else.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers, whatever they do; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def flat(table: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Return a nested table with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= flat(value, f"{where}{key}.")
        else:
            found[f"{where}{key}"] = value
    return found
