"""The compiled pass against a plain one, with slopes by complex steps."""

from __future__ import annotations

import numpy as np
import pytest

from hil.models.network_slopes import COSINE, PLAIN, PRODUCT, SINE, tanh_all, value_and_slopes
from hil.types import AnyArray


def test_tanh_is_numpys() -> None:
    x = np.concatenate([np.logspace(-300, 2, 2000), np.linspace(0, 25, 2000)])
    x = np.concatenate([x, -x, [0.0, -0.0, np.inf, -np.inf, np.nan, 1e308]])
    found = x.copy()
    tanh_all(found)
    np.testing.assert_allclose(found, np.tanh(x), rtol=1e-15, atol=0)
    assert np.signbit(found[-5])


@pytest.mark.parametrize("hidden", [(5,), (8,), (16, 24), (7, 9), (11, 8, 13)])
@pytest.mark.parametrize("ny", [1, 2, 3])
def test_value_and_slopes(hidden: tuple[int, ...], ny: int) -> None:
    random = np.random.default_rng(sum(hidden) + ny)
    kinds = [SINE, COSINE, PLAIN, PLAIN, PLAIN, PRODUCT, PRODUCT]
    source = np.array([[0, 0, 2, 4, 1, 2, 3], kinds, [0, 0, 0, 0, 0, 3, 3]])
    layers, before = [], 7
    for units in hidden:
        layers.append((random.normal(size=(units, before)), random.normal(size=units)))
        before = units
    last, skip = random.normal(size=(ny, before)), random.normal(size=(ny, 7))
    offset = random.normal(size=ny)

    def plain(point: AnyArray) -> AnyArray:
        parts = [np.sin(point[0]), np.cos(point[0]), point[2], point[4], point[1]]
        z = h = np.array([*parts, point[2] * point[3], point[3] ** 2])
        for weight, bias in layers:
            h = np.tanh(weight @ h + bias)
        found: AnyArray = last @ h + skip @ z + offset
        return found

    x, u = random.normal(size=4), random.normal(size=1)
    value, by_x, by_u = value_and_slopes(x, u, source, tuple(layers), last, skip, offset)
    point = np.concatenate([x, u])
    np.testing.assert_allclose(value, plain(point), atol=1e-12)
    step = 1e-30
    truth = np.array([plain(point + 1j * step * e).imag / step for e in np.eye(5)]).T
    np.testing.assert_allclose(np.hstack([by_x, by_u]), truth, atol=1e-12)
