"""A learned model is followed where it has data; elsewhere a declared fallback takes over."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.types import Array


class KnowsItsDomain(Protocol):
    """A model that can say how far a point is from its training data."""

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance; up to 1 the model is to be trusted."""


class DomainGuard(AbstractController):
    """Asks a controller, and a fallback wherever state or planned input leave the domain.

    The fallback's plan comes back as OUTSIDE, with its inputs, so that the loop follows and
    counts it. limit: distance up to which the model is followed. back: distance below which
    it is followed again; a gap keeps the two from taking turns.
    """

    def __init__(
        self,
        controller: AbstractController,
        model: KnowsItsDomain,
        fallback: AbstractController,
        limit: float = 1.0,
        back: float = 0.9,
    ) -> None:
        self._controller, self._model, self._fallback = controller, model, fallback
        self._limit, self._back = limit, back
        self._outside = False

    @property
    def horizon(self) -> int:
        """That of the controller."""
        return self._controller.horizon

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return the controller's plan, or the fallback's as OUTSIDE."""
        plan = self._controller.solve(x, r, disturbance)
        u = plan.inputs[0] if len(plan.inputs) else np.zeros(0)
        distance = self._model.domain(x, u) if len(u) else np.inf
        self._outside = distance > (self._back if self._outside else self._limit)
        if not self._outside:
            return plan
        instead = self._fallback.solve(x, r, disturbance)
        if not instead.status.planned:
            return instead
        why = f"outside the model's data ({distance:.2f})" if len(u) else plan.detail
        detail = f"{why}: the fallback plans"
        took = plan.solve_us + instead.solve_us
        return replace(instead, status=SolutionStatus.OUTSIDE, detail=detail, solve_us=took)

    def prepare(self, x: Array, r: Array) -> None:
        """Prepare both controllers."""
        self._controller.prepare(x, r)
        self._fallback.prepare(x, r)

    def reset(self) -> None:
        """Reset both controllers."""
        self._controller.reset()
        self._fallback.reset()
