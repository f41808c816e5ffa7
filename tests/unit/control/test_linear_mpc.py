"""The fast controller on the cart-pole of the FNODE paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.control.base import SolutionStatus
from hil.control.cvxpy_mpc import TIGHT, CvxpyMpc, CvxpyMpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.errors import ConfigError
from hil.models.analytic import CartPoleModel
from hil.models.base import Linearisation
from hil.types import Array
from tests.unit.control.loops import PAPER, START, LinearDynamics, mpc, plant, run, settings

PUSHED: dict[str, Any] = {"input_limits": ((-3.0, 3.0),)}

# what is reachable with the right equations: error norm at 2, 4, 6, 8, 10 s, cost, peak of u
REACHABLE: dict[str, tuple[dict[str, Any], tuple[float, ...], float, float]] = {
    "origin, Euler": (
        {}, (1.16, 0.0937, 0.0141, 0.0019, 1.47e-4), 2193.95, 28.4),
    "origin, RK4": (
        {"discretise": "rk4"}, (1.13, 0.0591, 0.0121, 7.3e-4, 1.29e-4), 2212.70, 26.7),
    "state, Euler": (
        {"linearise": "state"}, (1.29, 0.116, 0.0153, 0.00227, 1.55e-4), 2114.08, 32.9),
    "nonlinear, RK4": (
        {"linearise": "horizon", "discretise": "rk4", "iterations": 20},
        (1.19, 0.0691, 0.0128, 8.5e-4, 1.36e-4), 2142.99, 29.6),
}  # fmt: skip


@pytest.mark.parametrize("case", REACHABLE)
def test_the_papers_scenario_ends_as_is_reachable(case: str) -> None:
    changes, norms, cost, peak = REACHABLE[case]
    loop = run(mpc(**changes))
    np.testing.assert_allclose(loop.norms, norms, rtol=0.01)
    assert loop.cost == pytest.approx(cost, rel=1e-5)
    assert max(map(abs, loop.inputs)) == pytest.approx(peak, abs=0.06)
    assert loop.bounded_share == 0  # in the published scenario no limit ever acts


def test_one_iteration_per_period_costs_less_than_a_thousandth() -> None:
    loop = run(mpc(linearise="horizon", discretise="rk4"))
    assert loop.cost == pytest.approx(2142.99, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "kick", "bounded"),
    [
        ({}, 0.0, 0.0),
        ({"linearise": "state"}, 0.0, 0.0),
        ({**PUSHED}, 0.8, 0.25),
        ({**PUSHED, "linearise": "state"}, 0.8, 0.25),
    ],
    ids=["paper's", "re-linearised", "pushed", "pushed, re-linearised"],
)
def test_every_first_input_is_clarabels(
    changes: dict[str, Any], kick: float, bounded: float
) -> None:
    start = np.zeros(4) if kick else START
    ours = mpc(**changes)
    loop = run(ours, start, kick=kick)
    assert loop.solutions[-1].status is SolutionStatus.OPTIMAL
    assert loop.bounded_share >= bounded
    tight = CvxpyMpcSettings(**{**PAPER, **changes}, options=TIGHT)
    reference = CvxpyMpc(tight, dynamics=CartPoleModel())
    for x, u in list(zip(loop.states, loop.inputs, strict=True))[:120]:
        truth = reference.solve(x, np.zeros(4))
        assert truth.status is SolutionStatus.OPTIMAL, truth.detail
        assert u == pytest.approx(float(truth.inputs[0, 0]), abs=1e-6)


def test_along_the_horizon_equals_the_reference_formulation() -> None:
    changes = {**PUSHED, "linearise": "horizon", "horizon": 20, "terminal": "lqr"}
    ours = mpc(**changes)
    reference = CvxpyMpc(
        CvxpyMpcSettings(**{**PAPER, **changes}, options=TIGHT), dynamics=CartPoleModel()
    )
    x = np.array([0.05, 0.0, 0.0, -0.8])
    for _ in range(5):
        found, truth = ours.solve(x, np.zeros(4)), reference.solve(x, np.zeros(4))
        np.testing.assert_allclose(found.inputs, truth.inputs, atol=1e-6)
        x = plant(x, float(found.inputs[0, 0]))


@pytest.mark.parametrize("linearise", ["state", "horizon"])
def test_too_little_force_is_said_not_mis_solved(linearise: str) -> None:
    solution = mpc(input_limits=((-12.0, 12.0),), linearise=linearise).solve(START, np.zeros(4))
    assert solution.status is SolutionStatus.INFEASIBLE
    assert solution.inputs.shape == (0, 1)
    assert "no plan" in solution.detail


def test_too_little_force_linearised_at_the_origin() -> None:
    """±12 N is just enough for the first plan there (HiGHS agrees), not for the second."""
    controller = mpc(input_limits=((-12.0, 12.0),))
    loop = run(controller)
    assert [s.status for s in loop.solutions] == ["optimal", "infeasible"]
    assert mpc(input_limits=((-11.9, 11.9),)).solve(START, np.zeros(4)).status == "infeasible"
    again = controller.solve(np.zeros(4), np.zeros(4))  # what failed leaves nothing behind
    assert again.status is SolutionStatus.OPTIMAL


def test_a_model_that_says_nan_fails_without_an_exception() -> None:
    class Broken(CartPoleModel):
        broken = False

        def linearise(self, x: Array, u: Array) -> Linearisation:
            found = super().linearise(x, u)
            return (
                found._replace(acceleration=found.acceleration * np.nan) if self.broken else found
            )

    model = Broken()
    controllers = [
        LinearMpc(settings(linearise=grade), dynamics=model) for grade in ("state", "horizon")
    ]
    model.broken = True
    for controller in controllers:
        solution = controller.solve(START, np.zeros(4))
        assert solution.status is SolutionStatus.FAILED
        assert len(solution.inputs) == 0


def test_infinities_that_cancel_are_seen() -> None:
    controller = mpc()
    for x, d in ((np.array([np.inf, -np.inf, 0, 0]), None), (np.zeros(4), np.array([np.nan]))):
        assert controller.solve(x, np.zeros(4), d).status is SolutionStatus.FAILED


def test_offset_of_a_model_is_not_dropped() -> None:
    """f(0) ≠ 0: a constant push of 3 N/kg is countered from the first plan on."""
    dynamics = LinearDynamics(np.zeros((1, 2)), np.ones((1, 1)), np.array([3.0]))
    changes: dict[str, Any] = {"state_limits": (), "horizon": 40, "input_limits": ((-9.0, 9.0),)}
    controller = LinearMpc(settings(**changes), dynamics=dynamics)
    solution = controller.solve(np.zeros(2), np.zeros(2))
    x = np.zeros(2)
    for k, u in enumerate(solution.inputs):
        x = x + 0.05 * np.array([x[1], u[0] + 3.0])
        np.testing.assert_allclose(x, solution.states[k + 1], atol=1e-12)
    np.testing.assert_allclose(x, 0.0, atol=1e-10)


def test_a_known_disturbance_is_countered_within_the_limits() -> None:
    controller = mpc(input_limits=((-3.0, 3.0),))
    rest = controller.solve(np.zeros(4), np.zeros(4), np.array([2.0]))
    np.testing.assert_allclose(rest.inputs, -2.0, atol=1e-9)
    pushed = controller.solve(np.array([0.08, 0, 0, 0]), np.zeros(4), np.array([-1.0]))
    assert pushed.status is SolutionStatus.OPTIMAL
    assert pushed.inputs.max() <= 3.0
    assert pushed.inputs[0, 0] == pytest.approx(3.0)
    assert "bounds active" in pushed.detail


def test_a_reference_is_reached() -> None:
    solution = mpc().solve(np.zeros(4), np.array([0.0, 0.5, 0.0, 0.0]))
    np.testing.assert_allclose(solution.states[-1], [0.0, 0.5, 0.0, 0.0], atol=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {"input_limits": ((-1.0, 1.0), (-1.0, 1.0))},
        {"state_limits": ((-1.0, 1.0),)},
        {"input_limits": ((1.0, -1.0),)},
        {"state_weights": (1.0, 1.0)},
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        mpc(**changes)


def test_a_model_that_no_input_moves_is_refused() -> None:
    dynamics = LinearDynamics(np.array([[1.0, 0.0]]), np.zeros((1, 1)), np.zeros(1))
    with pytest.raises(ConfigError, match="regulator"):
        LinearMpc(settings(state_limits=()), dynamics=dynamics)


def test_a_solver_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="NONESUCH"):
        CvxpyMpc(CvxpyMpcSettings(**PAPER, solver="NONESUCH"), dynamics=CartPoleModel())
