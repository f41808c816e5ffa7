"""Fitting the coefficients of a mechanism: the equations are the judge, also outside the data."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.config import build
from hil.errors import ConfigError
from hil.mechanics.cart_pole import CartPole
from hil.mechanics.integrate import rk4
from hil.models import store
from hil.models.analytic import CartPoleModel
from hil.models.fnode import FnodeSettings
from hil.models.mechanical import MechanicalModel, degrees, term_count, terms
from hil.training.fit import FitResult, Motion
from hil.training.fit_mechanical import FitMechanical, FitMechanicalSettings
from hil.types import Array
from tests.unit.training.cart_pole_runs import PERIOD, balanced_runs

NETWORK = FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,), hidden=(16, 16))
SETTINGS = FitMechanicalSettings(network=NETWORK, mirror=True)


@pytest.fixture(scope="module")
def motions() -> list[Motion]:
    return balanced_runs(1, seconds=15.0, runs=4)


@pytest.fixture(scope="module")
def fitted(motions: list[Motion]) -> FitResult[MechanicalModel]:
    return FitMechanical(SETTINGS, seed=0).run(motions)


def slopes(found: FitResult[MechanicalModel] | CartPoleModel) -> Array:
    model = found.model if isinstance(found, FitResult) else found
    at = model.linearise(np.zeros(4), np.zeros(1))
    return np.stack([at.by_state[:, 0], at.by_input[:, 0]], axis=1).ravel()


@pytest.mark.parametrize("mirror", [True, False])
def test_slopes_from_quantised_poses(motions: list[Motion], mirror: bool) -> None:
    settings = msgspec.structs.replace(SETTINGS, mirror=mirror)
    found = FitMechanical(settings, seed=0).run(motions)
    np.testing.assert_allclose(slopes(found), slopes(CartPoleModel()), rtol=0.02)


def test_it_holds_at_forces_and_speeds_it_has_not_seen(fitted: FitResult[MechanicalModel]) -> None:
    """Three times the force and twice the speed of the data, at angles it knows."""
    random = np.random.default_rng(7)
    q = random.uniform(-0.15, 0.15, (300, 2))
    v, u = random.uniform(-4, 4, (300, 2)), random.uniform(-60, 60, (300, 1))
    truth = CartPole().acceleration(q, v, u)
    error = fitted.model.acceleration(q, v, u) - truth
    assert (np.sqrt((error**2).mean(axis=0)) < 0.03 * truth.std(axis=0)).all()


def test_a_mirrored_model_is_odd(fitted: FitResult[MechanicalModel]) -> None:
    random = np.random.default_rng(2)
    q, v, u = (
        random.normal(0, 1, (40, 2)),
        random.normal(0, 3, (40, 2)),
        random.normal(0, 9, (40, 1)),
    )
    there = fitted.model.acceleration(q, v, u)
    np.testing.assert_allclose(fitted.model.acceleration(-q, -v, -u), -there, rtol=1e-9, atol=1e-9)
    rest = fitted.model.linearise(np.zeros(4), np.zeros(1)).acceleration
    np.testing.assert_allclose(rest, 0.0, atol=1e-10)


def test_terms_are_all_products_up_to_squares_of_velocities() -> None:
    v, u = np.array([[2.0, 3.0]]), np.array([[5.0]])
    np.testing.assert_array_equal(terms(v, u), [[1.0, 5.0, 2.0, 3.0, 4.0, 6.0, 9.0]])
    assert term_count(NETWORK) == 7
    sign = (-1.0) ** degrees(NETWORK)
    np.testing.assert_array_equal(terms(-v, -u), sign * terms(v, u))


def test_slow_recordings_that_are_late_join_fast_ones(motions: list[Motion]) -> None:
    """50 Hz with the force held for 20 ms and a period late, as `hil control` records it."""
    plant, every = CartPole(), 4
    random = np.random.default_rng(3)
    steps = 400
    force = np.repeat(random.normal(0, 4.0, (steps, 1)), every, axis=0)
    x, poses = np.array([np.pi, 0.0, 0.0, 0.0]), []
    for i in range(steps * every):
        if i % every == 0:
            poses.append(x[:2])
        felt = force[i - every] if i >= every else np.zeros(1)
        x = rk4(plant.acceleration, x, felt, PERIOD)
    slow = Motion(PERIOD * every, np.array(poses), force[::every], delay=PERIOD * every)
    found = FitMechanical(SETTINGS, seed=0).run([*motions, slow])
    hanging = np.array([np.pi, 0.0, 0.0, 0.0])
    at = found.model.linearise(hanging, np.zeros(1))
    truth = CartPoleModel().linearise(hanging, np.zeros(1))
    np.testing.assert_allclose(at.by_state[:, 0], truth.by_state[:, 0], rtol=0.1)
    np.testing.assert_allclose(at.by_input, truth.by_input, rtol=0.1)
    np.testing.assert_allclose(slopes(found), slopes(CartPoleModel()), rtol=0.02)


def test_it_is_stored_and_found_again(fitted: FitResult[MechanicalModel], tmp_path: Path) -> None:
    path = store.save(fitted.model, tmp_path, fitted.metadata)
    loaded = store.load(path).model
    x, u = np.array([0.1, 0.2, 0.3, -0.4]), np.array([2.0])
    np.testing.assert_array_equal(
        loaded.linearise(x, u).by_state, fitted.model.linearise(x, u).by_state
    )
    assert loaded.domain(x, u) == fitted.model.domain(x, u) < 1.0
    assert loaded.domain(np.array([np.pi, 0, 0, 0]), u) > 1.0


def test_equal_seeds_give_equal_bits(
    motions: list[Motion], fitted: FitResult[MechanicalModel]
) -> None:
    again, other = (FitMechanical(SETTINGS, seed=seed).run(motions) for seed in (0, 1))
    for name, array in fitted.model.weights.arrays().items():
        np.testing.assert_array_equal(array, again.model.weights.arrays()[name])
    assert not np.array_equal(slopes(other), slopes(fitted))


def test_mistakes_are_named(motions: list[Motion]) -> None:
    with pytest.raises(ConfigError, match="no motions"):
        FitMechanical(SETTINGS).run([])
    odd = msgspec.structs.replace(NETWORK, hidden=(7,))
    with pytest.raises(ConfigError, match="even numbers"):
        FitMechanical(msgspec.structs.replace(SETTINGS, network=odd))
    table = {"kind": "hil.training.fit_mechanical:FitMechanical", "kernel": 5.0}
    with pytest.raises(ConfigError, match=r"fit\.kernel"):
        build({**table, "network": {"nq": 2, "nu": 1}}, "fit", seed=1)
