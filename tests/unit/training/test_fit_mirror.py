"""Fitting a plant that cannot tell left from right."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.errors import ConfigError
from hil.models import store
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel, FnodeSettings, features
from hil.training.fit import Fit, FitResult, FitSettings, Motion, cut
from hil.training.network import Blocks, Network, signs
from hil.types import Array
from tests.unit.training.cart_pole_runs import PERIOD, balanced_runs

NETWORK = FnodeSettings(nq=2, nu=1, angles=(0,), hidden=(128, 128))  # x enters, too
SETTINGS = FitSettings(network=NETWORK, epochs=4, mirror=True)


@pytest.fixture(scope="module")
def motions() -> list[Motion]:
    return balanced_runs(5, seconds=12.0, runs=3)


@pytest.fixture(scope="module")
def fitted(motions: list[Motion]) -> FitResult[FnodeModel]:
    return Fit(SETTINGS, seed=0).run(motions)


def points(model: AbstractDynamics, count: int = 50) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(1)
    q, v = random.normal(0, 0.4, (2, count, model.nq))
    return q, v, random.normal(0, 10, (count, model.nu))


def test_a_mirror_changes_the_sign_of_all_but_cosines() -> None:
    q, v, u = np.array([[0.3, -0.2]]), np.array([[1.0, 2.0]]), np.array([[-5.0]])
    turned = features(NETWORK, -q, -v, -u)
    np.testing.assert_array_equal(turned, signs(NETWORK) * features(NETWORK, q, v, u))


def test_the_model_is_odd_and_at_rest_in_the_middle(fitted: FitResult[FnodeModel]) -> None:
    q, v, u = points(fitted.model)
    there = fitted.model.acceleration(q, v, u)
    np.testing.assert_allclose(fitted.model.acceleration(-q, -v, -u), -there, atol=1e-11)
    rest = fitted.model.linearise(np.zeros(4), np.zeros(1))
    np.testing.assert_allclose(rest.acceleration, 0.0, atol=1e-12)
    np.testing.assert_allclose(
        fitted.model.domains(-q, -v, -u), fitted.model.domains(q, v, u), rtol=1e-6
    )


def test_its_slopes_are_those_of_the_equations(fitted: FitResult[FnodeModel]) -> None:
    truth = CartPoleModel().linearise(np.zeros(4), np.zeros(1))
    found = fitted.model.linearise(np.zeros(4), np.zeros(1))
    np.testing.assert_allclose(found.by_state[:, 0], truth.by_state[:, 0], rtol=0.02)
    np.testing.assert_allclose(found.by_input, truth.by_input, rtol=0.02)


def test_mirrored_data_give_the_same_model(
    motions: list[Motion], fitted: FitResult[FnodeModel]
) -> None:
    """Left and right exchanged in every recording: the same blocks, the same answers."""
    turned = [Motion(m.period, -m.q, -m.u) for m in motions]
    other = Fit(SETTINGS, seed=0).run(turned)
    q, v, u = points(fitted.model)
    np.testing.assert_allclose(
        other.model.acceleration(q, v, u), fitted.model.acceleration(q, v, u), rtol=1e-4, atol=1e-4
    )


def test_without_it_a_bias_is_left(motions: list[Motion]) -> None:
    free = Fit(msgspec.structs.replace(SETTINGS, mirror=False), seed=0).run(motions)
    rest = free.model.linearise(np.zeros(4), np.zeros(1)).acceleration
    assert np.abs(rest).max() > 1e-4


def test_it_is_stored_like_any_other(fitted: FitResult[FnodeModel], tmp_path: Path) -> None:
    loaded, about = store.load(store.save(fitted.model, tmp_path, fitted.metadata))
    q, v, u = points(loaded)
    np.testing.assert_array_equal(loaded.acceleration(q, v, u), fitted.model.acceleration(q, v, u))
    assert about["training"]["fit"]["mirror"] is True


@pytest.fixture
def network(motions: list[Motion]) -> tuple[Network, Blocks]:
    tiny = msgspec.structs.replace(NETWORK, hidden=(6, 4))
    blocks, _ = cut(motions, msgspec.structs.replace(SETTINGS, network=tiny), PERIOD)
    net = Network.start(tiny, blocks, 0.5, np.random.default_rng(0), mirror=True)
    scaled = net.scaled(Blocks(blocks.points[:4], blocks.targets[:4], blocks.kernel))
    net.solve(scaled, scaled, (1e-6,))
    return net, scaled


def test_a_step_along_the_tied_gradient_is_the_steepest_that_stays_odd(
    network: tuple[Network, Blocks],
) -> None:
    """Its part that no mirror sees is the whole gradient; along it the loss falls as it says."""
    net, blocks = network
    some = np.arange(4)
    loss, gradient = net.gradient(blocks, some)
    tied = net.tied(gradient)
    np.testing.assert_allclose(net.tied(net.flat), net.flat[: net.below], atol=1e-15)
    np.testing.assert_allclose(net.tied(np.r_[tied, gradient[net.below :]]), tied, atol=1e-15)
    step = 1e-6 / np.linalg.norm(tied)
    moved = net.copy()
    moved.flat[: net.below] -= step * tied
    expected = -step * tied @ gradient[: net.below]
    assert expected == pytest.approx(-step * tied @ tied, rel=1e-9)
    assert moved.gradient(blocks, some)[0] - loss == pytest.approx(expected, rel=1e-3)


def test_the_exact_solve_leaves_no_gradient_that_stays_odd(
    network: tuple[Network, Blocks],
) -> None:
    net, blocks = network
    net.solve(blocks, blocks, (1e-12,))
    slope = net.gradient(blocks, np.arange(4))[1]
    after = Network(net.settings, slope, [np.ones(1)] * 4)
    half = after.last.shape[1] // 2
    scale = np.abs(slope[: net.below]).max()
    assert np.abs(after.last[:, :half] - after.last[:, half:]).max() < 1e-5 * scale
    assert np.abs(after.skip[:, signs(net.settings) < 0]).max() < 1e-5 * scale


def test_layers_need_two_halves(motions: list[Motion]) -> None:
    odd = msgspec.structs.replace(NETWORK, hidden=(8, 7))
    with pytest.raises(ConfigError, match="even numbers of units"):
        Fit(msgspec.structs.replace(SETTINGS, network=odd)).run(motions)
