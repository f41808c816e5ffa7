"""A training step of E2E-SyMo: our slopes by hand against a plain transcription in eager torch.

    python benchmarks/bench_symo.py [--json] [--repeats N]

One batch of 128 of the cart-pole, two layers of 256 units, float64: Newton's method, gradient
through the implicit function, Adam; one thread each, in turn; CPU time p50. First both gradients
are compared; a relative difference above 1e-5 ends the run with exit 1. SyMo, which needs no
root, stands beside. Without torch our side alone is measured.
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # the model in torch is that of the tests

from hil.mechanics.integrate import held_inputs
from hil.mechanics.multibody.rod_cart_pole import RodCartPole
from hil.models.lagrangian_weights import LagrangianSettings
from hil.training.adam import Adam, AdamState
from hil.training.fit import Motion
from hil.training.fit_symo import batch_gradient, keep_pages, triples
from hil.training.lagrangian_network import LagrangianNetwork, Triples

THREADS = "OMP_NUM_THREADS"
BATCH, PERIOD, AGREE, PUBLISHED_MS = 128, 0.05, 1e-5, 79.0


def start() -> tuple[LagrangianNetwork, Triples]:
    """Return a network at the start of training and a batch of poses."""
    random = np.random.default_rng(0)
    box = np.array([np.pi, 0.5, 3.0, 0.05])
    x, u = random.uniform(-1, 1, (8, 4)) * box, random.uniform(-2, 2, (8, 1))
    held = np.broadcast_to(u, (31, 8, 1))
    states = held_inputs(RodCartPole().acceleration, x, held, PERIOD, 20).swapaxes(0, 1)
    motions = [
        Motion(PERIOD, q[:, :2], np.broadcast_to(f, (32, 1)))
        for q, f in zip(states, u, strict=True)
    ]
    settings = LagrangianSettings(nq=2, driven=(1,), angles=(0,), hidden=(256, 256))
    everything = triples(motions)
    data = everything.some(random.permutation(len(everything))[:BATCH])
    return LagrangianNetwork.start(settings, data, PERIOD, random), data


def ours(loss: str) -> Callable[[], None]:
    net, data = start()
    adam, state = Adam(1e-3), AdamState.start(len(net.flat))

    def step() -> None:
        nonlocal state
        _, gradient = batch_gradient(net, data, loss)
        change, state = adam.step(gradient, state)
        net.flat += change

    return step


def theirs() -> Callable[[], None]:
    import torch

    from tests.unit.models.symo_torch import TorchSymo, tensors

    torch.set_num_threads(1)
    net, data = start()
    model, parts = TorchSymo(net), tensors(data)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        adam.zero_grad()
        model.loss(*parts).backward()
        adam.step()

    return step


def agreement() -> float:
    """Return the relative difference of both gradients."""
    from tests.unit.models.symo_torch import TorchSymo, tensors

    net, data = start()
    model = TorchSymo(net)
    model.loss(*tensors(data)).backward()
    truth = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    _, found = batch_gradient(net, data, "prediction")
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def measured(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return CPU ms of a step, p50, each in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            if repeat >= 3:
                times[name].append((time.process_time() - begin) * 1e3)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    if os.environ.get(THREADS) != "1":  # read when libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    report: dict[str, Any] = {}
    keep_pages()  # as training does; torch has the good of it, too
    steps = {"E2E-SyMo": ours("prediction"), "SyMo": ours("residual")}
    try:
        import torch  # noqa: F401
    except ImportError:
        print("torch is not installed: our side alone", file=sys.stderr)
    else:
        report["disagreement"] = agreement()
        if report["disagreement"] > AGREE:
            sys.exit(f"the gradients differ by {report['disagreement']:.1e}")
        steps["E2E-SyMo, torch"] = theirs()
    report["cpu_ms"] = measured(steps, options.repeats)
    mine = report["cpu_ms"]["E2E-SyMo"]
    report["published_over_ours"] = round(PUBLISHED_MS / mine, 2)
    if "E2E-SyMo, torch" in steps:
        report["torch_over_ours"] = round(report["cpu_ms"]["E2E-SyMo, torch"] / mine, 2)
    if options.json:
        print(json.dumps(report))
        return
    console = Console()
    for name, value in report["cpu_ms"].items():
        console.print(f"{name:16s} {value:8.2f} ms CPU a batch of {BATCH}, p50")
    console.print(
        f"published (79 ms, another machine) over ours {report['published_over_ours']}, torch here "
        f"over ours {report.get('torch_over_ours', 'not measured')}, gradients "
        f"{report.get('disagreement', float('nan')):.1e} apart"
    )


if __name__ == "__main__":
    main()
