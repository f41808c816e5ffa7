"""Fits an FNODE of mechanical form (`hil.models.mechanical`) by the weak form, exactly.

The hidden layers are drawn at random and stay; they see positions only, smooth functions of
which take few units. The last layer, one column per unit and term, is solved by least squares
with a ridge that validation blocks choose: no gradient, one second. Data, kernel and blocks
are those of `hil.training.fit`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.fnode import Domain, FnodeSettings, layout, turning_slack
from hil.models.mechanical import MechanicalModel, MechanicalWeights, degrees, terms
from hil.training.differentiation import disagreement
from hil.training.fit import (
    FitProgress,
    FitResult,
    FitSettings,
    Motion,
    check_motions,
    cut,
    digest,
    split,
)
from hil.training.network import Blocks, signs, spread
from hil.types import Array

RIDGES = tuple(10.0**power for power in range(-12, -1))  # per answer, in scaled units


class FitMechanicalSettings(Settings, frozen=True, kw_only=True):
    """How a network of coefficients is fitted; see `hil.training.fit` for what is the same."""

    network: FnodeSettings
    kernel: Annotated[float, Meta(ge=0.01, le=1, description="length of ψ, s")] = 0.15
    smoother: Annotated[float, Meta(ge=0.01, le=1, description="window of the smoother, s")] = 0.06
    delay: Annotated[float, Meta(ge=0, le=1, description="command to effect, s")] = 0.0
    lag: Annotated[float, Meta(ge=0, le=1, description="of the actuator, s")] = 0.0
    block: Annotated[float, Meta(ge=0.1, le=60, description="blocks of time, s")] = 1.5
    validation: Annotated[
        float, Meta(gt=0, lt=1, description="part of the blocks that chooses the ridge, 1")
    ] = 0.15
    mirror: Annotated[
        bool, Meta(description="left and right are the same to the plant, and 0 is upright")
    ] = False
    first_layer: Annotated[
        float, Meta(gt=0, le=10, description="spread of the weights of the first layer, 1")
    ] = 1.0


def by_period(motions: Sequence[Motion]) -> list[list[Motion]]:
    """Return the motions in groups of equal period; raises ConfigError where there are none."""
    if not motions:
        raise ConfigError("fit: no motions; record some first")
    periods = sorted({round(motion.period, 9) for motion in motions})
    return [[m for m in motions if round(m.period, 9) == period] for period in periods]


def ridged(gram: Array, moment: Array, ridge: float) -> Array:
    """Return the least squares solution with a ridge."""
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), moment), dtype=float)


class FitMechanical:
    """Fits networks of coefficients; equal seed, settings and motions give the same model."""

    Settings = FitMechanicalSettings

    def __init__(self, settings: FitMechanicalSettings, *, seed: int = 0) -> None:
        layout(settings.network)
        if settings.mirror and any(units % 2 for units in settings.network.hidden):
            raise ConfigError("hidden: a mirrored network needs even numbers of units")
        self.settings, self.seed = settings, seed

    def run(
        self, motions: Sequence[Motion], progress: Callable[[FitProgress], None] | None = None
    ) -> FitResult[MechanicalModel]:
        """Return the model that fits the motions; raises ConfigError as `Fit.run` does."""
        begin = time.process_time()
        settings, net = self.settings, self.settings.network
        random = np.random.default_rng(self.seed)
        blocks = [self._cut(group) for group in by_period(motions)]
        z = np.concatenate([b.points.reshape(-1, b.points.shape[-1]) for b in blocks])
        mean, scale = self._scaling(z)
        hidden = self._draw(random)
        size = spread(np.concatenate([b.targets.reshape(-1, net.nq) for b in blocks]))
        parts = [split(group, settings.validation, random) for group in blocks]
        training, validation = ([pair[i] for pair in parts] for i in (0, 1))

        def asked(data: list[Blocks]) -> Iterator[tuple[Array, Array]]:
            for group in data:
                for points, target in zip(group.points, group.targets, strict=True):
                    seen = group.kernel @ self._columns(points, mean, scale, hidden)
                    yield seen, target / size

        def normal(data: list[Blocks]) -> tuple[Array, Array]:
            gram, moment, count = np.zeros((1, 1)), np.zeros((1, 1)), 0
            for seen, target in asked(data):
                gram, moment = gram + seen.T @ seen, moment + seen.T @ target
                count += len(target)
            return gram / count, moment / count

        def misses(layer: Array, data: list[Blocks]) -> Array:
            return np.concatenate([seen @ layer - target for seen, target in asked(data)])

        gram, moment = normal(training)
        tried = []
        for ridge in RIDGES:
            layer = ridged(gram, moment, ridge)
            tried.append((float((misses(layer, validation) ** 2).mean()), ridge, layer))
        best_loss, ridge, layer = min(tried, key=lambda entry: entry[0])
        train_loss = float((misses(layer, training) ** 2).mean())
        left = misses(layer, validation) * size
        gram, moment = normal(blocks)
        layer = ridged(gram, moment, ridge) * size
        last, constant = self._unfold(layer)
        scaled = (z - mean) / scale
        if settings.mirror:
            scaled = np.concatenate([scaled, scaled * signs(net)])
        domain = Domain.around(scaled, turning_slack(net, mean, scale))
        model = MechanicalModel(net, MechanicalWeights(mean, scale, hidden, last, constant, domain))
        spent = time.process_time() - begin
        if progress is not None:
            progress(FitProgress(0, 0, train_loss, best_loss, spent))
        return FitResult(
            model=model,
            epochs=0,
            best_epoch=0,
            train_loss=train_loss,
            validation_loss=best_loss,
            residual_rms=np.sqrt((left**2).mean(axis=0)),
            ridge=ridge,
            disagreement=np.mean([disagreement(m.q, m.period) for m in motions], axis=0),
            reconstruction=None,
            cpu_seconds=spent,
            metadata={
                "fit": msgspec.to_builtins(settings),
                "seed": self.seed,
                "data_sha256": digest(motions),
                "data_seconds": sum(len(m.q) * m.period for m in motions),
            },
        )

    def _cut(self, motions: list[Motion]) -> Blocks:
        """Return motions of one period in blocks; slow ones get as few samples as will do."""
        s, period = self.settings, check_motions(motions, self.settings.network)
        kernel, smoother = max(s.kernel, 8 * period), max(s.smoother, 6 * period)
        found, _ = cut(
            motions,
            FitSettings(
                network=s.network, kernel=kernel, smoother=smoother, delay=s.delay, lag=s.lag,
                block=s.block,
            ),
            period,
        )  # fmt: skip
        return found

    def _scaling(self, z: Array) -> tuple[Array, Array]:
        """Return mean and scale of the inputs; sines and cosines are of size 1 already."""
        at = layout(self.settings.network)
        mean, scale = z.mean(axis=0), spread(z)
        mean[at.velocities :] = 0.0
        if self.settings.mirror:
            mean[:] = 0.0
        for column in at.sines:
            mean[column : column + 2], scale[column : column + 2] = 0.0, 1.0
        return mean, scale

    def _draw(self, random: np.random.Generator) -> tuple[tuple[Array, Array], ...]:
        """Return hidden layers; with `mirror` their halves change places in a mirror."""
        net, mirror = self.settings.network, self.settings.mirror
        width = layout(net).velocities
        found = []
        for number, (before, units) in enumerate(pairwise([width, *net.hidden])):
            rows = units // 2 if mirror else units
            size = 1.0 / np.sqrt(before) if number else self.settings.first_layer
            weight = random.normal(0.0, size, (rows, before))
            bias = random.uniform(-1.0, 1.0, rows) if number == 0 else np.zeros(rows)
            if mirror:
                turn = np.roll(weight, before // 2, 1) if number else weight * signs(net)[:width]
                weight, bias = np.concatenate([weight, turn]), np.concatenate([bias, bias])
            found.append((weight, bias))
        return tuple(found)

    def _columns(
        self, z: Array, mean: Array, scale: Array, hidden: tuple[tuple[Array, Array], ...]
    ) -> Array:
        """Return what the last layer weighs at points z (n, width), term by term."""
        at = layout(self.settings.network)
        scaled = (z - mean) / scale
        h = scaled[:, : at.velocities]
        for weight, bias in hidden:
            h = np.tanh(h @ weight.T + bias)
        t = terms(scaled[:, at.velocities : at.inputs], scaled[:, at.inputs :])
        one = np.ones((len(h), 1))
        parts = []
        for term, degree in enumerate(degrees(self.settings.network)):
            of_q = np.concatenate([h, one], axis=1)
            if self.settings.mirror:  # odd together: odd in q where the term is even
                half = h.shape[1] // 2
                a, b = h[:, :half], h[:, half:]
                of_q = np.concatenate([a + b, one], axis=1) if degree % 2 else a - b
            parts.append(of_q * t[:, term, None])
        return np.concatenate(parts, axis=1)

    def _unfold(self, layer: Array) -> tuple[Array, Array]:
        """Return last (nq, T, units) and constant (nq, T) of the solved columns."""
        net, at = self.settings.network, 0
        kinds, units = degrees(net), net.hidden[-1]
        last, constant = np.zeros((net.nq, len(kinds), units)), np.zeros((net.nq, len(kinds)))
        rows = units // 2 if self.settings.mirror else units
        for term, degree in enumerate(kinds):
            part, at = layer[at : at + rows].T, at + rows
            if self.settings.mirror:
                part = np.concatenate([part, part if degree % 2 else -part], axis=1)
            last[:, term] = part
            if not self.settings.mirror or degree % 2:
                constant[:, term] = layer[at]
                at += 1
        return last, constant
