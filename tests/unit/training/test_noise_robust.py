"""Derivatives of noisy motions, and networks fitted to them, against the equations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.models.fnode import FnodeSettings
from hil.training.differentiation import Derivatives, differences
from hil.training.flow import Samples, Variant, learn
from hil.training.function_space import kernel, weighted
from hil.training.integral_matching import learn_by_integrals, twice_integrated
from hil.training.kalman_smoother import kalman
from hil.training.network import Blocks, Network
from hil.training.noise_robust import gaussian_process, penalised
from hil.training.rollout import rollout, rollout_error
from hil.types import Array

DT = 0.01
Method = Callable[[Array, float], Derivatives]


def damped(samples: int = 300) -> tuple[SpringChain, Array, Array]:
    """Return a damped mass, its true motion, and its positions with 1 % of noise."""
    chain = SpringChain(SpringChainParameters(damping=(2.0,)))
    truth = chain.motion(np.array([1.0, 0.0]), np.arange(samples, dtype=np.float64) * DT)
    noise = np.random.default_rng(4).standard_normal((samples, 1))
    return chain, truth, truth[:, :1] + 0.01 * truth[:, :1].std() * noise


@pytest.mark.parametrize("method", [penalised, gaussian_process, kalman])
def test_noise_is_told_from_motion(method: Method) -> None:
    """A tenth of the acceleration at most is lost, where differences drown in noise."""
    chain, truth, noisy = damped()
    a = chain.acceleration(truth[:, :1], truth[:, 1:], np.zeros(1))

    def error(found: Derivatives) -> float:
        return float(np.sqrt(((found.acceleration - a) ** 2).mean() / (a**2).mean()))

    assert error(method(noisy, DT)) < 0.1
    assert error(differences(noisy, DT, 3)) > 10
    assert error(method(truth[:, :1], DT)) < 1e-3, "clean motion passes"


@pytest.mark.parametrize("method", [penalised, gaussian_process, kalman])
def test_the_derivatives_are_those_of_the_smoothed_motion(method: Method) -> None:
    _, _, noisy = damped(200)
    found = method(noisy, DT)
    expected = differences(found.position, DT, 7)
    np.testing.assert_allclose(found.velocity, expected.velocity, atol=1e-3)
    np.testing.assert_allclose(found.acceleration, expected.acceleration, atol=0.02)


def test_what_is_not_penalised_passes_unchanged() -> None:
    t = np.arange(60) * DT
    cubic = np.polynomial.Polynomial([1.0, -2.0, 3.0, 5.0])
    found = penalised(cubic(t)[:, None], DT, order=4)
    np.testing.assert_allclose(found.position[:, 0], cubic(t), atol=1e-9)
    np.testing.assert_allclose(found.acceleration[:, 0], cubic.deriv(2)(t), atol=1e-3)


def test_too_short_and_too_long_are_named() -> None:
    with pytest.raises(ConfigError, match="penalised: 8 samples; 9 to 3000"):
        penalised(np.zeros((8, 1)), DT)
    with pytest.raises(ConfigError, match="gaussian_process: 3001 samples"):
        gaussian_process(np.zeros((3001, 1)), DT)


def test_two_integrals_lead_back_less_a_line() -> None:
    t = np.arange(200) * DT
    q, a = np.sin(3 * t), -9 * np.sin(3 * t)
    line = np.polynomial.Polynomial.fit(t, q, 1)(t)
    np.testing.assert_allclose(twice_integrated(200, DT) @ a, q - line, atol=2e-4)


def test_the_kernel_passes_what_is_compared() -> None:
    settings = FnodeSettings(nq=2, nu=0, hidden=(5, 4), skip=False)
    random = np.random.default_rng(0)
    z, w = random.normal(size=(6, 4)), random.normal(size=(2, 3, 6))
    net = Network.start(settings, Blocks(z[None], z[None, :, :2], np.eye(1)), 0.5, random)
    net.flat[:] = random.normal(size=len(net.flat))
    rows = [
        net.back(z, np.where(np.arange(2) == output, w[output, row][:, None], 0.0))
        for output in range(2)
        for row in range(3)
    ]
    slopes = np.array(rows)
    np.testing.assert_allclose(weighted(kernel(net, z), w), slopes @ slopes.T, rtol=1e-9)


def test_integrals_follow_a_noisy_motion_better_than_labels() -> None:
    _, truth, noisy = damped(400)
    network = FnodeSettings(nq=1, nu=0, hidden=(24, 24), skip=False)
    variant, known = Variant(scale=0.1), noisy[:300]
    by_integrals, done = learn_by_integrals(network, variant, known, DT, penalised, seed=0)
    assert done.loss == pytest.approx(1.0, abs=0.15), "down to the noise, and no further"
    moved = penalised(known, DT)
    samples = Samples(moved.position, moved.velocity, np.zeros((300, 0)), moved.acceleration)
    by_labels, _ = learn(network, variant, samples, seed=0)
    errors = [
        rollout_error(rollout(model, truth[0], np.zeros((399, 0)), DT), truth, 300, DT).full
        for model in (by_integrals, by_labels)
    ]
    assert errors[0] < 5e-4
    assert errors[0] < errors[1]
