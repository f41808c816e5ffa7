"""Springs at any displacement against energy, differences, the linear regime and a known snap."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import MechanicsError
from hil.mechanics.finite_springs import FiniteSpringNetwork, make_statics
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array

LATTICE = triangular_lattice(4)
NETWORK = FiniteSpringNetwork.from_geometry(LATTICE)
RANDOM = np.random.default_rng(4)
K = RANDOM.uniform(90.0, 180.0, NETWORK.bond_count)


def loads(force: float) -> Array:
    """Return two load cases that push nodes 3 and 11: (2, dof), N."""
    found = np.zeros((2, NETWORK.dof))
    found[:, LATTICE.dof(2, 0)] = force
    found[:, LATTICE.dof(10, 1)] = force, -force
    return found


def truss(height: float = 0.004) -> Geometry:
    """Return two bars that lean on each other: half a span of 20 mm, apex above."""
    nodes = np.array([[-0.02, 0.0], [0.02, 0.0], [0.0, height]])
    return Geometry(nodes, np.array([[0, 2], [1, 2]]), (0, 1))


def test_the_load_is_the_slope_of_the_energy() -> None:
    load = loads(0.3)[0]
    u = NETWORK.settle(K, load).displacement
    assert np.abs(NETWORK.elongation(u) / LATTICE.lengths).max() > 0.08  # far from linear
    step = 1e-7
    slope = [
        (NETWORK.energy(K, u + d) - NETWORK.energy(K, u - d)) / (2 * step)
        for d in step * np.eye(NETWORK.dof)
    ]
    assert np.allclose(slope, load, atol=1e-9)
    assert np.allclose(NETWORK.force(K, u), load, atol=1e-15)


def test_elongations_are_differences_of_lengths() -> None:
    u = NETWORK.settle(K, loads(0.3)).displacement[1]
    at = LATTICE.nodes.copy()
    at.ravel()[LATTICE.free_dofs] += u
    length = np.linalg.norm(at[LATTICE.bonds[:, 1]] - at[LATTICE.bonds[:, 0]], axis=1)
    assert np.allclose(NETWORK.elongation(u), length - LATTICE.lengths, atol=1e-17)


def test_the_tangent_is_the_slope_of_the_force() -> None:
    u = NETWORK.settle(K, loads(0.3)).displacement[0]
    step = 1e-7
    slope = [
        (NETWORK.force(K, u + d) - NETWORK.force(K, u - d)) / (2 * step)
        for d in step * np.eye(NETWORK.dof)
    ]
    tangent = NETWORK.tangent(K, u)
    assert np.allclose(tangent, np.array(slope), atol=1e-5)
    assert np.allclose(tangent, tangent.T)
    assert np.linalg.eigvalsh(tangent)[0] > 0


def test_small_loads_are_the_linear_regime() -> None:
    linear = SpringNetwork.from_geometry(LATTICE)
    for force, error in ((1e-3, 5e-3), (1e-4, 5e-4)):
        expected = linear.settle(K, loads(force)).displacement
        found = NETWORK.settle(K, loads(force)).displacement
        assert np.abs(found - expected).max() < error * np.abs(expected).max()


def test_the_gradient_is_a_difference_quotient() -> None:
    pull = RANDOM.standard_normal((2, NETWORK.dof))
    found = NETWORK.backpropagate(K, loads(0.3), lambda u: pull + 100.0 * u)

    def loss(k: Array) -> float:
        u = NETWORK.settle(k, loads(0.3)).displacement
        return float((pull * u + 50.0 * u**2).sum(1).mean())

    step = 1e-2
    expected = [(loss(K + d) - loss(K - d)) / (2 * step) for d in step * np.eye(NETWORK.bond_count)]
    assert np.allclose(found.gradient, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_three_dimensions_and_a_banded_factorisation() -> None:
    nodes = np.array([[0, 0, 0], [1, 0, 0], [0.4, 0.9, 0], [0.5, 0.3, 0.8]], dtype=float)
    tetrahedron = Geometry(nodes, np.array([[0, 3], [1, 3], [2, 3]]), (0, 1, 2))
    network = FiniteSpringNetwork.from_geometry(tetrahedron)
    load = np.array([0.02, -0.03, -0.05])
    u = network.settle(np.ones(3), load).displacement
    assert np.allclose(network.force(np.ones(3), u), load, atol=1e-15)
    large = triangular_lattice(9)
    wide = FiniteSpringNetwork.from_geometry(large)
    assert wide.dof > 64
    load = np.zeros(wide.dof)
    load[large.dof(20, 0)] = 0.3
    k = np.full(wide.bond_count, 130.0)
    found = wide.settle(k, load).displacement
    assert np.allclose(wide.force(k, found), load, atol=1e-14)
    assert np.linalg.eigvalsh(wide.tangent(k, found))[0] > 0


def test_a_shallow_truss_snaps_where_it_is_known_to() -> None:
    """Von Mises truss: P(w) = 2 k (L − l)(h − w)/l, largest where l³ = L a²."""
    network, k = FiniteSpringNetwork.from_geometry(truss()), np.full(2, 100.0)
    half, height = 0.02, 0.004
    rest = np.hypot(half, height)
    length = (rest * half**2) ** (1 / 3)
    left = np.sqrt(length**2 - half**2)  # of the height, at the limit load
    limit = 2 * 100.0 * (rest - length) * left / length
    start = np.zeros(2)
    before = network.follow(k, np.array([0.0, -0.999 * limit]), start)
    assert not before.snapped
    assert before.displacement[1] == pytest.approx(left - height, rel=0.1)
    after = network.follow(k, np.array([0.0, -1.001 * limit]), start)
    assert after.snapped
    assert after.displacement[1] < -2 * height  # below the supports, pulled
    # Unloaded it stays there: the mirror image is a rest of its own.
    back = network.follow(k, np.zeros(2), after.displacement)
    assert not back.snapped
    assert back.displacement[1] == pytest.approx(-2 * height)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(MechanicsError, match="zero mode"):
        NETWORK.settle(np.where(np.arange(28) == 5, 0.0, K), loads(0.1)[0])
    with pytest.raises(MechanicsError, match="shape"):
        NETWORK.settle(K, np.zeros(3))
    with pytest.raises(MechanicsError, match="not a finite"):
        NETWORK.settle(K, np.full(NETWORK.dof, np.nan))


def test_a_regime_names_its_equations() -> None:
    assert isinstance(make_statics(LATTICE, "linear"), SpringNetwork)
    assert isinstance(make_statics(LATTICE, "exact"), FiniteSpringNetwork)
