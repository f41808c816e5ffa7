"""How well a trained network of gyroscopes reads digits on an imperfect instrument.

    HIL_DATA=DIR python benchmarks/bench_emulator.py MODEL... [--json] [--seeds N] [--part test]

MODEL: files that `hil train configs/pendigits.toml` stored. Every figure but the first goes
trainer → ZeroMQ → mirror → PyVISA → SCPI on TCP → simulated instrument: 8-bit coefficients,
noise 1e-3 per 0.05 s of a machine unit. A device seed is another machine: another mismatch
of every coefficient (log-normal, relative), another noise.

Loss: accuracy of the same instrument without mismatch (same bits, same noise) less the
accuracy with it. Won back: the share of that loss a treatment makes up for, from the means
over machines and models. Training in the loop also learns to live with noise and bits, so it
is done on the machine without mismatch as well: "won back, own" compares with that one.
The run time is that of the machine, said before and read off its clock afterwards; --wall
adds one evaluation in real time. One thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, build, load
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.services.mirror import bus_address
from hil.services.owner import ChildMirror, MirrorJob
from hil.services.train import shipped
from hil.tasks.strokes import AbstractStrokes
from hil.training.emulated import EmulatedClassifier
from hil.training.gyro_insitu import Evaluation, GyroInSituTraining, summed

THREADS = "OMP_NUM_THREADS"
Figures = dict[str, Any]


@contextlib.contextmanager
def machine(config: Config, training: GyroInSituTraining) -> Iterator[EmulatedClassifier]:
    """Start an instrument and its mirror; yields the classifier's way to it."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(ChildMirror(MirrorJob(config), Path(place) / "mirror.log"))
        rig = stack.enter_context(RemoteEmulatorRig(bus_address(config)[0], client="bench"))
        info = rig.configure()
        rig.activate()
        yield EmulatedClassifier(rig, info, training.stored)


def evaluated(
    made: EmulatedClassifier, training: GyroInSituTraining, task: AbstractStrokes, part: str,
    state: Any = None,
) -> Evaluation:  # fmt: skip
    """Return what a part of the data gave."""
    model = training.model(state)
    return summed(list(training.evaluate(made, model, task, getattr(task, part))), task)


def trained(
    made: EmulatedClassifier, training: GyroInSituTraining, task: AbstractStrokes
) -> tuple[Any, float]:
    """Train in the loop; return the last state and the time on the machine, s."""
    state, seconds = training.start(), 0.0
    while state.epoch < training.settings.epochs:
        for done in training.epoch(made, task, state):
            assert done.state is not None
            state, seconds = done.state, seconds + done.measured.took
    return state, seconds


def on_one(
    config: Config, training: GyroInSituTraining, task: AbstractStrokes, part: str, loop: bool,
    calibrate: bool,
) -> Iterator[tuple[str, Evaluation, Figures]]:  # fmt: skip
    """Yield what each treatment gave on one machine."""
    with machine(config, training) as made:
        yield "as it is", evaluated(made, training, task, part), {}
        if loop:
            begin = time.monotonic()
            state, seconds = trained(made, training, task)
            took = {"machine_s": seconds, "host_s": time.monotonic() - begin}
            yield "in the loop", evaluated(made, training, task, part, state), took
        if calibrate:
            begin = time.monotonic()
            found = made.calibrate(training.stored)
            true = np.log(made.factors)
            about = {
                "residual": found.residual, "found": float(np.sqrt((true**2).mean())),
                "host_s": time.monotonic() - begin,
            }  # fmt: skip
            yield "calibrated", evaluated(made, training, task, part), about


def configuration(arguments: argparse.Namespace, model: str, seed: int, **more: Any) -> Config:
    """Return the resolved configuration of one machine."""
    overrides: dict[str, Any] = {
        "seed": seed, "training.model": model, "rig.name": f"bench-{os.getpid()}",
        "mirror.lease": 600.0, "training.epochs": arguments.epochs,
    } | dict(arguments.set)  # fmt: skip
    if arguments.synthetic:
        overrides["preset"] = "quick"
    overrides |= {key.replace("__", "."): value for key, value in more.items()}
    return load(shipped("emulator_pendigits.toml"), sim=True, overrides=overrides)


