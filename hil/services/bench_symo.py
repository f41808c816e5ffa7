"""`hil bench symo`: learned discrete Lagrangians, by number of trajectories, over seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Config, Settings, Table, build, check
from hil.errors import ConfigError, InputError, RunError
from hil.mechanics.integrate import STEPPERS
from hil.mechanics.multibody.base import AbstractMultibody
from hil.plots.poses import Curve, draw_poses
from hil.recording.run import RESULTS, Run
from hil.training.fit_l_node import fit_l_node
from hil.training.fit_symo import FitSymo, FitSymoSettings
from hil.training.pose_benchmark import (
    CaseSettings,
    Measure,
    draw,
    measure,
    measure_states,
    quartiles,
)

Say = Callable[[str], None]
DONE = "figures.jsonl"  # one line per fit: what a resumed run does not do again
FIGURES = ("test", "test_full", "integration", "energy", "inertia")
TEST_SEED, ROLLOUT_SEED = 10_001, 10_002  # no seed of a fit


class ModelSettings(Settings, frozen=True, kw_only=True):
    """A way to learn, on top of what [bench.fit] says."""

    name: Annotated[str, Meta(min_length=1)]
    loss: Literal["residual", "prediction", "rk4", "midpoint"] = "residual"  # the last two: L-NODE
    order: Literal[2, 4] = 2
    cases: tuple[str, ...] = ()  # none: all


class Published(Settings, frozen=True, kw_only=True):
    """Figures of a paper, by size; for the picture and the table."""

    case: str
    model: str
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128)
    test: tuple[float, ...] = ()
    integration: tuple[float, ...] = ()
    inertia: tuple[float, ...] = ()


class BenchSettings(Settings, frozen=True, kw_only=True):
    """The protocol."""

    case: Annotated[tuple[CaseSettings, ...], Meta(min_length=1)]
    model: Annotated[tuple[ModelSettings, ...], Meta(min_length=1)]
    published: tuple[Published, ...] = ()
    fit: Table = {}  # noqa: RUF012 - a Struct copies it; of FitSymoSettings, but for network and loss
    seeds: Annotated[int, Meta(ge=1, le=100)] = 3
    steps: Annotated[int, Meta(ge=3, description="poses of a trajectory")] = 32
    test: Annotated[int, Meta(ge=1, description="test trajectories")] = 128
    rollouts: Annotated[int, Meta(ge=1)] = 16
    sizes: tuple[int, ...] = ()  # in place of every case's own


class Job(msgspec.Struct, frozen=True):
    """One fit."""

    case: str
    size: int
    model: str
    seed: int


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A fit that is done."""

    job: Job
    measure: Measure
    ridge: float
    updates: int
    cpu_seconds: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: medians over seeds (and rollouts), with quartiles."""

    size: int
    seeds: int
    unsolved: int
    figures: dict[str, tuple[float, float, float]]  # median, lower and upper quartile
    damping: list[float]  # medians
    damping_error: float | None  # the largest of the relative ones, over seeds
    updates: float
    cpu_seconds: float


class BenchOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON line of `hil bench symo`."""

    table: dict[str, dict[str, list[Row]]]  # case, then model
    cpu_seconds: float
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> BenchOutcome:
    """Fit and measure everything the protocol asks for.

    resume: the run directory, of this protocol, that was cut short. Raises ConfigError for a
    protocol that does not hold together, InputError for a run whose figures are damaged.
    """
    protocol = check(config.bench or {}, BenchSettings, "bench")
    fits = {(case.name, model.name): _fit(protocol, case, model) for case in protocol.case
            for model in protocol.model}  # fmt: skip
    jobs = list(_jobs(protocol, config.seed))
    if resume is None:
        run = Run.create(runs, config.name, datetime.now())
        run.write_config(config)
    else:
        run = Run.open(resume)
    done = _read(run)
    say(
        f"bench symo: {len(jobs)} fits, {sum(job in done for job in jobs)} of them done, {run.path}"
    )
    for number, job in enumerate(jobs, 1):
        if job in done:
            continue
        begin = time.monotonic()
        done[job] = found = _one(protocol, job, fits[job.case, job.model])
        with (run.path / DONE).open("ab") as file:
            file.write(msgspec.json.encode(found) + b"\n")
        middle = quartiles(found.measure.integration)[0]
        say(
            f"{number}/{len(jobs)} {job.case}, {job.size} trajectories, {job.model}, seed "
            f"{job.seed}: test {found.measure.test:.2e}, integration {middle:.2e}, "
            f"{found.cpu_seconds:.1f} s CPU, {time.monotonic() - begin:.0f} s"
        )
    table = _table(protocol, [done[job] for job in jobs])
    outcome = BenchOutcome(
        table=table,
        cpu_seconds=round(sum(done[job].cpu_seconds for job in jobs), 2),
        run=str(run.path),
        plots=[str(_draw(protocol, table, run))],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _jobs(protocol: BenchSettings, seed: int) -> Iterator[Job]:
    """Yield every fit, seed by seed: what is cut short has all of the first ones."""
    for number in range(seed, seed + protocol.seeds):
        for case in protocol.case:
            for size in protocol.sizes or case.sizes:
                for model in protocol.model:
                    if not model.cases or case.name in model.cases:
                        yield Job(case.name, size, model.name, number)


def _fit(protocol: BenchSettings, case: CaseSettings, model: ModelSettings) -> FitSymoSettings:
    network = msgspec.structs.replace(case.network, order=model.order)
    table = {**protocol.fit, "network": msgspec.to_builtins(network)}
    if model.loss in ("residual", "prediction"):
        table["loss"] = model.loss
    found = check(table, FitSymoSettings, "bench.fit")
    system = _system(case)
    shape = (system.nq, system.nu, *(len(x) for x in (case.positions, case.speeds)))
    if shape != (found.network.nq, found.network.nu, found.network.nq, found.network.nq):
        raise ConfigError(
            f"bench.case {case.name}: a system of {system.nq} positions and {system.nu} inputs, "
            f"a network of {found.network.nq} and {found.network.nu}, {shape[2]} positions and "
            f"{shape[3]} speeds to begin with; they must agree"
        )
    return found


def _system(case: CaseSettings) -> AbstractMultibody:
    found = build(case.system, f"bench.case {case.name}.system")
    if not isinstance(found, AbstractMultibody):
        raise ConfigError(f"bench.case {case.name}.system: {case.system['kind']} is no system")
    return found


def _one(protocol: BenchSettings, job: Job, settings: FitSymoSettings) -> Done:
    case = next(case for case in protocol.case if case.name == job.case)
    system = _system(case)
    own = np.random.default_rng([job.seed, job.size])
    data = draw(system, case, job.size, protocol.steps, own)
    test = draw(system, case, protocol.test, protocol.steps, np.random.default_rng(TEST_SEED))
    rollouts = draw(
        system, case, protocol.rollouts, case.rollout_steps,
        np.random.default_rng(ROLLOUT_SEED), driven=False,
    )  # fmt: skip
    loss = next(model.loss for model in protocol.model if model.name == job.model)
    if loss in ("rk4", "midpoint"):
        pairs = list(zip(data.q, data.v, strict=True))
        given = fit_l_node(
            settings.network, pairs, data.u, case.period, seed=job.seed, stepper=loss
        )
        step = STEPPERS[loss]
        return Done(
            job=job,
            measure=measure_states(given.model, system, case.period, step, test, rollouts),
            ridge=given.ridge,
            updates=given.updates,
            cpu_seconds=given.cpu_seconds,
        )
    found = FitSymo(settings, seed=job.seed).run(data.motions(case.period))
    return Done(
        job=job,
        measure=measure(found.model, system, test, rollouts),
        ridge=found.ridge,
        updates=found.epochs,
        cpu_seconds=found.cpu_seconds,
    )


def _read(run: Run) -> dict[Job, Done]:
    path = run.path / DONE
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]  # a kill may cut the last one
    if len(whole) < len(lines):
        path.write_bytes(b"".join(whole))
    try:
        found = [msgspec.json.decode(line, type=Done) for line in whole]
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: damaged: {error}; begin a new run") from None
    return {done.job: done for done in found}


