"""Answers that do not come from `hil.mechanics`: assembled bond by bond, solved in full."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import Delaunay

from hil.mechanics.geometry import Geometry
from hil.types import AnyArray, Array


def compatibility(geometry: Geometry) -> Array:
    """Return (bonds, dof): how much each bond lengthens per component of each free node."""
    count, dimensions = geometry.nodes.shape
    compat = np.zeros((len(geometry.bonds), count, dimensions))
    for bond, (a, b) in enumerate(geometry.bonds):
        span = geometry.nodes[b] - geometry.nodes[a]
        compat[bond, b] += span / np.sqrt(span @ span)
        compat[bond, a] -= span / np.sqrt(span @ span)
    free = [node for node in range(count) if node not in geometry.fixed]
    return compat[:, free].reshape(len(geometry.bonds), -1)


def stiffness(geometry: Geometry, k: AnyArray) -> AnyArray:
    """Return (dof, dof), N/m, one bond's outer product at a time."""
    compat = compatibility(geometry)
    matrix = np.zeros((compat.shape[1], compat.shape[1]), dtype=k.dtype)
    for row, spring in zip(compat, k, strict=True):
        matrix += spring * np.outer(row, row)
    return matrix


def settle(geometry: Geometry, k: AnyArray, load: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return displacement and elongation, by a full general solve."""
    displacement = np.linalg.solve(stiffness(geometry, k), load.T).T
    return displacement, displacement @ compatibility(geometry).T


def irregular(seed: int, nodes: int = 12) -> Geometry:
    """Return a triangulated network of random nodes, two of them fixed."""
    random = np.random.default_rng(seed)
    # One node in each cell of a grid keeps triangles from being needles.
    width = int(np.ceil(np.sqrt(nodes)))
    cells = np.array(list(itertools.product(range(width), repeat=2)))[:nodes]
    positions = 0.01 * (cells + random.uniform(0.15, 0.85, (nodes, 2)))
    edges = {
        tuple(sorted(pair))
        for triangle in Delaunay(positions).simplices.tolist()
        for pair in itertools.combinations(triangle, 2)
    }
    return Geometry(positions, np.array(sorted(edges)), (0, nodes - 1))


def octet(layers: int) -> Geometry:
    """Return a face-centred cubic network in space, its bottom layer fixed."""
    points = [
        point
        for point in itertools.product(range(layers), range(layers), range(layers))
        if sum(point) % 2 == 0
    ]
    nodes = 0.01 * np.array(points, dtype=float)
    bonds = [
        (a, b)
        for a, b in itertools.combinations(range(len(nodes)), 2)
        if np.linalg.norm(nodes[a] - nodes[b]) < 0.0142
    ]
    fixed = tuple(int(node) for node in np.flatnonzero(nodes[:, 2] == 0))
    return Geometry(nodes, np.array(bonds), fixed)


def ladder(bays: int) -> Geometry:
    """Return a slender truss, clamped at one end: very soft, and without a zero mode."""
    nodes = np.array([(x, y) for x in range(bays + 1) for y in (0, 1)], dtype=float)
    bonds = [(2 * x, 2 * x + 1) for x in range(1, bays + 1)]
    for x in range(bays):
        bonds += [(2 * x, 2 * x + 2), (2 * x + 1, 2 * x + 3), (2 * x, 2 * x + 3)]
    return Geometry(nodes, np.array(bonds), (0, 1))
