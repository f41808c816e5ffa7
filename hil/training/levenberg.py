"""Levenberg–Marquardt for sums of squares whose slopes come in blocks of samples.

Nocedal & Wright, Numerical Optimization, 2nd ed., §10.3; the damping follows the gain as in
Nielsen, IMM-REP-1999-05. The slopes are never held at once: only JᵀJ and Jᵀe are, so that the
cost is that of rows · weights² per iteration, right for a thousand weights and any data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from hil.errors import RunError
from hil.types import Array

START = 1e-3  # damping over the largest curvature
LARGEST = 1e12


class SquaresProblem(Protocol):
    """A sum of squares."""

    def loss(self, theta: Array) -> float:
        """Return ½ |e|² at theta (p,); infinite where there is no answer."""

    def normal(self, theta: Array) -> tuple[Array, Array]:
        """Return JᵀJ (p, p) and Jᵀe (p,) at theta."""


class SquaresProgress(NamedTuple):
    """Where a minimisation stands."""

    iteration: int
    loss: float  # ½ |e|²
    evaluations: int  # of the loss


def minimise(
    problem: SquaresProblem,
    theta: Array,
    iterations: int,
    tolerance: float = 1e-4,
    patience: int = 5,
    progress: Callable[[SquaresProgress], None] | None = None,
) -> tuple[Array, SquaresProgress]:
    """Return weights (p,) where ½ |e|² is small, and how it went.

    It ends after `patience` iterations that together gained less than `tolerance` per
    iteration, when no step helps any more, or after `iterations`. Raises RunError when the
    loss is not finite at the start.
    """
    loss, evaluations = problem.loss(theta), 1
    if not np.isfinite(loss):
        raise RunError("fit: the first weights give no finite loss; another seed may")
    losses, damping, growth = [loss], 0.0, 2.0
    for iteration in range(1, iterations + 1):
        curvature, slope = problem.normal(theta)
        if not damping:
            damping = START * float(curvature.diagonal().max())
        while True:
            change = _step(curvature, slope, damping)
            now = problem.loss(theta + change) if change is not None else np.inf
            evaluations += change is not None
            if now < loss:
                break
            damping, growth = damping * growth, 2.0 * growth
            if damping > LARGEST * float(curvature.diagonal().max()):
                return theta, SquaresProgress(iteration, loss, evaluations)
        assert change is not None
        expected = 0.5 * float(change @ (damping * change - slope))
        gain = (loss - now) / expected if expected > 0 else 0.0
        damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
        theta, loss = theta + change, now
        losses.append(loss)
        state = SquaresProgress(iteration, loss, evaluations)
        if progress is not None:
            progress(state)
        if (
            len(losses) > patience
            and losses[-1] > losses[-1 - patience] * (1 - tolerance) ** patience
        ):
            break
    return theta, SquaresProgress(len(losses) - 1, loss, evaluations)


def _step(curvature: Array, slope: Array, damping: float) -> Array | None:
    matrix = curvature.copy()
    matrix.flat[:: len(matrix) + 1] += damping
    try:
        return np.asarray(-cho_solve(cho_factor(matrix, lower=True, overwrite_a=True), slope))
    except np.linalg.LinAlgError:
        return None
