"""Training a gyro network: our compiled adjoint against the same model in eager torch.

    python benchmarks/bench_gyro.py [--json] [--repeats N] [--dtype float32]

One mini-batch of 32 signals of 100 steps through the 10 × 10 lattice (300 springs, RK4,
dt 0.05 s), forward and backward, one thread each, in turn; CPU time p50, and what an epoch of
7494 strokes takes at that rate. First both gradients are compared in float64; a difference
above 1e-5 ends the run with exit 1. Without torch our side alone is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the model in torch is that of the tests

from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.mechanics.gyro_geometry import lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import Array
from tests.unit.mechanics.gyro_torch import NAMES, torch_rollout

THREADS = "OMP_NUM_THREADS"
BATCH, STEPS, DT, EPOCH = 32, 100, 0.05, 7494
INPUTS = np.arange(0, 100, 20)
OUTPUTS = np.arange(9, 100, 20)
AGREE = 1e-5


class Case:
    """A network at the start of training and a mini-batch."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.network = GyroNetwork(lattice(10, 10))
        n, s = self.network.n, self.network.spring_count
        self.parameters = GyroParameters(
            mass=random.uniform(0.7, 1.4, n), length=random.uniform(0.7, 1.4, n),
            gamma=random.normal(0, 1, n), stiffness=random.uniform(10, 30, s), drag=0.1,
        )  # fmt: skip
        self.nudges = 4.0 * random.standard_normal((BATCH, STEPS, len(INPUTS), 2))
        self.weights = np.zeros((BATCH, n, 4))
        self.weights[:, OUTPUTS] = random.standard_normal((BATCH, len(OUTPUTS), 4))

    def ours(self, runner: GyroAdjoint) -> dict[str, Array]:
        """Return the gradient by the compiled adjoint."""
        found = runner.backward(runner.forward(self.parameters, self.nudges), self.weights)
        return {name: getattr(found, name) for name in (*NAMES, "nudges")}

    def torch(self, kind: Any) -> dict[str, Array]:
        """Return the gradient by autograd."""
        import torch

        leaves = {
            name: torch.tensor(np.asarray(getattr(self.parameters, name)), dtype=kind)
            for name in NAMES
        }
        leaves["nudges"] = torch.tensor(self.nudges, dtype=kind)
        for leaf in leaves.values():
            leaf.requires_grad_()
        start = torch.zeros((BATCH, self.network.n, 4), dtype=kind)
        final = torch_rollout(
            self.network, leaves, self.parameters, leaves["nudges"], DT, INPUTS, start
        )
        (final * torch.tensor(self.weights, dtype=kind)).sum().backward()
        return {name: leaf.grad.double().numpy() for name, leaf in leaves.items()}


def difference(found: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """Return the largest difference of two gradients over the largest entry of each part."""
    return max(
        float(np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max())
        for name in expected
    )


def measure(timed: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median CPU time of each in s; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, call in timed.items():
            count = 1 if "torch" in name else 10
            begin = time.process_time()
            for _ in range(count):
                call()
            times[name].append((time.process_time() - begin) / count)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Compare, measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("at least one repeat")
    if os.environ.get(THREADS) != "1":  # read when libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console, case = Console(stderr=arguments.json), Case()
    single, double = (
        GyroAdjoint(case.network, DT, inputs=INPUTS, dtype=kind)
        for kind in (np.float32, np.float64)
    )
    report: dict[str, Any] = {"gradient": {}, "cpu_s_p50": {}, "epoch_s": {}}
    report["gradient"]["float32 against float64"] = difference(case.ours(single), case.ours(double))
    timed: dict[str, Callable[[], Any]] = {
        "ours, float32": lambda: case.ours(single),
        "ours, float64": lambda: case.ours(double),
    }
    try:
        import torch
    except ImportError:
        console.print("torch is not installed: ours alone (pip install torch)")
    else:
        torch.set_num_threads(1)
        expected = case.torch(torch.float64)
        for name, runner in (("float64", double), ("float32", single)):
            report["gradient"][f"{name} against torch float64"] = difference(
                case.ours(runner), expected
            )
        timed["torch eager, float32"] = lambda: case.torch(torch.float32)
    if max(report["gradient"].values()) > AGREE:
        sys.exit(f"bench_gyro: gradients differ: {report['gradient']}")
    report["cpu_s_p50"] = measure(timed, arguments.repeats)
    report["epoch_s"] = {n: t * EPOCH / BATCH for n, t in report["cpu_s_p50"].items()}
    table = Table(title=f"Gradient of a mini-batch of {BATCH}, {arguments.repeats} rounds")
    for heading in ("method", "ms", "epoch of 7494, s", "torch / ours"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    slow = report["cpu_s_p50"].get("torch eager, float32")
    if slow is not None:
        report["torch_over_ours"] = slow / report["cpu_s_p50"]["ours, float32"]
    for name, seconds in report["cpu_s_p50"].items():
        table.add_row(
            name, f"{1e3 * seconds:.1f}", f"{seconds * EPOCH / BATCH:.2f}",
            f"{slow / seconds:.0f}" if slow else "-",
        )  # fmt: skip
    console.print(table)
    for name, error in report["gradient"].items():
        console.print(f"gradient, {name}: {error:.1e}")
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
