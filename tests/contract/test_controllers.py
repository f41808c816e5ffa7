"""What every controller and estimator keeps; a new file in `hil/control` is picked up by itself.

A controller with `Settings` is given those of this problem that it knows; what else it needs
has defaults. One without is made around others and is tested with what it is made around.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import hil.control
from hil.control.base import AbstractController, AbstractEstimator, SolutionStatus
from hil.models.analytic import CartPoleModel

LIMIT = 4.0  # N
GRADES = ("origin", "state", "horizon")
PROBLEM: dict[str, Any] = {
    "input_limits": ((-LIMIT, LIMIT),),
    "state_limits": ((-1.5, 1.5), (-1.0, 1.0), (-np.inf, np.inf), (-np.inf, np.inf)),
    "state_weights": (1.0, 1.0, 1.0, 1.0),
    "input_weights": (1.0,),
    "horizon": 40,
    "dt": 0.05,
}
SENSOR: dict[str, Any] = {
    "pose_noise": (1e-3, 1e-4),
    "acceleration_noise": (0.5, 0.5),
    "dt": 0.05,
}


def found(contract: type[Any]) -> list[type[Any]]:
    """Return every class of a contract that can be made, of every module in `hil.control`."""
    kinds = []
    for entry in pkgutil.iter_modules(hil.control.__path__):
        module = importlib.import_module(f"hil.control.{entry.name}")
        kinds += [
            item
            for _, item in inspect.getmembers(module, inspect.isclass)
            if issubclass(item, contract)
            and not inspect.isabstract(item)
            and hasattr(item, "Settings")
            and item.__module__ == module.__name__
        ]
    return kinds


def grades() -> list[Any]:
    """Return every controller, in every grade of linearisation it has."""
    return [
        pytest.param((kind, grade), id=f"{kind.__name__}{'-' if grade else ''}{grade}")
        for kind in found(AbstractController)
        for grade in (GRADES if "linearise" in kind.Settings.__struct_fields__ else ("",))
    ]


@pytest.fixture(scope="module", params=grades())
def controller(request: pytest.FixtureRequest) -> AbstractController:
    kind, grade = request.param
    known = kind.Settings.__struct_fields__
    chosen = {key: value for key, value in PROBLEM.items() if key in known}
    if grade:
        chosen["linearise"] = grade
    made: AbstractController = kind(kind.Settings(**chosen), dynamics=CartPoleModel())
    return made


def knows_state_limits(controller: AbstractController) -> bool:
    """Return whether it plans, so that there can be no plan."""
    return "state_limits" in type(controller).Settings.__struct_fields__  # type: ignore[attr-defined]


@pytest.fixture(params=found(AbstractEstimator), ids=lambda kind: kind.__name__)
def estimator(request: pytest.FixtureRequest) -> AbstractEstimator:
    kind = request.param
    made: AbstractEstimator = kind(kind.Settings(**SENSOR), dynamics=CartPoleModel())
    return made


def test_shapes_are_those_of_the_contract(controller: AbstractController) -> None:
    controller.reset()
    solution = controller.solve(np.array([0.02, 0.1, 0.0, 0.0]), np.zeros(4))
    assert controller.horizon in (1, 40)  # 1: it does not plan
    assert solution.status.planned
    assert solution.inputs.shape == (controller.horizon, 1)
    assert solution.states.shape[1] == 4
    assert solution.solve_us > 0


def test_equilibrium_stays(controller: AbstractController) -> None:
    controller.reset()
    for _ in range(3):
        solution = controller.solve(np.zeros(4), np.zeros(4))
        np.testing.assert_allclose(solution.inputs, 0.0, atol=1e-6)
        np.testing.assert_allclose(solution.states, 0.0, atol=1e-6)


def test_limits_hold_and_are_used(controller: AbstractController) -> None:
    controller.reset()
    solution = controller.solve(np.array([0.12, 0.0, 0.0, 0.0]), np.zeros(4))
    assert solution.status.planned
    assert np.abs(solution.inputs).max() <= LIMIT  # not by a rounding error more
    assert solution.inputs[0, 0] == pytest.approx(LIMIT, abs=1e-5)
    if knows_state_limits(controller):
        assert np.abs(solution.states[1:, 1]).max() <= 1.0 + 1e-6


def test_plan_begins_at_the_state_it_was_asked_from(controller: AbstractController) -> None:
    controller.reset()
    x = np.array([0.05, 0.2, -0.1, 0.0])
    asked = x.copy()
    solution = controller.solve(x, np.zeros(4))
    np.testing.assert_array_equal(x, asked)  # nor is what it was given changed
    np.testing.assert_allclose(solution.states[0], asked, atol=1e-7)


def test_a_known_disturbance_is_countered(controller: AbstractController) -> None:
    controller.reset()
    d = np.array([0.4 * LIMIT])
    for known, expected in ((d, -d), (None, 0 * d)):
        solution = controller.solve(np.zeros(4), np.zeros(4), known)
        np.testing.assert_allclose(solution.inputs, np.tile(expected, (controller.horizon, 1)),
                                   atol=1e-6)  # fmt: skip


def test_reset_forgets(controller: AbstractController) -> None:
    x = np.array([0.05, -0.1, 0.1, 0.0])
    controller.reset()
    first = controller.solve(x, np.zeros(4))
    controller.solve(np.array([-0.1, 0.5, 0.0, 0.3]), np.zeros(4))
    controller.reset()
    again = controller.solve(x, np.zeros(4))
    np.testing.assert_array_equal(first.inputs, again.inputs)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_state_fails_without_an_exception(
    controller: AbstractController, broken: float
) -> None:
    controller.reset()
    for x, r in (([broken, 0, 0, 0], np.zeros(4)), (np.zeros(4), [0, 0, broken, 0])):
        solution = controller.solve(np.array(x), np.array(r))
        assert solution.status is SolutionStatus.FAILED
        assert solution.inputs.size == 0
    after = controller.solve(np.zeros(4), np.zeros(4))
    assert after.status.planned


def test_what_cannot_be_is_said(controller: AbstractController) -> None:
    if not knows_state_limits(controller):
        pytest.skip("what does not plan always has an answer")
    controller.reset()
    solution = controller.solve(np.array([0.6, 0.0, 0.0, 0.0]), np.zeros(4))
    assert solution.status is SolutionStatus.INFEASIBLE
    assert solution.inputs.size == 0
    after = controller.solve(np.array([0.02, 0.0, 0.0, 0.0]), np.zeros(4))
    assert after.status.planned


def test_estimator_starts_without_a_disturbance(estimator: AbstractEstimator) -> None:
    estimator.reset(np.zeros(2))
    np.testing.assert_array_equal(estimator.disturbance, np.zeros(1))


def test_estimator_at_rest_stays_and_reset_forgets(estimator: AbstractEstimator) -> None:
    y = np.array([0.0, 0.3])
    estimator.reset(np.zeros(2))
    for _ in range(5):
        estimator.update(np.array([0.4, -0.2]), np.array([7.0]))
    estimator.reset(y)
    for _ in range(5):
        x = estimator.update(y, np.zeros(1))
        np.testing.assert_allclose(x, [0.0, 0.3, 0.0, 0.0], atol=1e-12)
