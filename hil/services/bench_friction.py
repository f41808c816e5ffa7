"""`hil bench friction`: one network for a mechanism over a range of its dry friction."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, Settings, check
from hil.errors import ConfigError
from hil.mechanics.integrate import adaptive
from hil.mechanics.multibody.slider_crank import SliderCrank, SliderCrankParameters
from hil.models.fnode import FnodeSettings
from hil.plots.rollouts import draw_rollouts
from hil.recording.run import RESULTS, Run
from hil.services.bench_fnode import Spread, spread
from hil.services.cells import Cell, Say, run_cells
from hil.training.fit import Motion
from hil.training.flow import Samples, Variant, label, learn
from hil.types import Array

Count = Annotated[int, msgspec.Meta(ge=1)]
PAPER = {2: 3.7e-2, 6: 1.41e-2}
DT = 0.01
VARIANT = Variant(scale=1.0)
Motions = list[tuple[Array, Array]]  # states (n, 2), accelerations (n, 1)


class BenchSettings(Settings, frozen=True, kw_only=True):
    """Which frictions are learned, and by which networks."""

    plant: SliderCrankParameters
    start: tuple[float, float]  # angle and speed of the crank
    learned: tuple[float, ...]  # μ
    between: tuple[float, ...]
    samples: Annotated[int, msgspec.Meta(ge=30)]
    every: Count = 3  # of so many labels one is used
    depths: tuple[Count, ...] = (2, 6)
    units: Count = 64
    seeds: Count = 5


class Figures(msgspec.Struct, frozen=True):
    """One network; mean square errors of the acceleration against the equations."""

    learned: float  # at the μ it learned, at all samples
    between: float  # at μ it has not seen
    cpu_seconds: float
    updates: int
    curve: list[list[float]]  # acceleration at the unseen μ, one row per μ; of the first seed


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line: depth, figure."""

    cases: dict[str, dict[str, Spread]]
    paper: dict[int, float]
    spread_of_acceleration: float  # variance of what is learned, to set the errors against
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Run what is still to be run, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench friction` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    known = [_motion(settings, friction) for friction in settings.learned]
    unseen = [_motion(settings, friction) for friction in settings.between]
    motions = [
        Motion(DT, x[:, :1], np.full((len(x), 1), friction))
        for (x, _), friction in zip(known, settings.learned, strict=True)
    ]
    samples = label(motions, 5, settings.every)
    cells = [
        Cell(
            f"{depth} / {seed}",
            _work(settings, samples, known, unseen, depth, seed, shown=seed == config.seed),
        )
        for depth in settings.depths
        for seed in range(config.seed, config.seed + settings.seeds)
    ]
    done = run_cells(cells, Figures, run, say)
    cases: dict[str, dict[str, Spread]] = {}
    for depth in settings.depths:
        found = [f for key, f in done.items() if key.startswith(f"{depth} / ") and f]
        names = ("learned", "between", "cpu_seconds", "updates")
        cases[str(depth)] = {name: spread([getattr(f, name) for f in found]) for name in names}
    run.plots.mkdir(exist_ok=True)
    path = run.plots / "friction.png"
    time = np.arange(settings.samples, dtype=np.float64) * DT
    truth = np.stack([a[:, 0] for _, a in unseen], axis=1)
    shown = {
        f"{depth} layers": np.array(first.curve).T
        for depth in settings.depths
        if (first := done[f"{depth} / {config.seed}"]) is not None
    }
    rows = [f"μ = {friction:g}" for friction in settings.between]
    title = "Acceleration of the crank, rad/s², at frictions nobody saw"
    draw_rollouts(time, truth, shown, path, title=title, names=rows)
    variance = float(np.concatenate([a for _, a in known]).var())
    outcome = Outcome(cases, PAPER, variance, str(run.path), [str(path)])
    run.write_json(RESULTS, outcome)
    return outcome


def _motion(settings: BenchSettings, friction: float) -> tuple[Array, Array]:
    """Return states (n, 2) and accelerations (n, 1) of the true mechanism."""
    plant = SliderCrank(msgspec.structs.replace(settings.plant, friction=friction))
    times = np.arange(settings.samples, dtype=np.float64) * DT
    x = adaptive(plant.acceleration, np.array(settings.start), np.zeros(1), times, rtol=1e-8)
    return x, np.asarray(plant.acceleration(x[:, :1], x[:, 1:], np.zeros(1)))


def _work(
    settings: BenchSettings,
    samples: Samples,
    known: Motions,
    unseen: Motions,
    depth: int,
    seed: int,
    shown: bool,
) -> Callable[[], Figures]:
    def figures() -> Figures:
        network = FnodeSettings(nq=1, nu=1, angles=(0,), hidden=(settings.units,) * depth)
        model, done = learn(network, VARIANT, samples, seed=seed, iterations=100)

        def answers(
            motions: list[tuple[Array, Array]], frictions: tuple[float, ...]
        ) -> list[Array]:
            return [
                model.acceleration(x[:, :1], x[:, 1:], np.full((len(x), 1), friction))
                for (x, _), friction in zip(motions, frictions, strict=True)
            ]

        def error(motions: Motions, frictions: tuple[float, ...]) -> float:
            found = np.concatenate(answers(motions, frictions))
            return float(((found - np.concatenate([a for _, a in motions])) ** 2).mean())

        curve = [a[:, 0].tolist() for a in answers(unseen, settings.between)] if shown else []
        return Figures(
            error(known, settings.learned), error(unseen, settings.between),
            done.cpu_seconds, done.updates, curve,
        )  # fmt: skip

    return figures


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    table = Table(title="mean square error of the crank's acceleration", title_justify="left")
    for column in ("layers", "learned μ, median", "worst", "unseen μ, median", "worst",
                   "published", "CPU s", "updates"):  # fmt: skip
        table.add_column(column, justify="right")
    for depth, row in outcome.cases.items():
        paper = outcome.paper.get(int(depth))
        table.add_row(
            depth, f"{row['learned'].median:.1e}", f"{row['learned'].most:.1e}",
            f"{row['between'].median:.1e}", f"{row['between'].most:.1e}",
            "" if paper is None else f"{paper:.1e}", f"{row['cpu_seconds'].median:.1f}",
            f"{row['updates'].median:.0f}",
        )  # fmt: skip
    console = Console(width=120, file=io.StringIO())
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    variance = f"variance of the acceleration {outcome.spread_of_acceleration:.1f}"
    return f"{written.getvalue()}{variance}\nrun  {outcome.run}\n     {outcome.plots[0]}"
