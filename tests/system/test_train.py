"""`hil train` from the outside: what it leaves, what a kill costs, what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.messages import wire
from hil.messages.frame import Frame, encode
from hil.recording.reader import read, read_metadata
from hil.services import owner
from tests.devices import PtyDevice
from tests.system.rigs import IRIS, SPRING, hil, hil_here, kill, mirror, spring_config, until

SHORT = ("--set", "training.epochs=3", "--set", "training.evaluate_every=1")
KEYS = {
    "train_accuracy", "test_accuracy", "loss", "epochs", "gradient_cosine",
    "gradient_relative_error", "measurements", "seconds", "run",
}  # fmt: skip


def train(runs: Path, *words: str, **more: Any) -> dict[str, object]:
    """Train and return the JSON line."""
    ended = hil("train", str(IRIS), "--sim", "--json", "--runs", str(runs), *SHORT, *words, **more)
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return outcome


def recording(outcome: dict[str, object]) -> Path:
    return Path(str(outcome["run"])) / "recording.mcap"


@contextlib.contextmanager
def training(runs: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a trainer beside the test."""
    command = [sys.executable, "-m", "hil", "train", str(IRIS), "--sim", "--runs", str(runs)]
    process = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def checkpoint(runs: Path) -> dict[str, object]:
    """Return the newest checkpoint of the only run, empty before there is one."""
    for path in runs.glob("*/checkpoint.json"):
        found: dict[str, object] = json.loads(path.read_text())
        return found
    return {}


def steps_done(runs: Path) -> int:
    state = checkpoint(runs).get("state")
    return state["adam_steps"] if isinstance(state, dict) else 0


