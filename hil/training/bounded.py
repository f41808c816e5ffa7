"""A stiffness that cannot leave its bounds, learned through a variable that is free."""

from __future__ import annotations

import numpy as np

from hil.types import Array


class BoundedStiffness:
    """k = low + (high − low)·σ(β·s), with σ the logistic function (Li & Mao 2024, methods).

    low, high: N/m. beta: slope of the logistic function, 1. saturation: largest |β·s|; a
    variable that is held there comes back as soon as its gradient turns, one that has run
    on to β·s = 30 has first to run back, and with the chain factor its gradient is gone.
    None lets it run.
    """

    def __init__(
        self, low: float, high: float, beta: float, saturation: float | None = None
    ) -> None:
        self.low, self.high, self.beta = low, high, beta
        self.saturation = saturation

    def stiffness(self, variable: Array) -> Array:
        """Return k of s: same shape, N/m."""
        # The logistic function by tanh, which does not overflow for any s.
        share = 0.5 * (1.0 + np.tanh(0.5 * self.beta * variable))
        return np.asarray(self.low + (self.high - self.low) * share)

    def derivative(self, stiffness: Array) -> Array:
        """Return ∂k/∂s where the stiffness is k: same shape, N/m; zero outside the bounds."""
        inside = np.clip(stiffness, self.low, self.high)
        return np.asarray(self.beta * (inside - self.low) * (self.high - inside) / self._span)

    def variable(self, stiffness: Array) -> Array:
        """Return s of k, as far as `saturation` allows: same shape, 1.

        The bounds themselves have no finite s; they give the nearest float64 has.
        """
        tiny = np.finfo(np.float64).eps
        share = np.clip((np.asarray(stiffness) - self.low) / self._span, tiny, 1.0 - tiny)
        return self.clip(np.log(share / (1.0 - share)) / self.beta)

    def clip(self, variable: Array) -> Array:
        """Return s held inside ±saturation/β: same shape, 1."""
        if self.saturation is None:
            return variable
        end = self.saturation / self.beta
        return np.clip(variable, -end, end)

    @property
    def _span(self) -> float:
        return self.high - self.low
