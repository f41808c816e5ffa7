"""Discrete Lagrangians found again in poses, against the systems that made them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_are

from hil.errors import ConfigError
from hil.mechanics.integrate import rk4
from hil.mechanics.multibody.pendulum import Pendulum, PendulumParameters
from hil.mechanics.multibody.rod_cart_pole import RodCartPole
from hil.models.lagrangian_weights import LagrangianSettings
from hil.models.symo import SymoModel
from hil.training.fit import Motion
from hil.training.fit_symo import FitSymo, FitSymoSettings, batch_gradient, felt, triples
from hil.training.lagrangian_network import LagrangianNetwork
from hil.training.levenberg import minimise
from hil.training.pose_benchmark import CaseSettings, Trajectories, draw, measure
from hil.types import Array

NETWORK = LagrangianSettings(nq=1, driven=(0,), angles=(0,), hidden=(12, 12))
CASE = CaseSettings(
    name="pendulum", system={}, network=NETWORK, period=0.1, positions=(np.pi,),
    speeds=(2 * np.pi,),
)  # fmt: skip


def drawn(system: Pendulum, count: int, seed: int, driven: bool = True) -> Trajectories:
    return draw(system, CASE, count, 32, np.random.default_rng(seed), driven=driven)


@pytest.mark.parametrize(("loss", "order", "most"), [
    ("residual", 2, 1e-6), ("prediction", 2, 1e-6), ("residual", 4, 1e-8),
])  # fmt: skip
def test_a_pendulum_is_learned_from_its_poses(loss: str, order: int, most: float) -> None:
    system = Pendulum()
    network = LagrangianSettings(nq=1, driven=(0,), angles=(0,), hidden=(12, 12), order=order)  # type: ignore[arg-type]
    settings = FitSymoSettings(network=network, loss=loss)  # type: ignore[arg-type]
    found = FitSymo(settings, seed=1).run(drawn(system, 8, 0).motions(0.1))
    test, rollouts = drawn(system, 20, 1), drawn(system, 4, 2, driven=False)
    figures = measure(found.model, system, test, rollouts)
    assert figures.test < most
    assert figures.unsolved == 0
    assert figures.inertia < 1e-4  # of (1/3)²
    assert np.median(figures.integration) < 1e-2
    # in continuous time, too, as a controller uses it
    x, u = np.array([[0.3, -1.0], [2.0, 4.0]]), np.array([[1.0], [-2.0]])
    truth = system.acceleration(x[:, :1], x[:, 1:], u)
    np.testing.assert_allclose(found.model.acceleration(x[:, :1], x[:, 1:], u), truth, rtol=0.05)
    assert found.model.domain(x[0], u[0]) < 1 < found.model.domain(np.array([0.0, 60.0]), u[0])


def test_friction_is_found_and_no_friction_is_found_to_be_none() -> None:
    network = LagrangianSettings(
        nq=1, driven=(0,), angles=(0,), hidden=(12, 12), damping="constant"
    )
    fit = FitSymo(FitSymoSettings(network=network), seed=1)
    for viscous in (0.1, 0.0):
        system = Pendulum(PendulumParameters(viscous=viscous))
        model = fit.run(drawn(system, 8, 0).motions(0.1)).model
        found = model.lagrangian.damping(np.zeros((1, 1)))[0, 0, 0]
        assert found == pytest.approx(viscous, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("loss", ["residual", "prediction"])
def test_the_gradient_of_a_batch_is_that_of_differences(loss: str) -> None:
    data = triples(drawn(Pendulum(), 1, 3).motions(0.1))
    net = LagrangianNetwork.start(
        replace_hidden(NETWORK, (5, 4)), data, 0.1, np.random.default_rng(0)
    )
    _, gradient = batch_gradient(net, data, loss)
    random = np.random.default_rng(1)
    for _ in range(5):
        along = random.normal(0, 1, len(net.flat))
        ahead, behind = (
            batch_gradient(net.with_flat(net.flat + step * along), data, loss)[0]
            for step in (1e-5, -1e-5)
        )
        assert gradient @ along == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


def replace_hidden(network: LagrangianSettings, hidden: tuple[int, ...]) -> LagrangianSettings:
    return LagrangianSettings(
        nq=network.nq, driven=network.driven, angles=network.angles, hidden=hidden
    )


@pytest.mark.parametrize("loss", ["residual", "prediction"])
def test_adam_descends_and_equal_seeds_give_equal_bits(loss: str) -> None:
    motions = drawn(Pendulum(), 3, 3).motions(0.1)
    settings = FitSymoSettings(
        network=NETWORK, loss=loss, method="first-order", epochs=40, batch=16, rate=1e-2  # type: ignore[arg-type]
    )  # fmt: skip
    losses: list[float] = []
    first = FitSymo(settings, seed=2).run(motions, lambda now: losses.append(now.train_loss))
    second = FitSymo(settings, seed=2).run(motions)
    assert losses[-1] < losses[0] / 5
    for name, array in first.model.weights.arrays().items():
        assert np.array_equal(array, second.model.weights.arrays()[name])


def test_what_cannot_be_learned_from_is_refused() -> None:
    fit = FitSymo(FitSymoSettings(network=NETWORK))
    motions = drawn(Pendulum(), 3, 3).motions(0.1)
    with pytest.raises(ConfigError, match="any multiple of a Lagrangian"):
        fit.run([replace(m, u=np.zeros_like(m.u)) for m in motions])
    with pytest.raises(ConfigError, match="one motion"):
        fit.run(motions[:1])
    with pytest.raises(ConfigError, match="three poses"):
        fit.run([Motion(0.1, m.q[:2], m.u[:2]) for m in motions])


def test_levenberg_marquardt_finds_a_banana_and_stops_where_nothing_helps() -> None:
    class Rosenbrock:
        def errors(self, theta: Array) -> Array:
            return np.array([10 * (theta[1] - theta[0] ** 2), 1 - theta[0]])

        def loss(self, theta: Array) -> float:
            return 0.5 * float((self.errors(theta) ** 2).sum())

        def normal(self, theta: Array) -> tuple[Array, Array]:
            slope = np.array([[-20 * theta[0], 10.0], [-1.0, 0.0]])
            return slope.T @ slope, slope.T @ self.errors(theta)

    theta, state = minimise(Rosenbrock(), np.array([-1.2, 1.0]), 200)
    np.testing.assert_allclose(theta, 1.0, atol=1e-8)
    assert state.iteration < 60


def test_the_model_is_stored_and_steps_as_before() -> None:
    system = Pendulum()
    found = FitSymo(FitSymoSettings(network=NETWORK), seed=1).run(drawn(system, 4, 0).motions(0.1))
    model = found.model
    again = SymoModel.from_arrays(model.settings, model.weights.arrays())
    q, u = np.array([[0.1], [1.0]]), np.ones((2, 1))
    assert np.array_equal(again.step(q, q + 0.1, u, u).q, model.step(q, q + 0.1, u, u).q)


def test_a_controller_made_from_poses_alone_balances_the_plant() -> None:
    plant, h = RodCartPole(), 0.05
    network = LagrangianSettings(nq=2, driven=(1,), angles=(0,), left_out=(1,), hidden=(10, 10))
    case = CaseSettings(
        name="cart-pole", system={}, network=network, period=h, positions=(np.pi, 0.5),
        speeds=(3.0, 0.05),
    )  # fmt: skip
    data = draw(plant, case, 6, 32, np.random.default_rng(0)).motions(h)
    model = FitSymo(FitSymoSettings(network=network), seed=1).run(data).model
    at = model.linearise(np.zeros(4), np.zeros(1))
    big = np.zeros((5, 5))
    big[:2, 2:4] = np.eye(2)
    big[2:4] = np.concatenate([at.by_state, at.by_input], axis=1)
    held = expm(big * h)
    a, b = held[:4, :4], held[:4, 4:]
    cost = solve_discrete_are(a, b, np.eye(4), np.eye(1))
    gain = np.linalg.solve(np.eye(1) + b.T @ cost @ b, b.T @ cost @ a)
    x, u = np.array([[0.2, 0.1, 0.0, 0.0]]), np.zeros((1, 1))
    q = x[:, :2]
    for _ in range(200):
        before, x = q, rk4(plant.acceleration, x, u, h, 10)
        q = x[:, :2]  # the law sees no more than this
        u = -np.concatenate([q, model.speed(before, q, u)], axis=1) @ gain.T
    assert np.abs(x).max() < 1e-2  # the slowest pole takes its time


def test_what_pushes_between_distant_poses_is_seen_under_the_hat_of_their_difference() -> None:
    """A free mass: the second difference of its poses is the hat-weighted force, exactly."""
    random, dt, stride = np.random.default_rng(7), 0.01, 6
    u = random.normal(size=(61, 1))
    v = np.concatenate([[0.0], np.cumsum(u[:-1, 0]) * dt])
    q = np.concatenate([[0.0], np.cumsum(v[:-1] * dt + 0.5 * dt**2 * u[:-1, 0])])
    found = triples([Motion(dt, q[:, None], u)], stride)
    assert len(found) == 61 - 2 * stride
    bent = (found.third - 2 * found.second + found.first) / (stride * dt) ** 2
    np.testing.assert_allclose(bent, 0.5 * (found.u_first + found.u_second), atol=1e-9)


def test_inputs_are_those_that_acted() -> None:
    """After a delay of one period, what is commanded is felt one row later."""
    motion = Motion(0.01, np.arange(8.0)[:, None], np.arange(8.0)[:, None])
    (late,) = felt([motion], 0.01, 0.0)
    np.testing.assert_array_equal(late.q[:, 0], np.arange(1.0, 8.0))
    np.testing.assert_allclose(late.u[:, 0], np.arange(7.0))
    assert felt([motion], 0.0, 0.0) == [motion]
