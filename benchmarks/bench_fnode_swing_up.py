"""Swing-up with an FNODE: collect, fit, three attempts that each add their data, and again.

    python benchmarks/bench_fnode_swing_up.py [--json] [--seeds N] [--friction] [--runs DIR]

All over the bus, on the simulated rig of configs/cart_pole.sim.toml (±20 N, ±1 m, 4096 counts a
turn, 50 µm, noise), without its friction, so that the plant is that of the paper's scenario;
--friction leaves it on. Data: 75 s about the upright and twice 15 s about
hanging, at 200 Hz, then 5 s of every attempt, at its 50 Hz: 120 s in all. Fit: configs/
fnode_mechanical.toml. Attempt: `hil control configs/swing_up.toml --sim` with the learned model,
one period of latency; settled: |θ| < 0.1 rad for good. The same data before the attempts for all
seeds; a seed draws the hidden layers. After every fit: the slopes at the upright, and the paper's
scenario (see bench_fnode_control.py) against the equations, though these models have seen no
more than ±20 N; re-linearised it is behind the domain guard.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the simulated rig is not installed

from bench_fnode_control import CONFIGS, GRADES, SLOPES, Bench, drive, slope_errors

from hil.config import load
from hil.errors import RunError
from hil.models.analytic import CartPoleModel
from hil.models.stored import StoredModel, StoredModelSettings
from hil.services import fit as fit_service
from hil.services.control import control

THREADS = "OPENBLAS_NUM_THREADS"
ATTEMPTS = 3
FRICTIONLESS = {
    f"board.plant.parameters.{kind}": 0.0
    for kind in ("cart_viscous", "cart_coulomb", "pivot_viscous")
}


def attempt(bench: Bench, model: str) -> tuple[Path, dict[str, Any]]:
    """Return the run of one swing-up and its figures; a fault of the rig ends it."""
    plug = {"kind": "hil.models.stored:StoredModel", "path": model}
    before = set(bench.runs.iterdir())
    try:
        outcome = control(bench.config("swing_up.toml", model=plug), bench.runs, lambda _: None)
    except RunError as error:
        (run,) = set(bench.runs.iterdir()) - before
        return run, {"settled_s": np.inf, "ended": str(error)}
    return Path(outcome.run), {
        **(outcome.figures or {}),
        "ended": outcome.ended,
        "solve_us_p50": outcome.solve_us_p50,
        "solve_us_p99": outcome.solve_us_p99,
        "round_trip_us_p50": outcome.round_trip_us_p50,
    }


def quality(found: fit_service.FitOutcome, reference: dict[str, float]) -> dict[str, Any]:
    """Return slopes at the upright and the paper's scenario of one fitted model."""
    model = StoredModel(StoredModelSettings(path=found.model))
    driven = {grade: drive(model, grade, guarded=grade == "re-linearised") for grade in GRADES}
    return {
        "slope_errors": dict(zip(SLOPES, slope_errors(found).tolist(), strict=True)),
        "cpu_s": found.cpu_seconds,
        "data_s": found.data_seconds,
        **{f"cost_off, {g}": d.cost / reference[g] - 1 for g, d in driven.items()},
        **{f"final_norm, {g}": d.norms[-1] for g, d in driven.items()},
    }


def measure(bench: Bench, seeds: int) -> dict[str, Any]:
    """Collect, then fit and swing up in turns; return: seed, then fit, then figure."""
    bench.console.log("collect")
    first = [bench.collect("cart_pole_collect.toml", loop__duration=75.0)]
    first += [bench.collect("hanging_collect.toml", seed=seed) for seed in (0, 1)]
    reference = {grade: drive(CartPoleModel(), grade).cost for grade in GRADES}
    report: dict[str, Any] = {}
    for seed in range(seeds):
        runs, rows = list(first), {}
        for number in range(ATTEMPTS + 1):
            bench.console.log(f"seed {seed}, fit {number + 1}")
            config = load(CONFIGS / "fnode_mechanical.toml", overrides={"seed": seed})
            found = fit_service.fit(config, runs, bench.runs, lambda _: None)
            rows[f"fit {number + 1}"] = figures = quality(found, reference)
            if number < ATTEMPTS:
                run, figures["attempt"] = attempt(bench, found.model)
                runs.append(run)
        report[f"seed {seed}"] = rows
    return report


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="Swing-up with an FNODE, ±20 N on ±1 m")
    for heading in ("seed", "fit", "data s", "CPU s", "worst slope", *GRADES, "final |x|",
                    "settled s", "farthest m", "solve ms p50, p99"):  # fmt: skip
        table.add_column(heading, justify="right")
    for seed, rows in report.items():
        for name, row in rows.items():
            tried = row.get("attempt", {})
            worst = max(abs(error) for error in row["slope_errors"].values())
            solve = [tried.get(f"solve_us_{p}", np.nan) / 1e3 for p in ("p50", "p99")]
            table.add_row(
                seed,
                name,
                f"{row['data_s']:.0f}",
                f"{row['cpu_s']:.1f}",
                f"{100 * worst:.2f} %",
                *(f"{100 * row[f'cost_off, {grade}']:+.2f} %" for grade in GRADES),
                f"{max(row[f'final_norm, {grade}'] for grade in GRADES):.2g}",
                f"{tried['settled_s']:.2f}" if tried else "",
                f"{tried.get('max_distance_m', np.nan):.2f}" if tried else "",
                f"{solve[0]:.1f}, {solve[1]:.1f}" if tried else "",
            )
    console.print(table)


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the fits")
    parser.add_argument("--friction", action="store_true", help="leave the rig's friction on")
    parser.add_argument("--runs", type=Path, help="keep the run directories here")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("at least one seed")
    if THREADS not in os.environ:  # NumPy reads it when it loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console = Console(stderr=arguments.json)
    with tempfile.TemporaryDirectory() as scratch:
        changes = {} if arguments.friction else FRICTIONLESS
        bench = Bench(arguments.runs or Path(scratch), console, changes)
        report = measure(bench, arguments.seeds)
    show(report, console)
    if arguments.json:
        print(msgspec.json.encode(report, enc_hook=float).decode())  # what is infinite becomes null


if __name__ == "__main__":
    main()
