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
