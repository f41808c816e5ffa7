"""`hil demo half-adder`: a spring network learns to add two bits in place, and adds them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from hil.config import Config, build
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.plots.computing import Case, draw_computing
from hil.recording.run import RESULTS, Run
from hil.rigs.base import MeasuredEquilibrium
from hil.rigs.remote import RemoteRig
from hil.safety.deadman import Minting
from hil.services import owner, train
from hil.services.mirror import bus_address
from hil.services.records import read_history
from hil.tasks.half_adder import HalfAdder

Say = Callable[[str], None]


class Addition(msgspec.Struct, frozen=True):
    """One of the four sums, as the trained network does it."""

    bits: str  # what was pushed, "01"
    sum: int  # as read off the network
    carry: int
    right: bool
    sum_m: float  # displacements that were read
    carry_m: float
    strain: float


class Outcome(msgspec.Struct, frozen=True):
    """What the demonstration ended with: the JSON line of `hil demo half-adder`."""

    bits_right: int  # of 8
    margin_m: float  # smallest displacement on the right side
    peak_strain: float
    linear_bound: float  # share of bits that no linear network passes
    branch_jumps: int
    additions: list[Addition]
    steps: int
    seconds: float
    seed: int
    run: str
    plots: list[str]


def demo(config: Config, runs: Path, say: Say) -> Outcome:
    """Train through the whole stack, then let the network add; leave a picture.

    Raises ConfigError before anything is touched, and what rig and mirror raise.
    """
    begun = time.monotonic()
    trained = train.train(config, runs, say)
    run = Run.open(Path(trained.run))
    history = read_history(run)
    stiffness = np.array(history.steps[-1].stiffness)
    geometry = make_geometry(msgspec.convert(config.rig["geometry"], GeometrySettings))
    assert config.task is not None
    task: HalfAdder = build(config.task, "task", geometry=geometry, seed=config.seed)
    say("the trained network adds: four pairs of pushes")
    measured = _add(config, run, task, stiffness)
    read = task.read(measured.displacement)  # (4, 2), m
    margins = task.margins(measured.displacement, task.train)
    strains = np.abs(measured.elongation) / geometry.lengths  # (4, bonds)
    cases = []
    for at, point in enumerate(task.data.points[task.train]):
        first, second = (int(value > 0) for value in point)
        cases.append(
            Addition(
                f"{first}{second}", int(read[at, 0] > 0), int(read[at, 1] > 0),
                bool((margins[at] > 0).all()), float(read[at, 0]), float(read[at, 1]),
                float(strains[at].max()),
            )
        )  # fmt: skip
    loads = task.loads(task.train)
    learning = [
        (r.epoch, r.train_accuracy, r.train_figures["margin_m"]) for r in history.evaluations
    ]
    path = run.plots / "half_adder.png"
    draw_computing(
        geometry,
        stiffness,
        [
            Case(_title(c), u, f, tuple(read[at]))
            for at, (c, u, f) in enumerate(zip(cases, measured.displacement, loads, strict=True))
        ],
        outputs=task.outputs,
        names=("sum", "carry"),
        learning=learning,
        path=path,
        title="A network of springs adds two bits",
    )  # fmt: skip
    outcome = Outcome(
        bits_right=int((margins > 0).sum()),
        margin_m=float(margins.min()),
        peak_strain=float(strains.max()),
        linear_bound=trained.figures["linear_bound"],
        branch_jumps=trained.branch_jumps,
        additions=cases,
        steps=len(history.steps),
        seconds=round(time.monotonic() - begun, 3),
        seed=config.seed,
        run=str(run.path),
        plots=[str(path), *trained.plots],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _add(config: Config, run: Run, task: HalfAdder, stiffness: np.ndarray) -> MeasuredEquilibrium:
    """Push the four pairs of bits, through a mirror of its own."""
    address, keys, _ = bus_address(config)
    with (
        owner.ChildMirror(owner.MirrorJob(config), run.path / "mirror.log"),
        RemoteRig(address, mint=Minting, client=f"demo-{os.getpid()}", keys=keys) as rig,
    ):
        rig.configure()
        rig.activate()
        rig.set_stiffness(stiffness)
        return rig.settle(task.loads(task.train))


def _title(addition: Addition) -> str:
    first, second = addition.bits[0], addition.bits[1]
    answer = f"{addition.carry}{addition.sum}"
    return f"{first} + {second} = {answer}" + ("" if addition.right else "  wrong")


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    lines = [
        f"{_title(case):<12} sum {1e3 * case.sum_m:+.2f} mm, carry {1e3 * case.carry_m:+.2f} mm, "
        f"largest strain {case.strain:.3f}"
        for case in outcome.additions
    ]
    return "\n".join(
        [
            *lines,
            f"bits       {outcome.bits_right} of 8 right, margin {1e3 * outcome.margin_m:.2f} mm, "
            f"peak strain {outcome.peak_strain:.3f}; no linear network has more than "
            f"{round(8 * outcome.linear_bound)} of 8",
            f"work       {outcome.steps} steps in {outcome.seconds:.1f} s",
            f"run        {outcome.run}",
            *(f"           {path}" for path in outcome.plots),
        ]
    )
