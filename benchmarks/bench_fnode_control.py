"""An FNODE learned from poses collected over the bus, in the FNODE paper's control problem.

    python benchmarks/bench_fnode_control.py [--json] [--seeds N] [--runs DIR]

Collect: `hil collect configs/paper_collect.toml --sim` from four starts, 116 s together at
200 Hz: firmware behind a pseudo-terminal, mirror, ZeroMQ; 4096 counts a turn and 50 µm with
noise, motor lag 2 ms, delay 1 ms, no friction (the paper's plant has none). Fit: `hil fit
configs/fnode.toml`, a seed draws weights and validation blocks. Figures of a model: its slopes
at the upright against the equations, M = m = 1, l = 0.5.

Scenario: from (π/6, 1, 0, 0) to rest, 10 s, dt 0.05, N 50, Q = R = I, x_N = 0, |x| ≤ 10,
|θ| ≤ π/2, |u| ≤ 50. The plant is that of `hil.mechanics.cart_pole`, input held, Runge-Kutta in
steps of 1 ms; the controller sees its state. Cost Σ xᵀx + u²; |x| at 2, 4, 6, 8, 10 s. Every
grade with the equations, then with every learned model; "guarded" is behind the domain guard
with configs/paper.toml's fallback. "short rail": the same with models learned on the default
rig (`hil collect configs/cart_pole_collect.toml --sim`, ±1 m, ±20 N, friction), where the guard
has to act.

Over the bus: `hil control --sim` of configs/paper.toml and configs/balance.toml, from
quantised poses, with the equations and with the first model learned on either rig.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the simulated rig is not installed

from hil.config import build, load
from hil.control.base import AbstractController, SolutionStatus
from hil.control.domain_guard import DomainGuard
from hil.mechanics.cart_pole import CartPole
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.stored import StoredModel, StoredModelSettings
from hil.recording.reader import read_as
from hil.recording.run import Run
from hil.services import fit as fit_service
from hil.services.control import ControlOutcome, ControlRecord, control
from hil.tasks.balance import Balance
from hil.types import Array

THREADS = "OPENBLAS_NUM_THREADS"
CONFIGS = Path(__file__).parents[1] / "configs"
START = np.array([np.pi / 6, 1.0, 0.0, 0.0])
STARTS = ((0.5, 1.0), (-0.5, -1.0), (0.5, -1.0), (-0.5, 1.0))  # θ, x of the recordings
DT, STEPS, FINE = 0.05, 200, 50
SLOPES = ("∂θ̈/∂θ", "∂θ̈/∂u", "∂ẍ/∂θ", "∂ẍ/∂u")
GRADES: dict[str, dict[str, Any]] = {
    "origin": {"linearise": "origin", "discretise": "euler"},
    "re-linearised": {"linearise": "state", "discretise": "euler"},
    "nonlinear": {"linearise": "horizon", "discretise": "rk4", "iterations": 5},
}
SHORT = "re-linearised, short rail"


@dataclass(frozen=True)
class Drive:
    """One scenario, driven."""

    cost: float
    norms: list[float]  # at 2, 4, 6, 8, 10 s
    peak: float  # N
    outside: int  # periods in which the fallback planned
    lost: bool  # the pole, or the plan
    distance: float  # largest, of state and input from the data; 0 for equations
    solve_us: float  # median


class Bench:
    """What is shared: where runs go, who listens, a name for the rig that nobody else has.

    changes: of every configuration of the rig, dotted key → value.
    """

    def __init__(self, runs: Path, console: Console, changes: dict[str, Any] | None = None) -> None:
        self.runs, self.console = runs, console
        self._changes = {"rig.name": f"bench-{os.getpid()}", **(changes or {})}

    def config(self, name: str, **overrides: Any) -> Any:
        """Return a shipped configuration for a simulated rig, `__` standing for dots."""
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return load(CONFIGS / name, sim=True, overrides={**self._changes, **dotted})

    def collect(self, name: str, **overrides: Any) -> Path:
        """Return the run of one `hil collect`."""
        config = self.config(name, **overrides)
        return Path(control(config, self.runs, lambda _: None, excite=True).run)

    def fits(self, recordings: list[Path], seeds: int) -> list[fit_service.FitOutcome]:
        """Return what `hil fit` makes of the recordings with every seed."""
        found = []
        for seed in range(seeds):
            self.console.log(f"fit, seed {seed}")
            config = load(CONFIGS / "fnode.toml", overrides={"seed": seed})
            found.append(fit_service.fit(config, recordings, self.runs, lambda _: None))
        return found

    def control(self, name: str, model: str | None) -> ControlOutcome:
        """Return what `hil control` ends with; model: path, None for the equations."""
        plug = {"kind": "hil.models.stored:StoredModel", "path": model}
        overrides = {} if model is None else {"model": plug}
        return control(self.config(name, **overrides), self.runs, lambda _: None)


def controller(model: AbstractDynamics, grade: str, guarded: bool) -> AbstractController:
    """Return the paper's controller on a model, behind the guard when asked."""
    config = load(CONFIGS / "paper.toml")
    made: AbstractController = build(
        {**(config.control or {}), "dt": DT, **GRADES[grade]}, "control", dynamics=model
    )
    if not guarded:
        return made
    rest = {**(config.fallback or {}), "dt": DT}
    equations = build(rest.pop("model"), "fallback.model")
    return DomainGuard(made, model, build(rest, "fallback", dynamics=equations))  # type: ignore[arg-type]