def _table(protocol: BenchSettings, done: list[Done]) -> dict[str, dict[str, list[Row]]]:
    table: dict[str, dict[str, list[Row]]] = {}
    for case in protocol.case:
        for model in protocol.model:
            for size in protocol.sizes or case.sizes:
                some = [d for d in done if (d.job.case, d.job.model, d.job.size)
                        == (case.name, model.name, size)]  # fmt: skip
                if some:
                    rows = table.setdefault(case.name, {}).setdefault(model.name, [])
                    rows.append(_row(case, size, some))
    return table


def _row(case: CaseSettings, size: int, some: list[Done]) -> Row:
    figures = {}
    for name in FIGURES:
        values = [getattr(d.measure, name) for d in some]
        figures[name] = quartiles(np.ravel(values).tolist())
    damping = np.array([d.measure.damping for d in some])
    error = None
    if case.damping:
        error = float(np.abs(damping / np.array(case.damping) - 1.0).max())
    return Row(
        size=size,
        seeds=len(some),
        unsolved=sum(d.measure.unsolved for d in some),
        figures=figures,
        damping=np.median(damping, axis=0).tolist(),
        damping_error=error,
        updates=float(np.median([d.updates for d in some])),
        cpu_seconds=round(float(np.median([d.cpu_seconds for d in some])), 3),
    )


