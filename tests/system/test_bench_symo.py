"""`hil bench symo` at a reduced size: the table, resumed after a cut, and one-line refusals."""

from __future__ import annotations

import json
from pathlib import Path

from tests.system.rigs import hil

SMALL = [
    *("--set", "bench.seeds=1", "--set", "bench.sizes=[6]"),
    *("--set", "bench.test=10", "--set", "bench.rollouts=3"),
]


def protocol(folder: Path) -> Path:
    """Write a protocol of pendulums, with and without friction."""
    path = folder / "small.toml"
    path.write_text("""
name = "small"
[bench]
[[bench.model]]
name = "SyMo"
[[bench.model]]
name = "E2E-SyMo"
loss = "prediction"
[[bench.case]]
name = "pendulum"
system = { kind = "hil.mechanics.multibody.pendulum:Pendulum", viscous = 0.1 }
network = { nq = 1, driven = [0], angles = [0], hidden = [10, 10], damping = "constant" }
period = 0.1
positions = [3.1]
speeds = [6.3]
rollout_steps = 40
damping = [0.1]
[[bench.published]]
case = "pendulum"
model = "somebody's"
sizes = [4, 8]
test = [1e-5, 1e-6]
""")
    return path


def test_table_picture_and_going_on(tmp_path: Path) -> None:
    words = ["bench", "symo", "--config", str(protocol(tmp_path)), "--runs", str(tmp_path), *SMALL]
    ended = hil(*words, "--json")
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    for model in ("SyMo", "E2E-SyMo"):
        (row,) = outcome["table"]["pendulum"][model]
        assert row["figures"]["test"][0] < 1e-5
        assert row["unsolved"] == 0
        assert row["damping_error"] < 0.05
    assert Path(outcome["plots"][0]).stat().st_size > 10_000
    figures = Path(outcome["run"]) / "figures.jsonl"
    lines = figures.read_bytes().splitlines(keepends=True)
    figures.write_bytes(lines[0] + lines[1][:40])  # as a kill would leave it
    again = hil("bench", "symo", "--json", "--resume", outcome["run"])
    assert again.returncode == 0, again.stderr
    assert "1 of them done" in again.stderr
    repeated = json.loads(again.stdout.splitlines()[-1])
    for model in ("SyMo", "E2E-SyMo"):
        first, second = (o["table"]["pendulum"][model][0] for o in (outcome, repeated))
        assert first["figures"] == second["figures"]
    other = hil(*words, "--resume", outcome["run"])
    assert other.returncode == 2
    assert "takes its protocol from the run" in other.stderr


def test_refusals_are_one_line() -> None:
    unknown = hil("bench", "nothing")
    assert unknown.returncode == 2
    assert "symo" in unknown.stderr.splitlines()[-1]
    wrong = hil("bench", "symo", "--set", "bench.test=0")
    assert wrong.returncode == 2
    assert "bench.test" in wrong.stderr
    assert "Traceback" not in wrong.stderr
