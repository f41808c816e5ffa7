"""`hil bench spring` and `hil bench damage` at a reduced size, and cut bonds through the stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hil.recording.run import Run
from tests.system.rigs import IRIS, hil

SMALL = [
    *("--set", 'bench.only=["Iris", "Iris, retrained after damage", "regression, noisy"]'),
    *("--set", "bench.seeds=2", "--set", 'bench.presets=["wide"]'),
    *("--set", "bench.epochs_imperfect=2", "--set", "bench.training.epochs=15"),
    *("--set", "bench.training.check.every=0"),
]


def last(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


def test_the_table_the_picture_and_going_on(tmp_path: Path) -> None:
    ended = hil("bench", "spring", "--json", "--runs", str(tmp_path), *SMALL)
    assert ended.returncode == 0, ended.stderr
    outcome = last(ended.stdout)
    iris = outcome["cases"]["Iris"]["wide"]
    assert iris["ideal"]["test_accuracy"]["mean"] > 0.8
    assert iris["imperfect"]["loss"]["mean"] > iris["ideal"]["loss"]["mean"]  # two epochs
    damaged = outcome["cases"]["Iris, retrained after damage"]["wide"]["ideal"]
    assert 0.35 < damaged["damaged_accuracy"]["mean"] < 0.65 < damaged["test_accuracy"]["mean"]
    noisy = outcome["cases"]["regression, noisy"]["wide"]["ideal"]
    # ½ σ² of four read-outs is a floor; the paper divides a short batch of 6 by 16.
    assert 1.5e-8 < noisy["loss"]["mean"] < 3.5e-8
    assert abs(noisy["counted_loss"]["mean"] / noisy["loss"]["mean"] - 70 / 80) < 1e-12
    assert outcome["paper"]["Iris"] == 0.964
    assert outcome["goals"].keys() == set(outcome["cases"])
    assert Path(outcome["plots"][0]).stat().st_size > 10_000
    cells = Path(outcome["run"]) / "cells.json"
    kept = json.loads(cells.read_text())
    first = next(iter(kept))
    cells.write_text(json.dumps({name: kept[name] for name in kept if name != first}))
    again = hil("bench", "spring", "--json", "--resume", outcome["run"])
    assert again.returncode == 0, again.stderr
    assert f"{len(kept) - 1} of {len(kept)} cells are done" in again.stderr
    repeated = last(again.stdout)["cases"]
    for case, presets in outcome["cases"].items():
        for figure, spread in presets["wide"]["ideal"].items():
            if figure != "cpu_seconds":
                assert repeated[case]["wide"]["ideal"][figure] == spread


def test_every_bond_is_named(tmp_path: Path) -> None:
    words = ("--set", "preset=quick", "--set", "bench.bonds=[6, 15, 16]")
    ended = hil("bench", "damage", "--json", "--runs", str(tmp_path), *words)
    assert ended.returncode == 0, ended.stderr
    outcome = last(ended.stdout)
    assert outcome["kinds"]["zero mode"] == ["(5,9)"]
    assert outcome["alike"] == [["(3,8)", "(3,7)"]]
    for bond in outcome["bonds"][1:]:
        assert bond["cut"] < outcome["whole"]
        assert bond["cut"] < bond["retrained"]
    assert Path(outcome["plots"][0]).stat().st_size > 10_000


def test_cut_bonds_and_another_task_through_the_stack(tmp_path: Path) -> None:
    """Iris, then, with a bond cut, again from where it stood: firmware, mirror, bus."""
    short = ("--set", "training.epochs=1", "--ideal", "--runs", str(tmp_path), "--json")
    first = hil("train", str(IRIS), "--sim", *short)
    assert first.returncode == 0, first.stderr
    words = ("--set", "rig.pruned=[13]", "--start", last(first.stdout)["run"])
    second = hil("train", str(IRIS), "--sim", *short, *words)
    assert second.returncode == 0, second.stderr
    outcome = last(second.stdout)
    assert 1.0 - outcome["gradient_cosine"] < 1e-6  # the model knows of the cut
    assert outcome["twin_residual"] < 1e-4
    checkpoint = json.loads((Path(outcome["run"]) / "checkpoint.json").read_text())
    assert checkpoint["state"]["applied"][12] == 0.0
    before = json.loads((Path(last(first.stdout)["run"]) / "checkpoint.json").read_text())
    config = Run.open(Path(outcome["run"])).read_config()
    assert config.training is not None
    assert config.training["start"] == before["state"]["applied"]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    train = hil("train", str(IRIS), "--sim", "--set", "rig.pruned=[6]", "--runs", str(tmp_path))
    unknown = hil("bench", "spring", "--set", 'bench.only=["Lilies"]', "--runs", str(tmp_path))
    for ended, said in ((train, "zero mode"), (unknown, "Lilies")):
        assert ended.returncode == 2
        assert said in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
