"""The plan without bounds in one call, against SciPy and against the general recursion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from hil.control.charged import ChargedPlans
from hil.control.discretise import contiguous
from hil.control.doubling import solve_square, stationary
from hil.control.formulation import Formulation
from hil.control.riccati import factor, feedforward, unbounded
from hil.control.steady import SteadyPlans
from hil.models.analytic import CartPoleModel
from hil.types import Array
from tests.unit.control.loops import LinearDynamics, settings


@pytest.mark.parametrize(("nx", "nu"), [(2, 1), (4, 1), (4, 2), (6, 3)])
def test_stationary_p_is_that_of_scipy(nx: int, nu: int) -> None:
    random = np.random.default_rng(nx + nu)
    for growth in (0.3, 1.0, 2.0):
        a, b = growth * random.normal(size=(nx, nx)), random.normal(size=(nx, nu))
        r = np.diag(random.uniform(0.1, 10.0, nu))
        p = np.diag(random.uniform(0.0, 5.0, nx))
        truth = solve_discrete_are(a, b, p, r)
        assert stationary(a, b @ np.linalg.solve(r, b.T), p)
        np.testing.assert_allclose(p, truth, rtol=1e-8, atol=1e-10 * np.abs(truth).max())


def test_what_no_input_stabilises_is_said() -> None:
    assert not stationary(np.diag([2.0, 0.5]), np.diag([0.0, 1.0]), np.eye(2))


def test_rows_are_exchanged_where_they_must_be() -> None:
    matrix, right = np.array([[0.0, 2.0], [3.0, 1.0]]), np.array([[4.0, 1.0], [5.0, 0.0]])
    truth = np.linalg.solve(matrix, right)
    solve_square(matrix, right)
    np.testing.assert_allclose(right, truth)


def general(formulation: Formulation, x: Array, u: Array, target: Array) -> tuple[Array, Array]:
    """Return inputs and states by the recursion over all periods."""
    stages, cost = formulation.at(x, u), formulation.cost
    factors = factor(stages, cost, formulation.settings.horizon)
    push = feedforward(factors, stages, cost, target)
    plan = unbounded(factors, stages, cost, push, x, target)
    return plan.inputs, plan.states


ENDS = [("pinned", SteadyPlans), ("lqr", ChargedPlans)]
Plans = type[SteadyPlans] | type[ChargedPlans]


@pytest.mark.parametrize(("end", "kind"), ENDS)
@pytest.mark.parametrize("discretise", ["euler", "rk4"])
def test_plans_of_the_cart_pole_are_those_of_the_recursion(
    discretise: str, end: str, kind: Plans
) -> None:
    chosen = settings(linearise="state", discretise=discretise, terminal=end)
    formulation = Formulation(chosen, CartPoleModel())
    plans, bounds = kind(formulation), formulation.bounds()
    random = np.random.default_rng(3)
    for _ in range(20):
        x, u = random.uniform(-0.4, 0.4, 4), random.uniform(-5, 5, 1)
        target = np.array([0.0, random.uniform(-0.5, 0.5), 0.0, 0.0])
        found = plans.at(contiguous(formulation.dynamics.linearise(x, u)), x, u, target, bounds)
        assert found is not None
        assert found.error < 1e-12
        inputs, states = general(formulation, x, u, target)
        np.testing.assert_allclose(found.inputs, inputs, atol=1e-11)
        np.testing.assert_allclose(found.states, states, atol=1e-11)
        at_origin = plans.at_origin(x, target, bounds)
        assert at_origin is not None
        # the last call at another point leaves nothing behind
        np.testing.assert_array_equal(
            at_origin.inputs,
            kind(formulation).at_origin(x, target, bounds).inputs,  # type: ignore[union-attr]
        )


def two_inputs(end: str) -> Formulation:
    by_state = np.array([[12.0, 0.0, -0.1, 0.0], [-3.0, 0.5, 0.0, -0.2]])
    dynamics = LinearDynamics(by_state, np.array([[-2.0, 0.3], [1.0, 0.5]]), np.array([0.3, -0.2]))
    limits = ((-40.0, 30.0), (-55.0, 60.0))
    chosen = settings(
        input_limits=limits,
        state_limits=(),
        terminal=end,
        input_weights=(2.0, 0.5),
        state_weights=(3.0, 1.0, 0.2, 0.1),
        horizon=30,
    )
    return Formulation(chosen, dynamics)


@pytest.mark.parametrize(("end", "kind"), ENDS)
def test_two_inputs_an_offset_and_weights(end: str, kind: Plans) -> None:
    formulation = two_inputs(end)
    x, target = np.array([0.1, -0.3, 0.2, 0.1]), np.array([0.0, 0.4, 0.0, 0.0])
    found = kind(formulation).at_origin(x, target, formulation.bounds())
    assert found is not None
    inputs, states = general(formulation, x, np.zeros(2), target)
    np.testing.assert_allclose(found.inputs, inputs, atol=1e-10)
    np.testing.assert_allclose(found.states, states, atol=1e-10)


@pytest.mark.parametrize(("end", "kind"), ENDS)
def test_a_plan_beyond_a_bound_or_not_a_number_is_none_or_does_not_check(
    end: str, kind: Plans
) -> None:
    formulation = two_inputs(end)
    plans, bounds = kind(formulation), formulation.bounds()
    x = np.array([0.1, -0.3, 0.2, 0.1])
    free = plans.at_origin(x, np.zeros(4), bounds)
    assert free is not None
    peak = np.abs(free.inputs).max(axis=0)
    for i in range(2):  # one bound just inside, one just outside
        tight = bounds.input_high.copy()
        tight[i] = free.inputs[:, i].max() - 1e-6 * peak[i]
        assert plans.at_origin(x, np.zeros(4), bounds._replace(input_high=tight)) is None
        tight[i] += 2e-6 * peak[i]
        assert plans.at_origin(x, np.zeros(4), bounds._replace(input_high=tight)) is not None
    slopes = contiguous(formulation.dynamics.linearise(x, np.zeros(2)))
    for k in range(3):
        broken = slopes[0].copy(), slopes[1].copy(), slopes[2].copy()
        broken[k].flat[0] = np.nan
        found = plans.at(broken, x, np.zeros(2), np.zeros(4), bounds)
        assert found is None or not found.error < 1.0
