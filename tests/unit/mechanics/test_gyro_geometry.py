"""The lattice of gyroscopes, wrapped and not, and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hil.errors import MechanicsError
from hil.mechanics.gyro_geometry import (
    GyroGeometry,
    GyroGeometrySettings,
    Wrap,
    lattice,
    make_geometry,
    read_geometry,
    write_geometry,
)


@pytest.mark.parametrize(("wrap", "count"), [("none", 261), ("x", 280), ("y", 280), ("both", 300)])
def test_ten_by_ten_has_the_springs_that_were_counted(wrap: Wrap, count: int) -> None:
    geometry = lattice(10, 10, 1.5, wrap)
    assert len(geometry.springs) == count
    np.testing.assert_allclose(np.hypot(*geometry.between.T), 1.5, rtol=1e-12)
    pairs = {tuple(sorted(pair)) for pair in geometry.springs.tolist()}
    assert len(pairs) == count, "a spring stands for one pair"


def test_wrapped_in_both_everybody_has_six_neighbours_all_around() -> None:
    geometry = lattice(6, 5)
    for node in range(30):
        out = geometry.between[geometry.springs[:, 0] == node]
        back = -geometry.between[geometry.springs[:, 1] == node]
        around = np.concatenate((out, back))
        angles = np.sort(np.arctan2(around[:, 1], around[:, 0]) % (2 * np.pi))
        np.testing.assert_allclose(angles, np.arange(6) * np.pi / 3, atol=1e-9)


def test_a_file_gives_back_the_same(tmp_path: Path) -> None:
    geometry = lattice(4, 3, 0.7, "both")
    write_geometry(geometry, tmp_path / "lattice.toml")
    again = make_geometry(GyroGeometrySettings(file=str(tmp_path / "lattice.toml")))
    for name in ("nodes", "springs", "offsets", "lengths", "between"):
        np.testing.assert_array_equal(getattr(again, name), getattr(geometry, name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes = [[0, 0]]\nsprings = [[1, 2]]", r"springs\[1\]: no such gyroscope"),
        ("nodes = [[0, 0], [0, 0]]\nsprings = [[1, 2]]", "at one place"),
        ("nodes = [[0, 0], [1, 0]]", "missing required field `springs`"),
        ("nodes = [[0, 0], [1, 0]]\nsprings = [[1, 2]]\nlengths = [-1]", "lengths: expected"),
        ("nodes = [", "not readable as TOML"),
    ],
)
def test_a_bad_file_says_which_entry(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(MechanicsError, match=message):
        read_geometry(tmp_path / "bad.toml")
    with pytest.raises(MechanicsError, match="not readable"):
        read_geometry(tmp_path / "none.toml")


def test_a_lattice_that_cannot_close_is_refused() -> None:
    for rows, columns, wrap in ((5, 5, "both"), (4, 2, "x"), (1, 4, "none")):
        with pytest.raises(MechanicsError, match="an even number of rows to wrap in y"):
            lattice(rows, columns, wrap=wrap)  # type: ignore[arg-type]
    with pytest.raises(MechanicsError, match="offsets: expected"):
        GyroGeometry(np.eye(2), np.array([[0, 1]]), np.zeros((2, 2)))
