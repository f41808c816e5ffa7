"""States from poses: convergence, delay, and a force nobody told of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.control.discretise import advance
from hil.control.estimator import EstimatorSettings, PoseEstimator
from hil.errors import ConfigError
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.types import Array
from tests.unit.control.loops import LinearDynamics, mpc, plant

COUNT = np.array([2 * np.pi / 4096, 50e-6])  # rad, m
SETTINGS: dict[str, Any] = {
    "pose_noise": (4e-4, 2e-5),
    "acceleration_noise": (0.5, 0.5),
    "disturbance_noise": (0.05,),
}


def estimator(**changes: Any) -> PoseEstimator:
    return PoseEstimator(EstimatorSettings(**{**SETTINGS, **changes}), dynamics=CartPoleModel())


def test_a_wrong_velocity_is_found() -> None:
    """Begun at rest while the cart rolls at 0.4 m/s: the error dies out."""
    found, model = estimator(disturbance_noise=()), CartPoleModel()
    x, u = np.array([0.02, 0.0, 0.1, 0.4]), np.zeros(1)
    found.reset(x[:2])
    errors = []
    for _ in range(12):
        errors.append(float(np.abs(found.update(x[:2], u) - x).max()))
        x = advance(model, x, u, 0.05, 4)
    assert errors[0] > 0.3
    assert errors[-1] < 1e-3 * errors[0]
    assert np.all(found.disturbance == 0)


def balanced(
    force: float, delay: int, *, compensate: bool = True, steps: int = 400
) -> tuple[Array, PoseEstimator]:
    """Return the state after 20 s of balancing on encoder counts, a constant force on the cart."""
    found = estimator(delay=delay)
    controller = mpc(terminal="lqr")
    x = np.array([0.03, 0.05, 0.0, 0.0])
    found.reset(np.round(x[:2] / COUNT) * COUNT)
    waiting = [0.0] * delay
    u = np.zeros(1)
    for _ in range(steps):
        y = np.round(x[:2] / COUNT) * COUNT
        x_hat = found.update(y, u)
        solution = controller.solve(x_hat, np.zeros(4), found.disturbance if compensate else None)
        u = solution.inputs[0]
        waiting.append(float(u[0]))
        x = plant(x, waiting.pop(0) + force)
    return x, found


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_a_constant_force_leaves_no_error(delay: int) -> None:
    x, found = balanced(2.0, delay)
    assert found.disturbance[0] == pytest.approx(2.0, abs=0.1)
    assert abs(x[1]) < 0.01
    assert abs(x[0]) < 0.005


def test_the_same_force_not_told_to_the_controller_leaves_one() -> None:
    x, _ = balanced(2.0, 0, compensate=False)
    assert abs(x[1]) > 0.1


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_delay_is_compensated_exactly_on_a_linear_plant(delay: int) -> None:
    """No noise, right model, right start: the prediction is the state to rounding."""
    by_state = np.array([[4.0, 0.0, -0.2, 0.1], [-1.0, 0.0, 0.0, -0.3]])
    model = LinearDynamics(by_state, np.array([[-2.0], [1.0]]), np.array([0.2, 0.1]))
    settings = EstimatorSettings(**SETTINGS, delay=delay)
    found = PoseEstimator(settings, dynamics=model)
    random = np.random.default_rng(4)
    states = [np.array([0.1, -0.2, 0.0, 0.0])]
    inputs = random.normal(size=(40, 1))
    felt = np.concatenate([np.zeros((delay, 1)), inputs])
    for u in felt:
        states.append(advance(model, states[-1], u, 0.05, 4))
    found.reset(states[0][:2])
    for k in range(40):
        ahead = found.update(states[k][:2], inputs[k - 1])
        if k >= 1:
            np.testing.assert_allclose(found.present, states[k], rtol=1e-9, atol=1e-11)
        # after reset, what is on its way is zero: so was the plant's
        np.testing.assert_allclose(ahead, states_at(model, states[k], inputs, k, delay), atol=1e-9)
    np.testing.assert_allclose(found.disturbance, 0.0, atol=1e-10)


def states_at(model: LinearDynamics, present: Array, inputs: Array, k: int, delay: int) -> Array:
    """Return the state `delay` periods after period k, by the inputs commanded before k."""
    x = present
    for j in range(k - delay, k):
        x = advance(model, x, inputs[j] if j >= 0 else np.zeros(1), 0.05, 4)
    return x


def test_reset_forgets() -> None:
    fresh, used = estimator(delay=2), estimator(delay=2)
    for k in range(10):
        used.update(np.array([0.1 * k, 0.3]), np.array([5.0]))
    y = np.array([0.05, -0.1])
    for each in (fresh, used):
        each.reset(y)
    for _ in range(3):
        np.testing.assert_array_equal(
            fresh.update(y, np.array([1.0])), used.update(y, np.array([1.0]))
        )


def test_nan_stays_until_reset_and_raises_nothing() -> None:
    found = estimator(delay=1)
    found.update(np.zeros(2), np.zeros(1))
    assert np.isnan(found.update(np.array([np.nan, 0.0]), np.zeros(1))).any()
    found.reset(np.zeros(2))
    assert np.isfinite(found.update(np.zeros(2), np.zeros(1))).all()


def test_settings_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="pose_noise"):
        estimator(pose_noise=(1e-3,))
    with pytest.raises(ConfigError, match="disturbance_noise"):
        estimator(disturbance_noise=(0.1, 0.1))


def test_a_disturbance_the_poses_cannot_show_is_refused() -> None:
    """Two inputs that do the same: which of them carries the force cannot be told."""
    model = LinearDynamics(np.zeros((1, 2)), np.ones((1, 2)), np.zeros(1))
    settings = EstimatorSettings(
        pose_noise=(1e-3,), acceleration_noise=(0.1,), disturbance_noise=(0.1, 0.1)
    )
    with pytest.raises(ConfigError, match="steady"):
        PoseEstimator(settings, dynamics=model)


HANGING = np.array([np.pi, 0.0, 0.0, 0.0])
MOVING: dict[str, Any] = {"gain": "moving", "acceleration_noise": (2.0, 1.0), "dt": 0.02}


def pushed(found: PoseEstimator, force: float, steps: int = 150) -> list[float]:
    """Return what is found of a constant force on the cart below a hanging pole."""
    x, said = HANGING.copy(), []
    found.reset(x[:2])
    for k in range(steps):
        u = 3.0 * np.sin(0.3 * k)
        found.update(x[:2], np.array([3.0 * np.sin(0.3 * (k - 1))]))
        x = plant(x, u + force, 0.02)
        said.append(float(found.disturbance[0]))
    return said


def test_below_a_hanging_pole_a_moving_gain_finds_a_force() -> None:
    said = pushed(estimator(**MOVING), 2.0)
    assert said[-1] == pytest.approx(2.0, abs=0.2)


def test_at_the_origin_a_moving_gain_becomes_the_steady_one() -> None:
    by_state = np.array([[4.0, 0.0, -0.2, 0.1], [-1.0, 0.0, 0.0, -0.3]])
    model = LinearDynamics(by_state, np.array([[-2.0], [1.0]]), np.zeros(2))
    both = [
        PoseEstimator(EstimatorSettings(**{**SETTINGS, "gain": gain}), dynamics=model)
        for gain in ("steady", "moving")
    ]
    random = np.random.default_rng(1)
    for _ in range(60):
        y, u = random.normal(size=2) * 1e-3, random.normal(size=1)
        one, other = (each.update(y, u) for each in both)
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(both[0].disturbance, both[1].disturbance, atol=1e-9)


@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_a_blow_is_velocity_and_no_force(phase: float) -> None:
    """Two samples after 1.5 N·s on the cart, which came right after a sample or half-way."""
    jump = np.array([0.0, 0.0, -3.0, 1.5])
    errors, forces = {}, {}
    for blow in (0.0, 5.0):
        found = estimator(**{**MOVING, "disturbance_noise": (0.02,), "blow": blow})
        x, u = np.zeros(4), np.zeros(1)
        found.reset(x[:2])
        for _ in range(10):
            found.update(x[:2], u)
        x = plant(x, 0.0, 0.02 * phase) + jump
        x = plant(x, 0.0, 0.02 * (1 - phase))
        found.update(x[:2], u)
        x = plant(x, 0.0, 0.02)
        found.update(x[:2], u)
        errors[blow] = np.abs(found.present - x).max()
        forces[blow] = abs(float(found.disturbance[0]))
    assert errors[5.0] < 0.3  # of 3 rad/s
    assert errors[5.0] < errors[0.0]
    assert forces[5.0] < 0.2


@pytest.mark.parametrize("gain", ["steady", "moving"])
def test_missed_periods_are_bridged_by_the_model(gain: str) -> None:
    """Right model, right start: with every third sample the states are still the plant's."""
    found, model = estimator(gain=gain, delay=1), CartPoleModel()
    x, u, before = np.array([0.05, 0.0, 0.0, 0.0]), np.zeros(1), np.zeros(1)
    found.reset(x[:2])
    found.update(x[:2], u)
    for k in range(8):
        u = np.array([0.4 * (-1) ** k])
        for _ in range(3):  # the input takes effect a period after it is commanded
            x = advance(model, x, before, 0.05, 4)
            before = u
        found.update(x[:2], u, 3)
        np.testing.assert_allclose(found.present, x, atol=1e-8)


