"""The benchmark of the loop closes it: the pole stays up over ipc, at every rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hil.config import check
from hil.models import store
from hil.training.fit import Fit, FitSettings
from tests.unit.training.cart_pole_runs import balanced_runs

ROOT = Path(__file__).parents[2]


def test_the_loop_is_closed_and_the_report_is_json(tmp_path: Path) -> None:
    picture = tmp_path / "latency.png"
    network = {"nq": 2, "nu": 1, "angles": [0], "left_out": [1], "hidden": [64, 64]}
    small = check({"network": network, "epochs": 5}, FitSettings, "fit")
    model = store.save(Fit(small, seed=0).run(balanced_runs(0, seconds=10.0)).model, tmp_path, {})
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/bench_loop.py"),
            *("--methods", "ours", "--seconds", "0.5", "--json"),
            *("--plot", str(picture), "--model", str(model)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report) == ["free", "500 Hz", "1000 Hz"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    for methods in report.values():
        figures = methods["ours"]
        assert 0 < figures["latency_us_p50"] <= figures["latency_us_p99"]
        assert 0 <= figures["missed_share"] < 1
    # Free, nothing is missed whatever else this machine does: every period has its plan.
    assert report["free"]["ours"]["without_plan"] == 0
    assert report["free"]["ours"]["largest_angle_rad"] < 0.1
