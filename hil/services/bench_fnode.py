"""`hil bench fnode`: learned dynamics on the published systems, one metric for every model."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, Settings, check
from hil.errors import ConfigError
from hil.plots.rollouts import draw_errors, draw_rollouts
from hil.recording.run import RESULTS, Run
from hil.services.cells import Cell, Say, run_cells
from hil.training.compare import LEARNERS, WITHOUT_SEED, SystemSettings, case, trial
from hil.types import Array

MODELS = tuple(LEARNERS)


class BenchSettings(Settings, frozen=True, kw_only=True):
    """What is compared."""

    systems: Annotated[dict[str, SystemSettings], msgspec.Meta(min_length=1)]
    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = MODELS
    seeds: Annotated[int, msgspec.Meta(ge=1)] = 5
    hidden: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (256, 256)
    only: tuple[str, ...] = ()  # of the systems; none: all

    def __post_init__(self) -> None:
        """Refuse names that are not there."""
        for name, names, known in (
            ("models", self.models, LEARNERS), ("only", self.only, self.systems)
        ):  # fmt: skip
            odd = [entry for entry in names if entry not in known]
            if odd:
                raise ValueError(f"`{name}` names {odd[0]!r}; known: {', '.join(known)}")


class Figures(msgspec.Struct, frozen=True):
    """One model with one seed on one system; errors are null where a rollout diverged."""

    full: float | None
    test: float | None
    full_positions: float | None
    test_positions: float | None
    valid: float
    drift: float | None
    cpu_seconds: float
    updates: int
    about: str
    states: list[list[float | None]]  # of the first seed, thinned out, for the plot


class Spread(msgspec.Struct, frozen=True):
    """A figure over seeds."""

    median: float | None  # null: infinite
    least: float | None
    most: float | None


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line of `hil bench fnode`: case, model, figure."""

    cases: dict[str, dict[str, dict[str, Spread | list[str] | None]]]
    paper: dict[str, dict[str, float]]
    seeds: int
    hidden: list[int]
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Run what is still to be run, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench fnode` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    names = settings.only or list(settings.systems)
    cases = {name: case(settings.systems[name], settings.hidden, config.seed) for name in names}
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")

    def work(name: str, model: str, seed: int) -> Callable[[], Figures | None]:
        def figures() -> Figures | None:
            found = trial(cases[name], model, seed)
            if found is None:
                return None
            thin = found.states[:: max(1, len(found.states) // 400), : cases[name].network.nq]
            states = (
                np.where(np.abs(thin) < 1e6, thin, np.nan).tolist() if seed == config.seed else []
            )
            return Figures(*found.error, *found[1:-1], states)

        return figures

    cells = [
        Cell(f"{name} / {model} / {seed}", work(name, model, seed))
        for model in settings.models
        for name in names
        for seed in range(config.seed, config.seed + (settings.seeds, 1)[model in WITHOUT_SEED])
    ]
    done = run_cells(cells, Figures, run, say)
    table = {name: {model: _of(done, name, model) for model in settings.models} for name in names}
    outcome = Outcome(
        cases={
            name: {model: _summary(found) for model, found in row.items() if found}
            for name, row in table.items()
        },
        paper={name: dict(settings.systems[name].paper) for name in names},
        seeds=settings.seeds,
        hidden=list(settings.hidden),
        run=str(run.path),
        plots=[str(path) for path in _draw(run, cases, table)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _of(done: dict[str, Figures | None], name: str, model: str) -> list[Figures]:
    prefix = f"{name} / {model} / "
    return [found for key, found in done.items() if key.startswith(prefix) and found]


def _summary(found: list[Figures]) -> dict[str, Spread | list[str] | None]:
    names = ("full", "test", "full_positions", "test_positions", "valid", "cpu_seconds", "updates")
    summary: dict[str, Spread | list[str] | None] = {
        name: spread([getattr(figures, name) for figures in found]) for name in names
    }
    drifts = [figures.drift for figures in found if figures.drift is not None]
    summary["drift"] = spread(drifts) if drifts else None
    summary["about"] = [figures.about for figures in found if figures.about]
    return summary


def spread(values: list[Any]) -> Spread:
    """Return median and range; what is infinite or no number is null."""
    known = [_number(value) for value in values]
    found = (statistics.median_low(known), min(known), max(known))
    return Spread(*(v if v < float("inf") else None for v in found))


def _number(value: float | None) -> float:
    return float("inf") if value is None or value != value else float(value)


def _draw(
    run: Run, cases: dict[str, Any], table: dict[str, dict[str, list[Figures]]]
) -> list[Path]:
    run.plots.mkdir(exist_ok=True)
    errors = {
        name: {model: [_number(f.test) for f in found] for model, found in row.items() if found}
        for name, row in table.items()
    }
    paths = [run.plots / "errors.png"]
    paper = {name: dict(entry.settings.paper) for name, entry in cases.items()}
    draw_errors(errors, paper, paths[0], title="Error of the test part")
    for name, row in table.items():
        entry = cases[name]
        step = max(1, len(entry.truth) // 400)
        nq, period = entry.network.nq, entry.settings.period
        time: Array = np.arange(len(entry.truth))[::step] * period
        truth = entry.truth[::step, :nq]
        found = {
            model: np.array(figures[0].states, dtype=np.float64)
            for model, figures in row.items() if figures
        }  # fmt: skip
        path = run.plots / f"{name}.png"
        draw_rollouts(time, truth, found, path, title=name, known=entry.settings.train * period)
        paths.append(path)
    return paths


def summary(outcome: Outcome) -> str:
    """Return the result for a person: one table per system."""
    console = Console(width=150, file=io.StringIO())
    for name, models in outcome.cases.items():
        table = Table(title=name, title_justify="left")
        for column in ("model", "full, median", "worst", "test, median", "worst", "paper",
                       "valid s", "drift", "CPU s", "updates", "variants"):  # fmt: skip
            table.add_column(column, justify="left" if column in ("model", "variants") else "right")
        for model, row in models.items():
            paper = outcome.paper[name].get(model)
            about = row["about"]
            assert isinstance(about, list)
            table.add_row(
                model, _text(row, "full", "median"), _text(row, "full", "most"),
                _text(row, "test", "median"), _text(row, "test", "most"),
                "" if paper is None else f"{paper:.1e}", _text(row, "valid", "median", ".2f"),
                _text(row, "drift", "most", ".1e"), _text(row, "cpu_seconds", "median", ".2f"),
                _text(row, "updates", "median", ".0f"), "; ".join(dict.fromkeys(about)),
            )  # fmt: skip
        console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    paths = "\n".join(f"           {path}" for path in outcome.plots)
    return f"{written.getvalue()}\nrun        {outcome.run}\n{paths}"


def _text(row: dict[str, Any], figure: str, which: str, form: str = ".1e") -> str:
    entry = row[figure]
    if entry is None:
        return ""
    value = getattr(entry, which)
    return "diverged" if value is None else format(value, form)
