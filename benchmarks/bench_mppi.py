"""Sampling against the exact controller: what it costs in time, and what is lost.

    python benchmarks/bench_mppi.py [--json] [--rollouts 16384] [--horizon 50] [--device cpu]

"rollouts": one batch of samples followed and charged, RK4 of 20 ms, the cart-pole's equations or
an FNODE of mechanical form (configs/models), by each way there is: machine code (the equations
only), NumPy, PyTorch in float32 on --device, compiled there on a GPU. All must agree to 1e-3, or
the script stops. Wall time, median of --repeats, ways in turns.

"loop": 4 s of balance from (0.2, 0.3, 0, 0) with noise on the state; cost over that of MPC along
the horizon (5 iterations) on the same noise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import check
from hil.control.base import AbstractController
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.control.mppi import Mppi, MppiSettings
from hil.mechanics.integrate import rk4
from hil.models import store
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.rollouts import About, BatchedRollouts, Charges, CompiledRollouts, NoSettings
from hil.models.torch_rollouts import TorchRollouts, TorchRolloutsSettings
from hil.types import Array

OPEN = (-np.inf, np.inf)
WEIGHTS: dict[str, Any] = {
    "horizon": 60, "dt": 0.02, "input_limits": ((-20.0, 20.0),),
    "state_weights": (10.0, 10.0, 1.0, 1.0), "input_weights": (0.05,),
}  # fmt: skip
CHARGES = Charges(
    np.array([10.0, 10.0, 1.0, 1.0]), np.array([0.05]), np.diag([30.0, 20.0, 5.0, 4.0]),
    np.full(4, -np.inf), np.full(4, np.inf), np.zeros(4), np.zeros(4), 0.02,
)  # fmt: skip
STORED = next((Path(__file__).parents[1] / "configs/models").glob("*.safetensors"))


def batch(count: int, horizon: int) -> tuple[About, Array]:
    """Return samples about a plan that stands still, held together by feedback."""
    random = np.random.default_rng(0)
    gain = np.array([[-70.0, -14.0, -13.0, -15.0]])  # about the regulator's
    about = About(
        np.array([0.1, 0.1, 0.0, 0.0]), np.zeros(4), gain, np.zeros((horizon + 1, 4)),
        np.array([-20.0]), np.array([20.0]),
    )  # fmt: skip
    return about, random.normal(0.0, 2.0, (count, horizon, 1))


def ways(model: AbstractDynamics, device: str, console: Console) -> dict[str, Any]:
    """Return every way there is here to compute rollouts of a model."""
    found: dict[str, Any] = {}
    if isinstance(model, CartPoleModel):
        found["machine code"] = CompiledRollouts(NoSettings(), dynamics=model, charges=CHARGES)
    found["NumPy"] = BatchedRollouts(NoSettings(), dynamics=model, charges=CHARGES)
    try:
        importlib.import_module("torch")
    except ImportError:
        console.print("PyTorch left out: it is not installed")
        return found
    settings = TorchRolloutsSettings(
        device=device, precision="float32", compile=device.startswith("cuda")
    )
    found[f"PyTorch, {device}"] = TorchRollouts(settings, dynamics=model, charges=CHARGES)
    return found


def rollouts(asked: argparse.Namespace, console: Console) -> dict[str, dict[str, float]]:
    """Return milliseconds per batch, model → way."""
    about, samples = batch(asked.rollouts, asked.horizon)
    report: dict[str, dict[str, float]] = {}
    for name, model in (("equations", CartPoleModel()), ("FNODE", store.load(STORED).model)):
        made = ways(model, asked.device, console)
        first = {way: plug.follow(about, samples).costs for way, plug in made.items()}  # compiles
        truth = next(iter(first.values()))
        for way, costs in first.items():
            if np.abs(costs / truth - 1).max() > 1e-3:
                sys.exit(f"{name}: {way} disagrees by {np.abs(costs / truth - 1).max():.1e}")
        spent: dict[str, list[float]] = {way: [] for way in made}
        for _ in range(asked.repeats):
            for way, plug in made.items():
                begin = time.perf_counter()
                plug.follow(about, samples)
                spent[way].append((time.perf_counter() - begin) * 1e3)
        report[name] = {way: float(np.median(values)) for way, values in spent.items()}
    return report


def closed(controller: AbstractController) -> tuple[float, float]:
    """Return the cost of 4 s of balance and the median of a solve, ms."""
    model, random = CartPoleModel(), np.random.default_rng(0)
    x, total, spent = np.array([0.2, 0.3, 0.0, 0.0]), 0.0, []
    for _ in range(200):
        seen = x + random.normal(0.0, [5e-4, 3e-5, 5e-3, 1e-3])
        solution = controller.solve(seen, np.zeros(4))
        u = solution.inputs[0]
        total += float(CHARGES.q @ (x * x) + CHARGES.r @ (u * u))
        x = rk4(model.acceleration, x, u, 0.02)
        spent.append(solution.solve_us / 1e3)
    return total, float(np.median(spent))


def loops() -> dict[str, dict[str, float]]:
    """Return what is lost and what a solve takes, by the number of samples."""
    mpc: dict[str, Any] = {
        **WEIGHTS, "terminal": "lqr", "linearise": "horizon", "discretise": "rk4", "iterations": 5,
    }  # fmt: skip
    makers: dict[str, Callable[[], AbstractController]] = {
        "MPC, along the horizon": lambda: LinearMpc(MpcSettings(**mpc), dynamics=CartPoleModel())
    }
    for samples in (128, 512, 2048):
        for feedback in (True, False):
            table = {**WEIGHTS, "samples": samples, "feedback": feedback}
            settings = check(table, MppiSettings, "control")
            name = f"MPPI, {samples} rollouts" + ("" if feedback else ", open loop")
            makers[name] = lambda s=settings: Mppi(s, dynamics=CartPoleModel())  # type: ignore[misc]
    found = {name: closed(make()) for name, make in makers.items()}
    best = found["MPC, along the horizon"][0]
    return {
        name: {"cost_over_mpc": cost / best - 1, "solve_ms_p50": took}
        for name, (cost, took) in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rollouts", type=int, default=16384)
    parser.add_argument("--horizon", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of PyTorch")
    asked = parser.parse_args()
    console = Console(stderr=asked.json)
    report = {"rollouts": rollouts(asked, console), "loop": loops()}
    table = Table(title=f"{asked.rollouts} rollouts × {asked.horizon} periods, ms")
    for column in ("model", "way", "ms", "against the first"):
        table.add_column(column)
    for model, each in report["rollouts"].items():
        for way, took in each.items():
            ratio = took / next(iter(each.values()))
            table.add_row(model, way, f"{took:.0f}", f"{ratio:.1f}×")
    console.print(table)
    table = Table(title="4 s of balance")
    for column in ("controller", "cost over MPC", "solve ms p50"):
        table.add_column(column)
    for name, row in report["loop"].items():
        table.add_row(name, f"{row['cost_over_mpc']:+.3%}", f"{row['solve_ms_p50']:.1f}")
    console.print(table)
    if asked.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
