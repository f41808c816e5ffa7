"""Where the nodes of a network are, which two of them a bond joins, and which are fixed.

Arrays count nodes and bonds from 0; files, messages and the paper count them from 1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from hil.errors import MechanicsError
from hil.types import AnyArray, Array, IntArray

SPACING = 0.016  # m, of the lattice of Li & Mao 2024
SHORTEST = 1e-9  # of the network's extent; the direction of a shorter bond is rounding noise

# The bonds of Li & Mao's 14-node lattice, from 1, in the order they published them. It is
# the order in which a triangulation met them and follows no rule of rows.
PAPER_LATTICE = 4
# fmt: off
PAPER_BONDS = (
    (12, 14), (11, 12), (11, 14), (4, 5), (4, 9), (5, 9), (8, 12), (8, 11), (8, 9), (9, 12),
    (4, 8), (7, 8), (7, 11), (3, 4), (3, 8), (3, 7), (2, 7), (2, 3), (13, 14), (11, 13),
    (6, 7), (6, 10), (7, 10), (10, 13), (10, 11), (2, 6), (1, 2), (1, 6),
)
# fmt: on


class GeometrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A triangular lattice of a size, or any geometry from a file: one of the two."""

    lattice: (
        Annotated[int, Meta(ge=2, le=512, description="rows, of lattice + 1 to 2 nodes")] | None
    ) = None
    spacing: Annotated[float, Meta(gt=0, description="between nodes of a lattice, m")] = SPACING
    file: Annotated[str, Meta(min_length=1, description="TOML: nodes, bonds, fixed")] | None = None

    def __post_init__(self) -> None:
        """Refuse both, neither, and a spacing that would not be used."""
        if (self.lattice is None) == (self.file is None):
            raise ValueError("give either `lattice` (rows) or `file` (a TOML geometry)")
        if self.file is not None and self.spacing != SPACING:
            raise ValueError("`spacing` belongs to `lattice`; a file has its own positions")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Nodes, bonds and fixed nodes of a network in any number of dimensions.

    nodes: (n, d), m. bonds: (m, 2), the two nodes of each bond, from 0. fixed: the nodes
    that do not move, from 0. A degree of freedom is one component of one free node: free
    nodes in order, x then y then z.

    Raises MechanicsError naming the entry (counted from 1) and what to do.
    """

    nodes: Array
    bonds: IntArray
    fixed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check every entry; keep read-only arrays."""
        nodes = _checked_nodes(self.nodes)
        fixed = _checked_fixed(self.fixed, len(nodes))
        bonds = _checked_bonds(self.bonds, nodes)
        nodes.setflags(write=False)
        bonds.setflags(write=False)
        for name, value in (("nodes", nodes), ("bonds", bonds), ("fixed", fixed)):
            object.__setattr__(self, name, value)

    @property
    def dimensions(self) -> int:
        """Number of components of a position."""
        return int(self.nodes.shape[1])

    @cached_property
    def free_nodes(self) -> IntArray:
        """The nodes that move, from 0, in order: (free,)."""
        return np.setdiff1d(np.arange(len(self.nodes)), self.fixed).astype(np.int64)

    @cached_property
    def free_dofs(self) -> IntArray:
        """Where each degree of freedom stands in `nodes.ravel()`: (dof,)."""
        start = self.free_nodes[:, None] * self.dimensions
        return (start + np.arange(self.dimensions)).ravel()

    @cached_property
    def dof_table(self) -> IntArray:
        """Index of the degree of freedom of every node and axis, -1 where fixed: (n, d)."""
        table = np.full(self.nodes.size, -1, dtype=np.int64)
        table[self.free_dofs] = np.arange(len(self.free_dofs))
        return table.reshape(self.nodes.shape)

    @cached_property
    def lengths(self) -> Array:
        """Rest length of every bond: (bonds,), m."""
        span = self.nodes[self.bonds[:, 1]] - self.nodes[self.bonds[:, 0]]
        return np.asarray(np.linalg.norm(span, axis=1))

    def dof(self, node: int, axis: int) -> int:
        """Return the index of the degree of freedom of a node along an axis.

        node: from 0. axis: 0 for x, 1 for y, 2 for z. Raises MechanicsError for a fixed
        node and for a node or an axis that does not exist.
        """
        if not 0 <= node < len(self.nodes):
            raise MechanicsError(
                f"node {node + 1} does not exist; the network has nodes 1 to {len(self.nodes)}"
            )
        if not 0 <= axis < self.dimensions:
            raise MechanicsError(
                f"axis {axis} does not exist; the network has {self.dimensions} axes, from 0"
            )
        found = int(self.dof_table[node, axis])
        if found < 0:
            raise MechanicsError(
                f"node {node + 1} is fixed and has no degree of freedom; "
                f"fixed are {numbers(self.fixed)}, choose another node"
            )
        return found


