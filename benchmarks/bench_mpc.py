"""What one period of predictive control costs: linearise, solve, first input.

    python benchmarks/bench_mpc.py [--json] [--steps N] [--passes N]

The problem is that of the FNODE paper (arXiv 2509.00183): cart-pole, M = m = 1, l = 0.5, 50
periods of 0.05 s, Q = R = I, forward Euler, pinned end, |x| ≤ 10, |θ| ≤ π/2, |u| ≤ 50. Four
sequences of states, recorded once from a closed loop on the true equations (RK4, held input):

"paper": from (π/6, 1, 0, 0), linearised at the origin once. No bound is ever active.
"re-linearised": the same, linearised at the state and the input at work, every period.
"bounded": from rest, |u| ≤ 3, the cart is given 0.8 m/s to and fro every 0.5 s; re-linearised.
Bounds are active in more than a quarter of the plans, or the script stops.
"learned": as re-linearised; the model is a network 5 → 256 → 256 → 2.

All methods get the same states, and share the linearisation (analytic slopes, or our slopes of
the network) and what is around a solver; the time is all of `solve`, one thread: value, Jacobian,
solution. It is wall time, and CPU time, of whose medians the ratio is: on a busy machine it is
the long solves that are interrupted. Methods take turns, 20 steps each. Only the fast ones go
over a sequence more than once. The error is that of the first input, against Clarabel at
1e-12, at its worst.

"published" is the published procedure: the CVXPY problem built anew every period, largest and
smallest entries bounded, the norm minimised, not its square, SCS at its defaults; "published,
torch" takes its slopes, too, as published: torch.autograd.functional.jacobian of the network in
float32. "rebuilt, SCS" is the same problem put as the other methods have it, still built anew.
"CVXPY …" is that parametrised and compiled once. "… direct" is a solver's own interface with
matrices updated. "CasADi …" is the problem as parametric nonlinear programme. "do-mpc" solves
another problem, that of the nonlinear equations (with IPOPT, at its defaults), and its first
input is another one. A solver that is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpc_solvers import (
    DT,
    Case,
    DoMpc,
    TorchNetwork,
    casadi_programme,
    osqp_direct,
    piqp_direct,
    published,
)
from rich.console import Console
from rich.table import Table

from hil.control.base import AbstractController, SolutionStatus
from hil.control.cvxpy_mpc import TIGHT, CvxpyMpc, CvxpyMpcSettings
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.types import Array

OURS = "ours"
NONLINEAR = "do-mpc"
TORCH = "published, torch"  # where the model is a network
BLOCK = 20  # steps before the next method takes its turn
FAST_US = 2000.0  # a method faster than this goes over a sequence `passes` times
SAME = 1e-6  # N, largest error of the first input that ours may have
THREADS = "OPENBLAS_NUM_THREADS"
START, REST = np.array([np.pi / 6, 1.0, 0.0, 0.0]), np.zeros(4)


CASES = {
    "paper": Case({}, START),
    "re-linearised": Case({"linearise": "state"}, START),
    "bounded": Case({"linearise": "state", "input_limits": ((-3.0, 3.0),)}, REST, 0.8, 0.25),
    "learned": Case({"linearise": "state"}, START, learned=True),
}


def record(case: Case, steps: int) -> tuple[Array, list[bool]]:
    """Return the states (steps, 4) of the closed loop, and whose plan had active bounds."""
    plant = CartPoleModel()
    controller = LinearMpc(MpcSettings(**case.problem()), dynamics=case.dynamics())
    x, states, active = case.start, [], []
    for k in range(steps):
        if case.kick and k % 10 == 0:
            x = x + np.array([0.0, 0.0, 0.0, case.kick * (1.0 if k % 20 else -1.0)])
        plan = controller.solve(x, REST)
        if plan.status is not SolutionStatus.OPTIMAL:
            sys.exit(f"step {k} has no plan: {plan.detail}")
        states.append(x)
        active.append("bounds active" in plan.detail)
        x = rk4(plant.acceleration, x, plan.inputs[0], DT, 10)
    if np.mean(active) < case.bounded:
        sys.exit(f"bounds are active in {np.mean(active):.0%} of the plans only")
    return np.array(states), active


def ours(case: Case) -> AbstractController:
    """Return the fast controller, as anybody makes it."""
    return LinearMpc(MpcSettings(**case.problem()), dynamics=case.dynamics())


def cvxpy_with(solver: str, *, rebuild: bool = False) -> Callable[[Case], AbstractController]:
    """Return a maker of the CVXPY controller with a solver at its defaults."""

    def make(case: Case) -> AbstractController:
        settings = CvxpyMpcSettings(**case.problem(), solver=solver, rebuild=rebuild)
        return CvxpyMpc(settings, dynamics=case.dynamics())

    return make


METHODS: dict[str, Callable[[Case], AbstractController]] = {
    TORCH: lambda case: published(case, TorchNetwork()),
    "published": published,
    "rebuilt, SCS": cvxpy_with("SCS", rebuild=True),
    "CVXPY Clarabel": cvxpy_with("CLARABEL"),
    "CVXPY OSQP": cvxpy_with("OSQP"),
    "CVXPY PIQP": cvxpy_with("PIQP"),
    "OSQP direct, 1e-3": lambda case: osqp_direct(case, 1e-3),
    "OSQP direct, 1e-5": lambda case: osqp_direct(case, 1e-5),
    "PIQP direct": piqp_direct,
    "CasADi IPOPT": lambda case: casadi_programme(case, "ipopt"),
    "CasADi fatrop": lambda case: casadi_programme(case, "fatrop"),
    NONLINEAR: DoMpc,
    OURS: ours,
}


def methods(case: Case) -> list[str]:
    """Return the names of those that a case is for."""
    odd = NONLINEAR if case.learned else TORCH
    return [name for name in METHODS if name != odd]


@dataclass
class Run:
    """One method on its way over a sequence."""

    controller: AbstractController
    took: list[float]  # us, of every step of every pass
    cpu: list[float]  # us of CPU, of the same
    inputs: list[float]  # N, first of every plan of the first pass; NaN where there is none


def go(run: Run, states: Array, block: range, first: bool) -> None:
    """Let a method take its turn."""
    for k in block:
        cpu, begin = time.process_time_ns(), time.perf_counter_ns()
        plan = run.controller.solve(states[k], REST)
        run.took.append((time.perf_counter_ns() - begin) / 1e3)
        run.cpu.append((time.process_time_ns() - cpu) / 1e3)
        if first:
            good = plan.status is SolutionStatus.OPTIMAL
            run.inputs.append(float(plan.inputs[0, 0]) if good else np.nan)


def measure(case: Case, steps: int, passes: int, missing: set[str]) -> dict[str, dict[str, float]]:
    """Return figures of every method on one sequence; names in `missing` are left out."""
    states, active = record(case, steps)
    tight = CvxpyMpcSettings(**case.problem(), options=TIGHT)
    truth = Run(CvxpyMpc(tight, dynamics=case.dynamics()), [], [], [])
    go(truth, states, range(steps), first=True)
    if np.isnan(truth.inputs).any():
        sys.exit("Clarabel at 1e-12 leaves steps unsolved: nothing to compare with")
    runs = {}
    for name in methods(case):
        if name not in missing:
            runs[name] = Run(METHODS[name](case), [], [], [])
            go(runs[name], states, range(min(3, steps)), first=False)  # what is lazy is done now
            runs[name].controller.reset()
            runs[name].took.clear()
            runs[name].cpu.clear()
    for turn in range(passes):
        for run in runs.values():
            if turn:
                run.controller.reset()
        for begin in range(0, steps, BLOCK):
            for run in runs.values():
                if turn == 0 or np.median(run.took) < FAST_US:
                    go(run, states, range(begin, min(begin + BLOCK, steps)), first=turn == 0)
    fastest = float(np.median(runs[OURS].cpu))
    return {name: figures(run, truth.inputs, active, fastest) for name, run in runs.items()}


def figures(run: Run, truth: list[float], active: list[bool], fastest: float) -> dict[str, float]:
    """Return what is reported of one method."""
    took = np.array(run.took)
    error = np.abs(np.array(run.inputs) - truth)
    bounded = np.tile(active, len(took) // len(active))
    found = {
        "us_p50": float(np.median(took)),
        "us_p99": float(np.percentile(took, 99)),
        "cpu_us_p50": float(np.median(run.cpu)),
        "over_ours": float(np.median(run.cpu)) / fastest,
        "u0_error_max": float(np.nanmax(error)) if np.isfinite(error).any() else np.inf,
        "unsolved": int(np.isnan(error).sum()),
        "solves": len(took),
        "bounded_share": float(np.mean(active)),
    }
    if bounded.any():
        found["us_p50_bounded"] = float(np.median(took[bounded]))
        found["us_p99_bounded"] = float(np.percentile(took[bounded], 99))
    return found


def not_there(console: Console) -> set[str]:
    """Return the methods that cannot be made here, and say why."""
    missing = set()
    for name, make in METHODS.items():
        try:
            make(CASES["learned" if name == TORCH else "paper"])
        except Exception as error:  # noqa: BLE001 - whatever keeps a third party's solver away
            reason = str(error).splitlines()[0]
            console.print(f"{name} left out: {reason}", markup=False)
            missing.add(name)
    return missing


def show(console: Console, title: str, found: dict[str, dict[str, float]]) -> None:
    """Print one sequence as a table."""
    share = found[OURS]["bounded_share"]
    table = Table(title=f"{title}: bounds active in {share:.0%} of the plans")
    headings = ["method", "p50 µs", "p99 µs", "over ours", "worst error of u0, N", "unsolved"]
    bounded = "us_p50_bounded" in found[OURS]
    for heading in headings + (["p50 µs, bounded plans"] if bounded else []):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, f in found.items():
        row = [name, f"{f['us_p50']:.3g}" if f["us_p50"] < 1e3 else f"{f['us_p50']:.0f}"]
        error = "another problem" if name == NONLINEAR else f"{f['u0_error_max']:.1e}"
        row += [f"{f['us_p99']:.0f}", f"{f['over_ours']:.3g}×", error]
        row.append(f"{f['unsolved']:.0f}")
        table.add_row(*row, *([f"{f['us_p50_bounded']:.0f}"] if bounded else []))
    console.print(table)


def require_one_thread() -> None:
    """Start this script again with one BLAS thread; NumPy reads the number when it loads."""
    if THREADS not in os.environ:
        one = {THREADS: "1", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--steps", type=int, default=200, help="periods in a sequence")
    parser.add_argument("--passes", type=int, default=5, help="over a sequence, fast methods")
    arguments = parser.parse_args()
    if arguments.steps < 10 or arguments.passes < 1:
        parser.error("at least 10 steps and 1 pass")
    require_one_thread()
    warnings.filterwarnings("ignore", category=FutureWarning, module="casadi")  # do-mpc's matter
    console = Console(stderr=arguments.json)
    missing = not_there(console)
    report = {}
    for name, case in CASES.items():
        with console.status(f"measuring {name}"):
            report[name] = measure(case, arguments.steps, arguments.passes, missing)
        show(console, name, report[name])
    if arguments.json:
        print(json.dumps(report))
    worst = max(found[OURS]["u0_error_max"] for found in report.values())
    if not worst <= SAME or any(found[OURS]["unsolved"] for found in report.values()):
        sys.exit(f"ours differs from Clarabel by {worst:.1e} N, more than {SAME:.0e}")


if __name__ == "__main__":
    main()
