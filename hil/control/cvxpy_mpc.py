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
        root_q, root_r = np.sqrt(cost.q), np.sqrt(cost.r)  # both are diagonal
        total: Any = 0.0
        constraints = [x[0] == start]
        for k in range(horizon):
            s = min(k, stages - 1)
            total += cp.sum_squares(root_q @ (x[k] - target)) + cp.sum_squares(root_r @ u[k])
            constraints.append(x[k + 1] == a[s] @ x[k] + b[s] @ u[k] + c[s])
            for bound, below in ((limits.input_low, True), (limits.input_high, False)):
                i = np.flatnonzero(np.isfinite(bound))
                if len(i):
                    constraints.append(u[k][i] >= low[i] if below else u[k][i] <= high[i])
            if k + 1 < horizon or not cost.pinned:
                for bound, below in ((limits.state_low, True), (limits.state_high, False)):
                    i = np.flatnonzero(np.isfinite(bound))
                    if len(i):
                        row = x[k + 1][i]
                        constraints.append(row >= bound[i] if below else row <= bound[i])
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