def numbers(entries: Iterable[int], limit: int = 8) -> str:
    """Return entries counted from 0 as people read them: "1, 5 and 3 more", from 1."""
    words = [str(int(entry) + 1) for entry in entries]
    more = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {more} more" if more > 0 else "")


def triangular_lattice(n: int, spacing: float = SPACING) -> Geometry:
    """Return n rows of n + 1, n, … 2 nodes, the two ends of the top row fixed.

    n: at least 2; spacing: m. Nodes are counted row by row from the top, each row from
    right to left (for n = 4 this is the numbering of Li & Mao 2024); the left end of the
    top row lies at x = 0, the bottom row at y = 0. Bonds of n = 4 come in the order
    they published; of any other n node by node: to the left neighbour, then to the row
    below, right before left. Raises MechanicsError for a lattice that cannot be.
    """
    if n < 2 or not (np.isfinite(spacing) and spacing > 0):
        raise MechanicsError(
            f"a triangular lattice of {n} rows, spacing {spacing} m, cannot be; "
            "it needs 2 rows or more and a spacing above 0"
        )
    positions: list[tuple[float, float]] = []
    joined: list[tuple[int, int]] = []
    for row in range(n):
        length = n + 1 - row
        first = len(positions)  # of this row
        below = first + length  # first of the next row
        for place in range(length):
            node = first + place
            positions.append((n - place - row / 2, (n - 1 - row) * np.sqrt(3) / 2))
            if place < length - 1:
                joined.append((node, node + 1))
            if row < n - 1:
                neighbours = (place - 1, place)
                joined += [(node, below + p) for p in neighbours if 0 <= p < length - 1]
    if n == PAPER_LATTICE:
        joined = [(a - 1, b - 1) for a, b in PAPER_BONDS]
    return Geometry(spacing * np.array(positions), np.array(joined, dtype=np.int64), (0, n))


def make_geometry(settings: GeometrySettings, directory: Path = Path(".")) -> Geometry:
    """Return the geometry that settings describe; a file is looked for in `directory`.

    Raises MechanicsError as `read_geometry` does.
    """
    if settings.file is not None:
        return read_geometry(directory / settings.file)
    if settings.lattice is None:
        raise MechanicsError("geometry: give either `lattice` (rows) or `file` (a TOML geometry)")
    return triangular_lattice(settings.lattice, settings.spacing)


class _GeometryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A geometry as it stands in a file; nodes are counted from 1."""

    nodes: list[list[float]]
    bonds: list[tuple[int, int]]
    fixed: list[int] = []


def read_geometry(path: str | Path) -> Geometry:
    """Read a geometry from a TOML file: `nodes` in m, `bonds` and `fixed` from 1.

    Raises MechanicsError naming the file, the entry, and what to do.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MechanicsError(f"{path}: no such geometry file; check `geometry.file`") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MechanicsError(f"{path}: not readable as TOML: {error}") from None
    try:
        found = msgspec.convert(table, _GeometryFile)
        bonds = np.array(found.bonds, dtype=np.int64).reshape(-1, 2)
        return Geometry(_rows(found.nodes), bonds - 1, tuple(node - 1 for node in found.fixed))
    except msgspec.ValidationError as error:
        raise MechanicsError(
            f"{path}: {error}; a geometry has nodes = [[x, y], …] in m, "
            "bonds = [[1, 2], …] and fixed = [1, …], counted from 1"
        ) from None
    except (MechanicsError, OverflowError) as error:
        raise MechanicsError(f"{path}: {error}") from None


