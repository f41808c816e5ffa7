"""A run's recordings as tables other programs read: one CSV per topic."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from hil.errors import InputError, RunError
from hil.recording.reader import Record, Recording
from hil.recording.run import Run

DIRECTORY = "export"
WIDEST = 1024  # longest list that becomes columns of its own


class Exported(msgspec.Struct, frozen=True):
    """What was written: the JSON line of `hil export`."""

    run: str
    rows: dict[str, int]  # topic → messages
    files: list[str]
    damage: list[str]  # why a recording ended early, where one did


def export(path: Path, say: Callable[[str], None]) -> Exported:
    """Write `export/<topic>.csv` for every topic of a run, all its parts in order.

    A list of as many numbers in every message becomes columns (`stiffness.1` is that of the
    first bond); what is nested, or differs in length, is JSON in one cell. Raises InputError
    for a directory without recordings, RunError where nothing can be written.
    """
    run = Run.open(path)
    recordings = [Recording(part) for part in run.parts()]
    if not recordings:
        raise InputError(f"{path}: holds no recording to export")
    widths = _widths(_all(recordings))
    target = run.path / DIRECTORY
    files = {topic: target / f"{topic.strip('/').replace('/', '.')}.csv" for topic in widths}
    rows = dict.fromkeys(widths, 0)
    try:
        target.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            writers = {}
            for topic, file in files.items():
                opened = stack.enter_context(file.open("w", newline="", encoding="utf-8"))
                writers[topic] = csv.writer(opened)
                writers[topic].writerow(_headings(widths[topic]))
            for record in _all(recordings):
                writers[record.topic].writerow(_cells(record.data, widths[record.topic]))
                rows[record.topic] += 1
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror}") from None
    damage = [
        f"{recording.path}: {recording.damage}" for recording in recordings if recording.damage
    ]
    for line in damage:
        say(f"read up to the damage: {line}")
    return Exported(str(run.path), rows, [str(file) for file in files.values()], damage)


def summary(outcome: Exported) -> str:
    """Return a result as lines for a person."""
    pairs = zip(outcome.files, outcome.rows.values(), strict=True)
    return "\n".join(f"{count:8} rows  {file}" for file, count in pairs)


def _all(recordings: list[Recording]) -> Iterator[Record]:
    for recording in recordings:
        yield from recording


def _widths(records: Iterator[Record]) -> dict[str, dict[str, int | None]]:
    """Return for every topic and key how many columns it takes; None: a cell, whatever is in it."""
    found: dict[str, dict[str, int | None]] = {}
    for topic, _, data in records:
        keys = found.setdefault(topic, {})
        for key, value in data.items():
            width = len(value) if _flat(value) else None
            keys[key] = width if keys.get(key, width) == width else None
    return found


def _flat(value: Any) -> bool:
    numbers = isinstance(value, list) and all(isinstance(one, (int, float)) for one in value)
    return numbers and 0 < len(value) <= WIDEST


def _headings(widths: dict[str, int | None]) -> list[str]:
    headings: list[str] = []
    for key, width in widths.items():
        headings += [key] if width is None else [f"{key}.{i + 1}" for i in range(width)]
    return headings


def _cells(data: dict[str, Any], widths: dict[str, int | None]) -> list[Any]:
    cells: list[Any] = []
    for key, width in widths.items():
        value = data.get(key)
        if width is not None:
            cells += value if value is not None else [None] * width
        else:
            cells.append(json.dumps(value) if isinstance(value, (list, dict)) else value)
    return cells