def measure(arguments: argparse.Namespace, say: Any) -> list[Figures]:
    """Return one row per model, machine, mismatch and treatment."""
    rows: list[Figures] = []

    def note(name: str, seed: int, kind: str, how: str, found: Evaluation, more: Figures) -> None:
        rows.append({
            "model": name, "seed": seed, "machine": kind, "treatment": how,
            "accuracy": found.accuracy, "cross_entropy": found.loss, "overloaded": found.overloaded,
            "predicted_s": found.predicted_s, "took_s": found.took_s, **more,
        })  # fmt: skip
        say(f"{name[:8]} machine {seed}, {kind}, {how}: {found.accuracy:.4f}")

    for path in arguments.models:
        name = Path(path).stem
        first = configuration(arguments, path, 0)
        assert first.task is not None
        assert first.training is not None
        task = build(first.task, "task", seed=0)
        training: GyroInSituTraining = build(first.training, "training", seed=0)
        samples = getattr(task, arguments.part)
        alone = training.training.evaluate(training.stored, task, samples).accuracy
        nothing = Evaluation(alone, 0.0, {}, len(samples), 0, 0.0, 0.0)
        note(name, 0, "no machine, float32", "as it is", nothing, {})
        quiet = configuration(arguments, path, 0, board__errors={"saturation": 1.2})
        for how, found, more in on_one(quiet, training, task, arguments.part, False, False):
            note(name, 0, "8 bit, no noise", how, found, more)
        for seed in range(1, arguments.seeds + 1):
            for percent in (0, *arguments.mismatch):
                config = configuration(arguments, path, seed, board__errors__mismatch=percent / 100)
                kind = f"{percent:g} % mismatch"
                treated = percent >= 2 or (percent == 0 and arguments.epochs > 0)
                ways = on_one(
                    config, training, task, arguments.part, treated and arguments.epochs > 0,
                    treated and percent > 0,
                )  # fmt: skip
                for how, found, more in ways:
                    note(name, seed, kind, how, found, more)
    if arguments.wall:
        config = configuration(arguments, path, 1, clock="wall")
        begin = time.monotonic()
        with machine(config, training) as made:
            begin = time.monotonic()
            found = evaluated(made, training, task, arguments.part)
        more = {"host_s": time.monotonic() - begin}
        note(name, 1, "1 % mismatch, real time", "as it is", found, more)
    return rows


def summary(rows: list[Figures]) -> dict[str, Figures]:
    """Return mean, spread over machines and models, and what was won back, per kind."""
    groups: dict[tuple[str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    for row in rows:
        at = (row["model"], row["seed"])
        groups[row["machine"], row["treatment"]][at] = row["accuracy"]
    clean = groups.get(("0 % mismatch", "as it is"), {})
    own = groups.get(("0 % mismatch", "in the loop"), {})
    found: dict[str, Figures] = {}
    for (kind, how), values in groups.items():
        numbers = np.array(list(values.values()))
        figures: Figures = {
            "mean": float(numbers.mean()), "spread": float(numbers.std()), "runs": len(numbers),
        }  # fmt: skip
        if "mismatch" in kind and values.keys() <= clean.keys() and "real" not in kind:
            raw = groups[kind, "as it is"]
            lost = np.array([clean[at] - values[at] for at in values])
            figures["loss"] = float(lost.mean())
            figures["loss_error"] = (
                float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else float("nan")
            )
            if how != "as it is" and not kind.startswith("0 "):
                total = float(np.mean([clean[at] - raw[at] for at in values]))
                figures["won_back"] = 1.0 - figures["loss"] / total if total > 0 else float("nan")
                if how == "in the loop":
                    rest = float(np.mean([own[at] - values[at] for at in values]))
                    figures["won_back_own"] = 1.0 - rest / total if total > 0 else float("nan")
        found[f"{kind}, {how}"] = figures
    return found


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=3, help="machines")
    parser.add_argument("--epochs", type=int, default=1, help="in the loop; 0: none")
    parser.add_argument("--mismatch", type=float, nargs="*", default=[1, 2, 5], help="%%")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "JSON"),
                        help="of the configuration")  # fmt: skip
    parser.add_argument("--wall", action="store_true", help="and one evaluation in real time")
    parser.add_argument("--synthetic", action="store_true", help="digits nobody wrote: no data")
    arguments = parser.parse_args()
    arguments.set = [(key, json.loads(value)) for key, value in arguments.set]
    if arguments.seeds < 1:
        parser.error("at least one machine")
    if os.environ.get(THREADS) != "1":  # read when libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console = Console(stderr=True)
    rows = measure(arguments, console.print)
    figures = summary(rows)
    table = Table(title=f"PenDigits, {arguments.part} part, {arguments.seeds} machines")
    for heading in ("machine", "accuracy", "loss", "won back", "own", "runs"):
        table.add_column(heading, justify="left" if heading == "machine" else "right")
    for name, f in figures.items():
        loss = f"{f['loss']:.4f} ± {f['loss_error']:.4f}" if "loss" in f else ""
        back = [f"{f[key]:.0%}" if key in f else "" for key in ("won_back", "won_back_own")]
        table.add_row(name, f"{f['mean']:.4f} ± {f['spread']:.4f}", loss, *back, str(f["runs"]))
    (console if arguments.json else Console()).print(table)
    off = max(abs(r["took_s"] / r["predicted_s"] - 1) for r in rows if r["predicted_s"])
    console.print(f"run time, measured against predicted: at most {off:.1e} off")
    if arguments.json:
        print(json.dumps({"part": arguments.part, "time_off": off, "means": figures, "rows": rows}))


if __name__ == "__main__":
    main()
