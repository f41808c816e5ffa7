"""Models let loose from one state, and how far they end from the truth: one metric for all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.mechanics.integrate import Stepper, held_inputs, rk4
from hil.models.base import AbstractDynamics
from hil.types import Array

VALID = 0.1  # rms error over the truth's own spread; what is beyond is not followed any more


class RolloutError(NamedTuple):
    """Errors of one rollout; infinite where it left the numbers."""

    full: float  # mean square over all times and states, positions and velocities
    test: float  # the same over the times that were not trained on
    full_positions: float  # over positions alone
    test_positions: float
    valid: float  # s, until the rms error over the truth's spread first exceeds VALID


def rollout(
    model: AbstractDynamics, x: Array, u: Array, dt: float, *, steps: int = 2, step: Stepper = rk4
) -> Array:
    """Return the states (N + 1, nx) from x (nx,) under inputs u (N, nu), each held for dt in s.

    steps: of the integrator in dt. A model that diverges gives what is no number.
    """
    with np.errstate(all="ignore"):
        found = held_inputs(model.acceleration, x[None], u[:, None], dt, steps, step)
    states: Array = found[:, 0]
    return states


def rollout_error(found: Array, truth: Array, train: int, dt: float) -> RolloutError:
    """Return how far states found (n, nx) are from the truth; the first `train` are known."""
    nq = truth.shape[1] // 2
    with np.errstate(all="ignore"):
        square = (found - truth) ** 2
        square = np.where(np.isfinite(square), square, np.inf)
        relative = np.sqrt((square / np.maximum(truth.var(axis=0), 1e-300)).mean(axis=1))
    beyond = np.flatnonzero(relative > VALID)
    return RolloutError(
        float(square.mean()),
        float(square[train:].mean()),
        float(square[:, :nq].mean()),
        float(square[train:, :nq].mean()),
        float((beyond[0] if len(beyond) else len(truth)) * dt),
    )