def test_it_ends_with_its_figures_a_recording_and_pictures(tmp_path: Path) -> None:
    outcome = train(tmp_path, "--ideal", "--seed", "1")
    assert outcome.keys() >= KEYS
    assert outcome["epochs"] == 3
    assert 1.0 - float(str(outcome["gradient_cosine"])) <= 1e-6
    assert float(str(outcome["gradient_relative_error"])) < 1e-3
    run = Path(str(outcome["run"]))
    assert json.loads((run / "results.json").read_text()) == outcome
    assert read_metadata(run / "recording.mcap").keys() >= {"config", "versions", "rig", "wire"}
    plots = [Path(str(path)) for path in outcome["plots"]]  # type: ignore[attr-defined]
    assert {p.stem for p in plots} >= {"network", "learning", "confusion", "gradient_model"}
    before = {path: path.read_bytes() for path in plots}
    for path in plots:
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
    again = hil("plot", str(run), "--json")
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in plots} == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Train once with seed 2 and every imperfection on."""
    # Of a fixture of the module, which comes before the one that gives each test its own.
    environ = {**os.environ, "HIL_RUNTIME": str(tmp_path_factory.mktemp("run"))}
    return train(tmp_path_factory.mktemp("whole"), "--seed", "2", env=environ)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, whole: dict[str, object]) -> None:
    """With every imperfection on, in another directory, under the virtual clock."""
    second = train(tmp_path / "a", "--seed", "2")
    other = train(tmp_path / "b", "--seed", "6")
    assert recording(whole).read_bytes() == recording(second).read_bytes()
    assert recording(whole).read_bytes() != recording(other).read_bytes()


@pytest.mark.parametrize("after", [2, 16])
def test_a_killed_trainer_goes_on_bit_for_bit(
    tmp_path: Path, whole: dict[str, object], after: int
) -> None:
    """kill −9 near a step, with noise; the resumed run ends where an unbroken one does."""
    runs = tmp_path / "killed"
    with training(runs, "--seed", "2", *SHORT) as process:
        until(lambda: steps_done(runs) >= after)
        kill(process.pid)
        process.wait()
    (run,) = runs.iterdir()
    kept = steps_done(runs)
    assert kept >= after
    assert not (run / "results.json").exists()
    until(lambda: not owner.served_rigs())  # its mirror ends with it
    last_known = float(str(checkpoint(runs)["device_us"]))
    recorded = [record.t_ns / 1e3 for record in read(run / "recording.mcap")]
    assert last_known - recorded[-1] < 1e6  # us of rig time
    ended = hil("train", "--resume", str(run), "--json")
    assert ended.returncode == 0, ended.stderr
    assert "stiffness read back" in ended.stderr
    resumed, unbroken = checkpoint(runs), checkpoint(Path(str(whole["run"])).parent)
    assert resumed["state"] == unbroken["state"]
    assert (run / "recording-2.mcap").exists()
    outcome = json.loads(ended.stdout)
    same = KEYS - {"seconds", "run"}
    assert {k: outcome[k] for k in same} == {k: whole[k] for k in same}


def test_a_killed_mirror_ends_the_trainer_with_one_line(tmp_path: Path) -> None:
    with training(tmp_path / "runs", "--seed", "0") as process:
        until(lambda: steps_done(tmp_path / "runs") >= 10)
        report = owner.status(spring_config())
        assert report is not None
        kill(report.pid)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    complaint = [line for line in said.splitlines() if line.startswith("hil: ")]
    assert len(complaint) == 1
    assert "mirror at ipc://" in complaint[0]
    assert "Traceback" not in said
    (run,) = (tmp_path / "runs").iterdir()
    found = read(run / "recording.mcap")
    times = [record.t_ns for record in found]
    assert float(str(checkpoint(tmp_path / "runs")["device_us"])) * 1e3 - times[-1] < 1e9
    until(lambda: not owner.served_rigs())


def test_a_second_trainer_is_refused_with_a_reason(tmp_path: Path) -> None:
    with training(tmp_path / "runs") as first:
        until(lambda: steps_done(tmp_path / "runs") >= 3)
        second = hil("train", str(IRIS), "--sim", "--runs", str(tmp_path / "second"))
        assert second.returncode == 1
        assert f"hil: rig spring-network: train-{first.pid} holds the lease" in second.stderr
        kill(first.pid)
    until(lambda: not owner.served_rigs())


def test_a_trainer_uses_the_mirror_that_is_there(tmp_path: Path) -> None:
    config = spring_config(ideal=True)
    with mirror(config, tmp_path):
        outcome = train(tmp_path / "runs", "--ideal")
        assert not (Path(str(outcome["run"])) / "mirror.log").exists()
        report = owner.status(config)
        assert report is not None
        assert report.state == "inactive"
        assert report.measurements == outcome["measurements"]
        real = hil("train", str(IRIS), "--runs", str(tmp_path / "runs"), *SHORT)
        assert real.returncode == 2
        assert "has a simulated rig on the virtual clock" in real.stderr


def test_stiffness_is_read_back_when_the_rig_was_touched_meanwhile(tmp_path: Path) -> None:
    """A mirror that lives on, a rig somebody else has set: resumed, and said so."""
    from tests.system.rigs import client

    config = spring_config(ideal=True)
    runs = tmp_path / "runs"
    with mirror(config, tmp_path):
        with training(runs, "--ideal", *SHORT) as process:
            until(lambda: steps_done(runs) >= 5)
            kill(process.pid)
            process.wait()
        until(lambda: (r := owner.status(config)) is not None and r.state == "inactive", 30)
        with client(config) as rig:
            rig.configure()
            rig.activate()
            rig.set_stiffness(np.full(28, 100.0))
        (run,) = runs.iterdir()
        ended = hil("train", "--resume", str(run), "--json")
        assert ended.returncode == 0, ended.stderr
        assert "stiffness read back: set again" in ended.stderr


FAULTY = [
    (("--set", "training.epoch=3"), "training: Object contains unknown field `epoch`"),
    (("--set", "training.epochs=many"), "training.epochs: Expected `int"),
    (("--set", "training.epochs=0"), "training.epochs: Expected `int` >= 1"),
    (("--set", "rig.force_max=-1"), "rig.force_max: Expected `float` > 0"),
    (("--set", "nonsense=1"), "unknown field `nonsense`"),
    (("--set", "training.stiffness=[1, 2]"), "training.stiffness: [1.0, 2.0] N/m leaves rig"),
    (("--set", "rig.watchdog=0.05"), "rig.watchdog: 0.05 s is too short"),
    (("--set", "preset=wild"), "preset: 'wild' is not defined here; known: published, wide"),
    (("--set", "task.inputs=[1, 2, 3, 4]"), "node 1 is fixed"),
    (("--set", "rig.kind=os:system"), "rig.kind: 'os:system' is not allowed"),
    (("--set", "mirror.address=tcp://0.0.0.0:5570"), "no keys are given"),
    (("--seed", "-1"), "Invalid value for '--seed'"),
    (("--wat",), "No such option '--wat'"),
]


@pytest.mark.parametrize(("words", "complaint"), FAULTY)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    ended = hil_here("train", str(IRIS), "--sim", "--runs", str(tmp_path), *words)
    assert ended.returncode == 2, ended.stderr
    assert complaint in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("hil: ")]
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_missing_port_is_one_line_and_exit_2(tmp_path: Path) -> None:
    port = f"rig.port={tmp_path}/none"
    for words in (("train", str(IRIS), "--runs", str(tmp_path)), ("serve", str(SPRING))):
        ended = hil(*words, "--set", port)
        assert ended.returncode == 2, ended.stderr
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("hil: ")]
        assert f"port {tmp_path}/none: cannot be opened" in line
    assert not list(tmp_path.glob("*-iris"))  # refused before anything was measured


def test_firmware_of_another_version_is_one_line_and_exit_2(tmp_path: Path) -> None:
    def other_version(frame: Frame) -> bytes:
        info = wire.Info(0, 1, 0xDEADBEEF, 1, 0, 60_000_000, 24, 28, 32, 0, (0,) * 16)
        return encode(info, frame.seq)

    device = PtyDevice(other_version)
    try:
        ended = hil("train", str(IRIS), "--runs", str(tmp_path), "--set", f"rig.port={device.port}")
    finally:
        device.close()
    assert ended.returncode == 2, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("hil: ")]
    assert "the firmware's message schema is 0xdeadbeef, this host speaks 0x" in line


def test_a_silent_device_leaves_the_mirror_up_and_the_trainer_told(tmp_path: Path) -> None:
    device = PtyDevice(lambda frame: b"")
    config = spring_config(sim=False, rig__port=device.port)
    try:
        with mirror(config, tmp_path):
            report = owner.status(config)
            assert report is not None
            assert report.state == "unconfigured"
            assert "did not answer InfoRequest" in report.fault
            port = f"rig.port={device.port}"
            ended = hil("train", str(IRIS), "--runs", str(tmp_path / "runs"), "--set", port)
            assert ended.returncode == 1
            assert "did not answer InfoRequest" in ended.stderr
            assert owner.status(config) is not None
    finally:
        device.close()


def test_a_singular_network_is_one_line_and_exit_2(tmp_path: Path) -> None:
    """Without bond (5, 9) node 5's neighbour can move freely: the paper's zero mode."""
    from hil.mechanics.geometry import Geometry, triangular_lattice, write_geometry

    whole = triangular_lattice(4)
    bonds = np.array([b for b in whole.bonds.tolist() if set(b) != {4, 8}])
    path = tmp_path / "network.toml"
    write_geometry(Geometry(whole.nodes, bonds, whole.fixed), path)
    for verb in ("validate", "train"):
        geometry = f'rig.geometry={{file = "{path}"}}'
        more = () if verb == "validate" else ("--runs", str(tmp_path / "runs"))
        ended = hil(verb, str(IRIS), "--sim", "--set", geometry, *more)
        assert ended.returncode == 2, ended.stderr
        assert "zero mode" in ended.stderr
    assert not (tmp_path / "runs").exists()
