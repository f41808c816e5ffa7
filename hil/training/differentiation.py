"""Velocities and accelerations from sampled positions, and how far to believe them.

Labels for networks that learn accelerations. Finite differences and the Fourier method are
those of Wang, Wang & Negrut (arXiv 2509.00183); local polynomials after Savitzky & Golay
(Analytical Chemistry 36, 1964). Every method multiplies noise by 1/dt² or 1/window²: what
works on quantised positions is not to differentiate (`hil.training.fit`, the weak form).
"""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.signal import detrend, savgol_filter
from scipy.signal.windows import tukey

from hil.errors import ConfigError
from hil.types import Array


class Derivatives(NamedTuple):
    """Position, velocity and acceleration at the same times, SI."""

    position: Array  # (n, nq)
    velocity: Array  # (n, nq)
    acceleration: Array  # (n, nq)


def stencil(offsets: Array, derivative: int) -> Array:
    """Return weights (points,) of the derivative at 0 from values at `offsets` (points,).

    Exact for polynomials of degree below the number of points; in units of 1/stepᵈ.
    """
    powers = offsets[None, :] ** np.arange(len(offsets))[:, None]
    moments = np.zeros(len(offsets))
    moments[derivative] = factorial(derivative)
    return np.asarray(np.linalg.solve(powers, moments), dtype=np.float64)


def _differentiate(q: Array, dt: float, points: int, derivative: int) -> Array:
    half, n = points // 2, len(q)
    found = np.empty_like(q)
    centre = stencil(np.arange(points, dtype=np.float64) - half, derivative)
    found[half : n - half] = sum(w * q[i : n - 2 * half + i] for i, w in enumerate(centre))
    # One-sided at the ends; one point more for the second derivative keeps the order.
    ends = points + derivative - 1
    for i in range(half):
        weights = stencil(np.arange(ends, dtype=np.float64) - i, derivative)
        found[i] = weights @ q[:ends]
        found[n - 1 - i] = (-1) ** derivative * weights @ q[: n - 1 - ends : -1]
    return found / dt**derivative


def differences(q: Array, dt: float, points: int = 5) -> Derivatives:
    """Return central differences over `points` samples, one-sided at the ends.

    q: (n, nq), sampled every dt seconds. Order of accuracy: points − 1. Raises ConfigError
    when `points` is even or below 3, or when there are not 2 samples more than points.
    """
    if points < 3 or points % 2 == 0:
        raise ConfigError(f"differences: points: expected 3, 5, 7 …, found {points}")
    _require(len(q), points + 2, "differences")
    first = _differentiate(q, dt, points, 1)
    return Derivatives(q.copy(), first, _differentiate(q, dt, points, 2))


def smooth(q: Array, dt: float, window: float, order: int = 4) -> Derivatives:
    """Return value and derivatives of polynomials fitted to a sliding window.

    q: (n, nq), sampled every dt seconds. window: s, made an odd number of samples; the
    first and the last window also serve the samples before and after their middle. order:
    degree of the polynomials. Raises ConfigError when the window does not hold order + 2
    samples or the record does not hold the window.
    """
    points = 2 * round(window / dt / 2) + 1
    _require(points, order + 2, f"smooth: a window of {window} s")
    _require(len(q), points, "smooth")
    return Derivatives(
        *(
            savgol_filter(q, points, order, deriv=d, delta=dt, axis=0, mode="interp")
            for d in (0, 1, 2)
        )
    )


def smooth_between(q: Array, dt: float, window: float, order: int = 3) -> tuple[Derivatives, int]:
    """Return smoothed motion half way between samples, and after which sample it begins.

    q: (n, nq), sampled every dt seconds. window: s, made an even number 2m of samples, so
    that it lies evenly about the middle of an interval. The result has n − 2m + 1 rows; row
    i is at (i + m − ½) dt, in the interval that begins with sample i + m − 1. Raises
    ConfigError as `smooth` does.
    """
    half = round(window / dt / 2)
    _require(2 * half, order + 2, f"smooth_between: a window of {window} s")
    _require(len(q), 2 * half, "smooth_between")
    offsets = np.arange(2 * half) - (half - 0.5)
    fit = np.linalg.pinv((offsets / half)[:, None] ** np.arange(order + 1))  # (order + 1, 2m)
    views = np.lib.stride_tricks.sliding_window_view(q, 2 * half, axis=0)  # (rows, nq, 2m)
    return Derivatives(
        views @ fit[0], views @ fit[1] / (half * dt), views @ fit[2] * (2 / (half * dt) ** 2)
    ), half - 1


