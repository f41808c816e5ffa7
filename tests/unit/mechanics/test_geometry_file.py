from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MechanicsError
from hil.mechanics.geometry import Geometry, read_geometry, triangular_lattice, write_geometry
from tests.unit.mechanics import truth

GOOD = {
    "nodes": "[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]",
    "bonds": "[[1, 2], [2, 3], [1, 3]]",
    "fixed": "[1, 2]",
}


def write(path: Path, **changed: str) -> Path:
    path.write_text("\n".join(f"{key} = {value}" for key, value in {**GOOD, **changed}.items()))
    return path


def same(a: Geometry, b: Geometry) -> bool:
    return (
        np.array_equal(a.nodes, b.nodes) and np.array_equal(a.bonds, b.bonds) and a.fixed == b.fixed
    )


def test_a_file_counts_from_one(tmp_path: Path) -> None:
    geometry = read_geometry(write(tmp_path / "net.toml"))
    assert geometry.bonds.tolist() == [[0, 1], [1, 2], [0, 2]]
    assert geometry.fixed == (0, 1)
    assert geometry.dof(2, 1) == 1


@pytest.mark.parametrize("geometry", [triangular_lattice(4), truth.octet(3)], ids=["2d", "3d"])
def test_what_is_written_is_read(tmp_path: Path, geometry: Geometry) -> None:
    write_geometry(geometry, tmp_path / "net.toml")
    assert same(read_geometry(tmp_path / "net.toml"), geometry)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-1e3, 1e3, allow_nan=False)] * 2),
        min_size=2,
        max_size=6,
        unique_by=lambda point: (round(point[0], 3), round(point[1], 3)),
    )
)
def test_positions_survive_the_file_bit_for_bit(points: list[tuple[float, float]]) -> None:
    chain = np.array([(i, i + 1) for i in range(len(points) - 1)])
    geometry = Geometry(np.array(points), chain, (0,))
    with tempfile.TemporaryDirectory() as folder:
        write_geometry(geometry, Path(folder) / "net.toml")
        assert same(read_geometry(Path(folder) / "net.toml"), geometry)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bonds": "[[1, 2], [2, 4]]"}, r"bonds\[2\] = \(2, 4\): no such node"),
        ({"bonds": "[[0, 2]]"}, r"bonds\[1\] = \(0, 2\): no such node"),
        ({"bonds": "[[1, 2], [2, 1]]"}, r"bonds\[2\] = \(2, 1\): .* take one of them out"),
        ({"bonds": "[[1, 1]]"}, r"bonds\[1\] = \(1, 1\): its length is 0 m"),
        ({"bonds": "[[1, 2, 3]]"}, r"\$\.bonds\[0\]"),
        ({"bonds": "[[1.5, 2]]"}, r"\$\.bonds\[0\]\[0\]"),
        ({"bonds": "[]"}, "bonds: none"),
        ({"bonds": "[[1, 99999999999999999999]]"}, "net.toml"),
        ({"nodes": "[]"}, "nodes: expected"),
        ({"nodes": "[[0, 0], [1, 0], [0, 1, 2]]"}, r"nodes\[3\] has 3 components, nodes\[1\] has"),
        ({"nodes": "[[0, 0], [1, 0], [0, nan]]"}, r"nodes\[3\] = \[0.0, nan\]: not finite"),
        ({"nodes": '[[0, 0], [1, 0], [0, "1"]]'}, r"\$\.nodes\[2\]\[1\]"),
        ({"fixed": "[4]"}, r"fixed\[1\] = 4: no such node"),
        ({"fixed": "[1, 2, 3]"}, "all 3 nodes are fixed"),
        ({"spacing": "1.0"}, "unknown field `spacing`"),
        ({"nodes": "[[0, 0"}, "not readable as TOML"),
    ],
)
def test_a_mistake_in_a_file_is_named(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(MechanicsError, match=message) as raised:
        read_geometry(write(tmp_path / "net.toml", **changed))
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'net.toml'}: ")
    assert "\n" not in text


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text("bonds = [[1, 2]]")
    with pytest.raises(MechanicsError, match="missing required field `nodes`"):
        read_geometry(tmp_path / "net.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MechanicsError, match=r"none\.toml: no such geometry file"):
        read_geometry(tmp_path / "none.toml")
    with pytest.raises(MechanicsError, match="not readable as TOML"):
        read_geometry(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(MechanicsError, match="not readable as TOML"):
        read_geometry(tmp_path / "bytes.toml")
