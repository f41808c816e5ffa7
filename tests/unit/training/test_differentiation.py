"""Derivatives of sampled positions against signals whose derivatives are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.training.differentiation import (
    Derivatives,
    differences,
    disagreement,
    fourier,
    reconstruction,
    smooth,
    smooth_between,
    stencil,
)
from hil.types import Array


def waves(time: Array) -> Derivatives:
    """Return two smooth positions and their derivatives, by calculus."""
    w = 2 * np.pi * 1.3
    q = np.stack([np.sin(w * time), np.exp(-time) + 2 * time], axis=1)
    v = np.stack([w * np.cos(w * time), 2 - np.exp(-time)], axis=1)
    a = np.stack([-(w**2) * np.sin(w * time), np.exp(-time)], axis=1)
    return Derivatives(q, v, a)


def worst(found: Derivatives, truth: Derivatives) -> Array:
    """Return the largest error of velocity and acceleration, ends included."""
    return np.array([np.abs(f - t).max() for f, t in zip(found[1:], truth[1:], strict=True)])


def order(method: Callable[[Array, float], Derivatives], coarse: float) -> Array:
    """Return the order of accuracy of velocity and acceleration from dt and dt / 2."""
    errors = []
    for dt in (coarse, coarse / 2):
        truth = waves(np.arange(0, 2 + dt / 2, dt))
        errors.append(worst(method(truth.position, dt), truth))
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("points", [3, 5, 7])
def test_differences_have_the_order_of_their_points(points: int) -> None:
    found = order(lambda q, dt: differences(q, dt, points), 0.01)
    np.testing.assert_allclose(found, points - 1, atol=0.5)  # next orders are 1 away


@pytest.mark.parametrize("points", [3, 5])
def test_differences_are_exact_for_polynomials(points: int) -> None:
    t = np.arange(12) * 0.1
    q = np.polynomial.Polynomial([1.0, -2.0, *np.ones(points - 2)])
    found = differences(q(t)[:, None], 0.1, points)
    np.testing.assert_allclose(found.velocity[:, 0], q.deriv()(t), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.acceleration[:, 0], q.deriv(2)(t), rtol=1e-8, atol=1e-10)


def test_stencils_are_those_of_the_books() -> None:
    np.testing.assert_allclose(stencil(np.array([-1.0, 0, 1]), 2), [1, -2, 1], atol=1e-14)
    five = stencil(np.arange(-2.0, 3.0), 1)
    np.testing.assert_allclose(five * 12, [1, -8, 0, 8, -1], atol=1e-12)


def test_the_smoother_has_the_order_of_its_polynomial() -> None:
    def narrow(q: Array, dt: float) -> Derivatives:
        return smooth(q, dt, 8 * dt, order=4)  # 9 samples

    np.testing.assert_allclose(order(narrow, 0.02), [4, 3], atol=0.4)  # the ends decide


def test_between_samples() -> None:
    """The rows lie half way between samples; their order is that of a cubic, symmetric."""
    errors = []
    for dt in (0.02, 0.01):
        q = waves(np.arange(0, 2, dt)).position
        found, first = smooth_between(q, dt, 8 * dt)
        at = np.arange(len(found.position), dtype=np.float64) + first + 0.5
        truth = waves(at * dt)
        assert len(found.position) == len(q) - 7
        errors.append([np.abs(f - t).max() for f, t in zip(found, truth, strict=True)])
    np.testing.assert_allclose(np.log2(np.array(errors[0]) / errors[1]), [4, 4, 2], atol=0.3)


def test_the_fourier_method_as_published_is_biased() -> None:
    """Its Gaussian passes slow motion and damps fast motion by what it says it does."""
    dt, n = 0.01, 400
    time = np.arange(n, dtype=np.float64) * dt
    middle, errors = slice(n // 4, -n // 4), []
    for hertz in (0.5, 2.0):
        w = 2 * np.pi * hertz
        swing: Array = np.sin(w * time)
        found = fourier(swing[:, None], dt).acceleration[middle, 0]
        truth = -(w**2) * swing[middle]
        errors.append(1 - (found @ truth) / (truth @ truth))
        bins = hertz * 1.5 * n * dt
        assert errors[-1] == pytest.approx(1 - np.exp(-0.5 * (bins / (n / 20)) ** 2), abs=0.02)
    assert errors[0] < 0.05 < errors[1]


def test_the_fourier_method_keeps_trends_and_ends() -> None:
    time = np.arange(300, dtype=np.float64) * 0.01
    line: Array = (3 - 2 * time)[:, None]
    found = fourier(line, 0.01)
    np.testing.assert_allclose(found.position, line, atol=1e-9)
    np.testing.assert_allclose(found.velocity, -2, atol=1e-9)
    np.testing.assert_allclose(found.acceleration, 0, atol=1e-7)
    truth = waves(time)
    ends = np.r_[0:15, 285:300]
    expected = differences(truth.position, 0.01, 5).acceleration[ends]
    assert np.array_equal(fourier(truth.position, 0.01).acceleration[ends], expected)


def test_noise_is_told_by_both_diagnostics() -> None:
    """Sampled well, 3 and 5 points agree; quantised, they do not, and smoothing helps."""
    dt = 0.005
    truth = waves(np.arange(0, 4, dt))
    step = 2 * np.pi / 4096
    coarse = np.round(truth.position / step) * step
    clean, noisy = disagreement(truth.position, dt), disagreement(coarse, dt)
    assert (clean < 2e-3).all()
    assert (noisy > 0.15).all()

    def error(found: Derivatives) -> float:
        return float(np.abs(found.acceleration - truth.acceleration)[50:-50].max())

    assert error(smooth(coarse, dt, 0.15)) < 0.05 * error(differences(coarse, dt, 3))


def test_reconstruction_finds_labels_that_do_not_belong() -> None:
    dt = 0.005
    truth = waves(np.arange(0, 4, dt))
    good = reconstruction(truth.position, truth.acceleration, dt)
    bad = reconstruction(truth.position, 0.9 * truth.acceleration, dt)
    assert (good < 3e-4).all()  # the trapezoids of the check itself
    # A tenth of the sine is missing: over whole periods 0.1 / √2, less what a line takes up.
    assert 0.03 < bad[0] < 0.1 / np.sqrt(2)
    assert (bad > 20 * good).all()


def test_what_is_too_short_is_named() -> None:
    q = np.zeros((6, 1))
    for call in (
        lambda: differences(q, 0.1, 5),
        lambda: smooth(q, 0.1, 1.0),
        lambda: smooth_between(q, 0.1, 1.0),
        lambda: fourier(q, 0.1),
        lambda: reconstruction(q, q, 0.1),
    ):
        with pytest.raises(ConfigError, match=r"6 samples; at least \d+ are needed"):
            call()
    with pytest.raises(ConfigError, match=r"window of 0\.2 s"):
        smooth(np.zeros((50, 1)), 0.1, 0.2)
    with pytest.raises(ConfigError, match="expected 3, 5, 7"):
        differences(np.zeros((50, 1)), 0.1, 4)
