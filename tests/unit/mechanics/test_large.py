"""Large networks: nothing dense, the right answer, and any order of nodes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.sparse import csc_array
from scipy.sparse.linalg import spsolve

from hil.errors import MechanicsError
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.irregular import irregular_network
from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array


def step(geometry: Geometry) -> tuple[SpringNetwork, Array, Array, Array]:
    """Return a network, its stiffness, forward displacement and gradient of Σu²/2."""
    network = SpringNetwork.from_geometry(geometry)
    random = np.random.default_rng(0)
    k = random.uniform(90.0, 180.0, network.bond_count)
    load = np.zeros((16, network.dof))
    load[:, random.choice(network.dof, 4, replace=False)] = random.uniform(-0.05, 0.05, (16, 4))
    found = network.backpropagate(k, load, lambda u: u)
    return network, k, found.forward.displacement, found.gradient


@pytest.mark.parametrize(("rows", "share"), [(17, 1.0), (48, 0.3)])
@pytest.mark.parametrize("make", [triangular_lattice, irregular_network])
def test_nothing_of_the_size_of_a_full_matrix_is_made_past_16_rows(
    make: Callable[[int], Geometry], rows: int, share: float
) -> None:
    """The whole of a step, rank test included; a full matrix has 8 dof² bytes."""
    geometry = make(rows)
    step(triangular_lattice(17))  # what is imported on the way is no part of it
    tracemalloc.start()
    network, *_ = step(geometry)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < share * 8 * network.dof**2
    assert not isinstance(network.compat, np.ndarray)


@pytest.mark.parametrize("rows", [4, 9, 20])
def test_an_irregular_network_settles_as_a_sparse_solver_says(rows: int) -> None:
    network, k, u, gradient = step(irregular_network(rows, seed=rows))
    matrix = csc_array(network.stiffness_matrix(k))
    again = spsolve(matrix, (matrix @ u[0]))
    assert np.allclose(again, u[0], rtol=1e-8, atol=1e-14)
    bond = int(np.abs(gradient).argmax())
    up, down = k.copy(), k.copy()
    up[bond] += 1e-3
    down[bond] -= 1e-3
    load = (matrix @ u.T).T
    losses = [0.5 * (network.settle(x, load).displacement ** 2).sum() / 16 for x in (up, down)]
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(gradient[bond], rel=1e-6)


def test_an_irregular_network_is_rigid_and_a_function_of_its_seed() -> None:
    first, again, other = (irregular_network(8, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.nodes, again.nodes)
    assert np.array_equal(first.bonds, again.bonds)
    assert not np.array_equal(first.nodes, other.nodes)
    assert len(first.nodes) == len(triangular_lattice(8).nodes)
    assert SpringNetwork.from_geometry(first).zero_modes() == 0
    degrees = np.bincount(first.bonds.ravel())
    assert len(set(degrees.tolist())) > 4  # no lattice any more


def test_a_jitter_that_cannot_be_is_refused() -> None:
    with pytest.raises(MechanicsError, match=r"jitter 0\.7"):
        irregular_network(4, jitter=0.7)
