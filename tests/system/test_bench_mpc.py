"""The benchmark of predictive control runs and compares like with like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_ours_equals_clarabel_on_every_sequence_and_the_report_is_json() -> None:
    """The script itself ends with exit 1 where ours differs from Clarabel."""
    done = subprocess.run(
        [sys.executable, "benchmarks/bench_mpc.py", "--steps", "12", "--passes", "1", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report) == ["paper", "re-linearised", "bounded"]
    assert report["paper"]["ours"]["bounded_share"] == 0
    assert report["bounded"]["ours"]["bounded_share"] >= 0.25
    for methods in report.values():
        assert {"published", "CVXPY Clarabel", "ours"} <= methods.keys()
        assert methods["ours"]["u0_error_max"] <= 1e-6
        assert methods["published"]["u0_error_max"] > methods["ours"]["u0_error_max"]
        for figures in methods.values():
            assert 0 < figures["us_p50"] <= figures["us_p99"]
