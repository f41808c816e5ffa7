"""A tanh network with one answer, and its slopes by what enters: what energies are made of.

With z → tanh → … → w·h, directions t are carried forward: t ← (1 − h²) W t, and pairs of them:
s ← (1 − h²) W s − 2 h (W t)(W t′)(1 − h²). Every line holds for complex numbers, so that one
more derivative costs a complex step and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hil.types import AnyArray, Array


class Layer(NamedTuple):
    """A hidden layer."""

    weight: Array  # (units, before)
    bias: Array  # (units,)


class ScalarNetwork:
    """S(z) for z (n, width); `flat` holds all weights, the layers are views of it."""

    def __init__(self, width: int, hidden: Sequence[int], flat: Array) -> None:
        self.width, self.hidden, self.flat = width, tuple(hidden), flat
        self.layers, at = [], 0
        for before, units in pairwise((width, *hidden)):
            weight = flat[at : at + units * before].reshape(units, before)
            self.layers.append(Layer(weight, flat[at + units * before :][:units]))
            at += units * (before + 1)
        self.last = flat[at:]

    @classmethod
    def start(cls, width: int, hidden: Sequence[int], random: np.random.Generator) -> ScalarNetwork:
        """Return a network of Xavier weights and biases in (−1, 1)."""
        parts: list[Array] = []
        for before, units in pairwise((width, *hidden)):
            limit = np.sqrt(6 / (before + units))
            parts += [random.uniform(-limit, limit, units * before), random.uniform(-1, 1, units)]
        parts.append(random.uniform(-1, 1, hidden[-1]) * np.sqrt(6 / (hidden[-1] + 1)))
        return cls(width, hidden, np.concatenate(parts))

    def value(self, z: AnyArray) -> AnyArray:
        """Return S, (n,)."""
        h = z
        for weight, bias in self.layers:
            h = np.tanh(h @ weight.T + bias)
        return np.asarray(h @ self.last)

    def gradient(self, z: AnyArray) -> AnyArray:
        """Return ∂S/∂z, (n, width)."""
        return self._forward(z, second=False)[0]

    def slopes(self, z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return ∂S/∂z, (n, width), and ∂²S/∂z², (n, width, width)."""
        first, second = self._forward(z, second=True)
        assert second is not None
        return first, second

    def _forward(self, z: AnyArray, *, second: bool) -> tuple[AnyArray, AnyArray | None]:
        h, width = z, self.width
        t = np.broadcast_to(np.eye(width), (len(z), width, width))
        s: AnyArray = np.zeros((len(z), width, width, width))
        for weight, bias in self.layers:
            h = np.tanh(h @ weight.T + bias)
            slope, turned = 1 - h * h, t @ weight.T
            if second:
                bend = (-2 * h * slope)[:, None, None]
                s = slope[:, None, None] * (s @ weight.T)
                s = s + bend * turned[:, :, None] * turned[:, None]
            t = slope[:, None] * turned
        return np.asarray(t @ self.last), np.asarray(s @ self.last) if second else None

    def weight_slopes(self, z: AnyArray, direction: AnyArray) -> AnyArray:
        """Return, point by point, the slopes of direction·∂S/∂z by all weights, (n, p).

        direction: (n, width). One tangent forwards, one pass back.
        """
        h, t, tape = z, direction, []
        for weight, bias in self.layers:
            turned = t @ weight.T
            inner, above = h, np.tanh(h @ weight.T + bias)
            tape.append((inner, t, above, turned))
            h, t = above, (1 - above * above) * turned
        parts = [t]
        back_t = np.broadcast_to(self.last, t.shape)
        back_h: AnyArray = np.zeros_like(t)
        for (weight, _), (inner, tangent, above, turned) in zip(
            reversed(self.layers), reversed(tape), strict=True
        ):
            slope = 1 - above * above
            back_turned = back_t * slope
            back_a = (back_h - 2 * above * back_t * turned) * slope
            outer = back_a[:, :, None] * inner[:, None] + back_turned[:, :, None] * tangent[:, None]
            parts[:0] = [outer.reshape(len(z), -1), back_a]
            back_h, back_t = back_a @ weight, back_turned @ weight
        return np.concatenate(parts, axis=1)
