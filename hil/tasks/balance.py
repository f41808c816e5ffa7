"""Keep a cart-pole upright at a place on its rail."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.tasks.base import AbstractDynamicTask
from hil.types import Array


class BalanceSettings(Settings, frozen=True, kw_only=True):
    """Where the cart is to stand."""

    position: Annotated[float, Meta(description="of the cart, m")] = 0.0


class Balance(AbstractDynamicTask):
    """θ = 0 and x = position, at rest; x = (θ, x, θ̇, ẋ)."""

    Settings: ClassVar[type[BalanceSettings]] = BalanceSettings

    def __init__(self, settings: BalanceSettings) -> None:
        self._goal = np.array([0.0, settings.position, 0.0, 0.0])

    def reference(self, time: float) -> Array:
        """Return the state to be in at `time` s after the start, (nx,)."""
        return self._goal.copy()

    def cost(self, states: Array, inputs: Array) -> float:
        """Return Σ (xᵀx + uᵀu) of the deviation, as Wang et al. 2025 sum it.

        states: (steps, nx); inputs: (steps, nu).
        """
        return float(((states - self._goal) ** 2).sum() + (inputs**2).sum())

    def error_norm(self, state: Array) -> float:
        """Return |x − r| of one state (nx,)."""
        return float(np.linalg.norm(state - self._goal))

    def figures(self, time: Array, states: Array, inputs: Array) -> dict[str, float]:
        """Return the largest tilt and the largest distance from the place."""
        away = np.abs(states - self._goal).max(axis=0)
        return {"max_angle_rad": float(away[0]), "max_distance_m": float(away[1])}
