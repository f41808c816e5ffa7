"""Lost bonds: what the self-stresses say against what happens when a bond is taken out."""

from __future__ import annotations

import numpy as np

from hil.mechanics.damage import common_self_stress, self_stresses, zero_mode_bonds
from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array

GEOMETRY = triangular_lattice(4)
NETWORK = SpringNetwork.from_geometry(GEOMETRY)
K = np.random.default_rng(3).uniform(90.0, 180.0, NETWORK.bond_count)


def without(bond: int) -> Array:
    k = K.copy()
    k[bond] = 0.0
    return k


def test_self_stresses_balance_at_every_free_node() -> None:
    found = self_stresses(NETWORK)
    assert found.shape == (28, NETWORK.self_stresses) == (28, 4)
    assert np.abs(NETWORK.compat.T @ found).max() < 1e-12


def test_the_bonds_whose_loss_makes_a_zero_mode() -> None:
    found = zero_mode_bonds(NETWORK)
    named = {tuple(sorted(int(n) + 1 for n in GEOMETRY.bonds[bond])) for bond in found}
    assert named == {(5, 9), (1, 6)}  # as published
    for bond in range(28):
        assert (NETWORK.zero_modes(without(bond)) > 0) == (bond in found)


def test_bonds_of_one_self_stress_are_lost_together() -> None:
    """With no load between them, the network without one is the network without the other."""
    groups = common_self_stress(NETWORK)
    names = {tuple(sorted(int(n) + 1 for n in GEOMETRY.bonds[bond])) for bond in groups[4]}
    assert names == {(3, 8), (3, 7)}
    load = np.zeros(24)
    load[GEOMETRY.dof(11, 1)] = load[GEOMETRY.dof(13, 0)] = 0.05  # nodes 12 and 14: not at 3
    one, other = (NETWORK.settle(without(bond), load).displacement for bond in groups[4])
    elsewhere = np.delete(np.arange(24), [GEOMETRY.dof(2, axis) for axis in (0, 1)])
    assert np.allclose(one[elsewhere], other[elsewhere], rtol=1e-9, atol=1e-15)
    whole = NETWORK.settle(K, load).displacement
    assert not np.allclose(one, whole, rtol=1e-3)
