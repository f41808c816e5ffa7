"""Networks fitted to labels in function space, and let loose."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.models.fnode import FnodeModel, FnodeSettings, layout
from hil.training.fit import Motion
from hil.training.flow import FlowFit, FlowSettings, Samples, Variant, choose, learn
from hil.training.function_space import SEARCH, START, NetworkProblem, descend, kernel
from hil.training.network import Blocks, Network
from hil.training.rollout import rollout, rollout_error
from hil.types import Array

DT = 0.01


Velocities = Literal["plain", "even", "none"]


def small(
    skip: bool = False, velocities: Velocities = "plain", seed: int = 0
) -> tuple[Network, Array, Array]:
    """Return a random network of two positions, scaled points and targets."""
    settings = FnodeSettings(
        nq=2, nu=1, angles=(0,), hidden=(7, 6, 5), skip=skip, velocities=velocities
    )
    random = np.random.default_rng(seed)
    z, a = random.normal(size=(9, layout(settings).width)), random.normal(size=(9, 2))
    net = Network.start(settings, Blocks(z[None], a[None], np.eye(1)), 0.5, random)
    net.flat[:] = random.normal(0.0, 0.5, len(net.flat))
    if not skip:
        net.skip[:] = 0.0
    return net, z, a


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("velocities", ["plain", "even"])
def test_the_kernel_is_that_of_the_slopes(skip: bool, velocities: Velocities) -> None:
    """J row by row: backwards, and every entry by differences; K is J Jᵀ."""
    net, z, _ = small(skip, velocities)
    rows = []
    for output in range(2):
        for point in range(9):
            back = np.zeros((9, 2))
            back[point, output] = 1.0
            rows.append(net.back(z, back))
    slopes = np.array(rows)
    start, h = net.flat.copy(), 1e-6
    trained = np.flatnonzero(np.abs(slopes).max(axis=0) > 0)
    assert len(trained) > len(start) - (0 if skip else net.skip.size) - 5
    for weight in trained[::7]:
        ends = []
        for sign in (1, -1):
            net.flat[:] = start
            net.flat[weight] += sign * h
            ends.append(net.answers(z)[0].T.ravel())
        np.testing.assert_allclose(slopes[:, weight], (ends[0] - ends[1]) / (2 * h), atol=1e-8)
    net.flat[:] = start
    np.testing.assert_allclose(kernel(net, z), slopes @ slopes.T, rtol=1e-10, atol=1e-12)


def test_descent_meets_every_target_of_few_points() -> None:
    net, z, a = small(seed=3)
    seen: list[float] = []
    problem = NetworkProblem(net, z, a)
    done = descend(
        problem, iterations=60, tolerance=0.0, progress=lambda _, loss: seen.append(loss)
    )
    assert done.updates == len(seen)
    assert (np.diff(seen) < 0).all()
    assert done.loss == pytest.approx(float(((net.answers(z)[0] - a) ** 2).mean()), rel=1e-6)
    assert done.loss < 1e-12


def test_a_step_with_a_ridge_is_that_of_the_dense_system() -> None:
    """(JᵀJ + (mρ + λ) I) δ = Jᵀ r − mρ w, solved in the space of weights."""
    net, z, a = small(seed=5)
    problem, ridge, start = NetworkProblem(net, z, a), 1e-3, net.flat.copy()
    rows = []
    for output in range(2):
        for point in range(9):
            back = np.zeros((9, 2))
            back[point, output] = 1.0
            rows.append(net.back(z, back))
    slopes, rest = np.array(rows), problem.residual()
    change = np.random.default_rng(0).normal(size=len(start))
    change[net.below + net.last.size : -2] = 0.0  # there is no skip
    np.testing.assert_allclose(problem.along(change), slopes @ change, rtol=1e-12)

    def value(flat: Array) -> float:
        net.flat[:] = flat
        return float((problem.residual() ** 2).mean() + ridge * flat @ flat)

    pull = 18 * ridge
    dense, size = [], float((slopes**2).sum(axis=1).mean())
    for damping in START * SEARCH ** np.arange(-20.0, 21.0):
        matrix = slopes.T @ slopes + (pull + damping * size) * np.eye(len(start))
        dense.append(value(start + np.linalg.solve(matrix, slopes.T @ rest - pull * start)))
    net.flat[:] = start
    done = descend(problem, iterations=1, ridge=ridge)
    assert done.loss == pytest.approx(value(net.flat.copy()), rel=1e-12)
    assert np.isclose(done.loss, dense, rtol=1e-9).any(), "no step of the dense system"


def test_a_mirrored_network_is_odd_where_it_was_shown_half() -> None:
    random = np.random.default_rng(2)
    q, v = random.uniform(0.2, 1.0, (2, 80, 1))
    samples = Samples(q, v, np.zeros((80, 0)), -np.sin(2 * q) - 0.3 * v)
    network = FnodeSettings(nq=1, nu=0, hidden=(16, 16))
    model, _ = learn(network, Variant(scale=0.1, mirror=True), samples, seed=0)
    there, back = (
        model.acceleration(s * q[1::2], s * v[1::2], np.zeros((40, 0))) for s in (1.0, -1.0)
    )
    np.testing.assert_allclose(there, -back, atol=1e-4)
    np.testing.assert_allclose(there, samples.a[1::2], atol=1e-4)


@pytest.mark.parametrize("velocities", ["even", "none"])
def test_other_velocities_have_the_slopes_of_differences(velocities: Velocities) -> None:
    net, z, _ = small(velocities=velocities)
    model = FnodeModel(net.settings, net.weights(z))
    random = np.random.default_rng(1)
    x, u = random.normal(size=(6, 4)), random.normal(size=(6, 1))
    turned = model.acceleration(x[:, :2], -x[:, 2:], u)
    np.testing.assert_array_equal(model.acceleration(x[:, :2], x[:, 2:], u), turned)
    many = model.linearise(x, u)
    for row in range(6):
        one = model.linearise(x[row], u[row])
        np.testing.assert_allclose(one.by_state, many.by_state[row], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(one.acceleration, many.acceleration[row], atol=1e-12)
    for column in range(4):
        step = 1e-6 * np.eye(4)[column]
        moved = [x + s * step for s in (1, -1)]
        ends = [model.acceleration(z[:, :2], z[:, 2:], u) for z in moved]
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(many.by_state[..., column], slope, atol=1e-7)
    domain = model.domain(x[0], u[0])
    assert domain == pytest.approx(model.domains(x[:1, :2], -x[:1, 2:], u[:1])[0])


def damped_motion(samples: int = 400) -> tuple[SpringChain, Array]:
    chain = SpringChain(SpringChainParameters(damping=(2.0,)))
    return chain, chain.motion(np.array([1.0, 0.0]), np.arange(samples, dtype=np.float64) * DT)


def test_a_damped_mass_is_learned_from_its_poses() -> None:
    """A tenth of the published size still ends four digits below the published error."""
    _, truth = damped_motion()
    settings = FlowSettings(
        network=FnodeSettings(nq=1, nu=0, hidden=(24, 24)),
        variants=(Variant(scale=0.3), Variant(scale=1.0)),
    )
    motion = Motion(DT, truth[:300, :1], np.zeros((300, 0)))
    found = FlowFit(settings, seed=2).run([motion])
    again = FlowFit(settings, seed=2).run([motion])
    assert np.array_equal(found.model.weights.last, again.model.weights.last)
    states = rollout(found.model, truth[0], np.zeros((399, 0)), DT)
    error = rollout_error(states, truth, 300, DT)
    assert error.full < 1e-6
    assert error.valid == 400 * DT
    assert found.validation_loss < 1e-4
    assert found.epochs <= 50


def test_the_choice_is_made_on_the_last_part_alone() -> None:
    """The better variant there wins, whatever the training loss says."""
    _, truth = damped_motion()
    network = FnodeSettings(nq=1, nu=0, hidden=(16, 16))
    variants = (Variant(scale=30.0), Variant(scale=1.0, skip=True))
    settings = FlowSettings(network=network, variants=variants, iterations=20)
    ranked = choose(settings, [Motion(DT, truth[:300, :1], np.zeros((300, 0)))], 0)
    assert ranked[0].variant == variants[1], "the linear path follows a linear plant"
    assert ranked[0].error < 0.01 * ranked[1].error


def test_inputs_and_parameters_are_learned() -> None:
    """One network for several masses and forces, each an input that is held."""
    random = np.random.default_rng(5)
    q, v, u = (random.normal(size=(200, n)) for n in (1, 1, 2))
    u[:, 1] = random.uniform(0.5, 1.5, 200)  # stiffness over mass
    a = u[:, :1] - u[:, 1:] * q
    network = FnodeSettings(nq=1, nu=2, hidden=(24, 24))
    model, done = learn(network, Variant(scale=0.3), Samples(q, v, u, a), seed=0)
    assert done.loss < 1e-5
    grid = np.array([[0.3], [-0.4]])
    held = np.array([[0.5, 0.8], [0.1, 1.2]])
    expected = held[:, :1] - held[:, 1:] * grid
    np.testing.assert_allclose(model.acceleration(grid, 0 * grid, held), expected, atol=0.02)


def test_what_left_the_numbers_is_infinitely_wrong() -> None:
    truth = np.random.default_rng(0).normal(size=(10, 2))
    found = truth.copy()
    found[7:] = np.nan
    error = rollout_error(found, truth, 5, DT)
    assert error.full == error.test == np.inf
    assert error.valid == pytest.approx(7 * DT)
    exact = rollout_error(truth, truth, 5, DT)
    assert exact == (0.0, 0.0, 0.0, 0.0, 10 * DT)


def test_too_many_labels_are_refused() -> None:
    many = Samples(*(np.zeros((6001, n)) for n in (1, 1, 0, 1)))
    with pytest.raises(ConfigError, match="6001 labels; at most 6000"):
        learn(FnodeSettings(nq=1, nu=0), Variant(), many, seed=0)
