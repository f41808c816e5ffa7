"""What controllers do around their solver: checks, where to linearise, what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import NamedTuple

import numpy as np

from hil.control.active_set import Bounds
from hil.control.base import Solution, SolutionStatus
from hil.control.formulation import Formulation
from hil.control.riccati import Stages
from hil.types import Array

SETTLED = 1e-9  # change of a plan, in its own scale, at which iterating along it ends


class Outcome(NamedTuple):
    """What a solver makes of one quadratic programme; arrays matter when it is optimal."""

    status: SolutionStatus
    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)
    detail: str


SolveStages = Callable[[Stages, Array, Array, Bounds], Outcome]
"""Stages, start (nx,), target (nx,), bounds → the plan."""


class Planner:
    """One formulation, one solver of quadratic programmes, and the last plan.

    The last plan only says where to linearise: at its first input, the one at work when the
    next state is seen, or along all of it, one period on. A plan that failed is forgotten.
    """

    def __init__(self, formulation: Formulation, solve_stages: SolveStages) -> None:
        self.formulation, self._solve_stages = formulation, solve_stages
        dynamics = formulation.dynamics
        self._nx, self._nu = dynamics.nx, dynamics.nu
        self._horizon = formulation.settings.horizon
        self._last: tuple[Array, Array] | None = None  # inputs as the plant feels them, states

    def reset(self) -> None:
        """Forget the last plan: the next solve starts from cold."""
        self._last = None

    def solve(self, x: Array, r: Array, disturbance: Array | None) -> Solution:
        """Return a plan from x (nx,) to r (nx,); a disturbance d (nu,) acts as u + d."""
        begin = time.perf_counter_ns()
        start, target = np.array(x, dtype=float), np.array(r, dtype=float)
        d = None if disturbance is None else np.array(disturbance, dtype=float)
        size = start @ start + target @ target + (0.0 if d is None else d @ d)
        if isfinite(size):  # one number tells of all: squares do not cancel
            bounds = self.formulation.bounds(d)
            found = self._plan(start, target, bounds)
        else:
            found = self._nothing("state, reference or disturbance is not finite")
        if found.status is SolutionStatus.OPTIMAL:
            inputs = found.inputs.clip(bounds.input_low, bounds.input_high)
            self._last = (inputs, found.states)
            if d is not None:
                inputs = inputs - d
            states = found.states
        else:
            self.reset()
            inputs, states = np.empty((0, self._nu)), np.empty((0, self._nx))
        took_us = (time.perf_counter_ns() - begin) / 1e3
        return Solution(inputs, states, found.status, took_us, found.detail)

    def _plan(self, start: Array, target: Array, bounds: Bounds) -> Outcome:
        grade = self.formulation.settings.linearise
        if grade == "origin":
            return self._solve_stages(self.formulation.origin, start, target, bounds)
        if grade == "state":
            present = np.zeros(self._nu) if self._last is None else self._last[0][0].copy()
            return self._solve_stages(self.formulation.at(start, present), start, target, bounds)
        return self._along(start, target, bounds)

    def _along(self, start: Array, target: Array, bounds: Bounds) -> Outcome:
        """Linearise along the last plan, one period on; solve; as often as asked."""
        settings = self.formulation.settings
        if self._last is None:
            rounds = settings.cold_iterations
            states = np.repeat(start[None], self._horizon, axis=0)
            inputs = np.zeros((self._horizon, self._nu))
        else:
            rounds = settings.iterations
            last_inputs, last_states = self._last
            states = last_states[1:].copy()
            states[0] = start
            inputs = np.concatenate([last_inputs[1:], last_inputs[-1:]])
        found = self._nothing("no iteration was made")
        for _ in range(rounds):
            stages = self.formulation.along(states, inputs)
            found = self._solve_stages(stages, start, target, bounds)
            if found.status is not SolutionStatus.OPTIMAL:
                break
            change = np.abs(found.inputs - inputs).max()
            states, inputs = found.states, found.inputs
            if change <= SETTLED * (1.0 + np.abs(inputs).max()):
                break
        return found

    def _nothing(self, detail: str) -> Outcome:
        empty = np.empty((0, self._nu)), np.empty((0, self._nx))
        return Outcome(SolutionStatus.FAILED, *empty, detail)
