"""The benchmarks of gyroscopes run, and compare only what agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def report(script: str, *words: str) -> dict[str, Any]:
    """Return what a script of `benchmarks/` ends with."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *words, "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_gradients_of_the_timed_methods_agree() -> None:
    """The script itself ends with exit 1 where they differ by more than 1e-5."""
    found = report("bench_gyro.py", "--repeats", "1")
    assert max(found["gradient"].values()) < 1e-5
    assert {"ours, float32", "ours, float64"} <= found["cpu_s_p50"].keys()
    assert found["epoch_s"]["ours, float32"] > 0


def test_every_method_learns_something_from_synthetic_strokes() -> None:
    found = report(
        "bench_pendigits.py", "--synthetic", "--seeds", "1", "--epochs", "4",
        "--only", "gyro;linear, 8 points;linear, 20 statistics;LSTM, 8 points;nearest neighbour",
    )  # fmt: skip
    assert len(found) == 5
    for name, figures in found.items():
        assert figures["test_accuracy_mean"] > 0.3, name