def write_geometry(geometry: Geometry, path: str | Path) -> None:
    """Write a geometry so that `read_geometry` returns the same, bit for bit."""
    fixed = ", ".join(str(node + 1) for node in geometry.fixed)
    nodes = "".join(f"    {node},\n" for node in geometry.nodes.tolist())
    bonds = "".join(f"    {bond},\n" for bond in (geometry.bonds + 1).tolist())
    text = f"nodes = [  # m\n{nodes}]\nbonds = [  # nodes, from 1\n{bonds}]\nfixed = [{fixed}]\n"
    Path(path).write_text(text, encoding="utf-8")


def _rows(nodes: list[list[float]]) -> AnyArray:
    """Return positions as an array, naming the first node that differs in length."""
    for entry, node in enumerate(nodes):
        if len(node) != len(nodes[0]):
            raise MechanicsError(
                f"nodes[{entry + 1}] has {len(node)} components, nodes[1] has {len(nodes[0])}; "
                "give every node as many"
            )
    return np.array(nodes, dtype=np.float64)


def _checked_nodes(nodes: AnyArray) -> Array:
    nodes = np.array(nodes, dtype=np.float64)
    if nodes.ndim != 2 or nodes.size == 0:
        raise MechanicsError(f"nodes: expected [[x, y], …] in m, found shape {nodes.shape}")
    for entry in np.flatnonzero(~np.isfinite(nodes).all(axis=1))[:1]:
        raise MechanicsError(
            f"nodes[{entry + 1}] = {nodes[entry].tolist()}: not finite; give a position in m"
        )
    return nodes


def _checked_fixed(fixed: Iterable[int], count: int) -> tuple[int, ...]:
    try:
        found = [index(node) for node in fixed]
    except TypeError:
        raise MechanicsError(f"fixed: expected node numbers, found {fixed!r}") from None
    for place, node in enumerate(found):
        entry = f"fixed[{place + 1}] = {node + 1}"
        if not 0 <= node < count:
            raise MechanicsError(f"{entry}: no such node; there are nodes 1 to {count}")
        if node in found[:place]:
            raise MechanicsError(f"{entry}: named twice; take one of them out")
    if len(found) == count:
        raise MechanicsError(f"fixed: all {count} nodes are fixed; leave one free to move")
    return tuple(sorted(found))


def _checked_bonds(bonds: IntArray, nodes: Array) -> IntArray:
    found = np.asarray(bonds)
    if found.ndim != 2 or found.shape[1:] != (2,) or not np.issubdtype(found.dtype, np.integer):
        raise MechanicsError(
            f"bonds: expected [[1, 2], …], two nodes each, found shape {found.shape} "
            f"of {found.dtype}"
        )
    bonds = found.astype(np.int64)
    count = len(nodes)
    if not len(bonds):
        raise MechanicsError("bonds: none; a network needs at least one")
    for entry in np.flatnonzero(((bonds < 0) | (bonds >= count)).any(axis=1))[:1]:
        raise MechanicsError(
            f"bonds[{entry + 1}] = {_pair(bonds[entry])}: no such node; "
            f"there are nodes 1 to {count}"
        )
    length = np.linalg.norm(nodes[bonds[:, 1]] - nodes[bonds[:, 0]], axis=1)
    extent = float(np.ptp(nodes, axis=0).max())
    for entry in np.flatnonzero(length <= SHORTEST * extent)[:1]:
        raise MechanicsError(
            f"bonds[{entry + 1}] = {_pair(bonds[entry])}: its length is "
            f"{length[entry]:.3g} m; move its nodes apart or take it out"
        )
    _, first, inverse = np.unique(
        np.sort(bonds, axis=1), axis=0, return_index=True, return_inverse=True
    )
    earlier = first[inverse.ravel()]
    for entry in np.flatnonzero(earlier != np.arange(len(bonds)))[:1]:
        raise MechanicsError(
            f"bonds[{entry + 1}] = {_pair(bonds[entry])}: joins the same nodes as "
            f"bonds[{earlier[entry] + 1}]; take one of them out"
        )
    return bonds


def _pair(bond: IntArray) -> str:
    return f"({bond[0] + 1}, {bond[1] + 1})"