def _draw(protocol: BenchSettings, table: dict[str, dict[str, list[Row]]], run: Run) -> Path:
    panels: dict[str, dict[str, list[Curve]]] = {}
    for case, models in table.items():
        for name in ("test", "integration", "inertia"):
            curves = panels.setdefault(case, {}).setdefault(name, [])
            for model, rows in models.items():
                sizes = np.array([row.size for row in rows])
                values = np.array([row.figures[name] for row in rows])
                curves.append(Curve(model, sizes, values))
            for other in protocol.published:
                values = np.array(getattr(other, name))
                if other.case == case and len(values):
                    curves.append(Curve(other.model, np.array(other.sizes), values[:, None]))
    path = run.plots / "poses.png"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made: {error.strerror}") from None
    draw_poses(panels, path, title="Learned from poses")
    return path


def summary(outcome: BenchOutcome) -> str:
    """Return the table as lines for a person."""
    lines = []
    for case, models in outcome.table.items():
        lines.append(f"{case}: median [quartiles] over seeds and, where there are, rollouts")
        for model, rows in models.items():
            lines.append(f"  {model}")
            lines += [f"    {_line(row)}" for row in rows]
    return "\n".join([*lines, f"run {outcome.run}", *outcome.plots])


def _line(row: Row) -> str:
    middle, lower, upper = row.figures["integration"]
    energy, damping = f"energy {row.figures['energy'][0]:.1e} J, ", ""
    if row.damping:
        energy = ""  # it is lost, as it should be
        damping = ", D " + " ".join(f"{value:.4g}" for value in row.damping)
    if row.damping_error is not None:
        damping += f" (at most {row.damping_error:.1%} off)"
    return (
        f"N {row.size:3d}: test {row.figures['test'][0]:.1e} (with speeds "
        f"{row.figures['test_full'][0]:.1e}), integration {middle:.1e} [{lower:.1e}, {upper:.1e}], "
        f"{energy}inertia {row.figures['inertia'][0]:.1e}{damping}"
        f", {row.updates:.0f} updates, {row.cpu_seconds:.1f} s CPU"
        + (f", {row.unsolved} steps without answer" if row.unsolved else "")
    )
