from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.errors import MechanicsError
from hil.mechanics.geometry import (
    Geometry,
    GeometrySettings,
    make_geometry,
    numbers,
    triangular_lattice,
)

PUBLISHED = """(12,14) (11,12) (11,14) (4,5) (4,9) (5,9) (8,12) (8,11) (8,9) (9,12) (4,8) (7,8)
(7,11) (3,4) (3,8) (3,7) (2,7) (2,3) (13,14) (11,13) (6,7) (6,10) (7,10) (10,13) (10,11)
(2,6) (1,2) (1,6)"""
SQUARE = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])


def pairs(geometry: Geometry) -> list[tuple[int, int]]:
    return [(int(a) + 1, int(b) + 1) for a, b in geometry.bonds]


def test_paper_lattice_has_the_published_bonds_in_the_published_order() -> None:
    published = [tuple(map(int, pair.strip("()").split(","))) for pair in PUBLISHED.split()]
    assert pairs(triangular_lattice(4)) == published


def test_paper_lattice_has_the_published_numbering() -> None:
    lattice = triangular_lattice(4)
    x, y = (lattice.nodes / 0.016).T
    rows = {height: np.flatnonzero(np.isclose(y, height * np.sqrt(3) / 2)) for height in range(4)}
    assert [rows[height].tolist() for height in (3, 2, 1, 0)] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 11],
        [12, 13],
    ]
    for row in rows.values():  # right to left, one spacing apart, centred
        np.testing.assert_allclose(np.diff(x[row]), -1)
        assert x[row].mean() == pytest.approx(2)
    assert lattice.fixed == (0, 4)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9])
def test_bonds_of_a_lattice_join_all_nodes_one_spacing_apart(n: int) -> None:
    lattice = triangular_lattice(n, 0.5)
    near = {
        (a + 1, b + 1)
        for a, b in itertools.combinations(range(len(lattice.nodes)), 2)
        if abs(np.linalg.norm(lattice.nodes[a] - lattice.nodes[b]) - 0.5) < 1e-9
    }
    assert set(pairs(lattice)) == near
    assert len(lattice.bonds) == len(near)
    if n != 4:
        assert pairs(lattice) == sorted(near)  # node by node
    top = np.flatnonzero(np.isclose(lattice.nodes[:, 1], lattice.nodes[:, 1].max()))
    assert lattice.fixed == (top[0], top[-1])
    assert lattice.nodes[top[-1], 0] == 0
    assert lattice.nodes[-1, 1] == 0


@pytest.mark.parametrize(("n", "dof"), [(4, 24), (16, 300), (64, 4284), (128, 16764)])
def test_degrees_of_freedom_of_a_lattice(n: int, dof: int) -> None:
    assert len(triangular_lattice(n).free_dofs) == dof


@pytest.mark.parametrize(("n", "spacing"), [(1, 1.0), (0, 1.0), (4, 0.0), (4, -1.0), (4, np.nan)])
def test_a_lattice_that_cannot_be_is_refused(n: int, spacing: float) -> None:
    with pytest.raises(MechanicsError, match="cannot be"):
        triangular_lattice(n, spacing)


def test_dof_counts_free_nodes_in_order_x_then_y() -> None:
    lattice = triangular_lattice(4)
    free = [node for node in range(14) if node not in (0, 4)]
    expected = {(node, axis): 2 * at + axis for at, node in enumerate(free) for axis in (0, 1)}
    assert {(n, a): lattice.dof(n, a) for n in free for a in (0, 1)} == expected
    flat = lattice.nodes.ravel()
    for (node, axis), index in expected.items():
        assert flat[lattice.free_dofs[index]] == lattice.nodes[node, axis]


@pytest.mark.parametrize(
    ("node", "axis", "message"),
    [
        (0, 0, "node 1 is fixed .* fixed are 1, 5"),
        (4, 1, "node 5 is fixed"),
        (14, 0, "node 15 does not exist; the network has nodes 1 to 14"),
        (-1, 0, "node 0 does not exist"),
        (7, 2, "axis 2 does not exist"),
        (7, -1, "axis -1 does not exist"),
    ],
)
def test_dof_of_what_cannot_move_is_refused(node: int, axis: int, message: str) -> None:
    with pytest.raises(MechanicsError, match=message):
        triangular_lattice(4).dof(node, axis)


