"""The benchmark of the emulator, on a small network and digits nobody wrote."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.rigs import ROOT
from tests.system.test_train_emulator import RANGES
from tests.unit.instruments.emulators import SMALL
from tests.unit.training.emulated_digits import STROKES, stored


def test_it_measures_losses_and_what_was_won_back(tmp_path: Path) -> None:
    table = SMALL | RANGES | {f"task.{key}": value for key, value in STROKES.items()}
    sets = [w for key, value in table.items() for w in ("--set", key, json.dumps(value))]
    ended = subprocess.run(
        [
            *(sys.executable, "benchmarks/bench_emulator.py", str(stored(tmp_path)), "--synthetic"),
            *("--seeds", "1", "--mismatch", "15", "--json", *sets),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    means = report["means"]
    assert means["15 % mismatch, as it is"]["mean"] < means["0 % mismatch, as it is"]["mean"]
    assert means["15 % mismatch, calibrated"]["won_back"] > 0.5
    assert "15 % mismatch, in the loop" in means
    assert report["time_off"] < 1e-3


def test_losses_are_paired_by_machine() -> None:
    def row(machine: str, treatment: str, seed: int, accuracy: float) -> dict[str, object]:
        return {"model": "m", "seed": seed, "machine": machine, "treatment": treatment,
                "accuracy": accuracy}  # fmt: skip

    rows = []
    for seed, lost in ((1, 0.02), (2, 0.04)):
        clean = 0.9 + 0.01 * seed
        rows += [
            row("0 % mismatch", "as it is", seed, clean),
            row("0 % mismatch", "in the loop", seed, clean + 0.01),
            row("2 % mismatch", "as it is", seed, clean - lost),
            row("2 % mismatch", "in the loop", seed, clean - lost / 4),
            row("2 % mismatch", "calibrated", seed, clean - lost / 2),
        ]
    found = runpy.run_path(str(ROOT / "benchmarks/bench_emulator.py"))["summary"](rows)
    assert found["2 % mismatch, as it is"]["loss"] == pytest.approx(0.03)
    assert found["2 % mismatch, as it is"]["loss_error"] == pytest.approx(0.01)
    assert found["2 % mismatch, calibrated"]["won_back"] == pytest.approx(0.5)
    assert found["2 % mismatch, in the loop"]["won_back"] == pytest.approx(0.75)
    rest = 0.0075 + 0.01  # behind the machine without mismatch that was trained as well
    assert found["2 % mismatch, in the loop"]["won_back_own"] == pytest.approx(1 - rest / 0.03)
