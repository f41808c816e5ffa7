"""`hil bench gates`: what no linear network can do, learned in place by springs of true length.

Every row is a configuration of `hil train`, over random starts, on the in-process double of its
rig or, where it says so, through the whole stack. Beside each stands what no linear network can
pass on the same samples, however it is tuned.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from hil.config import Config, Settings, build, check, load
from hil.errors import ConfigError
from hil.mechanics.finite_springs import make_statics
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.recording.run import RESULTS, Run
from hil.rigs.base import AbstractStaticRig
from hil.safety.limits import Limited
from hil.services import train as stack
from hil.services.cells import Cell, Say, run_cells
from hil.tasks.base import AbstractStaticTask
from hil.training.adam import AdamState
from hil.training.events import EpochDone, Evaluation, StepDone
from hil.training.insitu import InSituTraining
from hil.training.state import TrainingState

BOUNDS = ("linear_bound", "linear_bound_nrmse")


class Row(Settings, frozen=True, kw_only=True):
    """One configuration, trained from several starts."""

    config: str
    seeds: Annotated[int, Meta(ge=1)] = 1
    ideal: bool = True
    stack: Annotated[bool, Meta(description="through firmware, mirror and bus")] = False
    overrides: dict[str, Any] = msgspec.field(default_factory=dict)


class BenchSettings(Settings, frozen=True, kw_only=True):
    """What is learned, and from where."""

    double: Annotated[str, Meta(description="module:Class that plays the rig in this process")]
    rows: dict[str, Row]
    starts: dict[str, Any] = msgspec.field(default_factory=dict)
    retrained: tuple[str, ...] = ()
    retrained_with: str = ""


class Learned(msgspec.Struct, frozen=True):
    """What one training ended with."""

    train: float  # mean score of the training samples
    test: float
    strain: float  # largest |elongation| over rest length
    figures: dict[str, float]  # the task's own, of the training samples
    epochs: int
    right_after: int | None  # epochs after which all training samples were first seen right
    jumps: int  # samples left out because the network left its branch
    gate: str = ""


class Trained(msgspec.Struct, frozen=True):
    """What a cell keeps: one training, or one after the other on the same network."""

    learned: list[Learned]


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line: row, then one entry per start."""

    cases: dict[str, list[Learned]]
    retrained: list[Learned]
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Run what is still to be run and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench gates` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    cells = [
        Cell(f"{name} / {seed}", _work(settings, row, seed, run, say))
        for name, row in settings.rows.items()
        for seed in _seeds(config, row)
    ]
    if settings.retrained:
        cells.append(Cell("retrained", lambda: Trained(_retrained(settings, config.seed))))
    done = {name: found for name, found in run_cells(cells, Trained, run, say).items() if found}
    outcome = Outcome(
        cases={
            name: [done[f"{name} / {seed}"].learned[0] for seed in _seeds(config, row)]
            for name, row in settings.rows.items()
        },
        retrained=done["retrained"].learned if settings.retrained else [],
        run=str(run.path),
        plots=[],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _seeds(config: Config, row: Row) -> range:
    """Return the seeds of a row: as many as it wants, from that of the protocol on."""
    return range(config.seed, config.seed + row.seeds)


def _work(
    settings: BenchSettings, row: Row, seed: int, run: Run, say: Say
) -> Callable[[], Trained]:
    def trained() -> Trained:
        overrides = settings.starts | {"seed": seed, "ideal": row.ideal} | row.overrides
        config = load(row.config, sim=True, overrides=overrides)
        if row.stack:
            return Trained([_through_the_stack(config, run.path / "stack", say)])
        return Trained([Bench(config, settings.double).learn()[0]])

    return trained


class Bench:
    """A configuration's task and training, and the double of its rig, powered."""

    def __init__(self, config: Config, double: str) -> None:
        assert config.board is not None
        assert config.task is not None
        assert config.training is not None
        geometry = make_geometry(check(config.rig["geometry"], GeometrySettings, "rig.geometry"))
        regime = config.rig.get("regime", "linear")
        self.task: AbstractStaticTask = build(
            config.task, "task", geometry=geometry, seed=config.seed
        )
        self.training: InSituTraining = build(
            config.training,
            "training",
            network=make_statics(geometry, regime),
            seed=config.seed,
        )
        table = config.rig | {"kind": double, "plant": config.board["plant"]}
        self.rig: AbstractStaticRig = Limited(
            build(table, "rig", seed=config.seed, ideal=config.ideal)
        )
        self.rig.configure()
        self.rig.activate()

    def learn(
        self, task: AbstractStaticTask | None = None, state: TrainingState | None = None
    ) -> tuple[Learned, TrainingState]:
        """Train from a state, or from the start; return what came of it."""
        jumps, right, last = 0, None, None
        for event in self.training.run(self.rig, task or self.task, state):
            if isinstance(event, StepDone):
                jumps += event.jumps
            elif isinstance(event, EpochDone) and event.train is not None:
                last = event
                if right is None and event.train.accuracy == 1.0:
                    right = event.epoch
        assert last is not None
        assert last.train is not None
        assert last.test is not None
        return _learned(last.epoch, last.train, last.test, right, jumps), last.state


def _learned(
    epochs: int, train: Evaluation, test: Evaluation, right: int | None, jumps: int
) -> Learned:
    strain = max(train.strain, test.strain)
    return Learned(
        train.accuracy, test.accuracy, strain, train.figures, epochs, right, jumps
    )  # fmt: skip


def _through_the_stack(config: Config, runs: Path, say: Say) -> Learned:
    """Train through firmware, serial line, mirror and bus."""
    found = stack.train(config, runs, say)
    return Learned(
        found.train_accuracy, found.test_accuracy, found.peak_strain, found.figures,
        found.epochs, None, found.branch_jumps,
    )  # fmt: skip


def _retrained(settings: BenchSettings, seed: int) -> list[Learned]:
    """Train one gate after the other on one network, each from where the last one ended."""
    overrides = settings.starts | {"ideal": True, "seed": seed}
    config = load(settings.retrained_with, sim=True, overrides=overrides)
    bench = Bench(config, settings.double)
    assert config.task is not None
    found, state = [], None
    for gate in settings.retrained:
        geometry = bench.training.network.geometry
        task = build(config.task | {"gate": gate}, "task", geometry=geometry, seed=config.seed)
        if state is not None:  # only the stiffness is kept
            fresh = AdamState.start(len(state.applied))
            state = replace(state, epoch=0, step=0, cost=0.0, adam=fresh)
        learned, state = bench.learn(task, state)
        found.append(msgspec.structs.replace(learned, gate=gate))
    return found


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    table = Table(title="learned in place, mean (worst) over starts", title_justify="left")
    for column in (
        "task", "starts", "right, train", "test", "margin mm", "nrmse", "peak strain",
        "right after", "jumps", "no linear network passes",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, starts in outcome.cases.items():
        table.add_row(name, str(len(starts)), *_row(starts))
    for learned in outcome.retrained:
        table.add_row(f"then {learned.gate}", "1", *_row([learned]))
    console = Console(width=150, file=io.StringIO())
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return f"{written.getvalue()}run  {outcome.run}"


def _row(starts: list[Learned]) -> list[str]:
    right = [s.right_after for s in starts if s.right_after is not None]
    first = starts[0].figures
    bound = next((f"{first[name]:.3f}" for name in BOUNDS if name in first), "")
    if "linear_bound_threshold" in first:
        bound += f" ({first['linear_bound_threshold']:.3f} with a threshold)"
    return [
        _spread([s.train for s in starts], min, "{:.3f}"),
        _spread([s.test for s in starts], min, "{:.3f}"),
        _spread([1e3 * s.figures["margin_m"] for s in starts if "margin_m" in s.figures], min),
        _spread([s.figures["nrmse"] for s in starts if "nrmse" in s.figures], max, "{:.4f}"),
        _spread([s.strain for s in starts], max, "{:.3f}"),
        f"{max(right)} epochs" if len(right) == len(starts) else "",
        str(sum(s.jumps for s in starts)),
        bound,
    ]


def _spread(
    values: list[float], worst: Callable[[list[float]], float], form: str = "{:.2f}"
) -> str:
    if not values:
        return ""
    mean = form.format(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({form.format(worst(values))})"
