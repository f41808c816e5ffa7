"""Plans along the horizon: against other equations, other plans, their mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.control.base import SolutionStatus
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.models.analytic import CartPoleModel
from hil.types import Array
from tests.unit.control.loops import OPEN, mpc, plant

HANGING = np.array([np.pi, 0.0, 0.0, 0.0])
TURN = 2 * np.pi
WEIGHTS = (10.0, 10.0, 0.1, 0.1)
SWING: dict[str, Any] = {
    "input_limits": ((-20.0, 20.0),),
    "state_limits": (OPEN, (-0.99, 0.99), OPEN, OPEN),
    "state_penalties": (np.inf, 1e6, np.inf, np.inf),
    "horizon": 60,
    "dt": 0.02,
    "state_weights": WEIGHTS,
    "input_weights": (0.05,),
    "terminal": "lqr",
    "linearise": "horizon",
    "discretise": "rk4",
    "cold_iterations": 60,
    "tolerance": 1e-9,
    "angles": (0,),
    "waves": 2,
}


def swinging(**changes: Any) -> LinearMpc:
    return LinearMpc(MpcSettings(**{**SWING, **changes}), dynamics=CartPoleModel())


def rolled(start: Array, inputs: Array) -> Array:
    """Return the states (N + 1, 4) that equations of the tests' own make of inputs (N, 1)."""
    states = [start]
    for u in inputs[:, 0]:
        states.append(plant(states[-1], float(u), 0.02, parts=3))
    return np.array(states)


def cost(states: Array, inputs: Array, end: Array) -> float:
    """Return the cost of a plan to the origin, limits on the rail included."""
    over = np.maximum(np.abs(states[1:, 1]) - 0.99, 0.0)
    stages = float((states[:-1] ** 2 @ np.array(WEIGHTS)).sum() + 0.05 * (inputs**2).sum())
    return stages + float(states[-1] @ end @ states[-1]) + 1e6 * float((over**2).sum())


def test_from_hanging_a_plan_follows_the_equations_and_arrives_upright() -> None:
    plan = swinging().solve(HANGING, np.zeros(4))
    assert plan.status is SolutionStatus.OPTIMAL
    assert np.abs(plan.inputs).max() == 20.0  # the limit is used, and kept
    assert np.abs(plan.states[:, 1]).max() <= 0.9901
    np.testing.assert_allclose(rolled(HANGING, plan.inputs), plan.states, atol=2e-3)
    angle = plan.states[-1, 0] - TURN * np.round(plan.states[-1, 0] / TURN)
    assert abs(angle) < 0.2


def test_no_small_change_of_the_inputs_within_their_limits_is_cheaper() -> None:
    """Judged by equations of the tests' own, along random directions and along single inputs."""
    controller = swinging()
    plan = controller.solve(HANGING, np.zeros(4))
    start = HANGING - TURN * np.round(plan.states[-1, 0] / TURN) * np.eye(4)[0]
    end = controller._cost.end
    states = rolled(start, plan.inputs)
    least = cost(states, plan.inputs, end)
    random = np.random.default_rng(2)
    directions = [random.normal(size=(60, 1)) for _ in range(12)]
    directions += [np.eye(60)[[k]].T for k in range(0, 60, 10)]
    for direction in directions:
        for size in (0.02, -0.02, 0.2, -0.2):
            inputs = np.clip(plan.inputs + size * direction, -20.0, 20.0)
            assert cost(rolled(start, inputs), inputs, end) > least - 2e-3 * least * abs(size)


def test_either_way_round_costs_the_same_and_is_the_mirror_image() -> None:
    """Without `angles` there is one target: from π to 0 and from −π to 0 are mirror images."""
    controller = swinging(angles=(), waves=0)
    one = controller.solve(HANGING, np.zeros(4))
    controller.reset()
    other = controller.solve(-HANGING, np.zeros(4))
    np.testing.assert_allclose(one.inputs, -other.inputs, atol=1e-4)
    np.testing.assert_allclose(one.states, -other.states, atol=1e-4)


def test_the_same_twice() -> None:
    controller = swinging()
    first = controller.solve(HANGING, np.zeros(4))
    controller.reset()
    np.testing.assert_array_equal(first.inputs, controller.solve(HANGING, np.zeros(4)).inputs)
    np.testing.assert_array_equal(first.inputs, swinging().solve(HANGING, np.zeros(4)).inputs)


def test_waves_find_the_swing_that_simple_guesses_miss() -> None:
    """±10 N on ±0.5 m: from standing still or going straight there, the pole does not get up."""
    narrow: dict[str, Any] = {
        "input_limits": ((-10.0, 10.0),),
        "state_limits": (OPEN, (-0.485, 0.485), OPEN, OPEN),
        "state_weights": (10.0, 1.0, 0.1, 0.1),
        "input_weights": (0.01,),
        "horizon": 100,
        "cold_iterations": 40,
        "tolerance": 0.01,
    }
    heights = []  # of the mass at the end of the plan, in lengths
    for waves in (0, 6):
        plan = swinging(**narrow, waves=waves).solve(HANGING, np.zeros(4))
        heights.append(np.cos(plan.states[-1, 0]))
    assert heights[0] < 0
    assert heights[1] > 0.99


@pytest.mark.parametrize("grade", ["origin", "state", "horizon"])
@pytest.mark.parametrize("turns", [-2, 1])
def test_a_whole_turn_more_is_the_same(grade: str, turns: int) -> None:
    controller = mpc(linearise=grade, terminal="lqr", angles=(0,), state_limits=())
    x, more = np.array([0.1, 0.2, 0.0, -0.1]), turns * TURN * np.eye(4)[0]
    plain = controller.solve(x, np.zeros(4))
    controller.reset()
    turned = controller.solve(x + more, np.zeros(4))
    np.testing.assert_allclose(turned.inputs, plain.inputs, atol=1e-9)
    np.testing.assert_allclose(turned.states, plain.states + more, atol=1e-9)


def test_in_a_loop_a_plan_keeps_its_way_round() -> None:
    """A hanging pole is half a turn from either upright; noise must not make it dither."""
    controller = swinging(iterations=2, tolerance=0.01)
    x, random, ends = HANGING, np.random.default_rng(0), []
    for _ in range(90):
        noisy = x + random.normal(size=4) * [1e-3, 1e-4, 1e-2, 1e-3]
        plan = controller.solve(noisy, np.zeros(4))
        assert plan.status is SolutionStatus.OPTIMAL
        ends.append(np.round(plan.states[-1, 0] / TURN))
        x = plant(x, float(plan.inputs[0, 0]), 0.02)
    assert len(set(ends)) == 1
    assert abs(x[0] - TURN * ends[0]) < 0.1


def test_a_start_far_from_the_last_plan_is_mended() -> None:
    """A blow of 1.5 N·s on the cart, known at once: two linearisations a period are enough."""
    controller = swinging(iterations=2, tolerance=0.01)
    controller.solve(np.zeros(4), np.zeros(4))
    x = np.array([0.0, 0.0, -3.0, 1.5])
    for _ in range(100):
        plan = controller.solve(x, np.zeros(4))
        assert plan.status is SolutionStatus.OPTIMAL
        x = plant(x, float(plan.inputs[0, 0]), 0.02)
        assert abs(x[0]) < np.pi / 2
        assert abs(x[1]) < 0.99
    assert np.abs(x[0]) < 0.05


def test_angles_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(Exception, match=r"controller\.angles"):
        swinging(angles=(4,))
