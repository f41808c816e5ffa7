"""A controller and an estimator that can be exchanged between two periods of a loop.

To exchange is to assign: what takes over was made and made ready by somebody else, elsewhere. A
solve that runs meanwhile ends with what it began with.
"""

from __future__ import annotations

from hil.control.base import AbstractController, AbstractEstimator, Solution
from hil.types import Array


class ExchangeableController(AbstractController):
    """Answers as the controller in use does; the next one begins without a last plan."""

    def __init__(self, controller: AbstractController) -> None:
        self._controller = controller

    def exchange(self, controller: AbstractController) -> None:
        """Let another controller answer from the next solve on."""
        self._controller = controller

    @property
    def horizon(self) -> int:
        """That of the controller in use."""
        return self._controller.horizon

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return the plan of the controller in use."""
        return self._controller.solve(x, r, disturbance)

    def prepare(self, x: Array, r: Array) -> None:
        """Prepare the controller in use."""
        self._controller.prepare(x, r)

    def reset(self) -> None:
        """Reset the controller in use."""
        self._controller.reset()


class ExchangeableEstimator(AbstractEstimator):
    """Estimates as the estimator in use does; the next one goes on from its estimate."""

    def __init__(self, estimator: AbstractEstimator) -> None:
        self._estimator = estimator

    def exchange(self, estimator: AbstractEstimator) -> None:
        """Let another estimator go on; raises StateError where it cannot."""
        estimator.go_on_from(self._estimator)
        self._estimator = estimator

    def update(self, y: Array, u: Array, periods: int = 1) -> Array:
        """Return what the estimator in use estimates."""
        return self._estimator.update(y, u, periods)

    def prepare(self, u: Array) -> None:
        """Let the estimator in use predict."""
        self._estimator.prepare(u)

    @property
    def disturbance(self) -> Array:
        """That of the estimator in use."""
        return self._estimator.disturbance

    def reset(self, y: Array) -> None:
        """Reset the estimator in use."""
        self._estimator.reset(y)
