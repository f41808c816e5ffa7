"""A bench without actuators through `hil train`: a person at a terminal, and a camera."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hil.config import build, load
from hil.services import owner
from tests.system.rigs import ROOT

MANUAL = ROOT / "configs/manual.toml"


def film(directory: Path) -> str:
    """Write pictures of a network without load, as a camera would; return how to open them."""
    import cv2

    config = load(MANUAL, sim=True)
    assert config.board is not None
    bench = build(config.board, "board", rig=config.rig, seed=3)
    for number, frame in enumerate(bench.grab(40, 0.04)):
        assert cv2.imwrite(str(directory / f"{number:03d}.png"), frame)
    return f"{directory}/%03d.png"


class Person:
    """Reads a terminal and types on it."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process, self.terminal = process, terminal
        self.read = ""

    def waits_for(self, words: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while words not in self.read:
            assert time.monotonic() < end, f"{words!r} never came: {self.read}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the other end was closed
                    self.read += os.read(self.terminal, 65536).decode()
        self.read = self.read.split(words, 1)[1]

    def types(self, key: str) -> None:
        os.write(self.terminal, f"{key}\n".encode())


@contextlib.contextmanager
def person(*words: str) -> Iterator[Person]:
    """Run the command line on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hil", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    try:
        yield Person(process, ours)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_person_is_asked_and_may_leave_and_come_back(tmp_path: Path) -> None:
    """Real terminal, real OpenCV capture: Ctrl-C, then --resume, then q."""
    lens = json.loads((ROOT / "configs/manual.sim.lens.json").read_bytes())
    device = film(tmp_path)
    (tmp_path / "lens.json").write_text(json.dumps(lens | {"camera": device}))
    settings = {
        "training.epochs": 2,
        "rig.settle": 0.01, "rig.samples": 4, "rig.camera.device": device,
        "rig.camera.size": [640, 480], "rig.camera.lens": str(tmp_path / "lens.json"),
        "rig.mounted": str(tmp_path / "mounted.json"),
    }  # fmt: skip
    words = [w for k, v in settings.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    runs = tmp_path / "runs"
    with person("train", str(MANUAL), "--runs", str(runs), *words) as someone:
        someone.waits_for("make sure that all 28 struts are 2 mm wide")
        someone.types("")
        someone.waits_for("take every weight off")
        someone.types("")
        someone.waits_for("20 markers, 5.")
        someone.waits_for("load case 1: let these weights hang and no other:")
        someone.waits_for("  5 g at node 11, pulling down")
        someone.types("")
        someone.waits_for("load case 2: let")  # the adjoint loads of what the film shows
        report = owner.status(load(MANUAL))
        assert report is not None
        assert (report.state, report.measurements, report.pid) == ("active", 1, someone.process.pid)
        someone.process.send_signal(signal.SIGINT)
        someone.waits_for("interrupted; go on with: hil train --resume")
        someone.process.wait(timeout=30)
        assert someone.process.returncode == 130
    (run,) = runs.iterdir()
    assert len(json.loads((tmp_path / "mounted.json").read_bytes())) == 28
    with person("train", "--resume", str(run)) as someone:
        someone.waits_for("take every weight off")
        someone.process.send_signal(signal.SIGINT)  # the rig is not powered yet
        someone.process.wait(timeout=30)
        assert someone.process.returncode == 130
    with person("train", "--resume", str(run)) as someone:
        someone.waits_for("take every weight off")  # the struts are known this time
        someone.types("")
        someone.waits_for("load case 1: let")
        someone.types("q")
        someone.waits_for("stopped at the bench while a person was asked")
        someone.process.wait(timeout=30)
        assert someone.process.returncode == 1
    assert not owner.served_rigs()
