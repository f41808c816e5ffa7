"""A learned model that follows its rig, and one that does not, when a mass changes by 50 %.

    python benchmarks/bench_adapt.py [--json] [--seeds N] [--runs DIR] [--plot PNG]
    python benchmarks/bench_adapt.py --wall [--json] [--runs DIR] [--plot PNG]

`hil control configs/adapt.toml --sim`, 80 s of rig time through the whole stack (firmware, mirror,
bus, loop), the mass changing at 20 s, with exchanges and without. The error is that of one step of
the model in use, from the plant's own record: rms of |x⁺ − x̂⁺| over all samples, x = (θ, x, θ̇, ẋ)
in SI, x̂⁺ one RK4 step of 10 ms from the true x under the force that acted. "in use" is what the
loop had at that time. "seen" is the same as the loop can see it, from noisy poses: what the model
leaves over of accelerations filtered over 150 ms, relative to them.

--wall: the cart alone, against the wall clock: a plan that is not there after 0.8 periods is a
missed deadline, and nobody waits for the fitter, which has a low priority. The loop asks for what
`[loop.realtime]` has to give (--priority, --cpu).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the plant's record is read as the tests do

from hil.models import store
from hil.models.base import AbstractDynamics
from hil.plots.style import BLUE, VERMILION, new_figure, save, style
from hil.recording.reader import read
from hil.types import Array
from tests.system.plant_record import Truth, one_step_error, truth_of

CONFIG = Path(__file__).parents[1] / "configs/adapt.toml"
CHANGE, END, PERIOD = 20.0, 80.0, 0.01  # s
SPANS = {"before": (10.0, CHANGE), "after": (CHANGE, CHANGE + 2.0), "end": (END - 10.0, END)}
CASES = {
    "cart +50 %": ("cart_mass", 0.1),
    "pole +50 %": ("pole_mass", 0.1),
    "pole +50 %, no dry friction": ("pole_mass", 0.0),
}
METHODS = {"with": "true", "without": "false"}


def control(case: str, method: str, seed: int, runs: Path, wall: dict[str, Any]) -> dict[str, Any]:
    """Run the loop; return its outcome with the plant's record beside it."""
    mass, friction = CASES[case]
    record = runs / f"plant-{seed}-{method}-{mass}-{friction}.jsonl"
    sets = {
        "adaptation.swap": METHODS[method],
        "loop.duration": END,
        "board.record": record,
        "board.plant.changes": f"[{{time={CHANGE}, {mass}=1.5}}]",
        "board.plant.parameters.cart_coulomb": friction,
        "rig.name": f"bench-adapt-{seed}",
        **wall,
    }
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "hil", "control", str(CONFIG), "--sim", "--json"]
    command += ["--seed", str(seed), "--runs", str(runs), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        sys.exit(f"{case}, {method}: {ended.stderr.splitlines()[-1]}")
    outcome: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return outcome | {"record": record}


def on_time(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what is set for a loop against the wall clock."""
    return {
        "clock": "wall", "loop.deadline": 0.8, "loop.realtime.priority": asked.priority,
        "loop.realtime.cpus": f"[{asked.cpu}]", "loop.realtime.timer_slack": 1,
        "loop.realtime.awake": "true", "loop.realtime.freeze_gc": "true",
    }  # fmt: skip


def second_by_second(outcome: dict[str, Any], truth: Truth) -> Array:
    """Return the error of the model in use over every second of device time, (seconds,).

    NaN before the loop began, which is a while after the device where the clock is the wall's.
    """
    run = Path(outcome["run"])
    used = tomllib.loads((run / "config.toml").read_text())["model"]["path"]
    start, begun = float(truth.time[0]), next(iter(read(run / "recording.mcap"))).t_ns
    taken = [
        (start + (round_["t_ns"] - begun) * 1e-9, run / "models" / f"{round_['model']}.safetensors")
        for round_ in outcome["adaptation"]["rounds"]
        if round_["taken"]
    ]
    model: AbstractDynamics = store.load(used).model
    found = np.full(int(END), np.nan)
    for second in range(int(np.ceil(start)), int(END)):
        while taken and taken[0][0] <= second:
            model = store.load(taken.pop(0)[1]).model
        found[second] = one_step_error(model, truth, second, second + 1)
    return found


def figures(outcome: dict[str, Any], error: Array) -> dict[str, float]:
    """Return the figures of one run."""

    def over(span: tuple[float, float]) -> float:
        return float(np.sqrt(np.nanmean(error[int(span[0]) : int(span[1])] ** 2)))

    spans = {name: over(span) for name, span in SPANS.items()}
    late = np.flatnonzero(error[int(CHANGE) :] > spans["after"] / 10)
    tenfold = float(late[-1] + 1) if len(late) else 0.0
    seen = {
        f"seen_{name}": float(
            np.mean(
                [
                    r["error"]
                    for r in outcome["adaptation"]["rounds"]
                    if r["error"] is not None and begin < r["time"] <= end
                ]
                or [np.nan]
            )
        )
        for name, (begin, end) in (SPANS | {"after": (CHANGE + 1, CHANGE + 4)}).items()
    }
    return {
        **spans,
        "ratio": spans["after"] / spans["end"],
        "tenfold_after_s": tenfold if tenfold < END - CHANGE else np.inf,
        **seen,
        "seen_ratio": seen["seen_after"] / seen["seen_end"],
        "exchanges": outcome["adaptation"]["exchanges"],
        "missed_deadlines": outcome["missed_deadlines"],
        "missed_samples": outcome["missed_samples"],
        "fallbacks": outcome["fallbacks"],
        "round_trip_us_p99": outcome["round_trip_us_p99"],
    }


def draw(errors: dict[str, Array], path: Path) -> None:
    """Draw the error of the model in use over time, with and without exchanges."""
    with style():
        figure = new_figure(7.6, 4.2)
        axes = figure.subplots()
        for (method, error), color in zip(errors.items(), (BLUE, VERMILION), strict=True):
            time = np.arange(len(error)) + 0.5
            axes.plot(time, error, color=color, label=f"{method} adaptation")
        axes.axvline(CHANGE, color="0.6", linestyle=":")
        axes.set_yscale("log")
        axes.set_xlabel("time (s)")
        axes.set_ylabel("one-step error of the model in use, |x|")
        axes.legend(loc="center right")
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="keep the runs there")
    parser.add_argument("--plot", type=Path, help="of the first case and seed")
    parser.add_argument("--wall", action="store_true", help="against the wall clock")
    parser.add_argument("--priority", type=int, default=50, help="of --wall: SCHED_FIFO; 0: not")
    last = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    parser.add_argument("--cpu", type=int, default=last, help=f"of --wall; default {last}")
    asked = parser.parse_args()
    console = Console(stderr=asked.json)
    report: dict[str, Any] = {}
    shown: dict[str, Array] = {}
    with tempfile.TemporaryDirectory() as temporary:
        runs = asked.runs or Path(temporary)
        runs.mkdir(parents=True, exist_ok=True)
        wall = on_time(asked) if asked.wall else {}
        for case in list(CASES)[: 1 if asked.wall else None]:
            for method in METHODS:
                rows = []
                for seed in range(1 if asked.wall else asked.seeds):
                    outcome = control(case, method, seed, runs, wall)
                    truth = truth_of(outcome["record"], None if asked.wall else PERIOD)
                    error = second_by_second(outcome, truth)
                    rows.append(figures(outcome, error))
                    shown.setdefault(method, error)
                    console.print(f"{case}, {method}, seed {seed}: ratio {rows[-1]['ratio']:.1f}")
                # Of all seeds the worst: the largest, but of ratios the smallest.
                worst = {
                    key: (min if "ratio" in key else max)(row[key] for row in rows)
                    for key in rows[0]
                }
                report.setdefault(case, {})[method] = worst
    if asked.plot:
        draw(shown, asked.plot)
    seeds = 1 if asked.wall else asked.seeds
    table = Table(title=f"one-step error, worst of {seeds} seeds")
    names = ("before", "after", "end", "ratio", "tenfold_after_s", "seen_ratio", "exchanges",
             "missed_deadlines", "missed_samples", "fallbacks", "round_trip_us_p99")  # fmt: skip
    for column in ("case", "adaptation", *names):
        table.add_column(column, justify="left" if column in ("case", "adaptation") else "right")
    for case, methods in report.items():
        for method, row in methods.items():
            table.add_row(case, method, *(f"{row[name]:.3g}" for name in names))
    console.print(table)
    if asked.json:
        finite = json.dumps(report).replace("Infinity", "null")
        print(finite)


if __name__ == "__main__":
    main()
