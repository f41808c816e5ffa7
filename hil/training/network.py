"""A tanh network in training: filtered answers, gradient by hand, exact last layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hil.models.fnode import Domain, FnodeSettings, FnodeWeights, layout, turning_slack
from hil.types import Array, IntArray

RIDGES = tuple(10.0**power for power in range(-10, 0))  # per point, in scaled units
"""Tried in the exact solve; the validation blocks choose."""

FREE = 1e-12  # ridge on what is not penalised


class Blocks(NamedTuple):
    """Blocks of time: where the network is asked, and what its filtered answer should be."""

    points: Array  # (blocks, L, width), inputs of the network
    targets: Array  # (blocks, P, nq), filtered accelerations
    kernel: Array  # (P, L), filters a block of answers


class Network:
    """The weights in training, one flat vector, and the loss on scaled blocks."""

    def __init__(self, settings: FnodeSettings, flat: Array, scaling: Sequence[Array]) -> None:
        self.settings, self.flat = settings, flat
        self.input_mean, self.input_scale, self.output_mean, self.output_scale = scaling
        self._views()

    @classmethod
    def start(
        cls, net: FnodeSettings, data: Blocks, first_layer: float, random: np.random.Generator
    ) -> Network:
        """Return a network with Xavier weights, scaled to the training blocks.

        first_layer: standard deviation of the weights of the first layer instead, small to
        begin with slowly varying functions.
        """
        sizes = [layout(net).width, *net.hidden]
        parts: list[Array] = []
        for number, (before, units) in enumerate(pairwise(sizes)):
            limit = np.sqrt(6 / (before + units)) if number else first_layer * np.sqrt(3)
            parts += [random.uniform(-limit, limit, units * before)]
            parts += [random.uniform(-1, 1, units) if number == 0 else np.zeros(units)]
        parts.append(np.zeros(net.nq * (sizes[-1] + sizes[0] + 1)))
        z, y = data.points.reshape(-1, sizes[0]), data.targets.reshape(-1, net.nq)
        scaling = [z.mean(axis=0), _spread(z), y.mean(axis=0), _spread(y)]
        return cls(net, np.concatenate(parts), scaling)

    def _views(self) -> None:
        """Give every matrix its place in the flat vector."""
        net, at = self.settings, 0
        width = layout(net).width

        def take(*shape: int) -> Array:
            nonlocal at
            size = int(np.prod(shape))
            view = self.flat[at : at + size].reshape(shape)
            at += size
            return view

        before, self.hidden = width, []
        for units in net.hidden:
            self.hidden.append((take(units, before), take(units)))
            before = units
        self.below = at  # so many weights are below the last layer
        self.last, self.skip = take(net.nq, before), take(net.nq, width)
        self.offset = take(net.nq)

    def copy(self) -> Network:
        """Return a network that does not change with this one."""
        scaling = (self.input_mean, self.input_scale, self.output_mean, self.output_scale)
        return Network(self.settings, self.flat.copy(), scaling)

    def scaled(self, data: Blocks) -> Blocks:
        """Return the blocks in the network's units."""
        points = (data.points - self.input_mean) / self.input_scale
        targets = (data.targets - self.output_mean) / self.output_scale
        return Blocks(points, targets, data.kernel)

    def _answers(self, points: Array) -> tuple[Array, list[Array]]:
        activations = [points]
        for weight, bias in self.hidden:
            h = activations[-1] @ weight.T
            h += bias
            activations.append(np.tanh(h, out=h))
        return activations[-1] @ self.last.T + points @ self.skip.T + self.offset, activations

    def residual(self, data: Blocks, some: Any) -> Array:
        """Return filtered answers minus targets, (blocks, P, nq), scaled."""
        shape = data.points[some].shape
        answers, _ = self._answers(data.points[some].reshape(-1, shape[-1]))
        found: Array = data.kernel @ answers.reshape(*shape[:2], -1) - data.targets[some]
        return found

    def loss(self, data: Blocks) -> float:
        """Return the mean square of the residual; block by block, for memory's sake."""
        each = [(self.residual(data, [i]) ** 2).mean() for i in range(len(data.points))]
        return float(np.mean(each))

    def gradient(self, data: Blocks, some: IntArray) -> tuple[float, Array]:
        """Return the loss of some blocks and its gradient by `flat`; by hand, backwards."""
        shape = data.points[some].shape
        answers, activations = self._answers(data.points[some].reshape(-1, shape[-1]))
        residual = data.kernel @ answers.reshape(*shape[:2], -1) - data.targets[some]
        back = data.kernel.T @ residual * (2 / residual.size)
        back = back.reshape(-1, back.shape[-1])  # (points, nq)
        z = activations[0]
        slope_skip = back.T @ z if self.settings.skip else np.zeros_like(self.skip)
        parts = [back.T @ activations[-1], slope_skip, back.sum(axis=0)]
        weight_above = self.last
        for (weight, _), before, h in zip(
            reversed(self.hidden), reversed(activations[:-1]), reversed(activations[1:]),
            strict=True,
        ):  # fmt: skip
            back = back @ weight_above
            np.multiply(h, h, out=h)
            back *= np.subtract(1.0, h, out=h)
            parts[:0] = [back.T @ before, back.sum(axis=0)]
            weight_above = weight
        return float((residual**2).mean()), np.concatenate([part.ravel() for part in parts])

    def _columns(self, data: Blocks, index: int) -> Array:
        """Return what the last layer sees of a block, filtered: hidden, inputs, one."""
        _, activations = self._answers(data.points[index])
        parts = [activations[-1], np.ones((len(activations[0]), 1))]
        if self.settings.skip:
            parts.insert(1, activations[0])
        return data.kernel @ np.concatenate(parts, axis=1)

    def solve(self, data: Blocks, validation: Blocks, ridges: Sequence[float] = RIDGES) -> float:
        """Set the last layer to its least squares with a ridge on the hidden part.

        Returns the ridge, the one of `ridges` with the least validation loss.
        """
        units = self.last.shape[1]
        columns = units + (self.skip.shape[1] if self.settings.skip else 0) + 1
        gram, moment = np.zeros((columns, columns)), np.zeros((columns, self.settings.nq))
        for index in range(len(data.points)):
            part = self._columns(data, index)
            gram += part.T @ part
            moment += part.T @ data.targets[index]
        gram /= data.targets[..., 0].size
        moment /= data.targets[..., 0].size
        check = [self._columns(validation, i) for i in range(len(validation.points))]
        tried = []
        for ridge in ridges:
            # What passes the hidden layers by is free, but for rounding.
            penalty = np.where(np.arange(columns) < units, ridge, FREE)
            layer = np.linalg.solve(gram + np.diag(penalty), moment)
            misses = [c @ layer - t for c, t in zip(check, validation.targets, strict=True)]
            tried.append((float(np.mean([(miss**2).mean() for miss in misses])), ridge, layer))
        _, ridge, layer = min(tried, key=lambda entry: entry[0])
        self.last[:] = layer[:units].T
        self.skip[:] = layer[units:-1].T if self.settings.skip else 0.0
        self.offset[:] = layer[-1]
        return ridge

    def weights(self, points: Array) -> FnodeWeights:
        """Return the weights of a model whose domain is around the scaled points."""
        slack = turning_slack(self.settings, self.input_mean, self.input_scale)
        domain = Domain.around(points.reshape(-1, points.shape[-1]), slack)
        return FnodeWeights(
            self.input_mean, self.input_scale, tuple(self.hidden), self.last, self.skip,
            self.offset, self.output_mean, self.output_scale, domain,
        )  # fmt: skip


def _spread(values: Array) -> Array:
    """Return standard deviations, 1 where nothing moves."""
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-12 * (1 + np.abs(values).max(axis=0)), deviation, 1.0)
