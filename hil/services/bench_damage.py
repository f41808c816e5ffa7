"""`hil bench damage`: every bond of a trained network is cut once, and the network learns again.

Which bonds cannot be cut at all (a zero mode) is told by rank, before anything is loaded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from hil.config import Config, Settings, check, load
from hil.errors import ConfigError
from hil.mechanics.damage import common_self_stress, zero_mode_bonds
from hil.plots.network import draw_bond_kinds
from hil.recording.run import RESULTS, Run
from hil.services.cells import Cell, Say, run_cells
from hil.services.rehearsal import Rehearsal

Kind = Literal["zero mode", "critical", "mendable", "redundant"]
KINDS: tuple[Kind, ...] = ("zero mode", "critical", "mendable", "redundant")
ALIKE = 1e-12  # accuracy: two bonds whose loss costs the same in every seed
Share = Annotated[float, Meta(ge=0, le=1)]


class BenchSettings(Settings, frozen=True, kw_only=True):
    """What is trained, and what counts as which kind of bond."""

    config: Annotated[str, Meta(min_length=1, description="of the training")]
    double: Annotated[str, Meta(description="module:Class of the rig in process")]
    ideal: bool = True
    preset: str = "wide"
    seeds: Annotated[int, Meta(ge=1, le=1000)] = 10
    critical: Annotated[
        Share, Meta(description="mean accuracy after learning again, below which it is critical")
    ] = 0.75
    redundant: Annotated[
        Share, Meta(description="mean accuracy lost at first, up to which it is redundant")
    ] = 0.02
    training: Annotated[dict[str, float | int | bool | str], Meta(description="overrides")] = {}  # noqa: RUF012
    bonds: Annotated[tuple[int, ...], Meta(description="from 1; none: all")] = ()


class Figures(msgspec.Struct, frozen=True):
    """One bond cut from one network; accuracies of the training samples, test ones at the end."""

    whole: float  # before
    cut: float
    retrained: float
    retrained_test: float


class BondOutcome(msgspec.Struct, frozen=True):
    """Means over seeds."""

    bond: int  # from 1
    nodes: tuple[int, int]  # from 1
    kind: Kind
    cut: float | None  # accuracy without it; None where it leaves a zero mode
    retrained: float | None
    retrained_test: float | None


class Outcome(msgspec.Struct, frozen=True):
    """The JSON line."""

    whole: float  # accuracy of the training samples before any damage, mean over seeds
    bonds: list[BondOutcome]
    kinds: dict[str, list[str]]  # kind → bonds as "(7,11)"
    one_self_stress: list[list[str]]  # bonds that carry it in fixed proportion
    alike: list[list[str]]  # of those, the ones whose loss cost the same in every seed
    seeds: int
    run: str
    plots: list[str]


def bench(config: Config, runs: Path, resume: Path | None, say: Say) -> Outcome:
    """Cut, measure and train what is still to be, draw and write it down; raises ConfigError."""
    if config.bench is None:
        raise ConfigError("bench: missing; `hil bench damage` needs a [bench]")
    settings = check(config.bench, BenchSettings, "bench")
    networks = [_Trained(settings, seed) for seed in range(settings.seeds)]
    network = networks[0].rehearsal.network
    loose = zero_mode_bonds(network)
    every = settings.bonds or tuple(range(1, network.bond_count + 1))
    if max(every) > network.bond_count:
        raise ConfigError(f"bench.bonds: there are bonds 1 to {network.bond_count}")
    run = Run.open(resume) if resume else Run.create(runs, config.name, datetime.now())
    if resume is None:
        run.write_config(config)
    say(f"run {run.path}")
    cells = [
        Cell(f"{bond} / {seed}", _work(networks[seed], bond))
        for seed in range(settings.seeds)
        for bond in every
        if bond - 1 not in loose
    ]
    done = run_cells(cells, Figures, run, say)
    found = {
        bond: [f for seed in range(settings.seeds) if (f := done.get(f"{bond} / {seed}"))]
        for bond in every
    }
    ends = network.geometry.bonds + 1

    def name(bond: int) -> str:
        return f"({ends[bond - 1][0]},{ends[bond - 1][1]})"

    bonds = [
        _outcome(settings, bond, tuple(ends[bond - 1].tolist()), found[bond]) for bond in every
    ]
    groups = [[bond + 1 for bond in group] for group in common_self_stress(network)]
    outcome = Outcome(
        whole=mean(f.whole for figures in found.values() for f in figures),
        bonds=bonds,
        kinds={kind: [name(b.bond) for b in bonds if b.kind == kind] for kind in KINDS},
        one_self_stress=[[name(bond) for bond in group] for group in groups],
        alike=[[name(bond) for bond in group] for group in _alike(groups, found)],
        seeds=settings.seeds,
        run=str(run.path),
        plots=[str(_draw(run, networks[0].rehearsal, bonds))],
    )
    run.write_json(RESULTS, outcome)
    return outcome


class _Trained:
    """The network of one seed, trained when it is first asked for."""

    def __init__(self, settings: BenchSettings, seed: int) -> None:
        overrides = {"preset": settings.preset, "seed": seed, "ideal": settings.ideal}
        overrides |= {f"training.{key}": value for key, value in settings.training.items()}
        self.rehearsal = Rehearsal(
            load(settings.config, sim=True, overrides=overrides), settings.double
        )
        self._last: tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float] | None = None

    @property
    def whole(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
        """Stiffness, (bonds,), N/m, and accuracy of the training samples."""
        if self._last is None:
            last = self.rehearsal.train()
            assert last.train is not None
            self._last = last.state.applied, last.train.accuracy
        return self._last


def _work(trained: _Trained, bond: int) -> Callable[[], Figures]:
    def figures() -> Figures:
        stiffness, whole = trained.whole
        cut = trained.rehearsal.judge(stiffness, (bond,)).accuracy
        last = trained.rehearsal.train(start=stiffness, pruned=(bond,))
        assert last.train is not None
        assert last.test is not None
        return Figures(whole, cut, last.train.accuracy, last.test.accuracy)

    return figures


def _outcome(
    settings: BenchSettings, bond: int, nodes: tuple[int, ...], found: list[Figures]
) -> BondOutcome:
    ends = (nodes[0], nodes[1])
    if not found:
        return BondOutcome(bond, ends, "zero mode", None, None, None)
    whole, cut, again = (mean(getattr(f, n) for f in found) for n in ("whole", "cut", "retrained"))
    kind: Kind = "mendable"
    if whole - cut <= settings.redundant:
        kind = "redundant"
    elif again < settings.critical:
        kind = "critical"
    return BondOutcome(bond, ends, kind, cut, again, mean(f.retrained_test for f in found))


def _alike(groups: list[list[int]], found: dict[int, list[Figures]]) -> list[list[int]]:
    """Return the parts of groups, of two bonds or more, whose loss cost the same in every seed."""
    parts: list[list[int]] = []
    for group in groups:
        left = [bond for bond in group if found.get(bond)]
        while left:
            first = np.array([f.cut for f in found[left[0]]])
            same = [
                bond
                for bond in left
                if np.abs(np.array([f.cut for f in found[bond]]) - first).max() <= ALIKE
            ]
            left = [bond for bond in left if bond not in same]
            if len(same) > 1:
                parts.append(same)
    return parts


def _draw(run: Run, rehearsal: Rehearsal, bonds: list[BondOutcome]) -> Path:
    run.plots.mkdir(exist_ok=True)
    path = run.plots / "damage.png"
    geometry = rehearsal.network.geometry
    kinds = {b.bond - 1: b.kind for b in bonds}
    labels = {
        b.bond - 1: f"{b.cut:.2f}→{b.retrained:.2f}"
        for b in bonds
        if b.cut is not None and b.retrained is not None
    }
    draw_bond_kinds(
        geometry.nodes, geometry.bonds, kinds, path, order=KINDS, labels=labels,
        fixed=geometry.fixed, inputs=rehearsal.task.inputs, outputs=rehearsal.task.outputs,
        title="Without this bond: accuracy at once → after learning again",
    )  # fmt: skip
    return path


def summary(outcome: Outcome) -> str:
    """Return the result for a person."""
    table = Table(
        title=f"accuracy without a bond, {outcome.seeds} seeds; whole {outcome.whole:.3f}",
        title_justify="left",
    )
    for column in ("bond", "nodes", "kind", "at once", "after learning again", "test"):
        table.add_column(column, justify="right")
    for b in outcome.bonds:
        numbers = ("" if v is None else f"{v:.3f}" for v in (b.cut, b.retrained, b.retrained_test))
        table.add_row(str(b.bond), f"({b.nodes[0]},{b.nodes[1]})", b.kind, *numbers)
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    for kind, names in outcome.kinds.items():
        console.print(f"{kind}: {' '.join(names) or 'none'}")
    for group in outcome.one_self_stress:
        console.print(f"one self-stress: {' '.join(group)}")
    for group in outcome.alike:
        console.print(f"lost alike: {' '.join(group)}")
    written = console.file
    assert isinstance(written, io.StringIO)
    return f"{written.getvalue()}run  {outcome.run}\n     {outcome.plots[0]}"
