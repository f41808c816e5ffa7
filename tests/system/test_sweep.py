"""`hil sweep`, its workers killed and itself killed, here and on Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.rigs import ROOT, hil, until

VEHICLE = ROOT / "configs/vehicle.toml"
IRIS = ROOT / "configs/sweep_iris.toml"
# Eight shards of some 100 ms each.
EIGHT = [
    word
    for setting in ("levels=2", "vary=9", "shard=64", "steps=4000", "precision=float32")
    for word in ("--set", f"sweep.{setting}")
]
without_arrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep that nobody disturbed."""
    runs = tmp_path_factory.mktemp("whole")
    ended = hil("sweep", str(VEHICLE), *EIGHT, "--workers", "1", "--runs", str(runs), "--json")
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert (outcome["points"], outcome["units"]) == (8, 512)
    assert "core hours" in ended.stderr
    assert "point 8/8" in ended.stderr
    return Path(outcome["run"])


def same(run: Path, other: Path) -> bool:
    """Tell whether two sweeps hold the same bits; their tables hold a digest of every shard."""
    names = ("table.csv", "manifest.json")
    return all((run / name).read_bytes() == (other / name).read_bytes() for name in names)


@contextlib.contextmanager
def running(runs: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hil", "sweep", str(VEHICLE), *EIGHT, *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=runs,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def working(runs: Path) -> list[tuple[int, Path]]:
    """Return who has a point in hand: a process and the log it holds open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            target = Path(os.readlink(link))
            if target.name == "log.txt" and target.is_relative_to(runs):
                found.append((int(link.parts[2]), target))
    return found


def kill_one_at_work(runs: Path) -> None:
    """Kill a worker that surely has a point in hand: it is stopped, looked at, killed."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid, log in working(runs):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                if (pid, log) in working(runs) and not log.with_name("results.json").exists():
                    os.kill(pid, signal.SIGKILL)
                    return
                os.kill(pid, signal.SIGCONT)
    pytest.fail("nobody was at work")


@without_arrow
def test_a_killed_worker_loses_nothing(whole: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "2") as process:
        kill_one_at_work(tmp_path)
        out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    outcome = json.loads(out.splitlines()[-1])
    assert outcome["workers_lost"] == 1
    assert "2 processes of this machine" in outcome["executor"]
    assert same(tmp_path / outcome["run"], whole)


@without_arrow
def test_a_killed_sweep_does_only_what_is_missing(whole: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "2") as process:
        until(lambda: bool(list(tmp_path.glob("runs/*/points/*/results.json"))), 60.0)
        (run,) = (tmp_path / "runs").iterdir()
        process.send_signal(signal.SIGSTOP)  # no worker is given another point
        refused = hil("sweep", "--resume", str(run))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert refused.returncode == 1
    assert "another sweep works in it" in refused.stderr
    until(lambda: not working(tmp_path))  # a worker never outlives its sweep
    before = {path: path.stat().st_mtime_ns for path in run.glob("points/*/results.json")}
    ended = hil("sweep", "--resume", str(run), "--json")
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["kept"] == len(before) < 8
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert same(run, whole)


def listening(runtime: str) -> set[str]:
    """Return the addresses that processes of this test listen on, as the system writes them."""
    inodes = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HIL_RUNTIME={runtime}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                for link in (folder / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(fields[1].partition(":")[0])
    return found


@without_arrow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_ray_cluster_gives_the_same_bits_though_a_worker_is_killed(
    whole: Path, tmp_path: Path
) -> None:
    with running(tmp_path, "--ray", "local", "--workers", "2") as process:
        kill_one_at_work(tmp_path)
        heard = listening(os.environ["HIL_RUNTIME"])
        out, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    outcome = json.loads(out.splitlines()[-1])
    assert "2 workers of the Ray cluster" in outcome["executor"]
    assert same(tmp_path / outcome["run"], whole)
    four = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert heard, "a cluster listens somewhere"
    assert all(address.endswith(four) for address in heard), f"beyond loopback: {heard}"
    until(lambda: not listening(os.environ["HIL_RUNTIME"]), 60.0)


def test_training_over_seeds_is_what_each_training_gives_alone(tmp_path: Path) -> None:
    """Two simulated rigs of one name side by side, each behind a mirror of its own."""
    axes = 'sweep.axes={seed=[4,5],"training.epochs"=[1]}'
    ended = hil(
        "sweep", str(IRIS), "--set", axes, "--workers", "2", "--runs", str(tmp_path), "--json"
    )
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert Path(outcome["plots"][0]).stat().st_size > 10_000
    alone = hil(
        "train", str(ROOT / "configs/iris.toml"), "--sim", "--seed", "5", "--set",
        "training.epochs=1", "--runs", str(tmp_path / "alone"), "--json",
    )  # fmt: skip
    expected = json.loads(alone.stdout.splitlines()[-1])
    (found,) = Path(outcome["run"]).glob("points/seed=5*/results.json")
    figures = json.loads(found.read_bytes())["figures"]
    assert "seconds" not in figures
    assert figures == {key: expected[key] for key in figures}
    table = Path(outcome["table"]).read_text().splitlines()
    assert table[0].startswith("seed,training.epochs,")
    assert [line.split(",")[0] for line in table[1:]] == ["4", "5"]
    assert outcome["figures"]["groups"][""]["points"] == 2


def test_a_point_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """One loop is shorter than a period of its rig."""
    config = tmp_path / "sweep.toml"
    config.write_text(
        f"""
        name = "loops"
        [sweep]
        kind = "hil.services.verbs:Verbs"
        verb = "control"
        configs = ["{ROOT}/configs/balance.toml", "{ROOT}/configs/swing_up.toml"]
        sim = true
        metric = "cost"
        axes = {{ loop.duration = [0.1, 0.001] }}
        """
    )
    checked = hil("validate", str(config), "--json")
    assert "4 points" in json.loads(checked.stdout)["parts"]["sweep"]
    words = (
        "--set",
        f'sweep.configs=["{ROOT}/configs/balance.toml"]',
        "--runs",
        str(tmp_path / "runs"),
    )
    ended = hil("sweep", str(config), *words, "--json")
    assert ended.returncode == 1
    said = ended.stderr.splitlines()
    assert "1 of 2 points failed; the first, duration=0.001" in said[-1]
    assert "not one period" in said[-1]
    (table,) = (tmp_path / "runs").glob("*/table.csv")
    head, *done = [line.split(",")[:2] for line in table.read_text().splitlines()]
    assert head == ["loop.duration", "steps"]
    assert done == [["0.1", "5"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([str(IRIS), "--set", "sweep.sim=false"], "side by side; set sweep.sim = true"),
        ([str(IRIS), "--set", "sweep.axes.seed=3"], "sweep.axes.seed: expected values"),
        ([str(IRIS), "--set", "sweep.axes.colour=[1]"], "colour"),
        ([str(IRIS), "--set", "sweep.verb=fit"], "sweep.recordings: missing"),
        ([str(ROOT / "configs/iris.toml")], "needs a [sweep]"),
        ([str(IRIS), "--set", "sweep.kind=hil.tasks.iris:Iris"], "sweep"),
        ([], "CONFIG is missing"),
    ],
)
def test_what_cannot_be_ends_with_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    ended = hil("sweep", *words, "--runs", str(tmp_path / "runs"))
    assert ended.returncode == 2
    assert message in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
