"""How well a network of gyroscopes reads PenDigits, and what stands beside it.

    HIL_DATA=DIR python benchmarks/bench_pendigits.py [--json] [--seeds N] [--epochs N] [--only A;B]

The official split; every method gets the same training part (configs/pendigits.toml keeps a
tenth back for validation, another one per seed), the same variation of strokes and the same
optimiser. Test accuracy after the last epoch, mean and spread over seeds. One thread.

gyro: `hil train configs/pendigits.toml`. zero coupling: the same with springs that stay 0,
a tenth of the epochs. linear: on the 16 coordinates, on mean and deviation (4 numbers), on 20
statistics of the signal. LSTM: 12 units, on the 8 points and on the 100 steps. nearest: 1-NN.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, build, load
from hil.services.train import shipped
from hil.tasks.strokes import AbstractStrokes
from hil.training.baselines import Linear, Lstm, fit, raw, spread, twenty
from hil.training.gyro import GyroTraining

THREADS = "OMP_NUM_THREADS"
UNITS = 12


def gyro(config: Config, task: AbstractStrokes, seed: int, coupled: bool) -> dict[str, float]:
    """Return what the network gave after the last epoch."""
    assert config.training is not None
    table: dict[str, Any] = {**config.training, "coupled": coupled}
    if not coupled:
        table["epochs"] = max(1, table["epochs"] // 10)
    training = GyroTraining(training_settings(table), seed=seed)
    begin = time.process_time()
    for done in training.run(task):
        state, validation = done.state, done.validation
    model = training.model(state)
    score = training.evaluate(model, task, task.test)
    return {
        "test_accuracy": score.accuracy, "test_loss": score.loss,
        "validation_accuracy": validation.accuracy if validation else float("nan"),
        "parameters": len(state.variable), "cpu_seconds": time.process_time() - begin,
    }  # fmt: skip


def training_settings(table: dict[str, Any]) -> Any:
    """Return checked settings of a [training] table."""
    made: GyroTraining = build(table, "training")
    return made.settings


def nearest(task: AbstractStrokes) -> dict[str, float]:
    """Return the accuracy of the nearest training stroke."""
    x, known = raw(task.points(task.test)), raw(task.points(np.r_[task.train, task.validation]))
    far = (known**2).sum(1) - 2.0 * x @ known.T
    labels = task.labels(np.r_[task.train, task.validation])[far.argmin(1)]
    return {"test_accuracy": float((labels == task.labels(task.test)).mean()), "parameters": 0}


def methods(config: Config) -> dict[str, Callable[[AbstractStrokes, int], dict[str, float]]]:
    """Return every method: task and seed in, figures out."""
    assert config.training is not None
    epochs = int(config.training["epochs"])

    def linear(look: Any) -> Callable[[AbstractStrokes, int], dict[str, float]]:
        return lambda task, seed: fit(
            task, lambda some, random: look(task, some, random),
            lambda width, random: Linear(width, 10, random), epochs=epochs, seed=seed,
        )._asdict()  # fmt: skip

    def lstm(look: Any) -> Callable[[AbstractStrokes, int], dict[str, float]]:
        return lambda task, seed: fit(
            task, lambda some, random: look(task, some, random),
            lambda width, random: Lstm(width, UNITS, 10, random), epochs=epochs, seed=seed,
        )._asdict()  # fmt: skip

    return {
        "gyro": lambda task, seed: gyro(config, task, seed, coupled=True),
        "zero coupling": lambda task, seed: gyro(config, task, seed, coupled=False),
        "linear, 8 points": linear(lambda t, s, r: raw(t.points(s, r))),
        "linear, mean + deviation": linear(lambda t, s, r: spread(t.signals(s, r))),
        "linear, 20 statistics": linear(lambda t, s, r: twenty(t.signals(s, r))),
        "LSTM, 8 points": lstm(lambda t, s, r: t.points(s, r)),
        "LSTM, 100 steps": lstm(lambda t, s, r: t.signals(s, r)),
        "nearest neighbour": lambda task, _: nearest(task),
    }


def main() -> None:
    """Train everything, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--only", default="", help="names of methods, with semicolons")
    parser.add_argument("--synthetic", action="store_true", help="digits nobody wrote: no data")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or (arguments.epochs or 1) < 1:
        parser.error("at least one seed and one epoch")
    if os.environ.get(THREADS) != "1":  # read when libraries load
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    console = Console(stderr=True)
    overrides: dict[str, Any] = {"preset": "quick"} if arguments.synthetic else {}
    if arguments.epochs:
        overrides["training.epochs"] = arguments.epochs
    config = load(shipped("pendigits.toml"), overrides=overrides)
    assert config.task is not None
    chosen = methods(config)
    only = [name for name in arguments.only.split(";") if name]
    report: dict[str, Any] = {}
    with console.status("") as status:
        for name, method in chosen.items():
            if only and name not in only:
                continue
            found = []
            for seed in range(arguments.seeds):
                status.update(f"{name}, seed {seed}")
                found.append(method(build(config.task, "task", seed=seed), seed))
            accuracies = [each["test_accuracy"] for each in found]
            report[name] = {
                "test_accuracy_mean": statistics.mean(accuracies),
                "test_accuracy_spread": statistics.pstdev(accuracies),
                "seeds": found,
            }
            console.print(f"{name}: {', '.join(f'{a:.4f}' for a in accuracies)}")
    table = Table(title=f"PenDigits, {arguments.seeds} seeds")
    for heading in ("method", "test accuracy", "validation", "parameters", "CPU s"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, figures in report.items():
        seeds = figures["seeds"]

        def mean(key: str, seeds: Any = seeds) -> float:
            return float(np.mean([each.get(key, np.nan) for each in seeds]))

        table.add_row(
            name,
            f"{figures['test_accuracy_mean']:.4f} ± {figures['test_accuracy_spread']:.4f}",
            f"{mean('validation_accuracy'):.4f}", f"{mean('parameters'):.0f}",
            f"{mean('cpu_seconds'):.0f}",
        )  # fmt: skip
    (console if arguments.json else Console()).print(table)
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
