"""Derivatives of noisy positions by a Kalman filter forwards and a smoother backwards.

The motion's m-th derivative is taken for white noise; its strength over that of the
measurement is found by maximum likelihood, each coordinate by itself (Rauch, Tung & Striebel,
AIAA Journal 3, 1965; Kohn & Ansley, Biometrika 74, 1987, for the likelihood and for its equality
with a spline of order 2m − 1). State and derivatives come out together: nothing is differenced.
The cost grows with n, where the other methods solve dense systems.
"""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np

from hil.errors import ConfigError
from hil.training.differentiation import Derivatives
from hil.types import Array

UNKNOWN = 1e10  # variance of the first state over that of the measurement
RATIOS = np.logspace(-16, 4, 41)  # of the noises, time counted in samples
FINER = np.logspace(-0.5, 0.5, 21)  # about the likeliest


class Filtered(NamedTuple):
    """Of every sample and ratio r: state and covariance, predicted and corrected."""

    ahead: Array  # (n, r, m)
    ahead_covariance: Array  # (n, r, m, m)
    state: Array  # (n, r, m)
    covariance: Array  # (n, r, m, m)
    misfit: Array  # (r,), −2 log likelihood, up to a constant


def kalman(q: Array, dt: float, order: int = 3) -> Derivatives:
    """Return the smoothed motion and its derivatives.

    q: (n, nq), sampled every dt seconds. order: m, of the derivative that is white noise, from
    3 on. Raises ConfigError for another order or too few samples.
    """
    if order < 3 or len(q) < 4 * order:
        raise ConfigError(
            f"kalman: order {order} with {len(q)} samples; an order from 3 on and {4 * order} "
            "samples are needed"
        )
    found = [np.empty_like(q) for _ in range(3)]
    for column in range(q.shape[1]):
        mean, scale = q[:, column].mean(), max(float(q[:, column].std()), 1e-300)
        y = (q[:, column] - mean) / scale
        rough = RATIOS[int(np.argmin(_filter(y, RATIOS, order).misfit))]
        fine = rough * FINER
        best = fine[int(np.argmin(_filter(y, fine, order).misfit))]
        states = _smooth(_filter(y, np.array([best]), order), order)
        for derivative, part in enumerate(found):
            part[:, column] = scale * states[:, derivative] / dt**derivative
        found[0][:, column] += mean
    return Derivatives(*found)


def _step(order: int) -> tuple[Array, Array]:
    """Return transition (m, m) and covariance of what is added (m, m), over one sample."""
    i, j = np.indices((order, order))
    factorials = np.array([factorial(k) for k in range(order)], dtype=np.float64)
    through = np.where(j >= i, 1.0 / factorials[np.maximum(j - i, 0)], 0.0)
    left = order - 1 - np.arange(order)
    added = 1.0 / (np.outer(factorials[left], factorials[left]) * (left[:, None] + left + 1))
    return through, added


def _filter(y: Array, ratios: Array, order: int) -> Filtered:
    through, added = _step(order)
    n, r = len(y), len(ratios)
    shape = (n, r, order)
    ahead, state = np.zeros(shape), np.zeros(shape)
    p_ahead, p = np.zeros((*shape, order)), np.zeros((*shape, order))
    squares, logs = np.zeros(r), np.zeros(r)
    x, covariance = np.zeros((r, order)), np.broadcast_to(UNKNOWN * np.eye(order), p[0].shape)
    noise, one = ratios[:, None, None] * added, np.eye(order)
    for k in range(n):
        if k:
            x = x @ through.T
            covariance = through @ covariance @ through.T + noise
        ahead[k], p_ahead[k] = x, covariance
        size = covariance[:, 0, 0] + 1.0
        gain, miss = covariance[:, :, 0] / size[:, None], y[k] - x[:, 0]
        x = x + gain * miss[:, None]
        kept = one - gain[:, :, None] * one[0]
        covariance = kept @ covariance @ kept.swapaxes(1, 2) + gain[:, :, None] * gain[:, None]
        state[k], p[k] = x, covariance
        if k >= order:  # before, the first state is being found
            squares += miss * miss / size
            logs += np.log(size)
    misfit = (n - order) * np.log(np.maximum(squares, 1e-300)) + logs
    return Filtered(ahead, p_ahead, state, p, misfit)


def _smooth(found: Filtered, order: int) -> Array:
    """Return the states of all samples given all of y, (n, m), of the first ratio."""
    through, _ = _step(order)
    states = found.state[:, 0].copy()
    for k in range(len(states) - 2, -1, -1):
        gain = np.linalg.solve(found.ahead_covariance[k + 1, 0], through @ found.covariance[k, 0]).T
        states[k] += gain @ (states[k + 1] - found.ahead[k + 1, 0])
    return states
