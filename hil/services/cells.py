"""A benchmark in cells: each is run once, kept, and not run again after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from hil.recording.run import Run
from hil.services.progress import TrainingProgress

Say = Callable[[str], None]
C = TypeVar("C", bound=msgspec.Struct)
CELLS = "cells.json"


class Cell(NamedTuple, Generic[C]):
    """A name that says what it is, and the work."""

    name: str
    work: Callable[[], C | None]


def run_cells(cells: Sequence[Cell[C]], kind: type[C], run: Run, say: Say) -> dict[str, C | None]:
    """Return the figures of every cell by name; done ones are read from the run directory.

    Whatever ends this process, at most the cell that ran is lost.
    """
    done: dict[str, Any] = {}
    if (run.path / CELLS).exists():
        done = run.read_json(CELLS, dict[str, kind | None])  # type: ignore[valid-type]
        say(f"{len(done)} of {len(cells)} cells are done")
    with TrainingProgress(len(cells), say, unit="cell") as progress:
        for number, cell in enumerate(cells, 1):
            if cell.name in done:
                continue
            begin = time.monotonic()
            done[cell.name] = cell.work()
            run.write_json(CELLS, done)
            progress.advance(number, f"{cell.name}, {time.monotonic() - begin:.1f} s")
    return done
