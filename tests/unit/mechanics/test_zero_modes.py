from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MechanicsError
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array
from tests.unit.mechanics import truth

LATTICE = triangular_lattice(4)
PAPER = SpringNetwork.from_geometry(LATTICE)


def bond_index(first: int, second: int) -> int:
    """Return the bond between two nodes of the paper's lattice, counted from 1."""
    return [sorted(bond) for bond in (LATTICE.bonds + 1).tolist()].index([first, second])


def without(*bonds: int, count: int = 28) -> Array:
    k = np.full(count, 137.5)
    k[list(bonds)] = 0.0
    return k


def thinned(geometry: Geometry, *gone: int) -> SpringNetwork:
    """Return the network made without some bonds, rather than with their stiffness 0."""
    return SpringNetwork(geometry.nodes, np.delete(geometry.bonds, gone, axis=0), geometry.fixed)


def refusal(network: SpringNetwork, k: Array) -> str:
    with pytest.raises(MechanicsError) as raised:
        network.settle(k, np.zeros(network.dof))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("bond", range(28))
def test_every_bond_taken_out(bond: int) -> None:
    compat = np.delete(truth.compatibility(LATTICE), bond, axis=0)
    expected = 24 - int(np.linalg.matrix_rank(compat))
    assert PAPER.zero_modes(without(bond)) == expected
    network = thinned(LATTICE, bond)
    assert network.zero_modes() == expected
    assert network.self_stresses == 27 - 24 + expected


@pytest.mark.parametrize("pair", [(5, 9), (1, 6)])
def test_the_two_bonds_that_hold_the_paper_lattice(pair: tuple[int, int]) -> None:
    bond = bond_index(*pair)
    assert PAPER.zero_modes(without(bond)) == 1
    found = refusal(PAPER, without(bond))
    assert f"without bond {bond + 1} {pair} there is a zero mode" in found
    network = thinned(LATTICE, bond)
    found = refusal(network, np.ones(27))
    assert "there is a zero mode" in found
    assert "of node " in found
    with pytest.raises(MechanicsError):
        network.check()


def test_a_zero_mode_is_named_by_the_nodes_that_move() -> None:
    # Node 13 without its bonds to 10 and 11 hangs on (13, 14) and swings up and down.
    loose = without(bond_index(11, 13), bond_index(10, 13))
    assert PAPER.zero_modes(loose) == 1
    assert re.search(
        r"without bond 20 \(11, 13\), 24 \(10, 13\) .* of node 13;", refusal(PAPER, loose)
    )


def test_a_bond_that_is_not_needed_may_be_taken_out() -> None:
    bond = bond_index(7, 11)
    k = without(bond)
    load = np.random.default_rng(0).standard_normal((3, 24))
    for _ in range(2):
        found = PAPER.settle(k, load).displacement
    thin = thinned(LATTICE, bond).settle(np.delete(k, bond), load).displacement
    np.testing.assert_allclose(found, thin, rtol=1e-10)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, -np.inf])
def test_a_stiffness_that_cannot_be_is_refused_by_bond(value: float) -> None:
    k = without()
    k[bond_index(5, 9)] = value
    assert f"stiffness of bond 6 (5, 9) is {value} N/m" in refusal(PAPER, k)
    with pytest.raises(MechanicsError, match=r"bond 6 \(5, 9\)"):
        PAPER.zero_modes(k)
    with pytest.raises(MechanicsError, match=r"bond 6 \(5, 9\)"):
        PAPER.settle(k.astype(complex), np.zeros(24))


def test_no_stiffness_at_all() -> None:
    assert PAPER.zero_modes(np.zeros(28)) == 24
    assert "24 zero modes" in refusal(PAPER, np.zeros(28))


def test_a_network_that_hangs_on_next_to_nothing_is_refused() -> None:
    k = without()
    k[bond_index(5, 9)] = 1e-13
    assert PAPER.zero_modes(k) == 1
    assert "stiffness spans 1e-13 to 138 N/m" in refusal(PAPER, k)


def test_a_soft_bond_that_is_not_needed_is_no_reason_to_refuse() -> None:
    k = without()
    k[bond_index(7, 11)] = 1e-13
    load = np.ones(24)
    expected, _ = truth.settle(LATTICE, k, load[None])
    np.testing.assert_allclose(PAPER.settle(k, load).displacement, expected[0], rtol=1e-9)


def test_very_uneven_stiffness_within_reach_is_solved() -> None:
    k = without()
    k[bond_index(5, 9)] = 1e-6
    load = np.zeros(24)
    load[LATTICE.dof(13, 1)] = 1e-9
    found = PAPER.settle(k, load)
    assert 0.5 * load @ found.displacement == pytest.approx(0.5 * k @ found.elongation**2, rel=1e-6)


@pytest.mark.parametrize(
    ("geometry", "motions"),
    [
        (Geometry(LATTICE.nodes, LATTICE.bonds), 3),
        (Geometry(LATTICE.nodes, LATTICE.bonds, (0,)), 1),
        (Geometry(truth.octet(3).nodes, truth.octet(3).bonds), 6),
        (Geometry(triangular_lattice(20).nodes, triangular_lattice(20).bonds), 3),
        (Geometry(truth.octet(6).nodes, truth.octet(6).bonds), 6),
    ],
    ids=["plane", "hinged", "space", "plane, large", "space, large"],
)
def test_a_network_that_is_not_held_moves_as_a_body(geometry: Geometry, motions: int) -> None:
    network = SpringNetwork.from_geometry(geometry)
    assert network.zero_modes() == motions
    assert network.self_stresses == network.bond_count - network.dof + motions
    assert "zero mode" in refusal(network, np.ones(network.bond_count))