def drive(model: AbstractDynamics, grade: str, guarded: bool = False) -> Drive:
    """Return the scenario under one controller; ends where there is no plan."""
    mpc, plant, x, task = controller(model, grade, guarded), CartPole(), START, Balance
    states, inputs, took, distances, outside = [START], [], [], [0.0], 0
    for _ in range(STEPS):
        plan = mpc.solve(x, np.zeros(4))
        took.append(plan.solve_us)
        if not len(plan.inputs) or abs(x[0]) > np.pi / 2:
            break
        u = plan.inputs[0]
        outside += plan.status is SolutionStatus.OUTSIDE
        if isinstance(model, StoredModel):
            distances.append(model.domain(x, u))
        x = rk4(plant.acceleration, x, u, DT, steps=FINE)
        states.append(x)
        inputs.append(u)
    lost = len(inputs) < STEPS
    judge = task(Balance.Settings())
    at = [np.inf if len(states) <= k else judge.error_norm(states[k]) for k in range(40, 201, 40)]
    rows = np.array(inputs).reshape(-1, 1)
    return Drive(
        cost=np.inf if lost else judge.cost(np.array(states[:-1]), rows),
        norms=[float(norm) for norm in at],
        peak=float(np.abs(rows).max(initial=0.0)),
        outside=outside,
        lost=lost,
        distance=max(distances),
        solve_us=float(np.median(took)),
    )


def summary(drives: list[Drive], reference: Drive) -> dict[str, Any]:
    """Return the figures of one method over its models; the worst where one is asked for."""
    costs = np.array([d.cost for d in drives])
    off = costs / reference.cost - 1
    return {
        "cost_median": float(np.median(costs)),
        "cost_error_worst": float(off[np.abs(off).argmax()]),
        "norms_worst": np.max([d.norms for d in drives], axis=0).tolist(),
        "peak_input": max(d.peak for d in drives),
        "steps_outside": [d.outside for d in drives],
        "lost": sum(d.lost for d in drives),
        "domain_distance_worst": max(d.distance for d in drives),
        "solve_us_p50": float(np.median([d.solve_us for d in drives])),
        "models": len(drives),
    }


def slope_errors(found: fit_service.FitOutcome) -> Array:
    """Return the relative errors of the four slopes at the upright."""
    at = CartPoleModel().linearise(np.zeros(4), np.zeros(1))
    truth = np.stack([at.by_state[:, 0], at.by_input[:, 0]], axis=1)
    by_state, by_input = np.array(found.origin_by_state), np.array(found.origin_by_input)
    error: Array = (np.stack([by_state[:, 0], by_input[:, 0]], axis=1) / truth - 1).ravel()
    return error


