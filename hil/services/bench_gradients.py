"""`hil bench gradients`: ways to measure ∂L/∂k in place, against the exact gradient.

On the equations of both regimes, over the size of the adjoint load or of the step, where a
method can be told from its noise; and on the simulated rig with its imperfections, where it
cannot. The exact gradient is the slope of every equilibrium along every bond, ∂u/∂k, times
∂L/∂u: no adjoint enters it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from hil.config import Config, Settings, build, check, load
from hil.errors import ConfigError
from hil.mechanics.finite_springs import AbstractStatics, Regime, make_statics
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.plots.gradients import draw_gradients
from hil.recording.run import RESULTS, Run
from hil.safety.limits import Limited
from hil.services.cells import Cell, Say, run_cells
from hil.tasks.base import AbstractStaticTask
from hil.training.gradients.base import AbstractGradientMethod, ModelBench
from hil.types import Array, IntArray

Positive = Annotated[float, Meta(gt=0)]
PACKAGE = "hil.training.gradients."
DIFFERENCES = PACKAGE + "finite_differences:FiniteDifferences"
PROPAGATION = PACKAGE + "equilibrium_propagation:EquilibriumPropagation"
ON_TOP = PACKAGE + "on_top:OnTop"
METHODS: dict[str, dict[str, Any]] = {
    "adjoint, separate": {"kind": PACKAGE + "separate:SeparateStates"},
    "adjoint on top, +": {"kind": ON_TOP, "force_cap": 0.1, "both_sides": False},
    "adjoint on top, ±": {"kind": ON_TOP, "force_cap": 0.1},
    "propagation, one-sided": {"kind": PROPAGATION, "symmetric": False},
    "propagation, symmetric": {"kind": PROPAGATION, "symmetric": True},
    "differences, forward": {"kind": DIFFERENCES, "scheme": "forward"},
    "differences, central": {"kind": DIFFERENCES, "scheme": "central"},
}
REGIMES: tuple[Regime, ...] = ("linear", "exact")
FLOOR = 1e-9  # relative errors below are rounding: no slope is fitted there
STREAM_BENCH = 301


class BenchSettings(Settings, frozen=True, kw_only=True):
    """Whose gradient is measured, and how."""

    rig: Annotated[str, Meta(description="configuration of a rig with a simulation")]
    double: Annotated[str, Meta(description="module:Class that plays it in this process")]
    task: dict[str, Any]
    stiffness: tuple[Positive, Positive]
    batch: Annotated[int, Meta(ge=1)]
    seeds: Annotated[int, Meta(ge=1)]
    adjoint_forces: Annotated[tuple[Positive, ...], Meta(min_length=2)]
    steps: Annotated[tuple[Positive, ...], Meta(min_length=2)]
    rig_adjoint_force: Positive
    rig_separate_force: Positive
    rig_step: Positive
    rig_overrides: Annotated[
        dict[str, Any], Meta(description="of the rig's configuration, dotted key to value")
    ] = msgspec.field(default_factory=dict)


class Figures(msgspec.Struct, frozen=True):
    """A method in one regime; medians over the seeds."""

    measurements: int  # load cases per sample
    unit: str  # of the sizes, "N" or "N/m"
    sizes: list[float]  # of the adjoint load, or of the step
    one_minus_cosine: list[float]
    relative_error: list[float]  # |measured − exact| / |exact|, L2
    slope: float | None  # of log relative error over log size; None: nothing but rounding


class OnRig(msgspec.Struct, frozen=True):
    """A method on the simulated rig with its imperfections; medians over the seeds."""

    size: float
    unit: str
    one_minus_cosine: float
    relative_error: float
    worst_one_minus_cosine: float


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line: regime, method, figures."""

    cases: dict[str, dict[str, Figures]]
    rig: dict[str, OnRig]
    run: str
    plots: list[str]


