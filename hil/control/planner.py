"""What controllers do around their solver: checks, where to linearise, what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite

import numpy as np

from hil.control.active_set import Bounds
from hil.control.base import Solution, SolutionStatus
from hil.control.formulation import Formulation
from hil.control.sequential import Guess, Outcome, Sequential, SolveStages
from hil.types import Array

__all__ = ["Outcome", "Planner", "SolveStages"]
TURN = 2 * np.pi
SolveAt = Callable[[Array, Array, Array, Bounds], Outcome]
"""Start (nx,), where the model is linearised as well, input there (nu,), target, bounds → plan."""


class Planner:
    """One formulation, one solver of quadratic programmes, and the last plan.

    The last plan only says where to linearise: at its first input, the one at work when the
    next state is seen, or along all of it, one period on. A plan that failed is forgotten.
    Where a state is an angle, a plan goes to the reference in whichever turn is nearest, or
    along the horizon in whichever is cheaper to reach; which one, the last plan keeps.
    """

    def __init__(
        self,
        formulation: Formulation,
        solve_stages: SolveStages,
        solve_at: SolveAt | None = None,
    ) -> None:
        self.formulation, self._solve_stages = formulation, solve_stages
        self._solve_at = solve_at  # linearises at one point and solves; None: in two steps
        dynamics = formulation.dynamics
        self._nx, self._nu = dynamics.nx, dynamics.nu
        self._angles = list(formulation.settings.angles)
        self._sequential = Sequential(formulation, solve_stages)
        self._last: Guess | None = None  # inputs as the plant feels them
        self._ahead = False  # whether that one begins at the next state, not one period before
        self._turns = np.zeros(self._nx)  # whole turns between its states and the plant's

    def reset(self) -> None:
        """Forget the last plan: the next solve starts from cold."""
        self._last, self._ahead = None, False

    def prepare(self, x: Array, r: Array) -> None:
        """Search for a plan from about x (nx,) to r (nx,), for the next solve to begin with."""
        if self.formulation.settings.linearise == "horizon":
            self._ahead = self.solve(x, r, None).status is SolutionStatus.OPTIMAL

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
            self._last = Guess(found.states, inputs)
            if d is not None:
                inputs = inputs - d
            states = found.states + self._turns if self._angles else found.states
        else:
            self.reset()
            inputs, states = np.empty((0, self._nu)), np.empty((0, self._nx))
        took_us = (time.perf_counter_ns() - begin) / 1e3
        return Solution(inputs, states, found.status, took_us, found.detail)

    def _plan(self, start: Array, target: Array, bounds: Bounds) -> Outcome:
        settings = self.formulation.settings
        if settings.linearise == "horizon":
            return self._along(start, target, bounds)
        if self._angles:
            self._turns = self._nearest(start, target)
            start = start - self._turns
        if settings.linearise == "origin":
            return self._solve_stages(self.formulation.origin, start, target, bounds)
        present = np.zeros(self._nu) if self._last is None else self._last.inputs[0].copy()
        if self._solve_at is not None:
            return self._solve_at(start, present, target, bounds)
        return self._solve_stages(self.formulation.at(start, present), start, target, bounds)

    def _along(self, start: Array, target: Array, bounds: Bounds) -> Outcome:
        """Linearise along the last plan, one period on; or search for a plan from cold."""
        if self._last is not None:
            guess = self._last if self._ahead else self._sequential.shifted(self._last)
            self._ahead = False
            rounds = self.formulation.settings.iterations
            start = start - self._turns
            return self._sequential.follow(guess, start, target, bounds, rounds).outcome
        turns = [self._nearest(start, target)]
        for angle in self._angles:  # the other way round
            other = turns[0].copy()
            behind = start[angle] - other[angle] - target[angle] > 0
            other[angle] += TURN if behind else -TURN
            turns.append(other)
        found, which = self._sequential.search([start - t for t in turns], target, bounds)
        self._turns = turns[which]
        return found.outcome

    def _nearest(self, start: Array, target: Array) -> Array:
        """Return whole turns (nx,) to take off `start` to be within half a turn of `target`."""
        turns = np.zeros(self._nx)
        for angle in self._angles:
            turns[angle] = TURN * np.round((start[angle] - target[angle]) / TURN)
        return turns

    def _nothing(self, detail: str) -> Outcome:
        empty = np.empty((0, self._nu)), np.empty((0, self._nx))
        return Outcome(SolutionStatus.FAILED, *empty, detail)
