"""Swing-up and blows: how soon it settles, what it survives, what a period costs.

    python benchmarks/bench_swing_up.py [--json] [--seeds N] [--resolution J]

The loop of `hil control configs/swing_up.toml --sim`, with the rig's double in this process:
poses only (4096 counts per turn, 50 µm, noise), 50 Hz, one period of latency, motor lag and
friction the model is not told all of. "wide": ±20 N on ±1 m; "narrow": ±10 N on ±0.5 m.

Swing-up: from hanging at rest, several seeds of the noise. Settled: |θ| < 0.1 rad for good, by
the plant itself at 1 kHz, counted from the first sample; the cold search comes before it.
Excess: how far the cart went beyond its travel, and the force beyond its limit (≤ 0: never).
Step: estimate and solve of a period, wall time and CPU time (which other processes on the
machine do not lengthen); the cold search is listed apart.

Blows: while it balances, horizontally on the cart or on the pole's mass, at four times within
a period, to the right; the largest that is survived, by bisection. Survived: the pole never
goes below the horizontal, the cart never beyond its travel by more than the position's step, and
the pole is upright (0.1 rad) 4 s later. A blow right after a sample is the worst: it is seen a
period later and answered one more period later.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, build, check, load, merge
from hil.control.base import AbstractController, AbstractEstimator, Solution
from hil.errors import FaultError
from hil.loop import ControlLoop, ControlStep, LoopSettings
from hil.types import Array
from sim.rigs.cart_pole import SimCartPole

CONFIG = Path(__file__).parents[1] / "configs" / "swing_up.toml"
RAILS = {"wide": "", "narrow": "narrow"}  # the preset of each
UPRIGHT = 0.1  # rad
BLOW_AT, AFTERWARDS = 0.5, 4.0  # s
PHASES = (0.0, 0.005, 0.01, 0.015)  # s after a sample
LARGEST = 3.2  # N·s


@dataclass(frozen=True)
class SwingUp:
    """One swing-up."""

    settled_s: float
    excess_m: float
    excess_n: float
    step_us: list[float]
    cpu_us: list[float]
    cold_ms: float
    turns: int


@dataclass(frozen=True)
class Travelled:
    """What the plant itself did, once every tick, and what the loop took for it."""

    time: Array  # (ticks,), s since the first sample
    states: Array  # (ticks, 4)
    forces: Array  # (writes,), N, as the motor was commanded
    cpu_us: list[float]  # of every period
    cold_ms: float  # the search before the first
    steps: list[ControlStep]
    fault: str  # why the rig ended it, ""


class ClockedEstimator(AbstractEstimator):
    """An estimator, and the CPU time of every update, us."""

    def __init__(self, estimator: AbstractEstimator, cpu_us: list[float]) -> None:
        self._estimator, self._cpu_us = estimator, cpu_us

    @property
    def disturbance(self) -> Array:
        return self._estimator.disturbance

    def update(self, y: Array, u: Array, periods: int = 1) -> Array:
        begin = time.thread_time_ns()
        found = self._estimator.update(y, u, periods)
        self._cpu_us.append((time.thread_time_ns() - begin) / 1e3)
        return found

    def reset(self, y: Array) -> None:
        self._estimator.reset(y)


class ClockedController(AbstractController):
    """A controller, and the CPU time of every solve, us, added to that of the update."""

    def __init__(self, controller: AbstractController, cpu_us: list[float]) -> None:
        self._controller, self._cpu_us = controller, cpu_us

    @property
    def horizon(self) -> int:
        return self._controller.horizon

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        begin = time.thread_time_ns()
        found = self._controller.solve(x, r, disturbance)
        self._cpu_us[-1] += (time.thread_time_ns() - begin) / 1e3
        return found

    def prepare(self, x: Array, r: Array) -> None:
        self._controller.prepare(x, r)

    def reset(self) -> None:
        self._controller.reset()


class Bench:
    """The parts of one configuration, made once; every run has a rig of its own."""

    def __init__(self, preset: str) -> None:
        self._preset = preset
        self.config = self._load({})
        config, period = self.config, float(self.config.rig["period"])
        self.period = period
        model = build(_table(config.model), "model")
        paced = {"dt": period}
        self._estimator = build(
            merge(dict(paced), _table(config.estimator)), "estimator", dynamics=model
        )
        self._controller = build(
            merge(dict(paced), _table(config.control)), "control", dynamics=model
        )
        self._task = build(_table(config.task), "task")
        self.travel = float(config.rig["travel"])
        self.force_max = float(config.rig["force_max"])
        self.position_step = float(_table(config.board)["plant"]["position_step"])

    def run(self, seconds: float, seed: int, overrides: dict[str, Any]) -> Travelled:
        """Close the loop on a fresh rig."""
        config = self._load(overrides)
        double = {"kind": "sim.rigs.cart_pole:SimCartPole", "plant": _table(config.board)["plant"]}
        rig: SimCartPole = build(config.rig | double, "rig", tokens=None, seed=seed)
        settings = check({"duration": seconds}, LoopSettings, "loop")
        cpu_us: list[float] = []
        loop = ControlLoop(
            rig,
            ClockedEstimator(self._estimator, cpu_us),
            ClockedController(self._controller, cpu_us),
            settings,
            period_s=self.period,
            reference=self._task.reference,
        )
        seen: list[tuple[float, ...]] = []
        steps: list[ControlStep] = []
        fault = ""
        with rig:
            rig.configure()
            begin = time.perf_counter()
            loop.prepare()
            cold_ms = (time.perf_counter() - begin) * 1e3
            cpu_us.clear()
            rig.activate()
            plant = rig.plant
            assert plant is not None
            look = plant.look

            def watched(time_us: int, period_us: int, count: int) -> list[tuple[float, float]]:
                seen.append((time_us * 1e-6, *plant.state(time_us)))
                return look(time_us, period_us, count)

            plant.look = watched  # type: ignore[method-assign]
            try:
                steps.extend(loop.run())  # what came before a fault stays in it
            except FaultError as error:
                fault = str(error)
            first = steps[0].sample.device_us * 1e-6
            forces = np.array([event.force for event in plant.events])
        table = np.array(seen)
        times = table[:, 0] - first
        return Travelled(times, table[:, 1:], forces, cpu_us, cold_ms, steps, fault)

    def swing_up(self, seed: int, seconds: float) -> SwingUp:
        """Swing up from hanging."""
        went = self.run(seconds, seed, {})
        turns = np.round(went.states[:, 0] / (2 * np.pi))
        away = np.flatnonzero(np.abs(went.states[:, 0] - 2 * np.pi * turns) >= UPRIGHT)
        last = int(away[-1]) + 1
        settled = float(went.time[last]) if last < len(went.time) and not went.fault else np.inf
        return SwingUp(
            settled_s=settled,
            excess_m=float(np.abs(went.states[:, 1]).max()) - self.travel,
            excess_n=float(np.abs(went.forces).max()) - self.force_max,
            step_us=[step.hops.estimate + step.hops.solve for step in went.steps],
            cpu_us=went.cpu_us,
            cold_ms=went.cold_ms,
            turns=int(turns[-1]),
        )

    def survives(self, kind: str, impulse: float, phase: float, seed: int) -> bool:
        """Say whether a blow while balancing, N·s, is survived."""
        went = self.run(
            BLOW_AT + AFTERWARDS,
            seed,
            {
                "board.plant.start": [0.0, 0.0, 0.0, 0.0],
                "board.plant.held": False,
                "board.plant.impulses": [{"time": BLOW_AT + phase, kind: impulse}],
            },
        )
        angle, position = np.abs(went.states[:, 0]), np.abs(went.states[:, 1])
        kept = angle.max() < np.pi / 2 and position.max() <= self.travel + self.position_step
        return bool(kept and angle[-1] < UPRIGHT and not went.fault)

    def largest(self, kind: str, phase: float, seed: int, resolution: float) -> float:
        """Return the largest blow survived, N·s, to a resolution, by bisection."""
        low, high = 0.0, LARGEST
        while high - low > resolution:
            middle = (low + high) / 2
            if self.survives(kind, middle, phase, seed):
                low = middle
            else:
                high = middle
        return low

    def _load(self, overrides: dict[str, Any]) -> Config:
        chosen = {"preset": self._preset} if self._preset else {}
        return load(CONFIG, sim=True, overrides=chosen | overrides)


def _table(table: dict[str, Any] | None) -> dict[str, Any]:
    assert table is not None  # the shipped configuration has it
    return dict(table)


def measure(seeds: Sequence[int], resolution: float, seconds: float) -> dict[str, Any]:
    """Return all figures of both rails."""
    report: dict[str, Any] = {}
    for rail, preset in RAILS.items():
        bench = Bench(preset)
        runs = [bench.swing_up(seed, seconds) for seed in seeds]
        steps = np.concatenate([run.step_us for run in runs])
        cpu = np.concatenate([run.cpu_us for run in runs])
        blows = {
            kind: {
                f"{phase * 1e3:g}": bench.largest(kind, phase, seed, resolution)
                for seed, phase in enumerate(PHASES)
            }
            for kind in ("cart", "tip")
            if resolution
        }
        report[rail] = {
            "settled_s": [run.settled_s for run in runs],
            "turns": [run.turns for run in runs],
            "excess_m": max(run.excess_m for run in runs),
            "excess_n": max(run.excess_n for run in runs),
            "step_us_p50": float(np.percentile(steps, 50)),
            "step_us_p99": float(np.percentile(steps, 99)),
            "cpu_us_p50": float(np.percentile(cpu, 50)),
            "cpu_us_p99": float(np.percentile(cpu, 99)),
            "cold_ms": float(np.median([run.cold_ms for run in runs])),
            "survived_ns": blows,
        }
    return report


def draw(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    table = Table("", *report, title="Swing-up from hanging, and blows while balancing")

    def row(name: str, texts: Iterable[str]) -> None:
        table.add_row(name, *texts)

    each = list(report.values())
    row("settled, s", (f"{min(r['settled_s']):.3f} to {max(r['settled_s']):.3f}" for r in each))
    row("cart beyond its travel, m", (f"{r['excess_m']:+.4f}" for r in each))
    row("force beyond its limit, N", (f"{r['excess_n']:+.4f}" for r in each))
    row("step p50 / p99, us", (f"{r['step_us_p50']:.0f} / {r['step_us_p99']:.0f}" for r in each))
    row("CPU time p50 / p99, us", (f"{r['cpu_us_p50']:.0f} / {r['cpu_us_p99']:.0f}" for r in each))
    row("cold search, ms", (f"{r['cold_ms']:.0f}" for r in each))
    for kind in each[0]["survived_ns"]:
        for phase in each[0]["survived_ns"][kind]:
            texts = (f"{r['survived_ns'][kind][phase]:.2f}" for r in each)
            row(f"blow on the {kind}, {phase} ms after a sample, N·s", texts)
    Console(stderr=False).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="last line: the figures")
    parser.add_argument("--seeds", type=int, default=5, help="of swing-ups")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a swing-up")
    parser.add_argument("--resolution", type=float, default=0.05, help="of blows, N·s; 0: none")
    given = parser.parse_args()
    report = measure(range(given.seeds), given.resolution, given.seconds)
    draw(report)
    if given.json:
        print(json.dumps(report))
    if any(not np.isfinite(max(rail["settled_s"])) for rail in report.values()):
        sys.exit("a swing-up did not settle")


if __name__ == "__main__":
    main()
