"""Energies as networks: every slope against differences, and motions that keep them."""

from __future__ import annotations

import numpy as np
import pytest

from hil.mechanics.multibody.spring_chain import SpringChain
from hil.models.hnn import HnnModel
from hil.models.lnn import LnnModel
from hil.models.scalar_network import ScalarNetwork
from hil.training.fit_energy import (
    EnergyProblem,
    fit_hnn,
    fit_lnn,
    hnn_problem,
    lnn_problem,
)
from hil.training.rollout import rollout, rollout_error

DT = 0.01


def test_gradient_and_curvature_of_a_scalar_network() -> None:
    network = ScalarNetwork.start(3, (6, 5), np.random.default_rng(0))
    z, h = np.random.default_rng(1).normal(size=(7, 3)), 1e-6
    first, second = network.slopes(z)
    np.testing.assert_allclose(network.gradient(z), first)
    for i, step in enumerate(h * np.eye(3)):
        by_value = (network.value(z + step) - network.value(z - step)) / (2 * h)
        np.testing.assert_allclose(first[:, i], by_value, atol=1e-9)
        by_slope = (network.gradient(z + step) - network.gradient(z - step)) / (2 * h)
        np.testing.assert_allclose(second[:, i], by_slope, atol=1e-9)


def problems() -> list[EnergyProblem]:
    random = np.random.default_rng(2)
    q, v, a = (random.normal(size=(5, 2)) for _ in range(3))
    scale = np.array([0.7, 1.3, 0.9, 2.0])
    networks = [ScalarNetwork.start(4, (6, 5), random) for _ in range(2)]
    hnn = HnnModel(networks[0], scale, np.array([2.0, 0.5]))
    return [hnn_problem(hnn, q, v, a), lnn_problem(LnnModel(networks[1], scale), q, v, a)]


@pytest.mark.parametrize("number", [0, 1], ids=["HNN", "LNN"])
def test_slopes_by_all_weights_are_those_of_differences(number: int) -> None:
    problem, h = problems()[number], 1e-6
    rows, start = problem.rows(), problem.flat.copy()
    assert np.abs(rows).max() > 0.1
    for weight in range(len(start)):
        ends = []
        for sign in (1, -1):
            problem.flat[:] = start
            problem.flat[weight] += sign * h
            ends.append(problem.residual())
        problem.flat[:] = start
        slope = -(ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(rows[:, weight], slope, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(problem.kernel(), rows @ rows.T)


def test_learned_energies_carry_a_spring() -> None:
    """Ten periods of a mass on a spring, learned from less than two."""
    chain = SpringChain()
    truth = chain.motion(np.array([1.0, 0.0]), np.arange(1000, dtype=np.float64) * DT)
    q, v = truth[:300:3, :1], truth[:300:3, 1:]
    a = chain.acceleration(q, v, np.zeros(1))
    hnn, _ = fit_hnn(q, v, a, np.array([10.0]), seed=0, iterations=30)
    lnn, _ = fit_lnn(q, v, a, seed=0, iterations=30)
    for model in (hnn, lnn):
        states = rollout(model, truth[0], np.zeros((999, 0)), DT)
        assert rollout_error(states, truth, 300, DT).full < 1e-3
    h = hnn.hamiltonian(truth[:, :1], truth[:, 1:])
    assert np.ptp(h) < 0.01 * 25, "J, of 25 J that swing"
    np.testing.assert_allclose(hnn.velocity(q, v), v, atol=0.02)
    assert np.ptp(lnn.energy(truth[:, :1], truth[:, 1:])) < 0.02
