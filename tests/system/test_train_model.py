"""`hil train` without a rig, as a person and as a script meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hil.config import environment
from hil.models.gyro_classifier import load
from hil.recording.run import Run
from hil.services.train_model import CURVE, EpochRecord
from tests.system.rigs import ROOT, hil, hil_here, until

PENDIGITS = ROOT / "configs" / "pendigits.toml"
QUICK = ("--set", "preset=quick", "--set", "training.network.geometry={rows=4,columns=4}",
         "--set", "training.network.inputs=[1,9]", "--set", "training.network.outputs=[4,12]",
         "--set", "task.n_train=200", "--set", "task.n_test=100")  # fmt: skip


def test_it_trains_stores_and_says_what_came_out(tmp_path: Path) -> None:
    ended = hil("train", str(PENDIGITS), *QUICK, "--seed", "2", "--runs", str(tmp_path), "--json")
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["seed"] == 2
    assert outcome["epochs"] == 6
    run = Run.open(outcome["run"])
    curve = run.read_json(CURVE, list[EpochRecord])
    assert [record.epoch for record in curve] == [1, 2, 3, 4, 5, 6]
    assert curve[-1].loss < curve[0].loss
    assert json.loads(run.results.read_text()) == outcome
    model = load(outcome["model"])
    signals = np.random.default_rng(0).uniform(-1, 1, (3, 100, 2))
    assert model.predict(signals).shape == (3,)
    assert "epoch 6/6" in ended.stderr
    names = ["learning.png", "maps.png", "rollout.png", "signals.png"]
    assert [Path(plot).name for plot in outcome["plots"]] == names
    before = [Path(plot).read_bytes() for plot in outcome["plots"]]
    again = hil("plot", outcome["run"], "--json")
    assert json.loads(again.stdout)["plots"] == outcome["plots"]
    assert [Path(plot).read_bytes() for plot in outcome["plots"]] == before


def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole = hil("train", str(PENDIGITS), *QUICK, "--runs", str(tmp_path / "a"), "--json")
    expected = json.loads(whole.stdout.splitlines()[-1])
    command = [sys.executable, "-m", "hil", "train", str(PENDIGITS), *QUICK]
    command += ["--set", "training.epochs=6", "--runs", str(tmp_path / "b")]
    started = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ, cwd=ROOT
    )
    try:
        until(lambda: bool(list((tmp_path / "b").glob("*/checkpoint.json"))))
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    (path,) = (tmp_path / "b").iterdir()
    ended = hil("train", "--resume", str(path), "--json")
    assert ended.returncode == 0, ended.stderr
    assert "going on after epoch" in ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    for name in ("test_accuracy", "test_loss", "validation_accuracy", "loss", "epochs"):
        assert found[name] == expected[name], name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--set", "task.kind=hil.tasks.balance:Balance"), "task"),
        (("--set", "training.network.outputs=[4,17,400]"), "different gyroscopes from 1 to 100"),
        (("--set", "training.kind=hil.training.fit:Fit"), "training"),
        (("--set", "training.gamma=200.0"), "too long for motions of"),
        (("--set", "task.directory=/nowhere"), "set task.directory or HIL_DATA"),
    ],
)
def test_what_cannot_be_ends_with_one_line(
    settings: tuple[str, str], message: str, tmp_path: Path
) -> None:
    quick = () if "directory" in settings[1] else ("--set", "preset=quick")
    ended = hil_here("train", str(PENDIGITS), *quick, *settings, "--runs", str(tmp_path / "runs"))
    assert ended.returncode == 2
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir()), "a refusal leaves no run behind"


def test_a_verb_that_needs_a_rig_says_so() -> None:
    ended = hil_here("serve", str(PENDIGITS))
    assert ended.returncode == 2
    assert "rig.kind" in ended.stderr


def test_a_configuration_without_a_rig_is_validated() -> None:
    ended = hil("validate", str(PENDIGITS), *QUICK, "--json")
    assert ended.returncode == 0, ended.stderr
    parts = json.loads(ended.stdout)["parts"]
    assert parts["training"] == "16 gyroscopes, 48 springs, 198 variables, 6 epochs"
    assert parts["task"] == "180 to train, 20 to validate, 100 to test"


@pytest.mark.skipif("HIL_DATA" not in environment(), reason="HIL_DATA is not set")
def test_two_epochs_on_the_real_digits_are_far_above_chance(tmp_path: Path) -> None:
    ended = hil("train", str(PENDIGITS), "--set", "training.epochs=2", "--runs", str(tmp_path),
                "--json")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["test_accuracy"] > 0.7