@pytest.mark.parametrize("delay", [0, 2])
def test_missed_poses_are_run_over_by_the_model(delay: int) -> None:
    """Two poses are lost while the force stays: the next prediction is that of the equations."""
    found = estimator(delay=delay)
    x, dt = np.array([0.05, 0.0, 0.0, 0.0]), found._settings.dt
    for _ in range(200):
        found.update(x[:2], np.zeros(1))
        x = np.array([0.05, 0.0, 0.0, 0.0])
    before, d = found.present, found.disturbance
    u = np.array([0.7])
    after = before
    felt = [np.zeros(1)] * delay + [u] * 3
    for acted in felt[:3]:
        after = rk4(CartPoleModel().acceleration, after[None], (acted + d)[None], dt)[0]
    found.update(after[:2], u, 3)  # no surprise: nothing is corrected
    np.testing.assert_allclose(found.present, after, rtol=0, atol=1e-12)


def test_what_is_prepared_changes_no_answer() -> None:
    """Also where another input is then told, and after a reset."""
    random = np.random.default_rng(4)
    plain, ahead = estimator(delay=1), estimator(delay=1)
    for k in range(60):
        y, u = random.normal(0.0, 0.02, 2), random.normal(0.0, 1.0, 1)
        if k == 30:
            plain.reset(y)
            ahead.reset(y)
        periods = 1 + k % 3
        np.testing.assert_array_equal(plain.update(y, u, periods), ahead.update(y, u, periods))
        ahead.prepare(u if k % 2 else u + 1.0)
