"""Irregular networks: the nodes of a lattice moved at random and joined anew.

A Delaunay triangulation is rigid once two of its nodes are fixed, so every load has one
equilibrium; its bonds differ in length and direction and its nodes in their number of bonds.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from hil.errors import MechanicsError
from hil.mechanics.geometry import SPACING, Geometry, triangular_lattice


def irregular_network(
    n: int, spacing: float = SPACING, jitter: float = 0.4, seed: int = 0
) -> Geometry:
    """Return as many nodes as a lattice of n rows has, inside the same outline.

    n: at least 2. spacing: m. jitter: largest move of an inner node along each axis, in
    spacings. Nodes are numbered in a random order, so that nothing of the rows is left; the two
    ends of the top row are fixed. The same arguments give the same network. Raises
    MechanicsError for a lattice or a jitter that cannot be.
    """
    if not 0 <= jitter < 0.5:
        raise MechanicsError(f"an irregular network of jitter {jitter}: expected 0 to below 0.5")
    lattice = triangular_lattice(n, spacing)
    random = np.random.default_rng(seed)
    nodes = lattice.nodes.copy()
    bonds = np.bincount(lattice.bonds.ravel(), minlength=len(nodes))
    inner = bonds == 6  # an edge that is not straight would have slivers for triangles
    nodes[inner] += spacing * random.uniform(-jitter, jitter, (int(inner.sum()), 2))
    order = random.permutation(len(nodes))
    place = np.empty_like(order)
    place[order] = np.arange(len(nodes))
    triangles = Delaunay(nodes[order]).simplices
    pairs = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    joined = np.unique(pairs, axis=0).astype(np.int64)
    length = np.linalg.norm(nodes[order][joined[:, 1]] - nodes[order][joined[:, 0]], axis=1)
    joined = joined[length < 2.0 * spacing]  # along the outline rounding makes flat triangles
    return Geometry(nodes[order], joined, tuple(int(place[node]) for node in lattice.fixed))
