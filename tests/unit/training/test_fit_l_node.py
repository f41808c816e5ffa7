"""L-NODE: its slopes against differences, and that it learns what it is shown."""

from __future__ import annotations

import numpy as np
import pytest

from hil.mechanics.integrate import STEPPERS
from hil.mechanics.multibody.base import AbstractMultibody
from hil.mechanics.multibody.pendulum import Pendulum
from hil.mechanics.multibody.rod_cart_pole import RodCartPole
from hil.models.lagrangian import LagrangianModel
from hil.models.lagrangian_weights import LagrangianSettings
from hil.training.fit_l_node import SHORT, Steps, StepSquares, fit_l_node, slopes
from hil.training.lagrangian_network import LagrangianNetwork, Triples
from hil.training.pose_benchmark import CaseSettings, Trajectories, draw, measure_states

NETWORK = LagrangianSettings(nq=2, driven=(1,), angles=(0,), hidden=(6, 5))


def drawn(
    system: AbstractMultibody,
    network: LagrangianSettings,
    count: int,
    steps: int,
    seed: int,
    period: float = 0.05,
) -> tuple[CaseSettings, Trajectories, Trajectories]:
    """Return a case, trajectories with input, and two without."""
    case = CaseSettings(
        name="some", system={}, network=network, period=period,
        positions=(2.0, 0.5)[: network.nq], speeds=(3.0, 0.5)[: network.nq],
    )  # fmt: skip
    random = np.random.default_rng(seed)
    given = draw(system, case, count, steps, random)
    return case, given, draw(system, case, 2, 60, random, driven=False)


def test_slopes_are_those_of_the_acceleration() -> None:
    _, data, _ = drawn(RodCartPole(), NETWORK, 2, 4, 0)
    steps = Steps.of(data.q, data.v, data.u)
    poses = Triples(steps.q, steps.q + SHORT * steps.v, steps.q_next, steps.u, steps.u)
    random = np.random.default_rng(1)
    net = LagrangianNetwork.start(NETWORK, poses, SHORT, random)
    net = net.with_flat(net.flat + random.normal(0, 0.3, len(net.flat)))
    q, v = 0.5 * (steps.q + steps.q_next), 0.5 * (steps.v + steps.v_next)

    def answers(flat: np.ndarray) -> np.ndarray:
        model = LagrangianModel(NETWORK, net.with_flat(flat).weights)
        return model.acceleration(q, v, steps.u).ravel()

    found = slopes(net, steps)
    for _ in range(4):
        along = random.normal(0, 1, len(net.flat))
        truth = (answers(net.flat + 1e-6 * along) - answers(net.flat - 1e-6 * along)) / 2e-6
        np.testing.assert_allclose(found @ along, truth, rtol=1e-4, atol=1e-4)


def test_the_slope_of_the_loss_is_nearly_that_of_differences() -> None:
    """Up to h², by which the middle of a step is not its mean."""
    _, data, _ = drawn(RodCartPole(), NETWORK, 3, 6, 2, period=0.005)
    steps = Steps.of(data.q, data.v, data.u)
    poses = Triples(steps.q, steps.q + SHORT * steps.v, steps.q_next, steps.u, steps.u)
    random = np.random.default_rng(3)
    net = LagrangianNetwork.start(NETWORK, poses, SHORT, random)
    problem = StepSquares(net, steps, 0.005, "rk4", 1e-3)
    _, slope = problem.normal(net.flat)
    size = np.linalg.norm(slope)
    ends = [problem.loss(net.flat + s * 1e-6 * slope / size) for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize(("stepper", "most"), [("rk4", 1e-7), ("midpoint", 1e-4)])
def test_a_pendulum_is_learned_from_states(stepper: str, most: float) -> None:
    """The midpoint rule ends at its own error, a thousand times that of Runge and Kutta."""
    network = LagrangianSettings(nq=1, driven=(0,), angles=(0,), hidden=(10, 10))
    system = Pendulum()
    case, data, rollouts = drawn(system, network, 6, 20, 4)
    pairs = list(zip(data.q, data.v, strict=True))
    found = fit_l_node(network, pairs, data.u, case.period, seed=1, stepper=stepper)
    _, test, _ = drawn(system, network, 8, 20, 5)
    figures = measure_states(found.model, system, case.period, STEPPERS[stepper], test, rollouts)
    assert figures.test < most
    assert figures.unsolved == 0
    assert figures.inertia < 1e-3
    assert len(figures.integration) == 2
    assert np.isfinite(figures.energy).all()
