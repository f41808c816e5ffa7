"""The same problem in CVXPY, as it reads on paper: the reference for what is faster.

Parametrised under CVXPY's rules for it (DPP), compiled once, solved with any of its solvers;
or, as published with the FNODE paper (arXiv 2509.00183), built anew in every period. Needs
the `mpc` extra: `pip install hil[mpc]`.
"""

from __future__ import annotations

import importlib
import warnings
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, field

from hil.control.active_set import Bounds
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.formulation import Formulation, MpcSettings
from hil.control.planner import Outcome, Planner
from hil.control.riccati import Stages
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.types import Array

cp: Any = None
with suppress(ImportError):  # an extra; said when a controller is made
    cp = importlib.import_module("cvxpy")

TIGHT: dict[str, bool | int | float | str] = {
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
}
"""Options of Clarabel for a solution to compare others with."""


class CvxpyMpcSettings(MpcSettings, frozen=True, kw_only=True):
    """The problem, and who solves it."""

    solver: Annotated[str, Meta(description="name of an installed CVXPY solver")] = "CLARABEL"
    options: Annotated[
        dict[str, bool | int | float | str], Meta(description="passed to the solver as they are")
    ] = field(default_factory=dict)
    rebuild: Annotated[
        bool, Meta(description="build the problem anew in every solve, as published")
    ] = False


class _Problem:
    """The problem with its variables, and parameters to be set or constants in their place."""

    def __init__(self, formulation: Formulation, stages: int, values: _Values | None) -> None:
        cost, horizon = formulation.cost, formulation.settings.horizon
        nx, nu = len(cost.q), len(cost.r)

        def given(*shape: int) -> Any:
            return cp.Parameter(shape)

        if values is None:
            a = [given(nx, nx) for _ in range(stages)]
            b = [given(nx, nu) for _ in range(stages)]
            c = [given(nx) for _ in range(stages)]
            start, target = given(nx), given(nx)
            low, high = given(nu), given(nu)
        else:
            a, b, c = list(values.stages.a), list(values.stages.b), list(values.stages.c)
            start, target = values.start, values.target
            low, high = values.bounds.input_low, values.bounds.input_high
        self.a, self.b, self.c = a, b, c
        self.start, self.target, self.low, self.high = start, target, low, high
        self.states, self.inputs = cp.Variable((horizon + 1, nx)), cp.Variable((horizon, nu))
        x, u, limits = self.states, self.inputs, formulation.bounds()
        before, after, last = x[:-1], x[1:], horizon - 1 if cost.pinned else horizon
        root_q, root_r = np.sqrt(cost.q), np.sqrt(cost.r)  # both are diagonal
        total: Any = cp.sum_squares((before - target) @ root_q) + cp.sum_squares(u @ root_r)
        constraints = [x[0] == start]
        if stages == 1:
            constraints.append(after == before @ a[0].T + u @ b[0].T + c[0])
        else:
            constraints += [x[k + 1] == a[k] @ x[k] + b[k] @ u[k] + c[k] for k in range(stages)]
        for i in range(nu):
            if np.isfinite(limits.input_low[i]):
                constraints.append(u[:, i] >= low[i])
            if np.isfinite(limits.input_high[i]):
                constraints.append(u[:, i] <= high[i])
        for i in range(nx if last else 0):
            beyond: Any = 0.0
            if limits.state_give[i] > 0:
                beyond = cp.Variable(last, nonneg=True)
                total += cp.sum_squares(beyond / np.sqrt(limits.state_give[i]))
            if np.isfinite(limits.state_low[i]):
                constraints.append(x[1 : last + 1, i] >= limits.state_low[i] - beyond)
            if np.isfinite(limits.state_high[i]):
                constraints.append(x[1 : last + 1, i] <= limits.state_high[i] + beyond)
        if cost.pinned:
            constraints.append(x[horizon] == target)
        else:
            total += cp.sum_squares(np.linalg.cholesky(cost.end).T @ (x[horizon] - target))
        self.problem = cp.Problem(cp.Minimize(total), constraints)

    def set(self, values: _Values) -> None:
        """Put values into the parameters."""
        for parameters, arrays in zip((self.a, self.b, self.c), values.stages, strict=True):
            for parameter, array in zip(parameters, arrays, strict=True):
                parameter.value = array
        self.start.value, self.target.value = values.start, values.target
        self.low.value = np.nan_to_num(values.bounds.input_low)  # an open side is not used
        self.high.value = np.nan_to_num(values.bounds.input_high)


class _Values:
    """What one solve is given."""

    def __init__(self, stages: Stages, start: Array, target: Array, bounds: Bounds) -> None:
        self.stages, self.start, self.target, self.bounds = stages, start, target, bounds


class CvxpyMpc(AbstractController):
    """Solves the problem of `hil.control.formulation` with CVXPY.

    Takes the solver's word for optimality. Raises ConfigError for settings that do not fit
    the model, and when CVXPY or the solver is not installed.
    """

    Settings = CvxpyMpcSettings

    def __init__(self, settings: CvxpyMpcSettings, *, dynamics: AbstractDynamics) -> None:
        if cp is None:
            raise ConfigError("controller: CVXPY is not installed; pip install 'hil[mpc]'")
        if settings.solver not in cp.installed_solvers():
            known = ", ".join(cp.installed_solvers())
            raise ConfigError(f"controller.solver: {settings.solver!r} not among {known}")
        self._settings = settings
        self._formulation = Formulation(settings, dynamics)
        self._planner = Planner(self._formulation, self._solve_stages)
        self._stages = settings.horizon if settings.linearise == "horizon" else 1
        self._problem = (
            None if settings.rebuild else _Problem(self._formulation, self._stages, None)
        )

    @property
    def horizon(self) -> int:
        """Number of periods in a plan."""
        return self._settings.horizon

    def reset(self) -> None:
        """Forget the last plan and the solver's warm start."""
        self._planner.reset()
        if self._problem is not None:
            self._problem = _Problem(self._formulation, self._stages, None)

    def prepare(self, x: Array, r: Array) -> None:
        """Search for the first plan along the horizon, where that is asked for."""
        self._planner.prepare(x, r)

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return a plan from state x (nx,) to the reference r (nx,).

        disturbance: an estimated constant d (nu,) that the plant adds to the input.
        """
        return self._planner.solve(x, r, disturbance)

    def _solve_stages(self, stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        nothing = np.empty((0, 0)), np.empty((0, 0))
        if not all(np.isfinite(array).all() for array in stages):
            return Outcome(SolutionStatus.FAILED, *nothing, "the model's slopes are not finite")
        values = _Values(stages, start, target, bounds)
        problem = self._problem or _Problem(self._formulation, self._stages, values)
        if self._problem is not None:
            self._problem.set(values)
        settings = self._settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # inaccurate: the status says so
            try:
                problem.problem.solve(solver=settings.solver, warm_start=False, **settings.options)
            except cp.error.SolverError as error:
                return Outcome(SolutionStatus.FAILED, *nothing, f"{settings.solver}: {error}")
        said = f"{settings.solver}: {problem.problem.status}"
        if problem.problem.status == cp.OPTIMAL:
            found = problem.inputs.value, problem.states.value
            return Outcome(SolutionStatus.OPTIMAL, *found, said)
        none = problem.problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE)
        status = SolutionStatus.INFEASIBLE if none else SolutionStatus.FAILED
        return Outcome(status, *nothing, said)
