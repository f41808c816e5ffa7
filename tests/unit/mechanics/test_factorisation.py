from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csr_array

from hil.errors import MechanicsError
from hil.mechanics.factorisation import BandedPlan, DensePlan, SparseLU, make_plan
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from tests.unit.mechanics import truth


def shuffled(geometry: Geometry, seed: int) -> Geometry:
    """Return the same network with its nodes numbered at random."""
    order = np.random.default_rng(seed).permutation(len(geometry.nodes))
    place = np.argsort(order)
    fixed = tuple(int(place[node]) for node in geometry.fixed)
    return Geometry(geometry.nodes[order], place[geometry.bonds], fixed)


GEOMETRIES: dict[str, Callable[[], Geometry]] = {
    "paper": lambda: triangular_lattice(4),
    "lattice": lambda: triangular_lattice(9),
    "shuffled lattice": lambda: shuffled(triangular_lattice(9), 1),
    "irregular": lambda: truth.irregular(2, 50),
    "space": lambda: shuffled(truth.octet(4), 2),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("batch", ["full", "few loaded", "one"])
def test_all_ways_to_solve_agree(name: str, batch: str) -> None:
    geometry = GEOMETRIES[name]()
    random = np.random.default_rng(5)
    compat = csr_array(truth.compatibility(geometry))
    k = random.uniform(50.0, 250.0, len(geometry.bonds))
    matrix = truth.stiffness(geometry, k)
    load = random.standard_normal((1 if batch == "one" else 6, compat.shape[1]))
    if batch == "few loaded":
        load[:, random.permutation(compat.shape[1])[2:]] = 0.0
    expected = np.linalg.solve(matrix, load.T).T
    ways = (DensePlan(compat).factorise(k), BandedPlan(compat).factorise(k), SparseLU(matrix))
    for way in ways:
        np.testing.assert_allclose(way.solve(load), expected, rtol=1e-9, atol=1e-13)


def test_small_networks_are_full_and_large_ones_banded() -> None:
    assert isinstance(
        make_plan(SpringNetwork.from_geometry(triangular_lattice(4)).compat), DensePlan
    )
    large = make_plan(SpringNetwork.from_geometry(triangular_lattice(16)).compat)
    assert isinstance(large, BandedPlan)


def test_the_band_of_a_lattice_is_two_rows_of_nodes_wide() -> None:
    lattice = SpringNetwork.from_geometry(triangular_lattice(32))
    assert BandedPlan(lattice.compat).depth == 2 * 33


def test_the_band_stays_narrow_when_nodes_are_numbered_at_random() -> None:
    lattice = SpringNetwork.from_geometry(shuffled(triangular_lattice(32), 3))
    assert BandedPlan(lattice.compat).depth < 3 * 33


@pytest.mark.parametrize("plan", [DensePlan, BandedPlan])
def test_a_matrix_that_is_not_positive_definite_is_refused(
    plan: type[DensePlan] | type[BandedPlan],
) -> None:
    compat = csr_array(truth.compatibility(triangular_lattice(4)))
    k = np.ones(28)
    k[:6] = -10.0
    with pytest.raises(MechanicsError, match="cannot be factorised"):
        plan(compat).factorise(k)


def test_a_singular_complex_matrix_is_refused() -> None:
    with pytest.raises(MechanicsError, match="cannot be factorised"):
        SparseLU(np.zeros((2, 2), dtype=complex))