def over_the_bus(outcome: ControlOutcome) -> dict[str, Any]:
    """Return the figures of a `hil control`; the error at its end swings with the encoders."""
    parts = Run.open(Path(outcome.run)).parts()
    states = np.array([r.x_hat for part in parts for _, r in read_as(part, "step", ControlRecord)])
    late = states[-len(states) // 5 :]
    return {
        "cost": outcome.cost,
        "error_rms_last_fifth": float(np.sqrt((late**2).sum(axis=1).mean())),
        "max_abs_input": outcome.max_abs_input,
        "fallbacks": outcome.fallbacks,
    }


def measure(bench: Bench, seeds: int) -> dict[str, Any]:
    """Collect, fit, drive; return all figures: case, then method, then figure."""
    long = []
    for seed, (theta, x) in enumerate(STARTS):
        bench.console.log(f"collect from θ {theta} rad, x {x} m")
        start = [theta, x, 0.0, 0.0]
        long.append(bench.collect("paper_collect.toml", seed=seed, board__plant__start=start))
    bench.console.log("collect on the short rail")
    short = [bench.collect("cart_pole_collect.toml")]
    fitted = {"long rail": bench.fits(long, seeds), "short rail": bench.fits(short, seeds)}
    report: dict[str, Any] = {"fit": {}, "scenario": {}, "over the bus": {}}
    for name, outcomes in fitted.items():
        errors = np.array([slope_errors(o) for o in outcomes])
        worst = np.abs(errors).max(axis=0)
        report["fit"][name] = {
            **{f"worst error of {n}": float(e) for n, e in zip(SLOPES, worst, strict=True)},
            "cpu_s_max": max(o.cpu_seconds for o in outcomes),
            "data_s": outcomes[0].data_seconds,
            "seeds": seeds,
        }
    models = {
        name: [StoredModel(StoredModelSettings(path=o.model)) for o in outcomes]
        for name, outcomes in fitted.items()
    }
    equations = {grade: drive(CartPoleModel(), grade) for grade in GRADES}
    for grade, reference in equations.items():
        bench.console.log(f"scenario, {grade}")
        rows = {"equations": summary([reference], reference)}
        learned = models["long rail"]
        rows["FNODE"] = summary([drive(m, grade) for m in learned], reference)
        rows["FNODE, guarded"] = summary([drive(m, grade, True) for m in learned], reference)
        report["scenario"][grade] = rows
    grade = "re-linearised"
    report["scenario"][SHORT] = {
        name: summary([drive(m, grade, on) for m in models["short rail"]], equations[grade])
        for name, on in (("FNODE", False), ("FNODE, guarded", True))
    }
    for config, name in (("paper.toml", "long rail"), ("balance.toml", "short rail")):
        bench.console.log(f"over the bus: {config}")
        stored = {"equations": None, "FNODE, guarded": fitted[name][0].model}
        report["over the bus"][config] = {
            method: over_the_bus(bench.control(config, path)) for method, path in stored.items()
        }
    return report


def show(report: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    table = Table(title="Worst error of the slopes at the upright")
    for heading in ("data", "s", *SLOPES, "fit, CPU s"):
        table.add_column(heading, justify="right")
    for name, found in report["fit"].items():
        errors = [f"{100 * found[f'worst error of {s}']:.2f} %" for s in SLOPES]
        table.add_row(name, f"{found['data_s']:.0f}", *errors, f"{found['cpu_s_max']:.1f}")
    console.print(table)
    table = Table(title="The paper's scenario; of several models the worst")
    for heading in ("grade", "model", "cost", "off", "|x| at 2, 4, 6, 8, 10 s", "peak u N",
                    "lost", "fallback", "distance", "solve µs"):  # fmt: skip
        table.add_column(heading, justify="right")
    for grade, rows in report["scenario"].items():
        for name, found in rows.items():
            table.add_row(
                grade,
                name,
                f"{found['cost_median']:.2f}",
                "" if name == "equations" else f"{100 * found['cost_error_worst']:+.2f} %",
                " ".join(f"{norm:.3g}" for norm in found["norms_worst"]),
                f"{found['peak_input']:.1f}",
                f"{found['lost']} of {found['models']}",
                " ".join(str(steps) for steps in found["steps_outside"]),
                f"{found['domain_distance_worst']:.2f}",
                f"{found['solve_us_p50']:.0f}",
            )
    console.print(table)
    table = Table(title="Over the bus, from quantised poses")
    for heading in ("config", "model", "cost", "rms |x|, last fifth", "peak u N", "fallback"):
        table.add_column(heading, justify="right")
    for config, rows in report["over the bus"].items():
        for name, found in rows.items():
            table.add_row(
                config, name, f"{found['cost']:.1f}", f"{found['error_rms_last_fifth']:.4f}",
                f"{found['max_abs_input']:.1f}", str(found["fallbacks"]),
            )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measure, print three tables, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds")
    parser.add_argument("--runs", type=Path, help="keep the run directories here")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("at least one seed")
    if THREADS not in os.environ:  # NumPy reads it when it loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console = Console(stderr=arguments.json)
    with tempfile.TemporaryDirectory() as scratch:
        report = measure(Bench(arguments.runs or Path(scratch), console), arguments.seeds)
    show(report, console)
    if arguments.json:
        print(msgspec.json.encode(report, enc_hook=float).decode())  # what is infinite becomes null


if __name__ == "__main__":
    main()