class Both(msgspec.Struct, frozen=True):
    """What a cell keeps."""

    model: Figures | None = None
    rig: OnRig | None = None


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Run what is still to be run, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench gradients` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    rig = load(settings.rig, sim=True, overrides=settings.rig_overrides)
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    cells = [
        Cell(f"{regime} / {name}", partial(_swept, settings, rig, regime, name))
        for regime in REGIMES
        for name in METHODS
    ]
    cells += [Cell(f"rig / {name}", partial(_on_rig, settings, rig, name)) for name in METHODS]
    done = {name: found for name, found in run_cells(cells, Both, run, say).items() if found}
    cases: dict[str, dict[str, Figures]] = {
        regime: {n: f for n in METHODS if (f := done[f"{regime} / {n}"].model) is not None}
        for regime in REGIMES
    }
    on_rig = {n: r for n in METHODS if (r := done[f"rig / {n}"].rig) is not None}
    run.plots.mkdir(exist_ok=True)
    path = run.plots / "gradients.png"
    curves = {n: (f.unit, f.sizes, f.relative_error) for n, f in cases["exact"].items()}
    draw_gradients(curves, path, title="Gradient in place, springs of true length")
    outcome = Outcome(cases, on_rig, str(run.path), [str(path)])
    run.write_json(RESULTS, outcome)
    return outcome


class _Problem:
    """One draw of stiffness and samples."""

    def __init__(self, settings: BenchSettings, rig: Config, regime: Regime, seed: int) -> None:
        geometry = make_geometry(check(rig.rig["geometry"], GeometrySettings, "rig.geometry"))
        self.statics = make_statics(geometry, regime)
        self.task: AbstractStaticTask = build(
            settings.task, "bench.task", geometry=geometry, seed=seed
        )
        random = np.random.default_rng([seed, STREAM_BENCH])
        self.stiffness = random.uniform(*settings.stiffness, self.statics.bond_count)
        self.batch: IntArray = random.choice(self.task.train, settings.batch, replace=False)
        self.exact = exact_slopes(self.statics, self.stiffness, self.task, self.batch)


def exact_slopes(
    statics: AbstractStatics, stiffness: Array, task: AbstractStaticTask, batch: IntArray
) -> Array:
    """Return ∂L/∂k of the mean loss by the motion of every equilibrium along every bond.

    At an equilibrium (∂²E/∂u²) ∂u/∂k_i = −e_i ∂e_i/∂u; (bonds,), m/N.
    """
    loads = task.loads(batch)
    found = statics.settle(stiffness, loads)
    pull = task.adjoint_loads(found.displacement, batch)  # −∂L/∂u
    total = np.zeros(len(stiffness))
    for u, e, wanted in zip(found.displacement, found.elongation, pull, strict=True):
        tangent, stretch = statics.tangent(stiffness, u), statics.stretch(u)
        moved = -np.linalg.solve(tangent, (stretch * e[:, None]).T)  # (dof, bonds): ∂u/∂k
        total -= wanted @ moved
    return np.asarray(total / len(batch))


def _swept(settings: BenchSettings, rig: Config, regime: Regime, name: str) -> Both:
    """Return a method's errors on the equations over the size of its adjoint load or step."""
    unit, sizes = _sizes(settings, name)
    table = np.zeros((settings.seeds, len(sizes), 2))
    counted = 0
    for seed in range(settings.seeds):
        problem = _Problem(settings, rig, regime, seed)
        for at, size in enumerate(sizes):
            counting = _Counting(ModelBench(problem.statics, problem.stiffness))
            found = _method(name, size).measure(counting, problem.task, problem.batch).gradient
            table[seed, at] = distance(found, problem.exact)
            counted = counting.cases // len(problem.batch)
    cosine, error = np.median(table, axis=0).T
    slope = _slope(sizes, error)
    return Both(Figures(counted, unit, list(sizes), cosine.tolist(), error.tolist(), slope))


def _on_rig(settings: BenchSettings, config: Config, name: str) -> Both:
    """Return a method's errors on the simulated rig, its springs as it says they are."""
    assert config.board is not None
    unit, _ = _sizes(settings, name)
    size = settings.rig_step if unit == "N/m" else settings.rig_adjoint_force
    if name == "adjoint, separate":
        size = settings.rig_separate_force
    found = []
    for seed in range(settings.seeds):
        problem = _Problem(settings, config, "exact", seed)
        table = config.rig | {"kind": settings.double, "plant": config.board["plant"]}
        with Limited(build(table, "rig", seed=seed)) as rig:
            rig.configure()
            rig.activate()
            applied = rig.set_stiffness(problem.stiffness)
            measured = _method(name, size).measure(rig, problem.task, problem.batch).gradient
        exact = exact_slopes(problem.statics, applied, problem.task, problem.batch)
        found.append(distance(measured, exact))
    cosine, error = np.array(found).T
    typical = float(np.median(cosine)), float(np.median(error))
    return Both(rig=OnRig(size, unit, *typical, float(cosine.max())))


def _sizes(settings: BenchSettings, name: str) -> tuple[str, tuple[float, ...]]:
    if METHODS[name]["kind"] == DIFFERENCES:
        return "N/m", settings.steps
    return "N", settings.adjoint_forces


def _method(name: str, size: float) -> AbstractGradientMethod:
    """Return a method with a size of its adjoint load, N, or of its step, N/m."""
    table, force = METHODS[name], size
    if table["kind"] == DIFFERENCES:
        table = table | {"step": size}
    made: AbstractGradientMethod = build(table, "bench", adjoint_force=force)
    return made


class _Counting:
    """Counts the load cases of a bench."""

    def __init__(self, bench: ModelBench) -> None:
        self._bench = bench
        self.cases = 0
        self.set_stiffness, self.read_stiffness = bench.set_stiffness, bench.read_stiffness

    def settle(self, loads: Array) -> Any:
        """Count and settle."""
        self.cases += len(loads)
        return self._bench.settle(loads)


def distance(measured: Array, exact: Array) -> tuple[float, float]:
    """Return 1 − cos and the relative L2 error of a gradient; both (bonds,)."""
    size = float(np.linalg.norm(exact))
    apart = measured / np.linalg.norm(measured) - exact / size
    # 1 − a·b of unit vectors is half their squared distance: no digits are lost.
    return 0.5 * float(apart @ apart), float(np.linalg.norm(measured - exact)) / size


def _slope(sizes: Sequence[float], errors: Array) -> float | None:
    """Return the slope of errors that are not rounding, in a plot of logarithms."""
    seen = errors > FLOOR
    if seen.sum() < 2:
        return None
    x, y = np.log(np.array(sizes)[seen]), np.log(errors[seen])
    return float(np.polyfit(x, y, 1)[0])


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    table = Table(title="1 − cos (relative L2) against the exact gradient", title_justify="left")
    for column in (
        "springs", "method", "cases", "smallest", "", "largest", "", "error ∝ size^",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in ("springs", "method") else "right")
    for regime, methods in outcome.cases.items():
        for name, f in methods.items():
            low, high = (
                (f"{f.sizes[at]:g} {f.unit}", _both(f.one_minus_cosine[at], f.relative_error[at]))
                for at in (0, -1)
            )
            slope = "rounding" if f.slope is None else f"{f.slope:.2f}"
            table.add_row(regime, name, str(f.measurements), *low, *high, slope)
        table.add_section()
    for name, r in outcome.rig.items():
        table.add_row(
            "rig", name, "", f"{r.size:g} {r.unit}", _both(r.one_minus_cosine, r.relative_error),
            "worst", f"{r.worst_one_minus_cosine:.1e}", "",
        )  # fmt: skip
    console = Console(width=130, file=io.StringIO())
    console.print(table)
    written = console.file
    assert isinstance(written, io.StringIO)
    return f"{written.getvalue()}run  {outcome.run}\n     {outcome.plots[0]}"


def _both(cosine: float, error: float) -> str:
    return f"{cosine:.1e} ({error:.1e})"
