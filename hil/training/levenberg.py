"""Levenberg–Marquardt for sums of squares whose slopes come in blocks of samples.

Nocedal & Wright, Numerical Optimization, 2nd ed., §10.3. The damping falls thirtyfold after a
step that was foreseen well and grows fourfold after one that was refused: a refusal costs one
loss, an iteration costs all slopes, so that boldness pays. The slopes are never held at once:
only JᵀJ and Jᵀe are, so that an iteration costs rows · weights², right for a thousand weights
and any data.
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
FALL, GROWTH = 0.03, 4.0
FORESEEN = 0.3  # part of the gain a model of squares promises


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
    tolerance: float = 1e-2,
    patience: int = 3,
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
    losses, damping = [loss], 0.0
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
            damping *= GROWTH
            if damping > LARGEST * float(curvature.diagonal().max()):
                return theta, SquaresProgress(iteration, loss, evaluations)
        assert change is not None
        expected = 0.5 * float(change @ (damping * change - slope))
        gain = (loss - now) / expected if expected > 0 else 0.0
        damping *= FALL if gain > FORESEEN else GROWTH
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
