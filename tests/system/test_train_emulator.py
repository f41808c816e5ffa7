"""`hil train` on an emulator: trainer, ZeroMQ, mirror, PyVISA, instrument."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.models.gyro_classifier import load
from hil.recording.reader import read_as
from hil.recording.run import Run
from hil.services.emulator_records import BatchRecord, CalibrationRecord
from tests.system.rigs import ROOT, hil, hil_here, mirror
from tests.unit.instruments.emulators import SMALL
from tests.unit.training.emulated_digits import STEPS, STROKES, machine, stored

DIGITS = ROOT / "configs" / "emulator_pendigits.toml"
RANGES = {"rig.position_max": 2.0, "rig.velocity_max": 8.0}


def words(model: Path | str, runs: Path, **settings: Any) -> list[str]:
    """Return a command that runs the small network; `__` stands for a dot."""
    table = SMALL | RANGES | {f"task.{key}": value for key, value in STROKES.items()}
    table |= {"task.jitter": 0.15, "task.shake": 0.0, "preset": "quick", "seed": 1}
    table |= {"training.model": str(model)}
    table |= {key.replace("__", "."): value for key, value in settings.items()}
    sets = [f"{key}={_toml(value)}" for key, value in table.items()]
    return ["train", str(DIGITS), "--sim", "--runs", str(runs), "--json",
            *(word for each in sets for word in ("--set", each))]  # fmt: skip


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def test_a_trained_network_reads_on_the_instrument(tmp_path: Path) -> None:
    ended = hil(*words(stored(tmp_path), tmp_path / "runs"))
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["model_accuracy"] > 0.95
    assert outcome["test_accuracy"] > outcome["model_accuracy"] - 0.05  # 8 bit, 1 %, 1e-3
    predicted = 100 * (1e-4 + STEPS * 0.05 * 1e-3)
    assert outcome["predicted_s"] == pytest.approx(predicted)
    assert outcome["took_s"] == pytest.approx(predicted, rel=1e-3)
    assert f"test: 100 strokes will take {predicted:.3f} s on the machine" in ended.stderr
    assert "test, stroke 100/100: accuracy" in ended.stderr
    assert (outcome["epochs"], outcome["overloaded"]) == (0, 0)
    assert json.loads(Run.open(outcome["run"]).results.read_text()) == outcome


def test_it_is_calibrated_trained_in_the_loop_and_recorded(tmp_path: Path) -> None:
    first = stored(tmp_path)
    ended = hil(*words(first, tmp_path / "runs", training__epochs=2, training__calibrate=True,
                       board__errors__mismatch=0.1, rig__name="emulator-loop"))  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["epochs"] == 2
    assert 0.05 < outcome["mismatch_found"] < 0.2
    assert outcome["test_accuracy"] > 0.9
    assert outcome["test_accuracy_before"] is not None
    assert outcome["model"] != str(first)
    assert load(outcome["model"]).settings == load(first).settings
    run = Run.open(outcome["run"])
    batches = [each for _, each in read_as(run.parts()[0], "batch", BatchRecord)]
    parts = [b.part for b in batches]
    assert parts[0] == "test"
    assert parts[-1] == "test"
    assert parts.count("train") == 2 * -(-360 // 32)
    assert parts.count("validation") == 2
    runs = np.array([b.run for b in batches])
    assert (np.diff(runs) == 1).all()  # nothing that ran is missing
    assert sum(b.took_s for b in batches) == pytest.approx(outcome["machine_s"])
    ((_, found),) = read_as(run.parts()[0], "calibration", CalibrationRecord)
    assert len(found.effective) == 27 + 21


def test_a_run_goes_on_after_its_last_epoch(tmp_path: Path) -> None:
    ended = hil(*words(stored(tmp_path), tmp_path / "runs", training__epochs=1,
                       rig__name="emulator-resume"))  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    again = hil("train", "--resume", outcome["run"], "--json")
    assert again.returncode == 0, again.stderr
    assert "going on after epoch 1" in again.stderr
    found = json.loads(again.stdout.splitlines()[-1])
    assert found["validation_accuracy"] == outcome["validation_accuracy"]
    assert found["test_accuracy_before"] == outcome["test_accuracy_before"]
    assert len(Run.open(outcome["run"]).parts()) == 2


def test_it_uses_the_mirror_that_serves_the_rig(tmp_path: Path) -> None:
    config = machine(rig__name="emulator-served")
    with mirror(config, tmp_path):
        ended = hil(*words(stored(tmp_path), tmp_path / "runs", rig__name="emulator-served"))
    assert ended.returncode == 0, ended.stderr
    assert "starting one" not in ended.stderr


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"training__model": "/nowhere.safetensors"}, 2, "no model can be read here"),
        ({"rig__driven": [1, 4]}, 2, "rig.driven: (1, 4), the model was trained with (1, 7)"),
        ({"rig__geometry": {"rows": 3, "columns": 3, "wrap": "none"}}, 2, "rig.geometry: not the"),
        ({"rig__force_max": 0.5, "rig__name": "emulator-force"}, 2, "rig.force_max: 0.5 N"),
        ({"task__kind": "hil.tasks.balance:Balance"}, 2, "task"),
        ({"training__kind": "hil.training.fit:Fit"}, 2, "training"),
        (
            {"rig__position_max": 0.05, "rig__halt_on_overload": True, "rig__name": "emulator-off"},
            1,
            "overloaded gyroscope",
        ),
    ],
)
def test_what_cannot_be_ends_with_one_line(
    settings: dict[str, Any], code: int, message: str, tmp_path: Path
) -> None:
    ended = hil_here(*words(stored(tmp_path), tmp_path / "runs", **settings))
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    runs = tmp_path / "runs"
    if code == 2:
        assert not runs.exists() or not list(runs.iterdir()), "a refusal leaves no run behind"
