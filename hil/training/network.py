"""A tanh network in training: filtered answers, gradient by hand, exact last layer.

With `mirror` the network is odd, f(−q, −v, −u) = −f(q, v, u), like a plant that cannot tell
left from right. Its hidden units come in two halves, which mirrored inputs exchange, and the
last layer takes their difference. Only training knows: what it hands out is a plain network
whose weights are tied, as fast as any other. At rest in the middle its acceleration is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hil.errors import ConfigError
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

    def __init__(
        self, settings: FnodeSettings, flat: Array, scaling: Sequence[Array], mirror: bool = False
    ) -> None:
        self.settings, self.flat, self.mirror = settings, flat, mirror
        self.input_mean, self.input_scale, self.output_mean, self.output_scale = scaling
        self._views()

    @classmethod
    def start(
        cls,
        net: FnodeSettings,
        data: Blocks,
        first_layer: float,
        random: np.random.Generator,
        mirror: bool = False,
    ) -> Network:
        """Return a network with Xavier weights, scaled to the training blocks.

        first_layer: standard deviation of the weights of the first layer instead, small to
        begin with slowly varying functions. mirror: make it odd. Raises ConfigError where a
        layer of an odd network has no two halves.
        """
        if mirror and any(units % 2 for units in net.hidden):
            raise ConfigError(f"hidden: {list(net.hidden)}: with mirror, even numbers of units")
        sizes = [layout(net).width, *net.hidden]
        parts: list[Array] = []
        for number, (before, units) in enumerate(pairwise(sizes)):
            limit = np.sqrt(6 / (before + units)) if number else first_layer * np.sqrt(3)
            parts += [random.uniform(-limit, limit, units * before)]
            parts += [random.uniform(-1, 1, units) if number == 0 else np.zeros(units)]
        parts.append(np.zeros(net.nq * (sizes[-1] + sizes[0] + 1)))
        z, y = data.points.reshape(-1, sizes[0]), data.targets.reshape(-1, net.nq)
        if mirror:
            z, y = _with_image(z, signs(net)), np.concatenate([y, -y])
        scaling = [z.mean(axis=0), spread(z), y.mean(axis=0), spread(y)]
        if mirror:  # zero already, but for rounding
            scaling[0], scaling[2] = np.where(signs(net) < 0, 0.0, scaling[0]), np.zeros(net.nq)
        found = cls(net, np.concatenate(parts), scaling, mirror)
        if mirror:  # the mean of two draws spreads less than one
            found.flat[: found.below] = np.sqrt(2) * found.tied(found.flat)
        return found

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
        self._signs = signs(net)
        self._odd = np.flatnonzero(self._signs < 0)

    def copy(self) -> Network:
        """Return a network that does not change with this one."""
        return self.at(self.flat.copy())

    def at(self, flat: Any) -> Network:
        """Return the network with other weights, which may be complex."""
        scaling = (self.input_mean, self.input_scale, self.output_mean, self.output_scale)
        return Network(self.settings, flat, scaling, self.mirror)

    def tied(self, flat: Array) -> Array:
        """Return the part of weights or slopes below the last layer that an odd network has.

        All of it without `mirror`; with it, the mean of the weights and their mirror image.
        """
        if not self.mirror:
            return flat[: self.below]
        parts, at, before = [], 0, layout(self.settings).width
        for number, units in enumerate(self.settings.hidden):
            weight = flat[at : at + units * before].reshape(units, before)
            bias = flat[at + units * before : at + units * (before + 1)]
            image = np.roll(weight, before // 2, axis=1) if number else weight * self._signs
            parts.append((weight + np.roll(image, units // 2, axis=0)).ravel() / 2)
            parts.append((bias + np.roll(bias, units // 2)) / 2)
            at, before = at + units * (before + 1), units
        return np.concatenate(parts)

    def scaled(self, data: Blocks) -> Blocks:
        """Return the blocks in the network's units."""
        points = (data.points - self.input_mean) / self.input_scale
        targets = (data.targets - self.output_mean) / self.output_scale
        return Blocks(points, targets, data.kernel)

    def answers(self, points: Array) -> tuple[Array, list[Array]]:
        """Return answers (n, nq) at scaled points (n, width), and what every layer gave."""
        activations = [points]
        for weight, bias in self.hidden:
            h = activations[-1] @ weight.T
            h += bias
            activations.append(np.tanh(h, out=h))
        return activations[-1] @ self.last.T + points @ self.skip.T + self.offset, activations

    def residual(self, data: Blocks, some: Any) -> Array:
        """Return filtered answers minus targets, (blocks, P, nq), scaled."""
        shape = data.points[some].shape
        answers, _ = self.answers(data.points[some].reshape(-1, shape[-1]))
        found: Array = data.kernel @ answers.reshape(*shape[:2], -1) - data.targets[some]
        return found

    def loss(self, data: Blocks) -> float:
        """Return the mean square of the residual; block by block, for memory's sake."""
        each = [(self.residual(data, [i]) ** 2).mean() for i in range(len(data.points))]
        return float(np.mean(each))

    def gradient(self, data: Blocks, some: IntArray) -> tuple[float, Array]:
        """Return the loss of some blocks and its gradient by `flat`; by hand, backwards."""
        shape = data.points[some].shape
        answers, activations = self.answers(data.points[some].reshape(-1, shape[-1]))
        residual = data.kernel @ answers.reshape(*shape[:2], -1) - data.targets[some]
        back = data.kernel.T @ residual * (2 / residual.size)
        slopes = self._back(activations, back.reshape(-1, back.shape[-1]))
        return float((residual**2).mean()), slopes

    def back(self, points: Array, back: Array) -> Array:
        """Return Σ back · ∂answers/∂flat, (weights,), over points (n, width); back: (n, nq)."""
        return self._back(self.answers(points)[1], back)

    def _back(self, activations: list[Array], back: Array) -> Array:
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
        return np.concatenate([part.ravel() for part in parts])

    def _columns(self, data: Blocks, index: int) -> Array:
        """Return what the last layer weighs in a block, filtered: hidden, inputs, one."""
        _, activations = self.answers(data.points[index])
        z, h = activations[0], activations[-1]
        if self.mirror:
            half = h.shape[1] // 2
            parts = [h[:, :half] - h[:, half:], z[:, self._odd]]
        else:
            parts = [h, z, np.ones((len(z), 1))]
        if not self.settings.skip:
            del parts[1]
        return data.kernel @ np.concatenate(parts, axis=1)

    def solve(self, data: Blocks, validation: Blocks, ridges: Sequence[float] = RIDGES) -> float:
        """Set the last layer to its least squares with a ridge on the hidden part.

        Returns the ridge, the one of `ridges` with the least validation loss.
        """
        units = self.last.shape[1] // (2 if self.mirror else 1)
        gram, moment = np.zeros((1, 1)), np.zeros((1, 1))
        for index in range(len(data.points)):
            part = self._columns(data, index)
            gram = gram + part.T @ part
            moment = moment + part.T @ data.targets[index]
        columns = len(gram)
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
        self.flat[self.below :] = 0.0
        top, past = layer[:units].T, layer[units:].T
        if self.mirror:
            self.last[:] = np.concatenate([top, -top], axis=1)
        else:
            self.last[:] = top
            past, self.offset[:] = past[:, :-1], past[:, -1]
        if self.settings.skip:
            self.skip[:, self._odd if self.mirror else slice(None)] = past
        return ridge

    def weights(self, points: Array) -> FnodeWeights:
        """Return the weights of a model whose domain is around the scaled points."""
        slack = turning_slack(self.settings, self.input_mean, self.input_scale)
        points = points.reshape(-1, points.shape[-1])
        domain = Domain.around(_with_image(points, self._signs) if self.mirror else points, slack)
        return FnodeWeights(
            self.input_mean, self.input_scale, tuple(self.hidden), self.last, self.skip,
            self.offset, self.output_mean, self.output_scale, domain,
        )  # fmt: skip


def signs(settings: FnodeSettings) -> Array:
    """Return what a mirror multiplies the inputs of the network by, (width,).

    1 for cosines and products of velocities.
    """
    at = layout(settings)
    found = np.full(at.width, -1.0)
    if settings.velocities == "even":
        found[at.velocities : at.inputs] = 1.0
    found[[column + 1 for column in at.sines]] = 1.0
    return found


def _with_image(points: Array, sign: Array) -> Array:
    """Return points (n, width) and their mirror images."""
    return np.concatenate([points, points * sign])


def spread(values: Array) -> Array:
    """Return standard deviations, 1 where nothing moves."""
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-12 * (1 + np.abs(values).max(axis=0)), deviation, 1.0)
