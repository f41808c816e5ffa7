"""`hil bench differentiation`: accelerations from noisy poses, and what is learned from them."""

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
from hil.plots.rollouts import draw_noise
from hil.recording.run import RESULTS, Run
from hil.services.bench_fnode import Spread, spread
from hil.services.cells import Cell, Say, run_cells
from hil.training.compare import Case, SystemSettings, case
from hil.training.differentiation import (
    Derivatives,
    differences,
    disagreement,
    fourier,
    reconstruction,
    smooth,
)
from hil.training.flow import Samples, Variant, learn
from hil.training.integral_matching import learn_by_integrals
from hil.training.kalman_smoother import kalman
from hil.training.noise_robust import gaussian_process, penalised
from hil.training.rollout import rollout, rollout_error
from hil.types import Array

Method = Callable[[Array, float], Derivatives]
METHODS: dict[str, Method] = {
    "Fourier, as published": fourier,
    "differences, 3 points": lambda q, dt: differences(q, dt, 3),
    "differences, 5 points": lambda q, dt: differences(q, dt, 5),
    "differences, 11 points": lambda q, dt: differences(q, dt, 11),
    "Savitzky-Golay, 0.5 s": lambda q, dt: smooth(q, dt, 0.5),
    "penalised": penalised,
    "Kalman smoother": kalman,
    "Gaussian process": gaussian_process,
}
LEARNING: dict[str, Method | None] = {
    "labels, penalised": penalised,
    "labels, Gaussian process": gaussian_process,
    "integral matching": None,
}
VARIANT = Variant(
    scale=0.03
)  # slowly varying at first; chosen among 0.1, 0.03 and a skip on these systems
INTEGRALS = 150  # iterations at most; most fits end before, at the noise


class BenchSettings(Settings, frozen=True, kw_only=True):
    """What is compared."""

    systems: Annotated[dict[str, SystemSettings], msgspec.Meta(min_length=1)]
    noise: tuple[Annotated[float, msgspec.Meta(ge=0)], ...] = (0.0, 0.01)
    seeds: Annotated[int, msgspec.Meta(ge=1, description="of the noise")] = 3
    rollout_noise: Annotated[float, msgspec.Meta(gt=0)] = 0.01
    hidden: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (256, 256)
    only: tuple[str, ...] = ()  # of the systems; none: all


class Figures(msgspec.Struct, frozen=True):
    """One method with one noise, or one way of learning let loose (its error in `error`)."""

    error: float | None  # rms of acceleration over its own, mean over coordinates; or MSE
    eta_prime: float | None = None  # 3- and 5-point differences apart, relative, mean
    eta_z: float | None = None  # left of the poses after integrating twice, over their deviation
    cpu_seconds: float = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line: system, noise, method, figure; and the rollouts."""

    cases: dict[str, dict[str, dict[str, dict[str, Spread]]]]
    rollouts: dict[str, dict[str, Spread]]  # mean square error over all of the rollout
    seeds: int
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Run what is still to be run, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench differentiation` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    names = settings.only or tuple(settings.systems)
    cases = {name: case(settings.systems[name], settings.hidden) for name in names}
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    seeds = range(config.seed, config.seed + settings.seeds)
    cells = [
        Cell(f"{name} / {level:g} / {method} / {seed}", _label(cases[name], level, method, seed))
        for name in names
        for level in settings.noise
        for method in METHODS
        for seed in (seeds if level else seeds[:1])
    ] + [
        Cell(f"{name} / rollout / {way} / {seed}", _learn(cases[name], settings, way, seed))
        for name in names
        for way in LEARNING
        for seed in seeds
    ]
    done = run_cells(cells, Figures, run, say)

    def of(*parts: str) -> list[Figures]:
        prefix = " / ".join(parts) + " / "
        return [found for key, found in done.items() if key.startswith(prefix) and found]

    levels = [f"{level:g}" for level in settings.noise]
    table = {
        name: {
            level: {
                method: {
                    figure: spread([getattr(f, figure) for f in of(name, level, method)])
                    for figure in ("error", "eta_prime", "eta_z")
                }
                for method in METHODS
            }
            for level in levels
        }
        for name in names
    }
    run.plots.mkdir(exist_ok=True)
    path = run.plots / "noise.png"
    lines = {
        name: {m: [table[name][level][m]["error"].median for level in levels] for m in METHODS}
        for name in names
    }
    draw_noise(np.array(settings.noise), lines, path, title="Error of the acceleration")
    outcome = Outcome(
        cases=table,
        rollouts={
            name: {way: spread([f.error for f in of(name, "rollout", way)]) for way in LEARNING}
            for name in names
        },
        seeds=settings.seeds,
        run=str(run.path),
        plots=[str(path)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def noisy(case: Case, level: float, seed: int) -> Array:
    """Return the known positions with noise of so much of each coordinate's deviation."""
    q = case.motion.q
    random = np.random.default_rng(seed)
    return np.asarray(q + level * q.std(axis=0) * random.standard_normal(q.shape))


def _label(case: Case, level: float, method: str, seed: int) -> Callable[[], Figures]:
    def figures() -> Figures:
        dt, n = case.settings.period, case.settings.train
        q, v = np.split(case.truth[:n], 2, axis=1)
        a = case.plant.acceleration(q, v, np.zeros((n, getattr(case.plant, "nu", 1))))
        poses = noisy(case, level, seed)
        found = METHODS[method](poses, dt)
        error = np.sqrt(((found.acceleration - a) ** 2).mean(0) / (a**2).mean(0))
        left = reconstruction(poses, found.acceleration, dt) / poses.std(axis=0)
        # η′ of what the method takes the motion to be.
        return Figures(
            float(error.mean()), float(disagreement(found.position, dt).mean()), float(left.mean())
        )

    return figures


def _learn(case: Case, settings: BenchSettings, way: str, seed: int) -> Callable[[], Figures]:
    def figures() -> Figures:
        dt, n = case.settings.period, case.settings.train
        poses, method = noisy(case, settings.rollout_noise, seed), LEARNING[way]
        if method is None:
            model, spent = learn_by_integrals(
                case.network, VARIANT, poses, dt, penalised, seed=seed, iterations=INTEGRALS
            )
        else:
            moved = method(poses, dt)
            samples = Samples(moved.position, moved.velocity, np.zeros((n, 0)), moved.acceleration)
            model, spent = learn(case.network, VARIANT, samples, seed=seed)
        states = rollout(model, case.truth[0], np.zeros((len(case.truth) - 1, 0)), dt)
        error = rollout_error(states, case.truth, n, dt).full
        return Figures(error, cpu_seconds=spent.cpu_seconds)

    return figures


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    console = Console(width=150, file=io.StringIO())
    for name, levels in outcome.cases.items():
        table = Table(title=name, title_justify="left")
        table.add_column("relative error of the acceleration at noise")
        for level in levels:
            table.add_column(level, justify="right")
        table.add_column("η′, last", justify="right")
        table.add_column("η_z, last", justify="right")
        last = levels[list(levels)[-1]]
        for method in METHODS:
            table.add_row(
                method, *(_text(row[method]["error"]) for row in levels.values()),
                _text(last[method]["eta_prime"]), _text(last[method]["eta_z"]),
            )  # fmt: skip
        for way, found in outcome.rollouts[name].items():
            table.add_row(f"rollout, {way}: {_text(found)}", *[""] * (len(levels) + 2))
        console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return f"{written.getvalue()}\nrun        {outcome.run}\n           {outcome.plots[0]}"


def _text(found: Spread) -> str:
    return "diverged" if found.median is None else f"{found.median:.2g}"
