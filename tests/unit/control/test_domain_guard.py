"""The guard of a learned model: who plans where."""

from __future__ import annotations

import numpy as np

from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.domain_guard import DomainGuard
from hil.types import Array


class Always(AbstractController):
    """Plans the same input whatever the state."""

    def __init__(self, u: float, status: SolutionStatus = SolutionStatus.OPTIMAL) -> None:
        self.u, self.status = u, status

    @property
    def horizon(self) -> int:
        return 2

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        inputs = (
            np.full((2, 1), self.u) if self.status is SolutionStatus.OPTIMAL else np.zeros((0, 1))
        )
        return Solution(inputs, np.zeros((3, 4)), self.status, 1.0)

    def reset(self) -> None: ...


class Box:
    """Knows |x₀| up to 1 and |u| up to 10."""

    def domain(self, x: Array, u: Array) -> float:
        return float(max(abs(x[0]), abs(u[0]) / 10))


def solve(guard: DomainGuard, place: float) -> tuple[SolutionStatus, float]:
    solution = guard.solve(np.array([place, 0.0, 0.0, 0.0]), np.zeros(4))
    return solution.status, float(solution.inputs[0, 0]) if len(solution.inputs) else np.nan


def test_outside_the_fallback_plans_until_the_state_is_well_inside() -> None:
    guard = DomainGuard(Always(1.0), Box(), Always(-1.0))
    found = [solve(guard, place) for place in (0.5, 0.99, 1.01, 0.95, 0.89, 0.95)]
    inside, outside = (SolutionStatus.OPTIMAL, 1.0), (SolutionStatus.OUTSIDE, -1.0)
    assert found == [inside, inside, outside, outside, inside, inside]


def test_a_planned_input_outside_the_data_counts_too() -> None:
    assert solve(DomainGuard(Always(11.0), Box(), Always(-1.0)), 0.0)[1] == -1.0


def test_without_a_plan_the_fallback_is_asked_and_its_failure_is_said() -> None:
    failed = Always(0.0, SolutionStatus.INFEASIBLE)
    assert solve(DomainGuard(failed, Box(), Always(-1.0)), 0.0)[1] == -1.0
    status, _ = solve(DomainGuard(Always(1.0), Box(), failed), 2.0)
    assert status is SolutionStatus.INFEASIBLE
