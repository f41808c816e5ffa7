"""The cart gets 50 % heavier while it is balanced; the model follows, or does not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hil.config import load
from hil.errors import ConfigError
from hil.models import store
from hil.recording.reader import read
from hil.services.parts import Parts
from tests.system.plant_record import Truth, one_step_error, truth_of
from tests.system.rigs import ROOT, hil, kill, until

ADAPT = ROOT / "configs/adapt.toml"
CHANGE, END = 8.0, 28.0  # s


def run(factory: pytest.TempPathFactory, *words: str) -> tuple[dict[str, Any], Truth]:
    """Return the outcome of a run and its plant's own record, which the next one writes over."""
    directory = factory.getbasetemp()
    record = directory / "adapted-plant.jsonl"
    # Of a fixture of the module, which comes before the one that gives each test its own.
    environ = {**os.environ, "HIL_RUNTIME": str(factory.mktemp("run"))}
    ended = hil(
        "control", str(ADAPT), "--sim", "--json", "--runs", str(directory),
        "--set", f"board.record={record}", "--set", f"loop.duration={END}",
        "--set", f"board.plant.changes=[{{time={CHANGE}, cart_mass=1.5}}]", *words, env=environ,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return outcome, truth_of(record, 0.01)


def errors(outcome: dict[str, Any], truth: Truth) -> tuple[float, float]:
    """Return the one-step error right after the change and in the last five seconds.

    Each of the model in use then: the first one has not been exchanged by 2 s after the change.
    """
    rounds = outcome["adaptation"]["rounds"]
    before = [r["model"] for r in rounds if r["taken"] and r["time"] < CHANGE + 1]
    models = Path(outcome["run"]) / "models"
    shipped = tomllib.loads((Path(outcome["run"]) / "config.toml").read_text())["model"]["path"]
    first = models / f"{before[-1]}.safetensors" if before else Path(shipped)
    last = outcome["adaptation"]["model"]
    return (
        one_step_error(store.load(first).model, truth, CHANGE, CHANGE + 2),
        one_step_error(store.load(last).model, truth, END - 5, END),
    )


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Truth]:
    return run(tmp_path_factory)


def test_the_error_falls_tenfold_without_a_dropped_deadline(
    adapted: tuple[dict[str, Any], Truth],
) -> None:
    outcome, truth = adapted
    after, last = errors(outcome, truth)
    assert last < after / 10
    assert (outcome["missed_deadlines"], outcome["missed_samples"]) == (0, 0)
    assert (outcome["fallbacks"], outcome["ended"]) == (0, "done")
    found = outcome["adaptation"]
    assert found["exchanges"] >= 2
    assert found["exchanges"] + found["rejected"] == found["proposals"]
    assert found["skipped"] == 0
    assert found["error_last"] < found["error_worst"] / 4  # what the loop sees of it, with noise
    gain = store.load(found["model"]).model.linearise(truth.states[0] * 0, truth.inputs[0] * 0)
    assert gain.by_input[1, 0] == pytest.approx(1 / 1.5, rel=0.05)
    assert (Path(outcome["run"]) / "plots/adaptation.png").read_bytes().startswith(b"\x89PNG")


def test_without_an_exchange_it_does_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome, truth = run(tmp_path_factory, "--set", "adaptation.swap=false")
    after, last = errors(outcome, truth)
    assert last > after / 2
    assert outcome["adaptation"]["exchanges"] == 0
    assert outcome["adaptation"]["error_last"] > outcome["adaptation"]["error_worst"] / 2


def test_the_same_seed_gives_the_same_bytes(
    adapted: tuple[dict[str, Any], Truth], tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, again = Path(adapted[0]["run"]), Path(run(tmp_path_factory)[0]["run"])
    written = (first / "recording.mcap").read_bytes()
    assert written == (again / "recording.mcap").read_bytes()
    rounds = [r.data for r in read(first / "recording.mcap") if r.topic == "adaptation"]
    assert rounds == adapted[0]["adaptation"]["rounds"]


def test_a_fitter_that_dies_ends_adaptation_and_nothing_else(tmp_path: Path) -> None:
    words = ["control", str(ADAPT), "--sim", "--json", "--runs", str(tmp_path)]
    words += ["--set", "loop.duration=9", "--set", "adaptation.every=8.0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hil", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: bool(fitters_of(process.pid)))
        until(lambda: bool(list(tmp_path.glob("*/recording.mcap"))), 60.0)
        (fitter,) = fitters_of(process.pid)
        kill(fitter)
        said, told = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, told
    outcome = json.loads(said.splitlines()[-1])
    assert (outcome["steps"], outcome["fallbacks"], outcome["ended"]) == (900, 0, "done")
    assert "fitter" in outcome["adaptation"]["ended"]
    assert "the loop goes on" in told


def fitters_of(pid: int) -> list[int]:
    """Return the fitters that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
            if int(parent) == pid and b"hil.services.fitter" in command:
                found.append(int(entry.name))
    return found


def test_a_configuration_that_cannot_adapt_is_refused_before_anything_starts() -> None:
    for overrides, said in (
        (
            {"model": {"kind": "hil.models.analytic:CartPoleModel"}},
            "model.kind: .* nothing to move",
        ),
        ({"adaptation.window": 3.0}, r"adaptation.window: 3.0 s hold no 4 blocks"),
        ({"adaptation.pace": 1}, r"adaptation: Object contains unknown field `pace`"),
    ):
        with pytest.raises(ConfigError, match=said):
            Parts(load(ADAPT, sim=True, overrides=overrides))
