"""What a gyro network is compared with: a linear layer and an LSTM, in NumPy, by hand.

Both train as the network does: Adam, warm-up, cosine, clipped gradient, softmax.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hil.tasks.strokes import AbstractStrokes
from hil.training.adam import Adam, AdamState
from hil.training.gyro import cross_entropy, schedule
from hil.types import AnyArray, Array, IntArray

Weights = dict[str, AnyArray]


class Baseline(NamedTuple):
    """How a baseline was trained and what it gave."""

    test_accuracy: float
    validation_accuracy: float
    parameters: int
    cpu_seconds: float


class Linear:
    """Scores = W x + b."""

    def __init__(self, width: int, classes: int, random: np.random.Generator) -> None:
        self.weights: Weights = {
            "w": random.standard_normal((classes, width)) / math.sqrt(width),
            "b": np.zeros(classes),
        }

    def forward(self, x: AnyArray) -> AnyArray:
        """Return scores (batch, classes) of x (batch, width)."""
        return np.asarray(x @ self.weights["w"].T + self.weights["b"])

    def backward(self, x: AnyArray, by_scores: AnyArray) -> Weights:
        """Return the gradient."""
        return {"w": by_scores.T @ x, "b": by_scores.sum(0)}


class Lstm:
    """One layer of LSTM (forget gate starts open), its last output, a linear layer."""

    def __init__(self, width: int, units: int, classes: int, random: np.random.Generator) -> None:
        self.units = units
        bias = np.zeros(4 * units)
        bias[units : 2 * units] = 1.0
        self.weights: Weights = {
            "x": random.standard_normal((width, 4 * units)) / math.sqrt(width),
            "h": random.standard_normal((units, 4 * units)) / math.sqrt(units),
            "b": bias,
            "w": random.standard_normal((classes, units)) / math.sqrt(units),
            "c": np.zeros(classes),
        }

    def forward(self, x: AnyArray) -> AnyArray:
        """Return scores (batch, classes) of x (batch, steps, width), and keep the way there."""
        w, units = self.weights, self.units
        driven = x @ w["x"] + w["b"]
        h = c = np.zeros((len(x), units), dtype=driven.dtype)
        self._tape = []
        for step in range(x.shape[1]):
            gates = driven[:, step] + h @ w["h"]
            s = 1.0 / (1.0 + np.exp(-gates))
            i, f, o = s[:, :units], s[:, units : 2 * units], s[:, 3 * units :]
            g = np.tanh(gates[:, 2 * units : 3 * units])
            before = (h, c)
            c = f * c + i * g
            t = np.tanh(c)
            h = o * t
            self._tape.append((before, i, f, g, o, t))
        self._last = h
        return np.asarray(h @ w["w"].T + w["c"])

    def backward(self, x: AnyArray, by_scores: AnyArray) -> Weights:
        """Return the gradient of the last `forward`."""
        w = self.weights
        by_h = by_scores @ w["w"]
        by_c = np.zeros_like(by_h)
        by_gates = np.empty((len(x), x.shape[1], 4 * self.units), dtype=by_h.dtype)
        by_recurrent = np.zeros_like(w["h"])
        for step in range(x.shape[1] - 1, -1, -1):
            (h, c), i, f, g, o, t = self._tape[step]
            by_c = by_c + by_h * o * (1 - t * t)
            by_gates[:, step] = np.concatenate(
                (by_c * g * i * (1 - i), by_c * c * f * (1 - f), by_c * i * (1 - g * g),
                 by_h * t * o * (1 - o)), axis=1,
            )  # fmt: skip
            by_recurrent += h.T @ by_gates[:, step]
            by_h = by_gates[:, step] @ w["h"].T
            by_c = by_c * f
        flat = by_gates.reshape(-1, by_gates.shape[-1])
        return {
            "x": x.reshape(len(flat), -1).T @ flat, "h": by_recurrent, "b": flat.sum(0),
            "w": by_scores.T @ self._last, "c": by_scores.sum(0),
        }  # fmt: skip


def raw(points: Array) -> Array:
    """Return the eight points as they are, (n, 16)."""
    return points.reshape(len(points), -1)


def spread(points: Array) -> Array:
    """Return mean and deviation of each channel over the signal's points, (n, 4)."""
    return np.concatenate((points.mean(1), points.std(1)), axis=1)


def twenty(signals: Array) -> Array:
    """Return 20 numbers per signal, as many as the network reads: 10 per channel.

    Mean, deviation, lowest, highest, first, last, mean and deviation of the speed, and the
    means of the first and the last half.
    """
    speed, half = np.diff(signals, axis=1) * signals.shape[1], signals.shape[1] // 2
    return np.concatenate(
        (
            signals.mean(1), signals.std(1), signals.min(1), signals.max(1), signals[:, 0],
            signals[:, -1], np.abs(speed).mean(1), speed.std(1),
            signals[:, :half].mean(1), signals[:, half:].mean(1),
        ),
        axis=1,
    )  # fmt: skip


def fit(
    task: AbstractStrokes,
    look: Callable[[IntArray, np.random.Generator | None], Array],
    make: Callable[[int, np.random.Generator], Linear | Lstm],
    *,
    epochs: int,
    seed: int,
    rate: float = 3e-3,
    batch: int = 32,
) -> Baseline:
    """Train a baseline on what `look` shows of a batch, varied as the task varies it."""
    begin, random = time.process_time(), np.random.default_rng(seed)
    sample = look(task.train, None)
    middle, width = sample.mean(0, keepdims=True), sample.std(0, keepdims=True)
    if sample.ndim == 3:
        middle, width = middle.mean(1, keepdims=True), width.mean(1, keepdims=True)
    width = np.maximum(width, 1e-6)
    model = make(sample.shape[-1], random)
    names = list(model.weights)
    sizes = np.cumsum([model.weights[n].size for n in names])
    state = AdamState.start(int(sizes[-1]))
    total = epochs * -(-len(task.train) // batch)
    for _ in range(epochs):
        order = random.permutation(task.train)
        for first in range(0, len(order), batch):
            some = order[first : first + batch]
            x = (look(some, random) - middle) / width
            _, by_scores = cross_entropy(model.forward(x), task.labels(some))
            slopes = model.backward(x, by_scores / len(some))
            flat = np.concatenate([slopes[n].ravel() for n in names])
            flat *= min(1.0, 1.0 / max(float(np.sqrt(flat @ flat)), 1e-30))
            change, state = Adam(1.0).step(flat, state)
            change *= rate * schedule(state.steps, 50, total)
            for name, part in zip(names, np.split(change, sizes[:-1]), strict=True):
                model.weights[name] += part.reshape(model.weights[name].shape)

    def accuracy(part: IntArray) -> float:
        scores = model.forward((look(part, None) - middle) / width)
        return float((scores.argmax(1) == task.labels(part)).mean())

    return Baseline(
        accuracy(task.test), accuracy(task.validation), int(sizes[-1]), time.process_time() - begin
    )
