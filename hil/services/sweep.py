"""A sweep as a process: its directory, what is done already, its table, its end.

runs/<date>-<name>/points/<label>-<digest>/ holds what a point leaves; `results.json` in it is
written last. A point whose result is there and whose digest is that of its description is not
done again, so a sweep may be killed at any moment, and its configuration may grow.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from hil.config import Config, build
from hil.errors import ConfigError, HilError, InputError, LeaseError, RunError
from hil.recording.run import RESULTS, Run
from hil.services.progress import TrainingProgress
from hil.sweep.base import AbstractExecutor, AbstractJob, Cost, Done, Result, Say, Task, flat
from hil.sweep.worker import COST

TABLE = "table.csv"
POINTS = "points"
LOCK = ".lock"
Opening = Callable[[], AbstractExecutor]


class Outcome(msgspec.Struct, frozen=True):
    """What a sweep ended with: the JSON line of `hil sweep`."""

    points: int
    kept: int  # of them done before, and found whole
    executor: str
    workers_lost: int  # that died with a point in hand, which was done again; a cluster keeps quiet
    unit: str
    units: int
    cpu_seconds: float  # of all points, with their child processes
    units_per_core_second: float
    seconds: float  # of this process
    figures: dict[str, Any]  # the job's own
    table: str
    run: str
    plots: list[str]
    lines: list[str]  # the job's own, for a person


def sweep(config: Config, path: Path | None, runs: Path, executor: Opening, say: Say) -> Outcome:
    """Do what is missing of a sweep.

    path: the directory to go on in; None makes a new one below `runs`. executor: makes where the
    points are done, once it is known that there is something to do.

    Raises ConfigError before anything is done, LeaseError while another process works in the
    directory, RunError when points failed: the others are done and stay.
    """
    job, tasks = _plan(config)
    run = Run.open(path) if path else Run.create(runs, config.name, datetime.now())
    with _lock(run):
        run.write_config(config)
        (run.path / POINTS).mkdir(exist_ok=True)
        tasks = [_placed(task, run) for task in tasks]
        begun = time.monotonic()
        done = {task.index: found for task in tasks if (found := _found(task))}
        kept = len(done)
        missing = [task for task in tasks if task.index not in done]
        say(f"run {run.path}" + (f", {kept} of {len(tasks)} points are done" if kept else ""))
        failed: dict[int, str] = {}
        where, lost = "nobody: all was done", 0
        if missing:
            with _opened(executor, None if path else run) as workers:
                where = workers.name
                say(f"{len(missing)} points on {where}")
                try:
                    _work(job, workers, missing, done, failed, say)
                except KeyboardInterrupt:
                    say(f"interrupted; go on with: hil sweep --resume {run.path}")
                    raise
                lost = workers.lost
        whole = [done[index] for index in sorted(done)]
        outcome = _finish(job, run, whole, len(tasks), kept, where, lost, begun)
    if failed:
        first = min(failed)
        raise RunError(
            f"{len(failed)} of {len(tasks)} points failed; the first, "
            f"{Path(tasks[first].directory).name}: {failed[first]}; mend it and go on with: "
            f"hil sweep --resume {run.path}"
        )
    return outcome


def _opened(executor: Opening, new: Run | None) -> AbstractExecutor:
    """Open an executor; where that fails, a run that is new is not worth keeping."""
    try:
        return executor()
    except HilError:
        if new is not None:
            shutil.rmtree(new.path)
        raise


def describe(config: Config) -> dict[str, str]:
    """Return what a configuration sweeps; raises ConfigError."""
    job, tasks = _plan(config)
    units = sum(task.point.units for task in tasks)
    return {"sweep": f"{tasks[0].kind}: {len(tasks)} points, {units} × {job.unit}"}


def _plan(config: Config) -> tuple[AbstractJob, list[Task]]:
    if config.sweep is None:
        raise ConfigError("sweep: missing; `hil sweep` needs a [sweep]")
    job = build(config.sweep, "sweep", config=config)
    kind = config.sweep["kind"]
    if not isinstance(job, AbstractJob):
        raise ConfigError(f"sweep.kind: {kind!r} is nothing to do at the points of a sweep")
    tasks = [Task(index, kind, point, "") for index, point in enumerate(job.points())]
    seen: dict[str, Task] = {}
    for task in tasks:
        twin = seen.setdefault(task.digest, task)
        if twin is not task:
            raise ConfigError(
                f"sweep: the points {twin.point.settings} and {task.point.settings} are one and "
                "the same; leave one out"
            )
    return job, tasks


def _placed(task: Task, run: Run) -> Task:
    name = f"{task.point.label}-{task.digest[:10]}"
    return msgspec.structs.replace(task, directory=str((run.path / POINTS / name).resolve()))


def _found(task: Task) -> Done | None:
    """Return a point that is done: whole, and of this very description."""
    directory = Path(task.directory)
    point = Run(directory)
    try:
        result = point.read_json(RESULTS, Result)
        cost = point.read_json(COST, Cost)
    except InputError:
        return None
    return Done(task.point, directory, result, cost) if result.digest == task.digest else None


def _work(
    job: AbstractJob,
    executor: AbstractExecutor,
    tasks: Sequence[Task],
    done: dict[int, Done],
    failed: dict[int, str],
    say: Say,
) -> None:
    """Do tasks; what comes of them is added to `done` and `failed`."""
    by_index = {task.index: task for task in tasks}
    begun = time.monotonic()
    units, spent = 0, 0.0
    with TrainingProgress(len(tasks), say, unit="point") as progress:
        for number, reply in enumerate(executor.run(tasks), 1):
            task = by_index[reply.index]
            found = None if reply.error else _found(task)
            if found is None:
                reason = reply.error or f"no result is in {task.directory}"
                failed[task.index] = reason
                say(f"{Path(task.directory).name} failed: {reason}")
            else:
                done[task.index] = found
                units, spent = units + task.point.units, spent + found.cost.cpu_seconds
                if number == 1:
                    for line in job.forecast(found):
                        say(line)
            left = (time.monotonic() - begun) / number * (len(tasks) - number)
            rate = f"{units / spent:.3g} {job.unit}/s per core, " if spent else ""
            lost = f", {executor.lost} workers lost" if executor.lost else ""
            progress.advance(number, f"{rate}{left:.0f} s left{lost}")


def _finish(
    job: AbstractJob,
    run: Run,
    done: Sequence[Done],
    points: int,
    kept: int,
    executor: str,
    lost: int,
    begun: float,
) -> Outcome:
    table = _write_table(run.path / TABLE, done)
    run.plots.mkdir(exist_ok=True)
    ending = job.finish(run.path, done)
    units = sum(one.point.units for one in done)
    spent = sum(one.cost.cpu_seconds for one in done)
    outcome = Outcome(
        points=points,
        kept=kept,
        executor=executor,
        workers_lost=lost,
        unit=job.unit,
        units=units,
        cpu_seconds=round(spent, 3),
        units_per_core_second=units / spent if spent else 0.0,
        seconds=round(time.monotonic() - begun, 3),
        figures=ending.figures,
        table=str(table),
        run=str(run.path),
        plots=ending.plots,
        lines=ending.lines,
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _write_table(path: Path, done: Sequence[Done]) -> Path:
    """Write settings and figures of every point, in order, as CSV; the same bits every time."""
    rows = [flat(one.point.settings) | flat(one.result.figures) for one in done]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)
    return path


@contextlib.contextmanager
def _lock(run: Run) -> Iterator[None]:
    """Hold a sweep's directory; the system lets go of it however this process ends."""
    with (run.path / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseError(f"{run.path}: another sweep works in it; end that one first") from None
        yield


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    kept = f", {outcome.kept} of them done before" if outcome.kept else ""
    lost = (
        f", {outcome.workers_lost} of them died and were replaced" if outcome.workers_lost else ""
    )
    return "\n".join(
        [
            f"points     {outcome.points}{kept}, on {outcome.executor}{lost}",
            *outcome.lines,
            f"work       {outcome.cpu_seconds:.1f} s CPU in {outcome.seconds:.1f} s: "
            f"{outcome.units_per_core_second:.4g} {outcome.unit}/s per core",
            f"table      {outcome.table}",
            f"run        {outcome.run}",
            *(f"           {path}" for path in outcome.plots),
        ]
    )
