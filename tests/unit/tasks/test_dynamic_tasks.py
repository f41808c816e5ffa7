"""Balance and swing-up: what counts as done, and when."""

from __future__ import annotations

import numpy as np
import pytest

from hil.tasks.balance import Balance, BalanceSettings
from hil.tasks.swing_up import SwingUp, SwingUpSettings
from hil.types import Array

TURN = 2 * np.pi


def swings(angles: list[float]) -> tuple[Array, Array, Array]:
    """Return time, states and inputs of a run at 50 Hz with these angles."""
    states = np.zeros((len(angles), 4))
    states[:, 0] = angles
    time = np.linspace(0.0, 0.02 * (len(angles) - 1), len(angles))
    return time, states, np.zeros((len(angles), 1))


@pytest.mark.parametrize(
    ("angles", "settled"),
    [
        ([np.pi, 2.0, 0.05, 0.0, 0.0], 0.04),
        ([np.pi, 4.0, TURN - 0.05, TURN, TURN + 0.05], 0.04),
        ([np.pi, 0.05, 0.2, 0.05, 0.0], 0.06),  # for good
        ([np.pi, 0.0, 0.0, 0.0, 0.15], np.inf),
        ([0.0, 0.0, 0.05, -0.05, 0.0], 0.0),
        ([np.pi, 0.0, -np.pi, -TURN, -TURN], 0.06),
    ],
)
def test_settled_is_upright_for_good_in_any_turn(angles: list[float], settled: float) -> None:
    task = SwingUp(SwingUpSettings())
    assert task.figures(*swings(angles))["settled_s"] == pytest.approx(settled)


def test_whole_turns_cost_nothing_and_the_rest_is_summed() -> None:
    task = SwingUp(SwingUpSettings(position=0.2))
    state = np.array([3 * TURN + 0.1, 0.5, -1.0, 2.0])
    assert task.error_norm(state) == pytest.approx(np.sqrt(0.01 + 0.09 + 1 + 4))
    assert task.cost(state[None], np.array([[3.0]])) == pytest.approx(5.1 + 9)
    assert task.figures(np.zeros(1), state[None], np.zeros((1, 1)))["turns"] == 3
    assert state[0] == 3 * TURN + 0.1  # nor is what it was given changed


def test_hanging_is_as_far_as_it_gets() -> None:
    task = SwingUp(SwingUpSettings())
    norms = [task.error_norm(np.array([angle, 0, 0, 0])) for angle in np.linspace(-9, 9, 721)]
    assert max(norms) == pytest.approx(np.pi, abs=0.02)


def test_balance_says_how_far_it_went() -> None:
    task = Balance(BalanceSettings(position=0.1))
    time, states, inputs = swings([0.02, -0.3, 0.1])
    states[:, 1] = [0.1, 0.4, -0.3]
    figures = task.figures(time, states, inputs)
    assert figures == pytest.approx({"max_angle_rad": 0.3, "max_distance_m": 0.4})
    assert task.cost(states[:1], inputs[:1]) == pytest.approx(0.02**2)
