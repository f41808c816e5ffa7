"""Strokes as signals, the writer of digits, and the loader of PenDigits."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from hil.config import environment
from hil.errors import ConfigError
from hil.tasks import pendigits
from hil.tasks.pendigits import TEST, TRAIN, File, Pendigits, PendigitsSettings, place, read
from hil.tasks.strokes import (
    POINTS,
    StrokeSettings,
    SyntheticStrokes,
    SyntheticStrokeSettings,
    fill,
    resample,
    vary,
)

ROWS = "10,20,30,40,50,60,70,80,90,100,0,5,15,25,35,45,3\n" * 2
SMALL = File("small.tra", 2, hashlib.sha256(ROWS.encode()).hexdigest())


def test_resampling_is_linear_and_keeps_the_points() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (3, POINTS, 2))
    np.testing.assert_allclose(resample(points, POINTS), points)
    fine = resample(points, 7 * 14 + 1)
    np.testing.assert_allclose(fine[:, ::14], points)
    for axis in range(2):
        expected = np.interp(np.linspace(0, 7, 100), np.arange(8), points[1, :, axis])
        np.testing.assert_allclose(resample(points, 100)[1, :, axis], expected)


def test_a_varied_stroke_fills_its_box_as_the_data_do() -> None:
    task = SyntheticStrokes(SyntheticStrokeSettings())
    assert (task.strokes.min(1) == 0).all()
    assert (task.strokes.max(1) == 100).all()
    points = task.points(task.train[:50])
    varied = vary(points, StrokeSettings(jitter=0.3, shake=0.1), np.random.default_rng(0))
    np.testing.assert_allclose(varied.min(1), -1, atol=1e-12)
    np.testing.assert_allclose(varied.max(1), 1, atol=1e-12)
    moved = fill(3.0 * points + 7.0)
    np.testing.assert_allclose(2 * moved - 1, points, atol=1e-12)


def test_without_jitter_and_shake_nothing_varies() -> None:
    task = SyntheticStrokes(SyntheticStrokeSettings(jitter=0.0, n_train=40))
    random = np.random.default_rng(0)
    np.testing.assert_array_equal(task.points(task.train, random), task.points(task.train))


def test_digits_nobody_wrote_are_told_apart_by_their_neighbours() -> None:
    """They are ten shapes and not one: a nearest neighbour finds the class."""
    task = SyntheticStrokes(SyntheticStrokeSettings(n_train=400, n_test=200))
    x, known = (task.points(part).reshape(len(part), -1) for part in (task.test, task.train))
    distance = ((x[:, None] - known) ** 2).sum(2)
    labels = task.labels(task.train)[distance.argmin(1)]
    assert (labels == task.labels(task.test)).mean() > 0.95
    share = np.bincount(task.labels(task.test)) / 200
    assert np.abs(share - 0.1).max() < 0.05


def test_a_file_is_read_and_a_changed_one_refused(tmp_path: Path) -> None:
    (tmp_path / "small.tra").write_text(ROWS)
    strokes, labels = read(tmp_path, SMALL)
    assert strokes.shape == (2, 8, 2)
    assert strokes[0, 1].tolist() == [30, 40]
    assert labels.tolist() == [3, 3]
    (tmp_path / "small.tra").write_text(ROWS.replace("10,", "11,"))
    with pytest.raises(ConfigError, match=r"SHA-256 .* fetch it again"):
        read(tmp_path, SMALL)
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none", SMALL)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a directory on loopback in the place of UCI."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    monkeypatch.setattr(pendigits, "SOURCE", f"http://127.0.0.1:{http.server_port}/")
    yield served
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_download_is_kept_when_its_hash_is_right(server: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (server / "small.tra").write_text(ROWS)
    with pytest.raises(ConfigError, match="download=true"):
        read(here, SMALL)
    strokes, _ = read(here, SMALL, download=True)
    (server / "small.tra").unlink()
    np.testing.assert_array_equal(read(here, SMALL, download=True)[0], strokes)


def test_a_download_that_is_wrong_or_missing_leaves_nothing(server: Path, tmp_path: Path) -> None:
    (server / "small.tra").write_text("something else")
    with pytest.raises(ConfigError, match="SHA-256"):
        read(tmp_path / "here", SMALL, download=True)
    (server / "small.tra").unlink()
    with pytest.raises(ConfigError, match="cannot be fetched"):
        read(tmp_path / "here", SMALL, download=True)
    assert not (tmp_path / "here").exists()


def test_where_the_data_are_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIL_DATA", "/somewhere")
    assert place(PendigitsSettings()) == Path("/somewhere/pendigits")
    assert place(PendigitsSettings(directory="/else")) == Path("/else")
    monkeypatch.delenv("HIL_DATA")
    with pytest.raises(ConfigError, match="set HIL_DATA"):
        Pendigits(PendigitsSettings())


@pytest.mark.skipif("HIL_DATA" not in environment(), reason="HIL_DATA is not set")
def test_the_official_split_is_what_was_published() -> None:
    task = Pendigits(PendigitsSettings())
    assert (len(task.train), len(task.validation), len(task.test)) == (TRAIN.rows, 0, TEST.rows)
    assert np.bincount(task.labels(task.test)).tolist() == [
        363, 364, 364, 336, 364, 335, 336, 364, 336, 336,
    ]  # fmt: skip
    x, known = (task.points(part).reshape(len(part), -1) for part in (task.test, task.train))
    nearest = ((known**2).sum(1) - 2 * x @ known.T).argmin(1)
    accuracy = (task.labels(task.train)[nearest] == task.labels(task.test)).mean()
    assert accuracy == pytest.approx(0.9774, abs=5e-4), "1-NN as others have measured it"