def test_nodes_and_bonds_cannot_be_changed_afterwards() -> None:
    lattice = triangular_lattice(3)
    with pytest.raises(ValueError, match="read-only"):
        lattice.nodes[0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        lattice.bonds[0, 0] = 1


def test_what_was_passed_in_stays_changeable() -> None:
    nodes = SQUARE.copy()
    Geometry(nodes, np.array([(0, 1)]), (0,))
    nodes[0, 0] = 7.0


@pytest.mark.parametrize(
    ("nodes", "bonds", "fixed", "message"),
    [
        (SQUARE[0], [(0, 1)], (), "nodes: expected"),
        (np.zeros((0, 2)), [(0, 1)], (), "nodes: expected"),
        ([[0, 0], [np.inf, 0]], [(0, 1)], (), r"nodes\[2\] = \[inf, 0.0\]: not finite"),
        (SQUARE, np.zeros((0, 2), dtype=int), (), "bonds: none"),
        (SQUARE, [(0, 1, 2)], (), "bonds: expected"),
        (SQUARE, [(0.0, 1.0)], (), "bonds: expected"),
        (SQUARE, [(0, 1), (1, 4)], (), r"bonds\[2\] = \(2, 5\): no such node; .* 1 to 4"),
        (SQUARE, [(0, -1)], (), r"bonds\[1\] = \(1, 0\): no such node"),
        (SQUARE, [(0, 1), (2, 3), (1, 0)], (), r"bonds\[3\] = \(2, 1\): .* bonds\[1\]"),
        (SQUARE, [(0, 1), (2, 2)], (), r"bonds\[2\] = \(3, 3\): its length is 0 m"),
        ([[0, 0], [0, 0], [1, 0]], [(0, 1)], (), "its length is 0 m"),
        ([[0, 0], [1e-12, 0], [1, 0]], [(0, 1)], (), "its length is 1e-12 m"),
        (SQUARE, [(0, 1)], (4,), r"fixed\[1\] = 5: no such node"),
        (SQUARE, [(0, 1)], (2, 3, 2), r"fixed\[3\] = 3: named twice"),
        (SQUARE, [(0, 1)], (0.5,), "fixed: expected node numbers"),
        (SQUARE, [(0, 1)], (0, 1, 2, 3), "all 4 nodes are fixed"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused(
    nodes: object, bonds: object, fixed: tuple[int, ...], message: str
) -> None:
    with pytest.raises(MechanicsError, match=message):
        Geometry(np.asarray(nodes), np.asarray(bonds), fixed)


def test_numbers_are_counted_from_one_and_cut_short() -> None:
    assert numbers([0, 4]) == "1, 5"
    assert numbers(range(11)) == "1, 2, 3, 4, 5, 6, 7, 8 and 3 more"


def test_settings_describe_a_lattice_or_a_file(tmp_path: Path) -> None:
    lattice = msgspec.convert({"lattice": 3, "spacing": 0.5}, GeometrySettings)
    assert np.ptp(make_geometry(lattice).nodes[:, 0]) == pytest.approx(1.5)
    default = make_geometry(GeometrySettings(lattice=4))
    assert np.ptp(default.nodes[:, 0]) == pytest.approx(4 * 0.016)
    (tmp_path / "two.toml").write_text("nodes = [[0, 0], [1, 0]]\nbonds = [[1, 2]]\nfixed = [1]")
    assert make_geometry(GeometrySettings(file="two.toml"), tmp_path).fixed == (0,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "give either"),
        ({"lattice": 4, "file": "a.toml"}, "give either"),
        ({"file": "a.toml", "spacing": 0.01}, "`spacing` belongs to `lattice`"),
        ({"lattice": 1}, ">= 2.*lattice"),
        ({"lattice": 4, "spacing": 0.0}, "> 0.*spacing"),
        ({"lattice": 4.5}, r"int \| null.*lattice"),
        ({"rows": 4}, "unknown field `rows`"),
    ],
)
def test_settings_that_fit_nothing_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, GeometrySettings)
