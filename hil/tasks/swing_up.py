"""Bring a hanging pole upright and keep it there, at a place on the rail."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.tasks.base import AbstractDynamicTask
from hil.types import Array

TURN = 2 * np.pi


class SwingUpSettings(Settings, frozen=True, kw_only=True):
    """Where the cart is to stand in the end, and what counts as upright."""

    position: Annotated[float, Meta(description="of the cart, m")] = 0.0
    upright: Annotated[
        float, Meta(gt=0, le=1, description="angle from upright within which it has settled, rad")
    ] = 0.1


class SwingUp(AbstractDynamicTask):
    """θ = 0 after any number of whole turns and x = position, at rest; x = (θ, x, θ̇, ẋ).

    The reference is the goal from the start: which way round and by which swings is the
    controller's business, which must know that the angle is one (`control.angles`).
    """

    Settings: ClassVar[type[SwingUpSettings]] = SwingUpSettings

    def __init__(self, settings: SwingUpSettings) -> None:
        self._goal = np.array([0.0, settings.position, 0.0, 0.0])
        self._upright = settings.upright

    def reference(self, time: float) -> Array:
        """Return the goal at any time, (nx,)."""
        return self._goal.copy()

    def cost(self, states: Array, inputs: Array) -> float:
        """Return Σ (xᵀx + uᵀu) of the deviation from the goal, the angle taken from −π to π.

        states: (steps, nx); inputs: (steps, nu).
        """
        return float((self._error(states) ** 2).sum() + (inputs**2).sum())

    def error_norm(self, state: Array) -> float:
        """Return the distance from the goal of one state (nx,), in whichever turn."""
        return float(np.linalg.norm(self._error(state)))

    def figures(self, time: Array, states: Array, inputs: Array) -> dict[str, float]:
        """Return when it settled for good, how far the cart went, and how many turns it took.

        settled_s: time of the first sample of the last stretch with the pole upright; inf
        when the run did not end upright. max_distance_m: of the cart from its place.
        turns: whole turns of the pole between the goal's angle and the last one.
        """
        error = self._error(states)
        away = np.flatnonzero(np.abs(error[:, 0]) >= self._upright)
        first = 0 if len(away) == 0 else int(away[-1]) + 1
        return {
            "settled_s": float(time[first]) if first < len(time) else np.inf,
            "max_distance_m": float(np.abs(error[:, 1]).max()),
            "turns": float(np.round(states[-1, 0] / TURN)),
        }

    def _error(self, states: Array) -> Array:
        """Return states (…, nx) less the goal, the angle from −π to π."""
        error: Array = states - self._goal
        error[..., 0] -= TURN * np.round(error[..., 0] / TURN)
        return error
