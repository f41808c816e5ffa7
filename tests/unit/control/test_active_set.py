"""The bounded path against Clarabel and against linear programming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from hil.control.active_set import TOLERANCE
from hil.control.base import SolutionStatus
from hil.control.cvxpy_mpc import TIGHT, CvxpyMpc, CvxpyMpcSettings
from hil.control.formulation import Formulation, MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.types import Array
from tests.unit.control.loops import LinearDynamics


def has_a_plan(formulation: Formulation, start: Array, target: Array) -> bool:
    """Return whether the constraints can be met, by HiGHS."""
    stages, bounds = formulation.origin, formulation.bounds()
    a, b, c = stages.a[0], stages.b[0], stages.c[0]
    nx, nu = b.shape
    horizon = formulation.settings.horizon
    rows = np.zeros((horizon * nx, horizon * (nx + nu)))
    right = np.tile(c, horizon)
    right[:nx] += a @ start
    limits: list[Any] = []
    for k in range(horizon):
        x = slice(k * nx, (k + 1) * nx)
        rows[x, x] = np.eye(nx)
        rows[x, horizon * nx + k * nu : horizon * nx + (k + 1) * nu] = -b
        if k:
            rows[x, (k - 1) * nx : k * nx] = -a
        end = formulation.cost.pinned and k == horizon - 1
        low, high = (target, target) if end else (bounds.state_low, bounds.state_high)
        limits += list(zip(low, high, strict=True))
    limits += list(zip(bounds.input_low, bounds.input_high, strict=True)) * horizon
    found = linprog(np.zeros(rows.shape[1]), A_eq=rows, b_eq=right, bounds=limits)
    assert found.status in (0, 2)
    return bool(found.status == 0)


@pytest.mark.parametrize("terminal", ["pinned", "lqr"])
def test_random_problems_agree_with_clarabel_and_with_highs(terminal: str) -> None:
    """Two positions, two inputs, an unstable plant with an offset, limits on everything."""
    random = np.random.default_rng(5)
    by_state = np.array([[12.0, 0.0, -0.1, 0.0], [-3.0, 0.5, 0.0, -0.2]])
    dynamics = LinearDynamics(by_state, np.array([[-2.0, 0.3], [1.0, 0.5]]), np.array([0.3, -0.2]))
    problem: dict[str, Any] = {
        "input_limits": ((-4.0, 3.0), (-1.5, 2.0)),
        "state_limits": ((-0.5, 0.5), (-1.0, 1.2), (-2.0, 2.0), (-1.0, np.inf)),
        "horizon": 20,
        "terminal": terminal,
    }
    ours = LinearMpc(MpcSettings(**problem), dynamics=dynamics)
    reference = CvxpyMpc(CvxpyMpcSettings(**problem, options=TIGHT), dynamics=dynamics)
    formulation = Formulation(MpcSettings(**problem), dynamics)
    said, bounded = [], 0
    for _ in range(80):
        start = random.uniform(-1.0, 1.0, 4) * [0.45, 1.0, 1.5, 0.9]
        target = np.zeros(4)
        found = ours.solve(start, target)
        assert (found.status is SolutionStatus.OPTIMAL) == has_a_plan(formulation, start, target)
        said.append(found.status)
        if found.status is not SolutionStatus.OPTIMAL:
            assert found.status is SolutionStatus.INFEASIBLE
            continue
        bounded += "bounds active" in found.detail
        truth = reference.solve(start, target)
        assert truth.status is SolutionStatus.OPTIMAL
        np.testing.assert_allclose(found.inputs, truth.inputs, atol=2e-6)
        np.testing.assert_allclose(found.states, truth.states, atol=2e-6)
        assert np.all(found.states[1:20, 0] <= 0.5 * (1 + 2 * TOLERANCE))
        assert np.all(found.inputs >= [-4.0, -1.5])
        assert np.all(found.inputs <= [3.0, 2.0])
    assert bounded >= 8  # the path under test was taken
    assert said.count(SolutionStatus.INFEASIBLE) >= 3
    assert said.count(SolutionStatus.OPTIMAL) >= 15


@pytest.mark.parametrize("terminal", ["pinned", "lqr"])
def test_soft_limits_agree_with_clarabel_and_always_leave_a_plan(terminal: str) -> None:
    """From outside the limits, too; and with bounds of the inputs that stay hard."""
    random = np.random.default_rng(6)
    by_state = np.array([[12.0, 0.0, -0.1, 0.0], [-3.0, 0.5, 0.0, -0.2]])
    dynamics = LinearDynamics(by_state, np.array([[-2.0, 0.3], [1.0, 0.5]]), np.array([0.3, -0.2]))
    free = terminal == "lqr"
    problem: dict[str, Any] = {
        "input_limits": ((-4.0, 3.0), (-1.5, 2.0)) if free else ((-np.inf, np.inf),) * 2,
        "state_limits": ((-0.5, 0.5), (-1.0, 1.2), (-2.0, 2.0), (-1.0, np.inf)),
        "state_penalties": (500.0, 200.0, 3000.0, 100.0),
        "horizon": 20,
        "terminal": terminal,
    }
    ours = LinearMpc(MpcSettings(**problem), dynamics=dynamics)
    reference = CvxpyMpc(CvxpyMpcSettings(**problem, options=TIGHT), dynamics=dynamics)
    beyond, mixed, compared = 0, 0, 0
    for _ in range(60):
        start = random.uniform(-1.0, 1.0, 4) * [0.6, 1.4, 2.5, 1.5]
        found, truth = ours.solve(start, np.zeros(4)), reference.solve(start, np.zeros(4))
        assert found.status is SolutionStatus.OPTIMAL, found.detail
        if truth.status is not SolutionStatus.OPTIMAL:  # 1e-12 is beyond it where costs are large
            continue
        compared += 1
        np.testing.assert_allclose(found.inputs, truth.inputs, atol=2e-5)
        np.testing.assert_allclose(found.states, truth.states, atol=2e-5)
        over = np.maximum(found.states[1:] - [0.5, 1.2, 2.0, np.inf], 0.0)
        beyond += bool(over.max() > 1e-3)
        mixed += bool(over.max() > 1e-3 and np.isclose(found.inputs, 3.0).any())
    assert compared >= 40
    assert beyond >= 10  # the path under test was taken
    assert mixed >= 3 or not free


def test_a_stiffer_limit_gives_way_less_as_its_multiplier_says() -> None:
    """s = λ/ρ: ten times the penalty, close to a tenth of the excess."""
    dynamics = LinearDynamics(np.zeros((1, 2)), np.ones((1, 1)), np.zeros(1))
    excess = []
    for penalty in (1e8, 1e9):
        settings = MpcSettings(
            input_limits=((-50.0, 50.0),), state_limits=((-1.0, 0.5), (-np.inf, np.inf)),
            state_penalties=(penalty, np.inf), state_weights=(0.01, 0.01), input_weights=(1.0,),
            horizon=30, dt=0.05, terminal="lqr",
        )  # fmt: skip
        plan = LinearMpc(settings, dynamics=dynamics).solve(np.array([0.2, 2.0]), np.zeros(2))
        assert plan.status is SolutionStatus.OPTIMAL
        excess.append(float(plan.states[:, 0].max()) - 0.5)
    assert 0 < excess[1] < excess[0]
    assert excess[0] / excess[1] == pytest.approx(10.0, rel=0.05)


def test_numbers_that_overflow_fail_and_harm_nothing() -> None:
    """Slopes near the largest number: the answer is FAILED, and the next solve is as ever."""
    dynamics = LinearDynamics(np.zeros((1, 2)), np.ones((1, 1)), np.zeros(1))
    settings = MpcSettings(
        input_limits=((-2.0, 2.0),), state_limits=((-1.0, 0.5), (-np.inf, np.inf)),
        state_penalties=(1e4, np.inf), linearise="state", horizon=30, terminal="lqr",
    )  # fmt: skip
    controller = LinearMpc(settings, dynamics=dynamics)
    before = controller.solve(np.array([0.2, 0.9]), np.zeros(2))
    for size in (1e80, 1e160, 1e300):
        dynamics.by_state = np.full((1, 2), size)
        assert controller.solve(np.array([0.2, 0.9]), np.zeros(2)).status is SolutionStatus.FAILED
    dynamics.by_state = np.zeros((1, 2))
    after = controller.solve(np.array([0.2, 0.9]), np.zeros(2))
    np.testing.assert_array_equal(before.inputs, after.inputs)
