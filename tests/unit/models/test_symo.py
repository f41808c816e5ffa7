"""SyMo: slopes against differences, the map against what every variational integrator keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hil.models.fnode import Domain
from hil.models.lagrangian_forms import along_motion, answers, forms, inertia, jet
from hil.models.lagrangian_weights import LagrangianSettings, LagrangianWeights
from hil.models.symo import SymoModel, momenta, next_pose
from hil.training.fit_symo import batch_gradient
from hil.training.lagrangian_network import LagrangianNetwork, Triples
from hil.types import Array

PERIOD = 0.05
KINDS: dict[str, dict[str, Any]] = {
    "pendulum": {"nq": 1, "driven": (0,), "angles": (0,)},
    "cart-pole": {"nq": 2, "driven": (1,), "angles": (0,), "order": 4, "damping": "positions"},
    "three": {"nq": 3, "driven": (0, 2), "angles": (0, 1), "left_out": (2,), "damping": "constant"},
}


def samples(settings: LagrangianSettings, count: int, random: np.random.Generator) -> Triples:
    """Return poses that move smoothly, with noise: nothing has to fit."""
    nq, nu = settings.nq, settings.nu
    q = random.uniform(-2.0, 2.0, (count, nq))
    v = random.normal(0.0, 1.5, (count, nq))
    noise = random.normal(0.0, 5e-3, (count, nq))
    u = random.normal(0.0, 2.0, (2, count, nu))
    return Triples(q, q + PERIOD * v, q + 2 * PERIOD * v + noise, *u)


def network(name: str) -> tuple[LagrangianNetwork, Triples]:
    """Return a network of random weights and samples."""
    settings = LagrangianSettings(hidden=(7, 5), **KINDS[name])
    random = np.random.default_rng(3)
    data = samples(settings, 6, random)
    made = LagrangianNetwork.start(settings, data, PERIOD, random)
    return made.with_flat(made.flat + random.normal(0.0, 0.1, len(made.flat))), data


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[LagrangianNetwork, Triples]:
    return network(request.param)


def central(function: Any, at: Array, step: float = 1e-5) -> Array:
    """Return slopes of function (n, …) by the columns of `at` (n, m): (n, …, m)."""
    parts = []
    for column in range(at.shape[1]):
        move = np.zeros(at.shape[1])
        move[column] = step
        parts.append((function(at + move) - function(at - move)) / (2 * step))
    return np.stack(parts, axis=-1)


def close(found: Array, truth: Array) -> None:
    np.testing.assert_allclose(found, truth, rtol=2e-7, atol=2e-7 * max(1.0, np.abs(truth).max()))


def test_slopes_of_the_network(pair: tuple[LagrangianNetwork, Triples]) -> None:
    net, data = pair
    own = (net.settings, net.weights)
    found = jet(*own, data.first)
    assert np.array_equal(found.value, answers(*own, data.first))
    by_q = central(lambda q: answers(*own, q), data.first)
    close(found.first, by_q.swapaxes(1, 2))
    by_qq = central(lambda q: jet(*own, q).first, data.first)  # (n, i, outputs, j)
    close(found.second, by_qq.transpose(0, 1, 3, 2))


def test_slopes_of_the_lagrangian(pair: tuple[LagrangianNetwork, Triples]) -> None:
    net, data = pair
    own = (net.settings, net.weights)
    q, v, u = data.first, (data.second - data.first) / PERIOD, data.u_first
    at = forms(*own, q, v, u)
    close(at.by_q, central(lambda z: forms(*own, z, v, u).value, q))
    close(at.by_v, central(lambda z: forms(*own, q, z, u).value, v))
    close(at.by_qq, central(lambda z: forms(*own, z, v, u).by_q, q))
    close(at.by_qv, central(lambda z: forms(*own, q, z, u).by_q, v))
    close(at.by_vv, central(lambda z: forms(*own, q, z, u).by_v, v))
    by_qqv_v, by_qvv_v = along_motion(*own, q, v, u)
    close(by_qqv_v, np.einsum(
        "nbji,ni->njb", central(lambda z: forms(*own, z, v, u).by_qv.swapaxes(1, 2), q), v
    ))  # fmt: skip
    close(by_qvv_v, np.einsum(
        "nibd,ni->nbd", central(lambda z: forms(*own, q, z, u).by_qv, v), v
    ))  # fmt: skip
    close(at.friction_by_q, central(lambda z: forms(*own, z, v, u).friction, q))
    close(at.friction_by_v, central(lambda z: forms(*own, q, z, u).friction, v))
    if net.settings.order == 2:
        h = inertia(*own, q)
        assert np.allclose(at.by_vv, h, rtol=1e-12)
        assert (np.linalg.eigvalsh(h) > 0).all()


def test_momenta_are_slopes_of_the_discrete_lagrangian(
    pair: tuple[LagrangianNetwork, Triples],
) -> None:
    settings = LagrangianSettings(**{**KINDS["cart-pole"], "damping": "none"}, hidden=(7, 5))
    random = np.random.default_rng(5)
    data = samples(settings, 6, random)
    net = LagrangianNetwork.start(settings, data, PERIOD, random)
    net = net.with_flat(net.flat + random.normal(0.0, 0.2, len(net.flat)))
    still = np.zeros_like(data.u_first)

    def action(q0: Array, q1: Array) -> Array:
        middle, speed = 0.5 * (q0 + q1), (q1 - q0) / PERIOD
        return PERIOD * forms(settings, net.weights, middle, speed, still).value

    found = momenta(settings, net.weights, data.first, data.second, still)
    close(found.before, -central(lambda z: action(z, data.second), data.first))
    close(found.after, central(lambda z: action(data.first, z), data.second))
    net, data = pair  # with inputs and friction: the slope of p⁻
    own = (net.settings, net.weights)
    slope = central(lambda z: momenta(*own, data.first, z, data.u_first).before, data.second)
    close(momenta(*own, data.first, data.second, data.u_first).before_by_end, slope)


def test_residual_by_every_weight(pair: tuple[LagrangianNetwork, Triples]) -> None:
    net, data = pair
    nq = net.settings.nq
    rows = net.rows(data, np.broadcast_to(np.eye(nq), (len(data), nq, nq)))

    def moved(change: Array) -> Array:
        return net.with_flat(net.flat + change[0]).residual(data).ravel()[None]

    slope = central(moved, np.zeros((1, len(net.flat))))[0]
    slope[:, ~net.trained] = 0.0
    close(rows, slope)
    random = np.random.default_rng(1)
    direction = random.normal(0.0, 1.0, (len(data), nq))
    np.testing.assert_allclose(
        net.gradient(data, direction), direction.ravel() @ rows, rtol=1e-10, atol=1e-10
    )


def test_prediction_by_every_weight(pair: tuple[LagrangianNetwork, Triples]) -> None:
    net, data = pair
    found = net.prediction(data)
    assert found.solved.all()
    rows = net.rows(replace(data, third=found.q), np.asarray(np.linalg.inv(found.slope)))

    def moved(change: Array) -> Array:
        return net.with_flat(net.flat + change[0]).prediction(data).q.ravel()[None]

    slope = central(moved, np.zeros((1, len(net.flat))))[0]
    slope[:, ~net.trained] = 0.0
    close(rows, slope)


def test_prediction_and_gradient_are_those_of_a_plain_transcription_in_torch() -> None:
    pytest.importorskip("torch", reason="torch is installed apart, for comparisons")
    from tests.unit.models.symo_torch import TorchSymo, tensors

    settings = LagrangianSettings(nq=2, driven=(1,), angles=(0,), hidden=(9, 8))
    random = np.random.default_rng(6)
    data = samples(settings, 20, random)
    net = LagrangianNetwork.start(settings, data, PERIOD, random)
    model = TorchSymo(net)
    loss = model.loss(*tensors(data))
    loss.backward()
    found, gradient = batch_gradient(net, data, "prediction")
    assert found == pytest.approx(float(loss.detach()), rel=1e-9)
    truth = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
    # Slopes are those before the last step of Newton's, which is below 1e-7.
    assert np.linalg.norm(gradient - truth) < 1e-5 * np.linalg.norm(truth)


def bare(name: str) -> SymoModel:
    """Return a model without friction."""
    settings = LagrangianSettings(**{**KINDS[name], "damping": "none"}, hidden=(7, 5))
    random = np.random.default_rng(8)
    net = LagrangianNetwork.start(settings, samples(settings, 6, random), PERIOD, random)
    return SymoModel(settings, net.with_flat(net.flat).weights)


def test_the_map_is_symplectic_and_keeps_the_momentum_of_a_symmetry() -> None:
    model = bare("three")  # position 2 does not enter: its momentum stays
    random = np.random.default_rng(2)
    q0 = random.uniform(-2, 2, (1, 3))
    q1 = q0 + PERIOD * random.normal(0, 1.5, (1, 3))
    still = np.zeros((1, model.nu))

    def phase(q0: Array, q1: Array) -> Array:
        return np.concatenate([q1, model.momentum(q0, q1, np.zeros((len(q0), model.nu)))], axis=1)

    def step(z: Array) -> Array:
        """Return (q, p) after (q, p) = (q₁, p₁) of the pair z = (q₀, q₁)."""
        found = model.step(z[:, :3], z[:, 3:], np.zeros((len(z), 2)), np.zeros((len(z), 2)))
        assert found.solved.all()
        return phase(z[:, 3:], found.q)

    pair = np.concatenate([q0, q1], axis=1)
    before = central(lambda z: phase(z[:, :3], z[:, 3:]), pair)[0]
    after = central(step, pair)[0]
    by_phase = after @ np.linalg.inv(before)
    form = np.block([[np.zeros((3, 3)), np.eye(3)], [-np.eye(3), np.zeros((3, 3))]])
    np.testing.assert_allclose(by_phase.T @ form @ by_phase, form, atol=1e-7)
    kept = model.momentum(q0, q1, still)[0, 2]
    for _ in range(100):
        q0, q1 = q1, model.step(q0, q1, still, still).q
    assert model.momentum(q0, q1, still)[0, 2] == pytest.approx(kept, abs=1e-10)


def test_a_step_without_an_answer_is_said_and_leaves_the_others_alone() -> None:
    model = bare("cart-pole")
    random = np.random.default_rng(2)
    q0 = random.uniform(-1, 1, (4, 2))
    q1, u = q0 + 0.05, np.zeros((4, 1))
    alone = model.step(q0, q1, u, u)
    assert alone.solved.all()
    q1[2] = np.nan
    u[1] = np.inf
    found = model.step(q0, q1, u, u)
    assert found.solved.tolist() == [True, False, False, True]
    np.testing.assert_allclose(found.q[[0, 3]], alone.q[[0, 3]], rtol=1e-12)
    # far from anything learned, what is called solved is solved
    q1 = q0 + random.normal(0, 3.0, (4, 2))
    u = np.zeros((4, 1))
    found = model.step(q0, q1, u, u)
    p = momenta(model.settings, model.weights, q0, q1, u).after
    at = momenta(model.settings, model.weights, q1, found.q, u).before
    np.testing.assert_allclose(at[found.solved], p[found.solved], rtol=1e-8, atol=1e-8)


def test_newton_needs_no_good_start() -> None:
    model = bare("pendulum")
    random = np.random.default_rng(4)
    q0 = random.uniform(-3, 3, (50, 1))
    q1, u = q0 + 0.1 * random.normal(0, 1, (50, 1)), np.zeros((50, 1))
    near = model.step(q0, q1, u, u)
    args = (model.settings, model.weights, q0, q1, u, u)
    far = next_pose(*args, start=near.q + random.normal(0, 0.5, (50, 1)))
    assert near.solved.all()
    assert far.solved.all()
    np.testing.assert_allclose(far.q, near.q, atol=1e-10)


def test_weights_come_back_from_named_arrays() -> None:
    net, _ = network("three")
    width = 4 + 3 + 2
    weights = net.finished(Domain(np.zeros(width), np.eye(width), np.asarray(1.0)))
    again = LagrangianWeights.from_arrays(net.settings, weights.arrays())
    for name, array in weights.arrays().items():
        assert np.array_equal(array, again.arrays()[name])
