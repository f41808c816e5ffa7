"""Derivatives of noisy positions: what is smooth enough is chosen by the data.

**penalised**: Whittaker's smoother (Proceedings of the Edinburgh Mathematical Society 41, 1923),
the discrete smoothing spline: |y − z|² + λ |D^m z|², with λ by restricted maximum likelihood
(Wahba, Annals of Statistics 13, 1985; generalised cross-validation was worse on three of four
systems). **gaussian_process**: a squared-exponential
prior (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5),
its three parameters by marginal likelihood, its derivatives in closed form. Each coordinate is
treated by itself.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.linalg import cho_solve, cholesky, eigh
from scipy.optimize import minimize, minimize_scalar

from hil.errors import ConfigError
from hil.training.differentiation import Derivatives, differences
from hil.types import Array

LARGEST = 3000  # samples; both methods solve dense systems of that size


def penalised(q: Array, dt: float, order: int = 4, points: int = 7) -> Derivatives:
    """Return the smoothed motion and its differences over `points` samples.

    q: (n, nq), sampled every dt seconds. order: m, of the difference that is penalised. Raises
    ConfigError for too few or too many samples.
    """
    n = len(q)
    _require(n, max(2 * order, points + 2), "penalised")
    values, vectors = _penalty(n, order)
    smooth = np.empty_like(q)
    for column in range(q.shape[1]):
        parts = vectors.T @ q[:, column]

        def misfit(log: float, parts: Array = parts) -> float:
            lost = 10.0**log * values / (1 + 10.0**log * values)
            left = float((lost * parts * parts).sum())
            return float((n - order) * np.log(max(left, 1e-300)) - np.log(lost[order:]).sum())

        # A grid first: the likelihood may have more than one hill.
        grid = np.linspace(-6, 14, 81)
        best = grid[int(np.argmin([misfit(log) for log in grid]))]
        found = minimize_scalar(misfit, bounds=(best - 0.5, best + 0.5), method="bounded")
        smooth[:, column] = vectors @ (parts / (1 + 10.0**found.x * values))
    return differences(smooth, dt, points)


@lru_cache(maxsize=4)
def _penalty(n: int, order: int) -> tuple[Array, Array]:
    """Return eigenvalues (n,) and eigenvectors (n, n) of DᵀD; polynomials below m cost nothing."""
    rows = np.diff(np.eye(n), n=order, axis=0)
    values, vectors = eigh(rows.T @ rows)
    values[:order] = 0.0
    return np.maximum(values, 0.0), vectors


def gaussian_process(q: Array, dt: float) -> Derivatives:
    """Return mean, and the mean of both derivatives, of a Gaussian process given q.

    q: (n, nq), sampled every dt seconds. Raises ConfigError for too few or too many samples.
    """
    n = len(q)
    _require(n, 10, "gaussian_process")
    time = np.arange(n) * dt
    apart = time[:, None] - time
    square = apart**2
    found = [np.empty_like(q) for _ in range(3)]
    for column in range(q.shape[1]):
        mean, scale = q[:, column].mean(), max(float(q[:, column].std()), 1e-300)
        y = (q[:, column] - mean) / scale
        length, size, noise = np.exp(_likeliest(y, square, dt))
        gram = size * np.exp(-0.5 * square / length**2)
        factor = cholesky(gram + noise * np.eye(n), lower=True)
        weights = cho_solve((factor, True), y)
        found[0][:, column] = mean + scale * (gram @ weights)
        found[1][:, column] = scale * ((-apart / length**2 * gram) @ weights)
        found[2][:, column] = scale * (((square / length**2 - 1) / length**2 * gram) @ weights)
    return Derivatives(*found)


def _likeliest(y: Array, square: Array, dt: float) -> Array:
    """Return the logarithms of length, variance and noise variance, by marginal likelihood."""
    n = len(y)
    span = dt * n

    def misfit(theta: Array) -> tuple[float, Array]:
        length, size, noise = np.exp(theta)
        gram = size * np.exp(-0.5 * square / length**2)
        try:
            factor = cholesky(gram + (noise + 1e-12 * size) * np.eye(n), lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(3)
        weights = cho_solve((factor, True), y)
        inverse = cho_solve((factor, True), np.eye(n))
        value = 0.5 * float(y @ weights) + float(np.log(factor.diagonal()).sum())
        inner = inverse - np.outer(weights, weights)  # −2 ∂(log likelihood)/∂K
        slope = [
            0.5 * float((inner * gram * square).sum()) / length**2,
            0.5 * float((inner * gram).sum()),
            0.5 * noise * float(np.trace(inner)),
        ]
        return value, np.array(slope)

    best = None
    bounds = [
        (np.log(2 * dt), np.log(span)), (np.log(1e-3), np.log(1e4)), (np.log(1e-12), np.log(1.0))
    ]  # fmt: skip
    for start in (span / 30, span / 8):  # the likelihood may have more than one hill
        theta = np.log([start, 1.0, 1e-3])
        found = minimize(misfit, theta, jac=True, method="L-BFGS-B", bounds=bounds)
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    return np.asarray(best.x)


def _require(samples: int, least: int, where: str) -> None:
    if not least <= samples <= LARGEST:
        raise ConfigError(f"{where}: {samples} samples; {least} to {LARGEST} are possible")
