"""Swing-up as shipped: in process by the benchmark, and through the whole stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.rigs import ROOT, hil

CONFIG = ROOT / "configs/swing_up.toml"
SETTLED_S = {"wide": 1.35, "narrow": 2.2}  # device time: the clock is the plant's
POSITION_STEP = 5e-5  # m


def test_both_rails_settle_in_time_and_limits_are_kept() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/bench_swing_up.py", "--json"),
            *("--seeds", "1", "--seconds", "3", "--resolution", "0"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report.keys() == SETTLED_S.keys()
    for rail, limit in SETTLED_S.items():
        figures = report[rail]
        assert max(figures["settled_s"]) <= limit
        assert figures["excess_m"] <= POSITION_STEP
        assert figures["excess_n"] <= 0


@pytest.mark.parametrize("rail", SETTLED_S)
def test_it_swings_up_over_bus_and_wire(tmp_path: Path, rail: str) -> None:
    words = [] if rail == "wide" else ["--set", f"preset={rail}"]
    words += ["--sim", "--json", "--runs", str(tmp_path), "--set", "loop.duration=3"]
    ended = hil("control", str(CONFIG), *words)
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["fallbacks"] == 0
    assert outcome["figures"]["settled_s"] <= SETTLED_S[rail]
    assert outcome["figures"]["max_distance_m"] < {"wide": 1.0, "narrow": 0.5}[rail]
    assert outcome["max_abs_input"] <= {"wide": 20.0, "narrow": 10.0}[rail]
