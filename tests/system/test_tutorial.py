"""Every command of docs/tutorial.md, in order, on simulated rigs and with fewer epochs."""

from __future__ import annotations

import contextlib
import csv
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.services import owner
from tests.system.rigs import ROOT, hil_here, until

BLOCK = re.compile(r"^```console( stays)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What makes a command quick; the rest of it is as it stands on the page.
SPARSE = "--set training.check.every=0 --set training.evaluate_every=0"
QUICKER = {
    "calibrate": "--set calibration.cases=8 --set calibration.drift_time=1",
    "train configs/iris.toml --sim --seed 0": "--set training.epochs=2",
    "train configs/iris.toml --sim --seed 1": "--set training.epochs=40 " + SPARSE,
    "camera configs/manual.toml --sim --lens": "--views 6",
    "train configs/manual.toml": "--set rig.samples=4 --set training.epochs=2",
}


def sections() -> list[list[tuple[bool, str]]]:
    """Return the commands under each heading, and whether they stay."""
    text = (ROOT / "docs/tutorial.md").read_text()
    return [
        [
            (bool(stays), line.removeprefix("$ "))
            for stays, block in BLOCK.findall(section)
            for line in block.splitlines()
        ]
        for section in re.split(r"^## ", text, flags=re.MULTILINE)
    ]


def words_of(command: str) -> list[str]:
    """Return the words of a command as the test runs it."""
    program, *words = shlex.split(command)
    assert program == "hil", command
    for beginning, more in QUICKER.items():
        if command.startswith(f"hil {beginning}"):
            words += more.split()
    if "RUN" in words:
        newest = max(Path("runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        words[words.index("RUN")] = str(newest)
    return words


@contextlib.contextmanager
def staying(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a terminal of its own until ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hil", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_every_command_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    done, said = [], {}
    with contextlib.ExitStack() as until_the_end:
        for commands in sections():
            for stays, command in commands:
                words = words_of(command)
                done.append(words[0])
                if stays:
                    process = until_the_end.enter_context(staying(words))
                    if words[0] == "serve":
                        until(lambda: "spring-network" in owner.served_rigs())
                        until(lambda: hil_here("status").stdout.count("inactive") == 1)
                    else:
                        until(lambda: len(list(Path("runs").glob("*/checkpoint.json"))) == 2)
                    continue
                ended = hil_here(*words)
                assert ended.returncode == 0, f"{command}: {ended.stderr}"
                said[command] = ended.stdout
                if words[0] == "stop":
                    _, complaint = process.communicate(timeout=120)
                    assert process.returncode == 1, complaint
                    assert "go on with: hil train --resume" in complaint
            if any("clear" in command for _, command in commands):
                until_the_end.close()  # the page ends the mirror here
    verbs = "doctor devices validate serve status calibrate train plot export stop clear camera"
    assert set(done) == set(verbs.split())
    assert "state    inactive" in said["hil status"]
    assert "after 2 epochs" in said["hil train configs/iris.toml --sim --seed 0"]
    assert "learning.png" in said["hil plot RUN"]
    (steps,) = Path("runs").glob("*/export/*step*.csv")
    with steps.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 7  # epochs, mini-batches
    assert {"epoch", "loss", "gradient.1", "stiffness.28", "forward_elongation"} <= rows[0].keys()
    assert 89.0 < float(rows[0]["stiffness.28"]) < 186.0
    assert "spring-network: " in said["hil stop"]
    assert Path("lens.json").exists()
    pictures = {path.name for path in Path("runs").glob("*/plots/*.png")}
    assert {"learning.png", "network.png", "lens.png", "camera.png"} <= pictures
    assert not owner.served_rigs()


def test_the_page_names_files_that_are_there() -> None:
    text = (ROOT / "docs/tutorial.md").read_text()
    for name in re.findall(r"\]\(([\w.]+)\)", text):
        assert (ROOT / "docs" / name).exists(), name
    for name in re.findall(r"(?:configs|tests)/[\w./]+\.\w+", text):
        assert (ROOT / name).exists(), name