def fourier(q: Array, dt: float) -> Derivatives:
    """Return derivatives by the Fourier method as published, with its own constants.

    q: (n, nq), sampled every dt seconds. Linear trend off, both ends mirrored by n/4, the
    mirrored parts tapered by a cosine; in frequency a Tukey window (0.2) and a Gaussian of
    n/20 bins; within n/20 samples of the ends 5-point differences instead. Raises
    ConfigError below 20 samples.
    """
    n = len(q)
    _require(n, 20, "fourier")
    flat = detrend(q, axis=0)
    trend = (q - flat)[[0, -1]]
    slope = (trend[1] - trend[0]) / ((n - 1) * dt)
    extra = n // 4
    long = np.concatenate([flat[extra:0:-1], flat, flat[-2 : -extra - 2 : -1]])
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(extra) + 0.5) / extra)
    long[:extra] *= rise[:, None]
    long[-extra:] *= rise[::-1, None]
    size = len(long)
    bins = np.arange(size // 2 + 1)
    window = tukey(2 * len(bins) - 1, 0.2)[len(bins) - 1 :] * np.exp(-0.5 * (bins / (n / 20)) ** 2)
    spectrum = np.fft.rfft(long, axis=0) * window[:, None]
    turn = (2j * np.pi * bins / (size * dt))[:, None]
    inner = slice(extra, extra + n)
    back = [np.fft.irfft(spectrum * turn**d, size, axis=0)[inner] for d in (0, 1, 2)]
    found = Derivatives(back[0] + (q - flat), back[1] + slope, back[2])
    ends, plain = n // 20, differences(q, dt, 5)
    for mine, replacement in zip(found, plain, strict=True):
        mine[:ends], mine[n - ends :] = replacement[:ends], replacement[n - ends :]
    return found


def disagreement(q: Array, dt: float) -> Array:
    """Return η′ (nq,): how far 3- and 5-point accelerations are apart, relative.

    rms(a₃ − a₅) / rms(a₅): small where sampling and noise leave a derivative to be taken,
    near 1 and above where differences are noise.
    """
    three = differences(q, dt, 3).acceleration
    five = differences(q, dt, 5).acceleration
    return _rms(three - five) / np.maximum(_rms(five), np.finfo(float).tiny)


def reconstruction(q: Array, acceleration: Array, dt: float, window: float = 1.0) -> Array:
    """Return η_z (nq,): what is left of q after integrating the acceleration twice, rms.

    q, acceleration: (n, nq). In windows of `window` seconds, each with the initial position
    and velocity that fit best; unit of q. Raises ConfigError when no window fits.
    """
    points = round(window / dt)
    _require(len(q), points, "reconstruction")
    _require(points, 4, f"reconstruction: a window of {window} s")
    free = np.stack([np.ones(points), np.linspace(-1, 1, points)], axis=1)
    left = []
    for start in range(0, len(q) - points + 1, points):
        part = slice(start, start + points)
        speed = cumulative_trapezoid(acceleration[part], dx=dt, axis=0, initial=0)
        gap = q[part] - cumulative_trapezoid(speed, dx=dt, axis=0, initial=0)
        left.append(gap - free @ np.linalg.lstsq(free, gap)[0])
    return _rms(np.concatenate(left))


def _rms(values: Array) -> Array:
    found: Array = np.sqrt((values * values).mean(axis=0))
    return found


def _require(samples: int, least: int, where: str) -> None:
    if samples < least:
        raise ConfigError(f"{where}: {samples} samples; at least {least} are needed")
