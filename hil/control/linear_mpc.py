"""Model predictive control by an exact solver that is done when no bound is active.

The plan without bounds comes from one Riccati recursion: `riccati`, or where all periods are
alike in one call, `steady` with a pinned end and `charged` with one that costs. If it keeps all
bounds it is the solution of the bounded problem as well, and the Solution says "no bound active".
If not, the dual active set (`active_set`) takes over, exactly. Either way the plan is
checked against the optimality conditions of the problem as it was given before it is handed
out; one that does not pass is FAILED, and no plan is handed out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.compiled import compiled
from hil.control.active_set import (
    INFEASIBLE,
    SOLVED,
    TOLERANCE,
    Bounded,
    Bounds,
    bounded,
    residual,
    worst,
)
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.charged import ChargedPlans
from hil.control.discretise import contiguous, period
from hil.control.formulation import Formulation, MpcSettings
from hil.control.plan_checks import Found
from hil.control.planner import Outcome, Planner
from hil.control.riccati import Cost, Factors, Stages, factor, feedforward, unbounded
from hil.control.steady import SteadyPlans
from hil.models.base import AbstractDynamics
from hil.types import Array

OPTIMAL = 1e-8  # largest residual of the optimality conditions of a plan that is handed out
STEPS = 10  # of the active set per input of a plan: a guard against going round in circles


class Solved(NamedTuple):
    """A plan as the compiled solver hands it over."""

    code: int  # SOLVED, INFEASIBLE, GAVE_UP
    steps: int  # of the active set
    active: int  # bounds active
    error: float  # largest residual of the optimality conditions, 1
    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)


@compiled
def solve_with(
    factors: Factors, stages: Stages, cost: Cost, bounds: Bounds, start: Array, target: Array
) -> Solved:
    """Return the optimal plan from `start` (nx,) to `target` (nx,), and its residual."""
    horizon, nu, nx = factors.gain.shape
    push = feedforward(factors, stages, cost, target)
    free = unbounded(factors, stages, cost, push, start, target)
    last = horizon - 1 if cost.pinned else horizon
    no_state_force = np.zeros((horizon + 1, nx))
    violation, _, _, _ = worst(free.inputs, free.states, bounds, no_state_force, last)
    if violation <= TOLERANCE:
        no_input_force = np.zeros((horizon, nu))
        found = Bounded(free, SOLVED, 0, 0, no_input_force, no_state_force)
    else:
        limit = STEPS * horizon * nu
        found = bounded(factors, stages, cost, push, target, bounds, free, limit)
    error = residual(factors, stages, cost, bounds, target, found)
    plan = found.plan
    return Solved(found.code, found.steps, found.active, error, plan.inputs, plan.states)


@compiled
def solve_anew(
    horizon: int, stages: Stages, cost: Cost, bounds: Bounds, start: Array, target: Array
) -> Solved:
    """Return the same for stages that have no factors yet."""
    return solve_with(factor(stages, cost, horizon), stages, cost, bounds, start, target)


class LinearMpc(AbstractController):
    """Solves the problem of `hil.control.formulation` within tens of microseconds.

    The constructor compiles: about 30 s once on a machine, then milliseconds from the cache
    on disk. A plan is never guessed from an earlier one; what is carried on is where to
    linearise.
    Raises ConfigError for settings that do not fit the model.
    """

    Settings = MpcSettings

    def __init__(self, settings: MpcSettings, *, dynamics: AbstractDynamics) -> None:
        formulation = Formulation(settings, dynamics)
        self._cost = formulation.cost
        self._horizon = settings.horizon
        self._origin = formulation.origin
        self._origin_factors = factor(self._origin, self._cost, self._horizon)
        self._dynamics, self._order = dynamics, formulation.order
        self._dt = settings.dt
        self._alike: SteadyPlans | ChargedPlans | None = None
        if settings.linearise != "horizon":
            kind = SteadyPlans if settings.terminal == "pinned" else ChargedPlans
            self._alike = kind(formulation)
        self._planner = Planner(formulation, self._solve_stages, self._solve_at)
        rest, bounds = np.zeros(dynamics.nx), formulation.bounds()
        solve_with(self._origin_factors, self._origin, self._cost, bounds, rest, rest)
        solve_anew(self._horizon, self._origin, self._cost, bounds, rest, rest)

    @property
    def horizon(self) -> int:
        """Number of periods in a plan."""
        return self._horizon

    def reset(self) -> None:
        """Forget the last plan: the next solve starts from cold."""
        self._planner.reset()

    def prepare(self, x: Array, r: Array) -> None:
        """Search for the first plan along the horizon, where that is asked for."""
        self._planner.prepare(x, r)

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return a plan from state x (nx,) to r (nx,): u + d is weighed, u is limited."""
        return self._planner.solve(x, r, disturbance)

    def _solve_at(self, start: Array, present: Array, target: Array, bounds: Bounds) -> Outcome:
        here = contiguous(self._dynamics.linearise(start, present))
        if self._alike is not None:
            quick = self._alike.at(here, start, present, target, bounds)
            if quick is not None and quick.error <= OPTIMAL:
                return _free(quick)
        stages = Stages(*period(*here, start, present, self._dt, self._order))
        return self._solve_stages(stages, start, target, bounds)

    def _solve_stages(self, stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        given = stages, self._cost, bounds, start, target
        if stages is self._origin:
            if self._alike is not None:
                quick = self._alike.at_origin(start, target, bounds)
                if quick is not None and quick.error <= OPTIMAL:
                    return _free(quick)
            found = solve_with(self._origin_factors, *given)
        else:
            found = solve_anew(self._horizon, *given)
        if found.code == INFEASIBLE:
            status = SolutionStatus.INFEASIBLE
            detail = f"no plan keeps all bounds: shown after {found.steps} active-set steps"
        elif found.code == SOLVED and found.error <= OPTIMAL:
            status = SolutionStatus.OPTIMAL
            steps = f"{found.active} bounds active, {found.steps} active-set steps"
            kind = steps if found.active else "no bound active"
            detail = f"{kind}, residual {found.error:.1e}"
        else:
            status = SolutionStatus.FAILED
            detail = f"residual {found.error:.1e} after {found.steps} steps: not a solution"
        return Outcome(status, found.inputs, found.states, detail)


def _free(found: Found) -> Outcome:
    detail = f"no bound active, residual {found.error:.1e}"
    return Outcome(SolutionStatus.OPTIMAL, found.inputs, found.states, detail)
