"""The plant in the exact regime: nonlinear equilibria, the way between them, branches."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from hil.config import build
from hil.mechanics.finite_springs import FiniteSpringNetwork
from hil.mechanics.geometry import triangular_lattice
from hil.messages.wire import Target
from hil.types import Array
from sim.rigs.spring_network_plant import SpringNetworkPlant
from tests.unit.sim.rig import shipped, some_stiffness

LATTICE = triangular_lattice(4)
NETWORK = FiniteSpringNetwork.from_geometry(LATTICE)
K = some_stiffness()
LATER = 10_000_000  # us


def plant(**over: Any) -> SpringNetworkPlant:
    config = shipped(rig__force_max=5.0, board__plant__regime="exact")
    assert config.board is not None
    table = config.board["plant"] | over
    made: SpringNetworkPlant = build(table, "plant", rig=config.rig, seed=1, ideal=True)
    made.write(0, Target.STIFFNESS, 0, K)
    return made


def push(force: float) -> Array:
    load = np.zeros(NETWORK.dof)
    load[LATTICE.dof(2, 0)], load[LATTICE.dof(10, 1)] = force, -force
    return load


def test_it_rests_at_the_equilibrium_of_true_lengths() -> None:
    rig = plant()
    rig.write(0, Target.FORCE, 0, push(0.3))
    found = rig.sample(LATER)
    expected = NETWORK.settle(K, push(0.3))
    assert np.allclose(found, np.concatenate(expected), atol=1e-14)
    linear = NETWORK.linear.settle(K, push(0.3))
    assert np.abs(found - np.concatenate(linear)).max() > 1e-4  # m: it is another regime
    rig.write(LATER, Target.FORCE, 0, np.zeros(NETWORK.dof))
    assert not rig.sample(2 * LATER).any()  # bit for bit
    assert rig.snaps == 0


def test_on_its_way_it_has_the_lengths_it_has() -> None:
    rig = plant(settling_time=0.01)
    rig.write(0, Target.FORCE, 0, push(0.3))
    found = rig.sample(8_000)
    u, e = found[: NETWORK.dof], found[NETWORK.dof :]
    assert 0.3 < np.abs(u).max() / np.abs(rig.sample(LATER)[: NETWORK.dof]).max() < 0.8
    assert np.allclose(e, NETWORK.elongation(u), atol=1e-16)


def test_the_regime_of_a_plant_is_one_of_two() -> None:
    with pytest.raises(Exception, match="regime"):
        plant(regime="cubic")
    assert msgspec.to_builtins(plant().settings)["regime"] == "exact"


def test_a_network_that_snaps_stays_where_it_went() -> None:
    rig = plant()
    rig.write(0, Target.FORCE, 0, push(4.0))
    rig.sample(LATER)
    assert rig.snaps > 0
    rig.write(LATER, Target.FORCE, 0, np.zeros(NETWORK.dof))
    left = rig.sample(2 * LATER)[: NETWORK.dof]
    assert np.abs(left).max() > 1e-3  # folded over, unloaded
    assert np.abs(NETWORK.force(K, left)).max() < 1e-9
