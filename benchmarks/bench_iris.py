"""Iris in place, many seeds: accuracy by preset and by rig.

    python benchmarks/bench_iris.py [--json] [--seeds 0-9] [--cases wide/ideal,published/ideal]
                                    [--through stack|double]

A case is a preset and a rig: `ideal`, or `imperfect` with the shipped imperfections (12 bit,
0.5 % stiffness mismatch, additive noise of 1 % of full scale on every sample). The seed
decides split, order, mismatch and noise. `stack` runs `hil train --sim` for every seed: the
firmware in C, the mirror, ZeroMQ. `double` trains the in-process double of the rig, which
takes the same steps without a link; beside the paper's other tasks, in fewer words:
`hil bench spring`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hil.config import load
from hil.services.rehearsal import Rehearsal

IRIS = Path(__file__).parents[1] / "configs" / "iris.toml"
CASES = ("wide/ideal", "wide/imperfect", "published/ideal", "published/imperfect")
COLLAPSED = 0.75  # test accuracy below which a run counts as collapsed
Figures = dict[str, float | None]


def through_stack(preset: str, ideal: bool, seed: int) -> Figures:
    """Return the JSON line of one `hil train`."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "hil", "train", str(IRIS), "--sim", "--json"]
        command += ["--seed", str(seed), "--set", f"preset={preset}", "--runs", runs]
        command += ["--ideal"] if ideal else []
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"bench_iris: {' '.join(command)}: {ended.stderr.splitlines()[-1]}")
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def in_double(preset: str, ideal: bool, seed: int) -> Figures:
    """Return the same figures from the double in this process."""
    config = load(IRIS, sim=True, overrides={"preset": preset, "seed": seed, "ideal": ideal})
    last = Rehearsal(config, "sim.rigs.spring_network:SimSpringNetwork").train()
    assert last.train is not None
    assert last.test is not None
    return {
        "train_accuracy": last.train.accuracy,
        "test_accuracy": last.test.accuracy,
        "loss": last.train.loss,
        "gradient_cosine": last.state.model.cosine,
    }


def summary(runs: list[Figures]) -> dict[str, float | list[float]]:
    """Return what is reported of the runs of one case."""
    report: dict[str, float | list[float]] = {}
    for name in ("train_accuracy", "test_accuracy", "loss", "gradient_cosine", "seconds"):
        values = [float(v) for run in runs if (v := run.get(name)) is not None]
        if values:
            report[name] = statistics.mean(values)
            report[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
            report[f"{name}_min"], report[f"{name}_max"] = min(values), max(values)
    tests = [float(v) for run in runs if (v := run["test_accuracy"]) is not None]
    report["tests"] = tests
    report["collapsed"] = sum(value < COLLAPSED for value in tests)
    return report


def seeds_of(text: str) -> list[int]:
    """Return the seeds that `0-9` or `1,5,7` names."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(s) for s in text.split(",")]


def main() -> None:
    """Run, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("0-9"), help="0-9 or 1,5,7")
    parser.add_argument("--cases", default=",".join(CASES[:3]), help=f"of {', '.join(CASES)}")
    parser.add_argument("--through", choices=("stack", "double"), default="stack")
    arguments = parser.parse_args()
    run = through_stack if arguments.through == "stack" else in_double
    console = Console(stderr=arguments.json)
    table = Table(title=f"Iris in place, {len(arguments.seeds)} seeds, {arguments.through}")
    for heading in ("case", "train", "test", "smallest", "collapsed", "loss", "cosine"):
        table.add_column(heading, justify="right")
    report = {}
    with console.status("training") as status:
        for case in arguments.cases.split(","):
            if case not in CASES:
                parser.error(f"no case {case!r}; there are {', '.join(CASES)}")
            preset, rig = case.split("/")
            runs = []
            for seed in arguments.seeds:
                status.update(f"training {case}, seed {seed}")
                runs.append(run(preset, rig == "ideal", seed))
            found = report[case] = summary(runs)
            table.add_row(
                case,
                f"{found['train_accuracy']:.3f} ± {found['train_accuracy_std']:.3f}",
                f"{found['test_accuracy']:.3f} ± {found['test_accuracy_std']:.3f}",
                f"{found['test_accuracy_min']:.3f}",
                f"{found['collapsed']} of {len(runs)}",
                f"{found['loss']:.3f}",
                f"{found.get('gradient_cosine', float('nan')):.4f}",
            )
    console.print(table)
    if arguments.json:
        print(json.dumps({"through": arguments.through, **report}))


if __name__ == "__main__":
    main()
