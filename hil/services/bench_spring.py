"""`hil bench spring`: what a spring network learns in place, beside the figures of the paper.

A cell is a case, a preset, a rig and a seed. The rig `ideal` is the equations alone, `imperfect`
the in-process double of the simulated rig with the imperfections it is shipped with; both are
trained by the trainer of `hil train`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from rich.console import Console
from rich.table import Table

import hil.config
from hil.config import Config, Settings, check, load
from hil.errors import ConfigError, InputError
from hil.mechanics.damage import zero_mode_bonds
from hil.plots.spring_bench import Bar, draw_spring_bench
from hil.recording.run import RESULTS, Run
from hil.services.cells import Cell, Say, run_cells
from hil.services.rehearsal import Rehearsal
from hil.training.events import EpochDone

Figure = Literal["test_accuracy", "train_accuracy", "counted_loss", "loss"]
HALF = 0.5


class CaseSettings(Settings, frozen=True, kw_only=True):
    """A line of the table."""

    name: Annotated[str, Meta(min_length=1)]
    configs: Annotated[
        tuple[str, ...], Meta(min_length=1, description="learned one after the other, in place")
    ]
    damage: bool = False  # then cut the bond whose loss comes nearest to half, and learn again
    set: Annotated[hil.config.Table, Meta(description="overrides, dotted key → value")] = {}  # noqa: RUF012 - a Struct copies it
    figure: Figure
    paper: float | None = None
    wanted: float | None = None  # of the preset `wide`, ideal
    wanted_imperfect: float | None = None


class BenchSettings(Settings, frozen=True, kw_only=True):
    """The protocol."""

    case: Annotated[tuple[CaseSettings, ...], Meta(min_length=1)]
    rigs: Annotated[dict[str, str], Meta(min_length=1, description="name → module:Class")]
    ideal: Annotated[tuple[str, ...], Meta(description="rigs without imperfections")] = ()
    presets: Annotated[tuple[str, ...], Meta(min_length=1)] = ("wide", "published")
    seeds: Annotated[int, Meta(ge=1, le=1000)] = 10
    epochs_imperfect: Annotated[
        int, Meta(ge=1, description="most epochs on a rig with imperfections, whose time costs")
    ] = 500
    only: Annotated[tuple[str, ...], Meta(description="names of cases; none: all")] = ()
    training: Annotated[hil.config.Table, Meta(description="overrides of every [training]")] = {}  # noqa: RUF012


class Figures(msgspec.Struct, frozen=True):
    """One training, or chain of them, measured on its rig at the end."""

    train_accuracy: float
    test_accuracy: float
    loss: float  # mean over the training samples
    counted_loss: float  # as the paper counts: a short last mini-batch divided by the whole size
    gradient_cosine: float | None
    cpu_seconds: float
    bond: int | None = None  # that was cut, from 1
    damaged_accuracy: float | None = None  # of the training samples, before learning again


class Spread(msgspec.Struct, frozen=True):
    """A figure over seeds."""

    mean: float
    std: float
    least: float
    most: float


class Goal(msgspec.Struct, frozen=True):
    """A figure that was asked for."""

    wanted: float
    found: float
    met: bool


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line: case, preset, rig, figure."""

    cases: dict[str, dict[str, dict[str, dict[str, Spread]]]]
    headline: dict[str, str]  # case → the figure that is in the table
    paper: dict[str, float]
    goals: dict[str, Goal]  # case or case / imperfect
    bonds: dict[str, dict[str, list[int]]]  # preset, rig → bond that was cut, per seed
    seeds: int
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Train what is still to be trained, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench spring` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    unknown = set(settings.only) - {case.name for case in settings.case}
    if unknown:
        known = ", ".join(case.name for case in settings.case)
        raise InputError(f"bench.only: no case {sorted(unknown)[0]!r}; known: {known}")
    cases = [case for case in settings.case if not settings.only or case.name in settings.only]
    for case in cases:  # refuse what cannot be before hours are spent
        _rehearsals(settings, case, settings.presets[0], next(iter(settings.rigs)), 0)
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    cells = [
        Cell(f"{case.name} / {preset} / {rig} / {seed}", _work(settings, case, preset, rig, seed))
        for rig in settings.rigs
        for preset in settings.presets
        for case in cases
        for seed in range(config.seed, config.seed + settings.seeds)
    ]
    done = run_cells(cells, Figures, run, say)
    table = {
        case.name: {
            preset: {rig: _spreads(_of(done, case.name, preset, rig)) for rig in settings.rigs}
            for preset in settings.presets
        }
        for case in cases
    }
    headline = {case.name: case.figure for case in cases}
    paper = {case.name: case.paper for case in cases if case.paper is not None}
    outcome = Outcome(
        cases=table,
        headline={name: str(figure) for name, figure in headline.items()},
        paper=paper,
        goals=_goals(settings, cases, table),
        bonds={
            preset: {
                rig: [
                    figures.bond
                    for case in cases
                    if case.damage
                    for figures in _of(done, case.name, preset, rig)
                    if figures.bond is not None
                ]
                for rig in settings.rigs
            }
            for preset in settings.presets
        },
        seeds=settings.seeds,
        run=str(run.path),
        plots=[str(_draw(run, settings, cases, done))],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _rehearsals(
    settings: BenchSettings, case: CaseSettings, preset: str, rig: str, seed: int
) -> list[Rehearsal]:
    """Return one rehearsal per configuration of a case."""
    overrides = {"preset": preset, "seed": seed, "ideal": rig in settings.ideal}
    overrides |= {f"training.{key}": value for key, value in settings.training.items()}
    rehearsals = []
    for path in case.configs:
        config = load(path, sim=True, overrides=overrides | case.set)
        if rig not in settings.ideal and config.training is not None:
            epochs = min(config.training["epochs"], settings.epochs_imperfect)
            training = config.training | {"epochs": epochs}
            config = msgspec.structs.replace(config, training=training)
        rehearsals.append(Rehearsal(config, settings.rigs[rig]))
    return rehearsals


def _work(
    settings: BenchSettings, case: CaseSettings, preset: str, rig: str, seed: int
) -> Callable[[], Figures]:
    def figures() -> Figures:
        begin = time.process_time()
        rehearsals = _rehearsals(settings, case, preset, rig, seed)
        last = rehearsals[0].train()
        for rehearsal in rehearsals[1:]:
            last = rehearsal.train(start=last.state.applied)
        bond, damaged = None, None
        if case.damage:
            bond, damaged = _worst_half(rehearsals[-1], last)
            last = rehearsals[-1].train(start=last.state.applied, pruned=(bond,))
        return _figures(rehearsals[-1], last, time.process_time() - begin, bond, damaged)

    return figures


def _worst_half(rehearsal: Rehearsal, last: EpochDone) -> tuple[int, float]:
    """Return the bond, from 1, whose loss comes nearest to halving the accuracy, and that.

    Chosen by the training samples alone; bonds that leave a zero mode are not tried.
    """
    assert last.train is not None
    loose = zero_mode_bonds(rehearsal.network)
    left = {
        bond: rehearsal.judge(last.state.applied, (bond,)).accuracy
        for bond in range(1, rehearsal.network.bond_count + 1)
        if bond - 1 not in loose
    }
    goal = HALF * last.train.accuracy
    bond = min(left, key=lambda tried: (abs(left[tried] - goal), tried))
    return bond, left[bond]


def _figures(
    rehearsal: Rehearsal, last: EpochDone, seconds: float, bond: int | None, damaged: float | None
) -> Figures:
    assert last.train is not None
    assert last.test is not None
    assert rehearsal.config.training is not None
    samples, batch = rehearsal.task.n_train, int(rehearsal.config.training["batch"])
    counted = samples / (batch * -(-samples // batch)) if samples > batch else 1.0
    return Figures(
        train_accuracy=last.train.accuracy,
        test_accuracy=last.test.accuracy,
        loss=last.train.loss,
        counted_loss=last.train.loss * counted,
        gradient_cosine=last.state.model.cosine,
        cpu_seconds=seconds,
        bond=bond,
        damaged_accuracy=damaged,
    )


def _of(done: dict[str, Figures | None], *parts: str) -> list[Figures]:
    prefix = " / ".join(parts) + " / "
    return [found for key, found in done.items() if key.startswith(prefix) and found]


def _spreads(found: list[Figures]) -> dict[str, Spread]:
    """Return every figure of the seeds of a cell, where all of them have it."""
    spreads = {}
    for name in Figures.__struct_fields__:
        values = [getattr(figures, name) for figures in found]
        if name != "bond" and values and None not in values:
            spreads[name] = Spread(
                mean(values), stdev(values) if len(values) > 1 else 0.0, min(values), max(values)
            )
    return spreads


def _goals(
    settings: BenchSettings,
    cases: list[CaseSettings],
    table: dict[str, dict[str, dict[str, dict[str, Spread]]]],
) -> dict[str, Goal]:
    goals = {}
    for case in cases:
        for rig in settings.rigs:
            exact = rig in settings.ideal
            wanted = case.wanted if exact else case.wanted_imperfect
            if wanted is None or settings.presets[0] not in table[case.name]:
                continue
            found = table[case.name][settings.presets[0]][rig][case.figure].mean
            met = found <= wanted if "loss" in case.figure else found >= wanted
            goals[case.name if exact else f"{case.name} / {rig}"] = Goal(wanted, found, met)
    return goals


def _draw(
    run: Run,
    settings: BenchSettings,
    cases: list[CaseSettings],
    done: dict[str, Figures | None],
) -> Path:
    run.plots.mkdir(exist_ok=True)
    path = run.plots / "spring.png"
    panels: dict[str, list[Bar]] = {"accuracy": [], "loss": []}
    for case in cases:
        panel = "loss" if "loss" in case.figure else "accuracy"
        points = {
            f"{preset}, {rig}": np.array(
                [getattr(f, case.figure) for f in _of(done, case.name, preset, rig)]
            )
            for preset in settings.presets
            for rig in settings.rigs
        }
        panels[panel].append(Bar(case.name, points, case.paper, case.wanted))
    draw_spring_bench(
        {name: bars for name, bars in panels.items() if bars}, path,
        title=f"Learned in place, {settings.seeds} seeds",
    )  # fmt: skip
    return path


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    console = Console(width=150, file=io.StringIO())
    columns = [
        (preset, rig) for preset, rigs in next(iter(outcome.cases.values())).items() for rig in rigs
    ]
    table = Table(title=f"learned in place, {outcome.seeds} seeds", title_justify="left")
    for column in ("task", "figure", "paper", *(f"{preset}, {rig}" for preset, rig in columns)):
        table.add_column(column, justify="left" if column in ("task", "figure") else "right")
    for name, presets in outcome.cases.items():
        figure = outcome.headline[name]
        known = outcome.paper.get(name)
        table.add_row(
            name, figure.replace("_", " "), "" if known is None else f"{known:.3g}",
            *(_text(presets[preset][rig], figure) for preset, rig in columns),
        )  # fmt: skip
    console.print(table)
    for name, goal in outcome.goals.items():
        verdict = "met" if goal.met else "MISSED"
        console.print(f"{name}: wanted {goal.wanted:.3g}, found {goal.found:.3g}: {verdict}")
    written = console.file
    assert isinstance(written, io.StringIO)
    return f"{written.getvalue()}run  {outcome.run}\n     {outcome.plots[0]}"


def _text(found: dict[str, Spread], figure: str) -> str:
    spread = found.get(figure)
    if spread is None:
        return ""
    if "loss" in figure and spread.mean < 1e-3:
        return f"{spread.mean:.2e} ± {spread.std:.1e}"
    return f"{spread.mean:.3f} ± {spread.std:.3f}"
