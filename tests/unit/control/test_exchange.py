"""Exchanging estimator and controller in the middle of a run."""

from __future__ import annotations

import numpy as np
import pytest

from hil.control.estimator import EstimatorSettings, PoseEstimator
from hil.control.exchange import ExchangeableController, ExchangeableEstimator
from hil.control.lqr import Lqr, LqrSettings
from hil.errors import StateError
from hil.mechanics.cart_pole import CartPoleParameters
from hil.models.analytic import CartPoleModel
from tests.unit.control.loops import plant

SENSOR = EstimatorSettings(
    pose_noise=(1e-3, 1e-4), acceleration_noise=(0.5, 0.5), disturbance_noise=(0.05,),
    gain="moving", delay=1, dt=0.02,
)  # fmt: skip
HEAVY = CartPoleModel(CartPoleParameters(cart_mass=2.0))


def test_an_equal_estimator_that_takes_over_changes_no_bit() -> None:
    random = np.random.default_rng(0)
    kept = PoseEstimator(SENSOR, dynamics=CartPoleModel())
    exchanged = ExchangeableEstimator(PoseEstimator(SENSOR, dynamics=CartPoleModel()))
    for estimator in (kept, exchanged):
        estimator.reset(np.array([0.1, 0.0]))
    for number in range(30):
        y, u = random.normal(0.0, 0.05, 2), random.normal(0.0, 1.0, 1)
        np.testing.assert_array_equal(kept.update(y, u), exchanged.update(y, u))
        np.testing.assert_array_equal(kept.disturbance, exchanged.disturbance)
        for estimator in (kept, exchanged):
            estimator.prepare(u)
        if number in (0, 7, 8, 20):
            exchanged.exchange(PoseEstimator(SENSOR, dynamics=CartPoleModel()))


def test_one_of_another_model_goes_on_from_the_estimate_with_its_own_prediction() -> None:
    exchanged = ExchangeableEstimator(PoseEstimator(SENSOR, dynamics=CartPoleModel()))
    other = PoseEstimator(SENSOR, dynamics=HEAVY)
    exchanged.reset(np.array([0.1, 0.0]))
    u = np.array([5.0])
    for _ in range(3):
        exchanged.update(np.array([0.1, 0.0]), u)
    before = exchanged.update(np.array([0.1, 0.0]), u)
    d = exchanged.disturbance
    exchanged.exchange(other)
    np.testing.assert_array_equal(exchanged.disturbance, d)
    assert np.abs(other.present - before).max() < 0.5  # not the rest it was made at
    elsewhere = PoseEstimator(SENSOR, dynamics=CartPoleModel())
    with pytest.raises(StateError, match="cannot go on from a ExchangeableEstimator"):
        elsewhere.go_on_from(exchanged)


def test_the_next_controller_answers_from_the_next_solve_on() -> None:
    def law(model: CartPoleModel) -> Lqr:
        settings = LqrSettings(
            state_weights=(10.0, 10.0, 1.0, 1.0), input_weights=(0.1,),
            input_limits=((-20.0, 20.0),), dt=0.02,
        )  # fmt: skip
        return Lqr(settings, dynamics=model)

    light, heavy = law(CartPoleModel()), law(HEAVY)
    used = ExchangeableController(light)
    x = plant(np.array([0.1, 0.0, 0.0, 0.0]), 0.0)
    assert used.solve(x, 0 * x).inputs == light.solve(x, 0 * x).inputs
    used.exchange(heavy)
    assert (
        used.solve(x, 0 * x).inputs == heavy.solve(x, 0 * x).inputs != light.solve(x, 0 * x).inputs
    )
    assert used.horizon == 1
