"""A lens found from rendered checkerboards, beside the lens that rendered them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.errors import ConfigError, MeasurementError
from hil.vision.lens import Checkerboard, Lens, find_corners, fit_lens, read_lens, write_lens
from hil.vision.plane import Plane
from sim.cameras.camera import rotation
from sim.cameras.scene import draw_checkerboard
from tests.unit.vision.bench import camera, true_lens

BOARD = Checkerboard()


@pytest.fixture(scope="module")
def lens() -> Lens:
    eye, random = camera(), np.random.default_rng(7)
    corner = np.array([BOARD.columns - 1, BOARD.rows - 1, 0]) * BOARD.square / 2
    views = []
    for view in range(7):
        turned = rotation(np.radians(random.uniform(-25, 25, 3))) @ np.diag([1.0, -1.0, -1.0])
        at = np.array([*random.uniform([-0.018, -0.01], [0.018, 0.01]), eye.settings.distance])
        plane = eye.plane((turned, at - turned @ corner))
        clean = draw_checkerboard(eye, plane, BOARD.columns, BOARD.rows, BOARD.square)
        found = find_corners(np.mean(eye.expose(clean, view * 10**6, 4, 40_000), axis=0), BOARD)
        assert found is not None
        views.append(found)
    return fit_lens("camera", eye.size, BOARD, views)


def test_what_it_straightens_is_straight(lens: Lens) -> None:
    """Points of a plane, through the true lens and back: only a homography is left."""
    eye = camera()
    grid = np.stack(np.meshgrid(np.linspace(-0.012, 0.076, 9), np.linspace(-0.016, 0.054, 7)), -1)
    metres = grid.reshape(-1, 2)
    seen = eye.project(metres)
    for straighten, worst in ((lens.straighten, 0.12), (true_lens(eye).straighten, 1e-3)):
        straight = straighten(seen)
        off = straight - Plane.fit(straight, metres).pixels(metres)
        assert np.abs(off).max() < worst
    bent = seen - Plane.fit(seen, metres).pixels(metres)
    assert np.abs(bent).max() > 0.4  # what there was to be straightened
    assert lens.matrix[0] == pytest.approx(eye.focal, rel=0.01)
    assert lens.rms < 0.15


def test_it_bends_what_it_straightened(lens: Lens) -> None:
    points = np.random.default_rng(8).uniform([0, 0], lens.size, (40, 2))
    np.testing.assert_allclose(lens.bend(lens.straighten(points)), points, atol=1e-6)
    assert lens.straighten(np.empty((0, 2))).shape == (0, 2)


def test_it_is_kept_and_belongs_to_one_camera(lens: Lens, tmp_path: Path) -> None:
    path = tmp_path / "lenses" / "lens.json"
    write_lens(lens, path)
    kept = read_lens(path)
    assert kept == lens
    kept.check("camera", (640, 480))
    for other in (("another", (640, 480)), ("camera", (1280, 960))):
        with pytest.raises(ConfigError, match=r"calibrated with camera 'camera' at 640 × 480 px"):
            kept.check(*other)
    with pytest.raises(ConfigError, match="no such lens; calibrate"):
        read_lens(tmp_path / "none.json")
    path.write_text(msgspec.json.encode({"camera": "x"}).decode())
    with pytest.raises(ConfigError, match=r"lens\.json: not a lens: .*missing"):
        read_lens(path)


def test_too_few_views_and_no_board_are_refused() -> None:
    assert find_corners(np.full((120, 160), 90.0), BOARD) is None
    with pytest.raises(MeasurementError, match="seen in 0 images, 6 are needed"):
        fit_lens("camera", (640, 480), BOARD, [])
