"""The benchmarks run and compare like with like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_methods_of_the_benchmark_agree_and_the_report_is_json() -> None:
    """The script itself compares gradients; a method that differs ends it with exit 1."""
    command = [sys.executable, "benchmarks/bench_insitu.py"]
    done = subprocess.run(
        [*command, "--sizes", "4,5", "--repeats", "2", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report) == ["n=4", "n=5", "stack n=4"]
    assert report.pop("stack n=4")["through the stack"]["over_in_process"] > 1
    for case in report.values():
        assert {"in process", "published procedure", "per sample, lean"} <= case.keys()
        for figures in case.values():
            assert figures["cpu_s"] > 0
            assert figures["blocks"] == 2


def test_ours_equals_clarabel_on_every_sequence_and_the_report_is_json() -> None:
    """The script itself ends with exit 1 where ours differs from Clarabel."""
    done = subprocess.run(
        [sys.executable, "benchmarks/bench_mpc.py", "--steps", "12", "--passes", "1", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report) == ["paper", "re-linearised", "bounded", "learned"]
    assert report["paper"]["ours"]["bounded_share"] == 0
    assert report["bounded"]["ours"]["bounded_share"] >= 0.25
    assert "published, torch" not in report["paper"]
    for methods in report.values():
        assert {"published", "CVXPY Clarabel", "ours"} <= methods.keys()
        assert methods["ours"]["u0_error_max"] <= 1e-6
        assert methods["published"]["u0_error_max"] > methods["ours"]["u0_error_max"]
        for figures in methods.values():
            assert 0 < figures["us_p50"] <= figures["us_p99"]
