"""The rig of the shipped configuration, and its equations written out a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hil.config import Config, load
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.types import Array

CONFIG = Path(__file__).parents[3] / "configs" / "spring_network.toml"


def shipped(**overrides: Any) -> Config:
    """Return the simulated rig's configuration; `__` in a name stands for a dot."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(CONFIG, sim=True, overrides=dotted)


def compatibility() -> Array:
    """Return elongation per displacement of the 14-node lattice: (28, 24)."""
    geometry = make_geometry(GeometrySettings(lattice=4), Path.cwd())
    rows = np.zeros((len(geometry.bonds), geometry.nodes.size))
    for row, (a, b) in zip(rows, geometry.bonds, strict=True):
        along = geometry.nodes[b] - geometry.nodes[a]
        along = along / np.linalg.norm(along)
        row[2 * a : 2 * a + 2], row[2 * b : 2 * b + 2] = -along, along
    free = [n for n in range(len(geometry.nodes)) if n not in geometry.fixed]
    return rows[:, [2 * n + axis for n in free for axis in (0, 1)]]


def at_rest(stiffness: Array, forces: Array) -> Array:
    """Return displacements and elongations by a dense solve: (cases, 52), m."""
    compat = compatibility()
    disp = np.linalg.solve(compat.T @ np.diag(stiffness) @ compat, np.atleast_2d(forces).T).T
    return np.concatenate([disp, disp @ compat.T], axis=1)


def some_loads(cases: int, seed: int = 0) -> Array:
    """Return load cases of at most 20 mN: (cases, 24), N."""
    return np.random.default_rng(seed).uniform(-0.02, 0.02, (cases, 24))


def some_stiffness(seed: int = 0) -> Array:
    """Return a stiffness inside the shipped limits per bond: (28,), N/m."""
    return np.random.default_rng(seed).uniform(80.0, 200.0, 28)
