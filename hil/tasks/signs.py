"""Bits that a network answers by the signs of displacements: what such tasks share.

A bit is 1 where its displacement, with the channel's sign, is above a threshold, mostly zero;
d is how far. The loss is the logistic one, log(1 + exp(−y·d/scale)), y = ±1, summed over the
bits; its pull fades once d is a few scales on the right side. The margin is the smallest y·d.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hil.mechanics.geometry import Geometry
from hil.tasks.base import AbstractStaticTask
from hil.tasks.channel import Channel
from hil.tasks.linear_bound import best_line
from hil.types import AnyArray, Array, IntArray


@dataclass(frozen=True, eq=False)
class SignData:
    """Samples of a task whose answers are signs."""

    inputs: tuple[Channel, Channel]
    outputs: tuple[Channel, ...]
    points: Array  # (samples, 2), what the two inputs are, 1
    bits: IntArray  # (samples, outputs), 0 or 1
    train: IntArray
    test: IntArray
    force: float  # of an input of 1, N
    scale: float  # of the loss, m
    dof: int
    threshold: float  # m

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        inputs: tuple[str, str],
        outputs: tuple[str, ...],
        train: tuple[Array, IntArray],
        test: tuple[Array, IntArray],
        *,
        force: float,
        scale: float,
        threshold: float = 0.0,
    ) -> SignData:
        """Return the data of named channels; train and test: points (n, 2), bits (n, outputs)."""
        first, second = (Channel.of(name, geometry) for name in inputs)
        n = len(train[0])
        return cls(
            (first, second),
            tuple(Channel.of(name, geometry) for name in outputs),
            np.concatenate([train[0], test[0]]),
            np.concatenate([train[1], test[1]]),
            np.arange(n),
            np.arange(n, n + len(test[0])),
            force,
            scale,
            len(geometry.free_dofs),
            threshold,
        )


class AbstractSignTask(AbstractStaticTask):
    """A task of two input forces whose answers are signs of displacements."""

    @property
    @abstractmethod
    def data(self) -> SignData:
        """Samples and channels."""

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self.data.train

    @property
    def test(self) -> IntArray:
        """The samples that are not."""
        return self.data.test

    @property
    def classes(self) -> tuple[str, ...]:
        """All patterns of bits, the first output first."""
        bits = len(self.data.outputs)
        return tuple(f"{pattern:0{bits}b}" for pattern in range(2**bits))

    @property
    def inputs(self) -> tuple[int, ...]:
        """Nodes that are pushed."""
        return tuple(channel.node for channel in self.data.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes whose displacement is read."""
        return tuple(channel.node for channel in self.data.outputs)

    def labels(self, batch: IntArray) -> IntArray:
        """Return the right pattern of bits of each sample: (batch,)."""
        return _patterns(self.data.bits[batch])

    def loads(self, batch: IntArray) -> Array:
        """Return the two forces of each sample: (batch, dof), N."""
        data = self.data
        loads = np.zeros((len(batch), data.dof))
        for channel, value in zip(data.inputs, data.points[batch].T, strict=True):
            loads[:, channel.dof] += channel.sign * data.force * value
        return loads

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return the logistic loss, summed over the bits: (batch,), 1."""
        margins = self.margins(displacement, batch)
        return np.asarray(np.logaddexp(0.0, -margins / self.data.scale).sum(axis=1))

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement, zero but at the outputs: (batch, dof), 1/m."""
        data = self.data
        margins = self.margins(displacement, batch)  # (batch, outputs), m
        pull = np.exp(-np.logaddexp(0.0, margins / data.scale)) / data.scale  # −∂loss/∂margin
        loads = np.zeros((len(batch), data.dof))
        wanted = 2 * data.bits[batch] - 1
        for bit, channel in enumerate(data.outputs):
            loads[:, channel.dof] += pull[:, bit] * wanted[:, bit] * channel.sign
        return loads

    def predict(self, displacement: Array) -> IntArray:
        """Return the pattern of bits each equilibrium stands for: (batch,)."""
        return _patterns(self.read(displacement) > 0)

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return the share of right bits of each sample: (batch,)."""
        return np.asarray((self.margins(displacement, batch) > 0).mean(axis=1))

    def read(self, displacement: Array) -> Array:
        """Return what stands for each bit, (batch, outputs), m: above zero is 1."""
        read = [c.sign * displacement[:, c.dof] for c in self.data.outputs]
        return np.stack(read, axis=1) - self.data.threshold

    def margins(self, displacement: Array, batch: IntArray) -> Array:
        """Return how far each bit is on its right side: (batch, outputs), m."""
        return self.read(displacement) * (2 * self.data.bits[batch] - 1)

    def figures(self, displacement: Array, batch: IntArray) -> dict[str, float]:
        """Return the margin and, of the same samples, what no linear network can pass."""
        margins = self.margins(displacement, batch)
        points, bits = self.data.points[batch], self.data.bits[batch]
        case = points.tobytes(), bits.tobytes(), bits.shape[1]
        return {
            "margin_m": float(margins.min()),
            "bits_right": float((margins > 0).sum()),
            "bits": float(margins.size),
            "linear_bound": _bound(*case, self.data.threshold != 0.0),
            "linear_bound_threshold": _bound(*case, True),
        }


def _patterns(bits: AnyArray) -> IntArray:
    weights = 2 ** np.arange(bits.shape[1])[::-1]
    return np.asarray(bits.astype(np.int64) @ weights, dtype=np.int64)


@lru_cache(maxsize=16)
def _bound(points: bytes, bits: bytes, outputs: int, threshold: bool) -> float:
    """Return the best share of bits, each output with the line that suits it best."""
    at = np.frombuffer(points).reshape(-1, 2)
    wanted = np.frombuffer(bits, dtype=np.int64).reshape(-1, outputs)
    found = [best_line(at, wanted[:, bit], threshold=threshold) for bit in range(outputs)]
    return float(np.mean(found))
