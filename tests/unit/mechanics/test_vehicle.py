from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from hil.errors import MechanicsError
from hil.mechanics.multibody.vehicle import (
    PARAMETERS,
    drive,
    levels,
    middle,
    slope,
    terminal_speed,
)
from hil.types import Array


def draw(count: int, steps: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return parameters over their ranges, starts and inputs, all at random."""
    random = np.random.default_rng(seed)
    low, high = np.array([(p.low, p.high) for p in PARAMETERS]).T
    inputs = np.stack(
        (random.uniform(0, 1, (count, steps)), random.uniform(-0.5, 0.5, (count, steps))), axis=-1
    )
    start = random.normal(0.0, 1.0, (count, 4)) * (10.0, 10.0, 1.0, 5.0)
    return random.uniform(low, high, (count, len(PARAMETERS))), start, inputs


def test_the_steps_follow_the_equations_as_scipy_integrates_them() -> None:
    """The closed form of the steps against the slopes as published, by another method."""
    parameters, start, inputs = draw(3, 40)
    dt = 0.01
    states = drive(parameters, start, inputs, dt)
    for vehicle in range(len(start)):
        state = start[vehicle]
        for k, u in enumerate(inputs[vehicle]):
            found = solve_ivp(
                lambda _, x, u=u, p=parameters[vehicle]: slope(p, x, u),
                (0.0, dt), state, method="DOP853", rtol=1e-12, atol=1e-13,
            )  # fmt: skip
            state = found.y[:, -1]
            np.testing.assert_allclose(states[vehicle, k + 1], state, rtol=1e-10, atol=1e-10)


def test_the_place_is_of_sixth_order() -> None:
    """A long step against the same time in short ones; speed and heading are exact."""
    parameters, start, _ = draw(4, 1)
    start[:, 3] = 20.0
    errors = []
    for steps in (1, 2, 4):
        held = np.broadcast_to([0.7, 0.3], (4, steps, 2))
        fine = np.broadcast_to([0.7, 0.3], (4, 64, 2))
        found = drive(parameters, start, held, 0.4 / steps)[:, -1]
        truth = drive(parameters, start, fine, 0.4 / 64)[:, -1]
        np.testing.assert_allclose(found[:, 2:], truth[:, 2:], rtol=1e-12)
        errors.append(np.abs(found - truth)[:, :2].max())
    ratios = np.array(errors[:-1]) / errors[1:]
    assert (ratios > 50).all(), f"halving the step should give 64: {ratios}"


def test_at_constant_speed_it_drives_a_circle() -> None:
    """Where throttle and drag balance: radius l / tan(βδ), back after one turn."""
    parameters = middle()[None]
    speed = terminal_speed(parameters, 0.05)
    wheelbase, gain = parameters[0, :2]
    radius = wheelbase / np.tan(gain * 0.4)
    steps = 200
    turn = 2 * np.pi * radius / speed[0]  # s
    inputs = np.broadcast_to([0.05, 0.4], (1, steps, 2))
    states = drive(parameters, np.array([[3.0, 1.0, 0.0, speed[0]]]), inputs, turn / steps)[0]
    np.testing.assert_allclose(states[:, 3], speed[0], rtol=1e-12)
    distance = np.hypot(states[:, 0] - 3.0, states[:, 1] - (1.0 + radius))
    np.testing.assert_allclose(distance, radius, rtol=1e-9)
    np.testing.assert_allclose(states[-1, :2], states[0, :2], atol=1e-8)
    assert states[-1, 2] == pytest.approx(2 * np.pi, rel=1e-12)


def test_it_reaches_its_terminal_speed_and_no_more() -> None:
    parameters, start, _ = draw(6, 1)
    for throttle in (0.0, 0.3, 1.0):
        expected = terminal_speed(parameters, throttle)
        at_it = np.column_stack((start[:, :3], expected))
        rest = slope(parameters, at_it, np.array([throttle, 0.1]))[:, 3]
        np.testing.assert_allclose(rest, 0.0, atol=1e-11)
        inputs = np.broadcast_to([throttle, 0.0], (6, 4000, 2))
        reached = drive(parameters, start, inputs, 0.25)[:, -1, 3]
        np.testing.assert_allclose(reached, expected, rtol=1e-9)


def test_a_vehicle_does_not_depend_on_its_neighbours() -> None:
    parameters, start, inputs = draw(5, 30)
    together = drive(parameters, start, inputs, 0.02)
    for i in range(5):
        alone = drive(parameters[i : i + 1], start[i : i + 1], inputs[i : i + 1], 0.02)
        assert alone.tobytes() == together[i : i + 1].tobytes()


def test_the_levels_span_the_published_ranges() -> None:
    grid = levels(4)
    assert grid.shape == (9, 4)
    assert grid[7].tolist() == pytest.approx([250, 283 + 1 / 3, 316 + 2 / 3, 350])
    assert grid.mean(axis=1) == pytest.approx(middle())


def test_what_has_no_answer_is_refused() -> None:
    parameters, start, inputs = draw(2, 3)
    with pytest.raises(MechanicsError, match=r"inputs \(vehicles, steps, 2\), found"):
        drive(parameters, start, inputs[0], 0.01)
    with pytest.raises(MechanicsError, match="vehicle 1: wheel_inertia must be above zero"):
        drive(np.where(np.arange(18).reshape(2, 9) == 12, 0.0, parameters), start, inputs, 0.01)
    with pytest.raises(MechanicsError, match="throttle must not be below zero"):
        drive(parameters, start, -inputs, 0.01)
    with pytest.raises(MechanicsError, match="below π/2"):
        drive(parameters, start, inputs * [1.0, 100.0], 0.01)
