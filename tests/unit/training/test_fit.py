"""Fitting: the weak form, the gradient, the exact solve, and the slopes at the upright."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.config import build, check
from hil.errors import ConfigError
from hil.mechanics.cart_pole import CartPole
from hil.models import store
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel, FnodeSettings
from hil.training.fit import Fit, FitProgress, FitResult, FitSettings, Motion, applied, cut, kernels
from hil.training.network import Blocks, Network
from hil.types import Array
from tests.unit.training.cart_pole_runs import ANGLE_STEP, PERIOD, balanced_runs

NETWORK = FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,), hidden=(64, 64))
SETTINGS = FitSettings(network=NETWORK, epochs=6)


@pytest.fixture(scope="module")
def motions() -> list[Motion]:
    return balanced_runs(1, seconds=15.0, runs=4)


@pytest.fixture(scope="module")
def fitted(motions: list[Motion]) -> FitResult[FnodeModel]:
    return Fit(SETTINGS, seed=0).run(motions)


def slopes(model: AbstractDynamics) -> Array:
    """Return ∂θ̈/∂θ, ∂θ̈/∂u, ∂ẍ/∂θ, ∂ẍ/∂u at the upright."""
    at = model.linearise(np.zeros(4), np.zeros(1))
    return np.stack([at.by_state[:, 0], at.by_input[:, 0]], axis=1).ravel()


TRUTH = slopes(CartPoleModel())


def test_the_truth_is_that_of_the_paper_by_hand() -> None:
    np.testing.assert_allclose(TRUTH, [2 * 9.81 / 0.5, -1 / 0.5, -9.81, 1], rtol=1e-12)


def test_slopes_from_quantised_poses_are_within_two_per_cent(fitted: FitResult[FnodeModel]) -> None:
    np.testing.assert_allclose(slopes(fitted.model), TRUTH, rtol=0.02)


def test_it_predicts_motion_it_has_not_seen(fitted: FitResult[FnodeModel]) -> None:
    """On another recording, at true states: the equations are the judge, not the poses."""
    random = np.random.default_rng(7)
    q, v = random.normal(0, (0.1, 0.3), (500, 2)), random.normal(0, (0.6, 0.6), (500, 2))
    u = random.normal(0, 8, (500, 1))
    truth = CartPole().acceleration(q, v, u)
    error = fitted.model.acceleration(q, v, u) - truth
    assert (np.sqrt((error**2).mean(axis=0)) < 0.02 * truth.std(axis=0)).all()


def test_the_domain_knows_the_data(fitted: FitResult[FnodeModel], motions: list[Motion]) -> None:
    model = fitted.model
    assert model.domain(np.zeros(4), np.zeros(1)) < 0.3
    assert model.domain(np.array([np.pi, 0, 0, 0]), np.zeros(1)) > 2
    assert model.domain(np.zeros(4), np.array([300.0])) > 2
    assert model.domain(np.array([0, 50.0, 0, 0]), np.zeros(1)) < 0.3  # x does not matter


def test_labels_do_worse_than_the_weak_form(
    motions: list[Motion], fitted: FitResult[FnodeModel]
) -> None:
    """A window of 60 ms biases second derivatives of quantised poses; the kernel does not."""
    settings = msgspec.structs.replace(SETTINGS, target="labels", epochs=1)
    found = Fit(settings, seed=0).run(motions)
    assert found.reconstruction is not None
    weak, label = (np.abs(slopes(r.model) / TRUTH - 1).max() for r in (fitted, found))
    assert weak < 0.5 * label


@pytest.mark.parametrize("labels", ["differences-3", "differences-5", "smooth"])
def test_labels_do_on_clean_poses(labels: str) -> None:
    clean = balanced_runs(2, seconds=10.0, runs=2, quantised=False)
    table = {"target": "labels", "labels": labels, "epochs": 0, "smoother": 0.03}
    settings = check({"network": msgspec.to_builtins(NETWORK), **table}, FitSettings, "fit")
    found = Fit(settings, seed=0).run(clean)
    np.testing.assert_allclose(slopes(found.model), TRUTH, rtol=0.05)


def test_equal_seeds_give_equal_bits(motions: list[Motion]) -> None:
    settings = msgspec.structs.replace(SETTINGS, epochs=2)
    stored = [replace(m, q=m.q.copy(order="F"), u=m.u.copy()) for m in motions[:2]]
    one, other = (Fit(settings, seed=seed).run(motions[:2]) for seed in (3, 4))
    same = Fit(settings, seed=3).run(stored)
    for name, array in one.model.weights.arrays().items():
        assert np.array_equal(array, same.model.weights.arrays()[name]), name
    assert not np.array_equal(one.model.weights.last, other.model.weights.last)


def test_progress_and_early_stopping(motions: list[Motion]) -> None:
    heard: list[FitProgress] = []
    small = msgspec.structs.replace(NETWORK, hidden=(12,))
    settings = msgspec.structs.replace(SETTINGS, network=small, epochs=40, patience=2, rate=3e-3)
    found = Fit(settings, seed=0).run(motions[:2], heard.append)
    assert [p.epoch for p in heard] == list(range(found.epochs + 1))
    losses = [p.validation_loss for p in heard]
    assert found.validation_loss == losses[found.best_epoch]
    assert found.validation_loss < losses[0], "training gained nothing"
    assert found.epochs == 40 or found.epochs >= found.best_epoch + 2


def test_a_model_goes_to_disk_with_its_story(
    fitted: FitResult[FnodeModel], motions: list[Motion], tmp_path: Path
) -> None:
    loaded, about = store.load(store.save(fitted.model, tmp_path, fitted.metadata))
    assert np.array_equal(slopes(loaded), slopes(fitted.model))
    assert about["training"]["seed"] == 0
    assert about["training"]["fit"]["kernel"] == SETTINGS.kernel
    again = Fit(msgspec.structs.replace(SETTINGS, epochs=0), seed=0)
    moved = [replace(motions[0], q=motions[0].q + ANGLE_STEP)]
    hashes = [again.run(data).metadata["data_sha256"] for data in (motions[:1], moved)]
    assert len({*hashes, about["training"]["data_sha256"]}) == 3


# The parts


def test_the_kernel_integrates_by_parts() -> None:
    """ψ against f and ψ'' against q agree for motion whose second derivative is known."""
    over, second = kernels(PERIOD, 0.15)
    assert len(over) == 30
    assert len(second) == 31
    assert over.sum() == pytest.approx(1, abs=1e-14)
    time = (np.arange(31) - 15) * PERIOD
    between = (time[1:] + time[:-1]) / 2
    for power in (0, 1, 2):
        motion = time**power
        assert second @ motion == pytest.approx(2.0 * (power == 2), abs=1e-9)
    for w in (5.0, 20.0, 40.0):
        filtered = over @ (-(w**2) * np.cos(w * between))
        assert second @ np.cos(w * time) == pytest.approx(filtered, rel=2e-3)


def test_the_kernel_knows_when_a_held_input_changes() -> None:
    """Double integration of a jump at sample 4 of 30, exactly, gives the filtered jump."""
    over, second = kernels(PERIOD, 0.15)
    force = (np.arange(30) >= 4).astype(float)
    time = np.arange(31) * PERIOD
    motion = 0.5 * np.maximum(time - time[4], 0) ** 2
    assert second @ motion == pytest.approx(over @ force, rel=2e-3)


def test_inputs_act_late_and_slowly() -> None:
    """Delay and lag against a fine simulation of both."""
    random, fine = np.random.default_rng(0), 200
    u = np.repeat(random.normal(size=(30, 1)), 3, axis=0)
    delay, lag = 0.0123, 0.008
    assert np.array_equal(applied(u, PERIOD, 0.0, 0.0), u)
    h = PERIOD / fine
    held = np.repeat(u[:, 0], fine)
    shift = round(delay / h)
    late = np.concatenate([np.full(shift, u[0, 0]), held])[: len(held)]
    state, trace = u[0, 0], np.empty(len(held))
    for i, target in enumerate(late):
        trace[i] = target + (state - target) * (lag / h) * (1 - np.exp(-h / lag))
        state = target + (state - target) * np.exp(-h / lag)
    delayed = late.reshape(-1, fine).mean(axis=1)
    np.testing.assert_allclose(applied(u, PERIOD, delay, 0.0)[:, 0], delayed, atol=1e-9)
    slow = trace.reshape(-1, fine).mean(axis=1)
    np.testing.assert_allclose(applied(u, PERIOD, delay, lag)[:, 0], slow, atol=1e-9)


@pytest.fixture
def network(motions: list[Motion]) -> tuple[Network, Blocks]:
    tiny = msgspec.structs.replace(NETWORK, hidden=(5, 4))
    blocks, _ = cut(motions, msgspec.structs.replace(SETTINGS, network=tiny), PERIOD)
    random = np.random.default_rng(0)
    net = Network.start(tiny, blocks, 0.5, random)
    net.flat += random.normal(0, 0.1, net.flat.size)
    return net, net.scaled(Blocks(blocks.points[:4], blocks.targets[:4], blocks.kernel))


def test_the_gradient_is_that_of_differences(network: tuple[Network, Blocks]) -> None:
    net, blocks = network
    some = np.array([0, 2, 3])
    loss, gradient = net.gradient(blocks, some)
    assert loss == pytest.approx((net.residual(blocks, some) ** 2).mean(), rel=1e-12)
    for index in range(net.flat.size):
        kept, ends = net.flat[index], []
        for step in (1e-6, -1e-6):
            net.flat[index] = kept + step
            ends.append((net.residual(blocks, some) ** 2).mean())
        net.flat[index] = kept
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_the_exact_solve_leaves_no_gradient(network: tuple[Network, Blocks]) -> None:
    """With next to no ridge the last layer is at a stationary point of the loss."""
    net, blocks = network
    before = net.gradient(blocks, np.arange(4))[1][net.below :]
    net.solve(blocks, blocks, (1e-12,))
    after = net.gradient(blocks, np.arange(4))[1][net.below :]
    assert np.abs(after).max() < 1e-6 * np.abs(before).max()


def test_blocks_do_not_know_their_neighbours(motions: list[Motion]) -> None:
    """Changing the poses under one block changes no other."""
    blocks, _ = cut(motions[:1], SETTINGS, PERIOD)
    length = round(SETTINGS.block / PERIOD)
    q = motions[0].q.copy()
    q[length + 15 : length + 200, 0] += 0.01  # in the middle of the second
    others, _ = cut([replace(motions[0], q=q)], SETTINGS, PERIOD)
    changed = [
        i
        for i in range(len(blocks.points))
        if not np.array_equal(blocks.points[i], others.points[i])
        or not np.array_equal(blocks.targets[i], others.targets[i])
    ]
    assert changed == [1]


def test_mistakes_are_named(motions: list[Motion]) -> None:
    fit = Fit(SETTINGS)
    one = motions[0]
    cases = [
        ([], "no motions"),
        ([Motion(PERIOD, one.q[:100], one.u[:100])], "motion 1: 0.50 s is shorter"),
        ([one, replace(one, period=0.01)], "motion 2: sampled every 0.01 s"),
        ([Motion(PERIOD, one.q[:, :1], one.u)], "motion 1: 1 positions and 1 inputs"),
        ([replace(one, q=one.q % (2 * np.pi))], "motion 1: angle 0 jumps by 6"),
        ([Motion(PERIOD, one.q[:320], one.u[:320])], "one block of time"),
    ]
    for data, message in cases:
        with pytest.raises(ConfigError, match=message):
            fit.run(data)
    with pytest.raises(ConfigError, match="must be finite"):
        Motion(PERIOD, np.full((5, 2), np.nan), np.zeros((5, 1)))
    with pytest.raises(ConfigError, match="expected q"):
        Motion(PERIOD, np.zeros((5, 2)), np.zeros((4, 1)))
    with pytest.raises(ConfigError, match="at least 8 are needed"):
        Fit(msgspec.structs.replace(SETTINGS, kernel=0.02)).run(motions)
    with pytest.raises(ConfigError, match="less than two kernels"):
        Fit(msgspec.structs.replace(SETTINGS, block=0.25)).run(motions)


def test_it_is_a_part_of_a_configuration() -> None:
    table = {"kind": "hil.training.fit:Fit", "network": {"nq": 2, "nu": 1, "angles": [0]}}
    assert isinstance(build(table, "fit", seed=1), Fit)
    with pytest.raises(ConfigError, match=r"fit\.kernel"):
        build({**table, "kernel": 5.0}, "fit", seed=1)