def test_a_straight_chain_moves_across() -> None:
    nodes = np.array([(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)])
    network = SpringNetwork(nodes, np.array([(0, 1), (1, 2)]), (0, 2))
    assert network.zero_modes() == 1
    assert network.self_stresses == 1
    assert "of node 2;" in refusal(network, np.ones(2))


def test_nodes_in_line_but_for_rounding_count_as_in_line() -> None:
    tilt = np.pi / 7  # no coordinate is exact
    line = np.outer(np.arange(3.0), (np.cos(tilt), np.sin(tilt)))
    network = SpringNetwork(line, np.array([(0, 1), (1, 2)]), (0, 2))
    assert network.zero_modes() == 1
    assert "of node 2;" in refusal(network, np.ones(2))


def test_a_node_without_a_bond_is_named() -> None:
    nodes = np.vstack([LATTICE.nodes, [(0.1, 0.1)]])
    network = SpringNetwork(nodes, LATTICE.bonds, LATTICE.fixed)
    assert network.zero_modes() == 2
    assert "2 zero modes" in refusal(network, np.ones(28))
    assert "of node 15;" in refusal(network, np.ones(28))


def test_bonds_between_fixed_nodes_hold_nothing() -> None:
    network = SpringNetwork(np.eye(3), np.array([(0, 1)]), (0, 1))
    assert network.zero_modes() == 3
    assert "3 zero modes" in refusal(network, np.ones(1))


@pytest.mark.parametrize("n", [20, 64])
def test_one_loose_node_in_a_large_lattice(n: int) -> None:
    lattice = triangular_lattice(n)
    network = SpringNetwork.from_geometry(lattice)
    assert network.zero_modes() == 0
    node = len(lattice.nodes) // 2
    around = np.flatnonzero((lattice.bonds == node).any(axis=1))
    k = without(*around[1:], count=network.bond_count)  # on one bond it swings
    assert network.zero_modes(k) == 1
    assert f"of node {node + 1};" in refusal(network, k)
    k = without(*around, count=network.bond_count)
    assert network.zero_modes(k) == 2


def test_a_large_lattice_that_swings_on_one_support() -> None:
    lattice = triangular_lattice(20)
    corner = np.flatnonzero(((lattice.bonds == 0) | (lattice.bonds == 20)).any(axis=1))
    down = [bond for bond in corner if 21 in lattice.bonds[bond] or 40 in lattice.bonds[bond]]
    for bond in down:  # the generalisation of (1, 6) and (5, 9)
        network = thinned(lattice, int(bond))
        assert network.zero_modes() == 1
        assert "a zero mode" in refusal(network, np.ones(network.bond_count))


def test_many_loose_nodes_in_a_large_lattice_are_counted() -> None:
    lattice = triangular_lattice(20)
    network = SpringNetwork.from_geometry(lattice)
    loose = [30 + 4 * i for i in range(4)] + [100 + 4 * i for i in range(3)]
    around = np.flatnonzero(np.isin(lattice.bonds, loose).any(axis=1))
    assert len(around) == 6 * len(loose)  # none is the neighbour of another
    assert network.zero_modes(without(*around, count=network.bond_count)) == 2 * len(loose)


def test_a_large_network_in_pieces_is_refused_without_counting_to_the_end() -> None:
    network = SpringNetwork.from_geometry(triangular_lattice(20))
    k = np.zeros(network.bond_count)
    assert "at least 64 zero modes" in refusal(network, k)
    k[0] = 1.0
    assert "at least 64 zero modes" in refusal(network, k)


def test_a_slender_truss_is_soft_and_not_loose() -> None:
    truss = truth.ladder(600)  # tip stiffness 1e-8 of a bond's
    network = SpringNetwork.from_geometry(truss)
    assert network.zero_modes() == 0
    load = np.zeros(network.dof)
    load[-1] = 1.0
    k = np.ones(network.bond_count)
    found = network.settle(k, load)
    assert found.displacement[-1] > 1e8
    np.testing.assert_allclose(k * found.elongation @ network.compat, load, atol=1e-6)
    diagonal = int(np.flatnonzero((truss.bonds == (600, 603)).all(axis=1))[0])
    assert thinned(truss, diagonal).zero_modes() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_rank_of_any_network(seed: int, gone: int) -> None:
    geometry = truth.irregular(seed)
    random = np.random.default_rng(seed)
    bonds = random.choice(len(geometry.bonds), gone, replace=False)
    network = thinned(geometry, *bonds)
    compat = np.delete(truth.compatibility(geometry), bonds, axis=0)
    expected = network.dof - int(np.linalg.matrix_rank(compat, tol=1e-9))
    assert network.zero_modes() == expected
    if expected:
        assert "zero mode" in refusal(network, np.ones(network.bond_count))
    else:
        network.check()
