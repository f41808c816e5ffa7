"""How well an FNODE is learned from quantised poses, and what one evaluation costs.

    python benchmarks/bench_fnode_fit.py [--json] [--seeds N] [--repeats N]

Data: 120 s of a simulated cart-pole with the right equations (M = m = 1, l = 0.5), balanced
by an LQR on its quantised poses and shaken by a multisine and a binary signal: 200 Hz,
4096 counts a turn, 50 µm. One recording for all seeds, not one that the default settings
were chosen on; a seed draws weights and validation blocks. Figures: error of four slopes at
the upright against the equations; rms error of the acceleration over its own spread, against
the equations at the states of another recording; CPU time of a fit with one BLAS thread.

Fits: "weak form" as `hil fit` does it, and the same network on labels: local polynomials, 3-
and 5-point differences, the Fourier method as published. All have the default settings, which
were chosen for the weak form; the smoothing window was not tuned for labels.

Evaluation: value and Jacobian of 5 → 256 → 256 → 2 at one point, and at 50 points together;
beside it the same network in torch, when it is installed. Medians of interleaved blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the data generator is that of the tests

from hil.config import check
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel
from hil.training.differentiation import smooth_between
from hil.training.fit import Fit, FitSettings, Motion
from hil.types import Array
from tests.unit.training.cart_pole_runs import balanced_runs

THREADS = "OPENBLAS_NUM_THREADS"
SLOPES = ("∂θ̈/∂θ", "∂θ̈/∂u", "∂ẍ/∂θ", "∂ẍ/∂u")
NETWORK = {"nq": 2, "nu": 1, "angles": [0], "left_out": [1]}
FITS: dict[str, dict[str, Any]] = {
    "weak form": {},
    "labels, smooth": {"target": "labels", "labels": "smooth"},
    "labels, 3 points": {"target": "labels", "labels": "differences-3"},
    "labels, 5 points": {"target": "labels", "labels": "differences-5"},
    "labels, Fourier": {"target": "labels", "labels": "fourier"},
}
EVALUATIONS = 200  # per block
HORIZON = 50


def slopes(model: AbstractDynamics) -> Array:
    """Return the four slopes at the upright."""
    at = model.linearise(np.zeros(4), np.zeros(1))
    return np.stack([at.by_state[:, 0], at.by_input[:, 0]], axis=1).ravel()


def unseen() -> tuple[Array, Array, Array]:
    """Return states and inputs of another recording, not quantised: q, v, u."""
    parts = []
    for motion in balanced_runs(12, seconds=15.0, quantised=False):
        moved, first = smooth_between(motion.q, motion.period, 0.03)
        u = motion.u[first : first + len(moved.position)]
        parts.append((moved.position[::5], moved.velocity[::5], u[::5]))
    q, v, u = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return q, v, u


def fit(
    name: str, motions: list[Motion], seeds: int, heard: Callable[[str], None]
) -> tuple[dict[str, Any], FnodeModel]:
    """Return the figures of one kind of fit over the seeds, and the last model."""
    settings = check({"network": NETWORK, **FITS[name]}, FitSettings, name)
    points, truth = unseen(), CartPoleModel()
    expected, target = truth.acceleration(*points), slopes(truth)
    errors, misses, cpu = [], [], []
    for seed in range(seeds):
        heard(f"{name}, seed {seed}")
        found = Fit(settings, seed=seed).run(motions)
        errors.append(slopes(found.model) / target - 1)
        miss = found.model.acceleration(*points) - expected
        misses.append(np.sqrt((miss**2).mean(axis=0)) / expected.std(axis=0))
        cpu.append(found.cpu_seconds)
    worst = np.abs(errors).max(axis=0)
    return {
        **{f"worst error of {n}": float(e) for n, e in zip(SLOPES, worst, strict=True)},
        "worst_slope_error": float(worst.max()),
        "acceleration_error": [float(m) for m in np.median(misses, axis=0)],
        "cpu_s_median": statistics.median(cpu),
        "cpu_s_max": max(cpu),
        "seeds": seeds,
    }, found.model


def evaluations(model: FnodeModel) -> dict[str, Callable[[], Any]]:
    """Return what is timed: each returns value and Jacobian, checked to be the same."""
    x, u = np.array([0.1, 0.2, 0.3, -0.4]), np.array([1.5])
    xs, us = np.tile(x, (HORIZON, 1)), np.tile(u, (HORIZON, 1))
    timed: dict[str, Callable[[], Any]] = {
        "ours": lambda: model.linearise(x, u),
        "domain guard": lambda: model.domain(x, u),
        f"ours, {HORIZON} points": lambda: model.linearise(xs, us),
    }
    try:
        import torch
    except ImportError:
        return timed
    torch.set_num_threads(1)
    w = {name: torch.from_numpy(np.array(a)) for name, a in model.weights.arrays().items()}

    def network(point: torch.Tensor) -> torch.Tensor:
        z = torch.cat([torch.sin(point[:1]), torch.cos(point[:1]), point[2:]])
        h = z = (z - w["input_mean"]) / w["input_scale"]
        for number in (1, 2):
            h = torch.tanh(w[f"hidden.{number}.weight"] @ h + w[f"hidden.{number}.bias"])
        answer = w["last"] @ h + w["skip"] @ z + w["offset"]
        return w["output_mean"] + w["output_scale"] * answer

    point = torch.from_numpy(np.concatenate([x, u]))

    def by_torch() -> tuple[torch.Tensor, torch.Tensor]:
        jacobian: torch.Tensor = torch.autograd.functional.jacobian(network, point)
        return network(point), jacobian

    value, jacobian = (part.numpy() for part in by_torch())
    at = model.linearise(x, u)
    ours = np.concatenate([at.by_state, at.by_input], axis=1)
    if not (np.allclose(value, at.acceleration) and np.allclose(jacobian, ours)):
        sys.exit("bench_fnode_fit: torch and ours differ: one of them is wrong")
    timed["torch.autograd.functional.jacobian"] = by_torch
    return timed


def measure(timed: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median wall time of each in µs; they take turns, block by block."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, call in timed.items():
            for _ in range(EVALUATIONS):
                begin = time.perf_counter_ns()
                call()
                times[name].append((time.perf_counter_ns() - begin) / 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure, print two tables, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds")
    parser.add_argument("--repeats", type=int, default=5, help="blocks of evaluations")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.repeats < 1:
        parser.error("at least one seed and one repeat")
    if THREADS not in os.environ:  # NumPy reads it when it loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console = Console(stderr=arguments.json)
    quality = Table(title=f"FNODE from 120 s of quantised poses, {arguments.seeds} seeds")
    for heading in ("fit", *(f"{name} %" for name in SLOPES), "rms θ̈, ẍ %", "CPU s (worst)"):
        quality.add_column(heading, justify="right")
    report: dict[str, Any] = {"fit": {}}
    model: FnodeModel | None = None
    with console.status("simulating the rig") as status:
        motions = balanced_runs(11)
        for name in FITS:
            found, last = fit(name, motions, arguments.seeds, status.update)
            model = model or last
            report["fit"][name] = found
            quality.add_row(
                name,
                *(f"{100 * found[f'worst error of {slope}']:.2f}" for slope in SLOPES),
                ", ".join(f"{100 * miss:.2f}" for miss in found["acceleration_error"]),
                f"{found['cpu_s_median']:.1f} ({found['cpu_s_max']:.1f})",
            )
        if model is None:
            raise AssertionError("nothing was fitted")
        status.update("timing evaluations")
        report["evaluation_us_p50"] = measure(evaluations(model), arguments.repeats)
    cost = Table(title="Value and Jacobian, wall time p50")
    cost.add_column("method")
    cost.add_column("µs", justify="right")
    for name, microseconds in report["evaluation_us_p50"].items():
        cost.add_row(name, f"{microseconds:.1f}")
    console.print(quality)
    console.print(cost)
    console.print("errors: the worst over the seeds, against the equations; rms: median")
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
