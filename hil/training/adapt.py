"""A learned model brought up to date with the newest motion of its rig, or left as it is.

The last layer of an FNODE is linear in what the layers below answer, and so is the weak form
(`hil.training.fit`). The layers below stay; the last one moves by the least squares correction
with a ridge on how far it moves (a Gaussian prior around the model in use), so that what the
newest motion does not show stays as it was learned. Data that a mirror image would give as well
(`mirror`) are used twice, so that an odd network stays odd.

Whether the candidate is better is not for the fit to say: both models predict the newest
stretch, which no fit has seen, and the candidate is taken where its error is smaller by a
declared ratio and it passes for a model at all (`Rejection`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractLearnedDynamics
from hil.models.fnode import AbstractNetwork, FnodeSettings
from hil.models.stored import StoredModel
from hil.training.fit import FitSettings, Motion, cut, digest
from hil.training.network import Blocks, signs
from hil.types import Array

RIDGES = tuple(10.0**power for power in range(-8, 1))  # per answer, in scaled units
LEAST_BLOCKS = 4  # of a window: fewer do not tell a ridge


class AdaptSettings(Settings, frozen=True, kw_only=True):
    """How a model follows its rig."""

    every: Annotated[float, Meta(gt=0, le=3600, description="between two proposals, s")] = 2.0
    window: Annotated[
        float, Meta(gt=0, le=3600, description="newest motion that is looked at, s")
    ] = 10.0
    shadow: Annotated[
        float,
        Meta(
            gt=0, le=3600, description="the newest part of it, kept from the fit, that decides, s"
        ),
    ] = 2.0
    ratio: Annotated[
        float,
        Meta(gt=0, lt=1, description="a candidate's error may be this share of that in use, 1"),
    ] = 0.95
    slopes: Annotated[
        float,
        Meta(gt=0, le=100, description="those at the origin may move by this share of the largest"),
    ] = 1.0
    swap: Annotated[
        bool, Meta(description="take what is accepted; false: say only what would have been")
    ] = True
    answer: Annotated[
        float, Meta(ge=0, le=3600, description="granted for a proposal, s of the plant")
    ] = 0.5
    delay: Annotated[float, Meta(ge=0, le=1, description="from a command to its effect, s")] = 0.0
    lag: Annotated[float, Meta(ge=0, le=1, description="time constant of the actuator, s")] = 0.0
    kernel: Annotated[float, Meta(ge=0.01, le=1, description="of the weak form, s")] = 0.15
    smoother: Annotated[float, Meta(ge=0.01, le=1, description="window of it, s")] = 0.06
    block: Annotated[float, Meta(ge=0.1, le=60, description="blocks of time, s")] = 0.75
    mirror: Annotated[
        bool, Meta(description="left and right are the same to the plant, and 0 is upright")
    ] = False

    @property
    def least(self) -> float:
        """Shortest motion that tells anything, s."""
        return self.shadow + LEAST_BLOCKS * (self.block + self.smoother) + self.smoother


class Rejection(StrEnum):
    """Why a candidate was not taken."""

    NONE = ""
    NO_BETTER = "its error on the newest motion is not smaller by the ratio"
    NOT_FINITE = "it answers with what is no number"
    SLOPES = "its slopes where the rig was are too far from those in use"


class Proposal(NamedTuple):
    """What a round of adaptation came to."""

    candidate: AbstractNetwork
    rejection: Rejection
    error: float  # of the model in use on the newest motion, 1: as if it said nothing
    candidate_error: float
    ridge: float
    metadata: dict[str, Any]  # JSON, for `hil.models.store.save`

    @property
    def accepted(self) -> bool:
        """Whether the candidate is to take over."""
        return self.rejection is Rejection.NONE


class Adapter:
    """Proposes models from motion; pure: equal model and motion give the same proposal."""

    Settings = AdaptSettings

    def __init__(self, settings: AdaptSettings) -> None:
        if settings.window < settings.least:
            raise ConfigError(
                f"adaptation.window: {settings.window} s hold no {LEAST_BLOCKS} blocks of "
                f"{settings.block} s beside a shadow of {settings.shadow} s; at least "
                f"{settings.least:.2f} s are needed"
            )
        if settings.shadow < settings.block + 2 * settings.smoother:
            raise ConfigError(
                f"adaptation.shadow: {settings.shadow} s is shorter than a block of "
                f"{settings.block} s and what the smoother needs"
            )
        if settings.answer >= settings.every:
            raise ConfigError(
                f"adaptation.answer: {settings.answer} s: must be below every, {settings.every} s"
            )
        self.settings = settings

    def enough(self, motions: Sequence[Motion]) -> bool:
        """Say whether stretches, oldest first, hold a shadow and what a fit needs besides."""
        if not motions:
            return False
        s, (past, new) = self.settings, self._parted(motions)
        seconds = sum(len(motion.q) * motion.period for motion in past)
        return len(new.q) * new.period >= s.shadow - 1e-9 and seconds >= s.least - s.shadow - 1e-9

    def propose(self, model: AbstractLearnedDynamics, motions: Sequence[Motion]) -> Proposal:
        """Return a candidate and whether it is to replace `model`.

        motions: the newest motion in stretches without a gap, oldest first; `enough` of it.
        Raises ConfigError for a model whose last layer it does not know.
        """
        s, layer = self.settings, model.model if isinstance(model, StoredModel) else model
        if not isinstance(layer, AbstractNetwork):
            raise ConfigError(
                f"adaptation: model: {type(layer).__name__} has no last layer to move; "
                "it takes an FNODE of `hil fit`"
            )
        past, new = self._parted(motions)
        fitted, shadow = self._cut(past, layer.settings), self._cut([new], layer.settings)
        size = np.sqrt(np.mean(np.square(shadow.targets), axis=(0, 1)))  # (nq,)
        size = np.where(size > 0, size, 1.0)
        change, ridge = self._correction(layer, fitted, size)
        candidate = layer.moved(change)
        errors = [self._error(m, shadow, size) for m in (layer, candidate)]
        return Proposal(
            candidate=candidate,
            rejection=self._judged(model, candidate, errors),
            error=errors[0],
            candidate_error=errors[1],
            ridge=ridge,
            metadata={
                "adaptation": msgspec.to_builtins(s),
                "data_sha256": digest(motions),
                "data_seconds": sum(len(motion.q) * motion.period for motion in motions),
            },
        )

    def _parted(self, motions: Sequence[Motion]) -> tuple[list[Motion], Motion]:
        """Return what is fitted, stretches that hold a block, and the newest part that decides."""
        s, newest = self.settings, motions[-1]
        period = newest.period
        known = max(0, len(newest.q) - round(s.shadow / period))
        before = replace(newest, q=newest.q[:known], u=newest.u[:known])
        new = replace(newest, q=newest.q[known:], u=newest.u[known:])
        shortest = round((s.block + s.smoother + s.delay + 5 * s.lag) / period) + 4
        return [m for m in (*motions[:-1], before) if len(m.q) >= shortest], new

    def _cut(self, motions: Sequence[Motion], network: FnodeSettings) -> Blocks:
        s, period = self.settings, motions[0].period
        settings = FitSettings(
            network=network, kernel=max(s.kernel, 8 * period),
            smoother=max(s.smoother, 6 * period), delay=s.delay, lag=s.lag, block=s.block,
        )  # fmt: skip
        return cut(motions, settings, period)[0]

    def _correction(self, layer: AbstractNetwork, data: Blocks, size: Array) -> tuple[Array, float]:
        """Return what to add to the last layer, (columns, nq), and the ridge chosen for it.

        Every other block tells of a ridge what it leaves over of the others.
        """
        halves = [
            [
                self._normal(layer, data, number, size)
                for number in range(first, len(data.points), 2)
            ]
            for first in (0, 1)
        ]
        sums = [
            tuple(np.sum([part[i] for part in half], axis=0) for i in (0, 1)) for half in halves
        ]
        found = []
        for ridge in RIDGES:
            left = 0.0
            for own, other in ((0, 1), (1, 0)):
                change = _ridged(sums[own][0], sums[own][1], ridge * len(halves[own]))
                left += sum(_left(part, change) for part in halves[other])
            found.append((left, ridge))
        _, ridge = min(found)
        gram, moment = sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]
        return _ridged(gram, moment, ridge * len(data.points)) * size, ridge

    def _normal(
        self, layer: AbstractNetwork, data: Blocks, number: int, size: Array
    ) -> tuple[Array, Array, Array]:
        """Return ΦᵀΦ, Φᵀr and rᵀr of a block, r what the model in use leaves over, scaled."""
        points, target = data.points[number], data.targets[number]
        images = [(points, target)]
        if self.settings.mirror:
            images.append((points * signs(layer.settings), -target))
        gram, moment, square = np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1))
        for z, goal in images:
            columns = data.kernel @ layer.columns(z)
            rest = (goal - data.kernel @ layer.answers(z)) / size
            gram, moment = gram + columns.T @ columns, moment + columns.T @ rest
            square = square + rest.T @ rest
        count = target.size * len(images)
        return gram / count, moment / count, square / count

    def _error(self, model: AbstractNetwork, data: Blocks, size: Array) -> float:
        """Return the rms of what a model leaves over of filtered accelerations, relative."""
        rest = [
            (data.kernel @ model.answers(z) - target) / size
            for z, target in zip(data.points, data.targets, strict=True)
        ]
        return float(np.sqrt(np.mean(np.square(rest))))

    def _judged(
        self,
        model: AbstractLearnedDynamics,
        candidate: AbstractLearnedDynamics,
        errors: list[float],
    ) -> Rejection:
        rest, still = np.zeros(model.nx), np.zeros(model.nu)
        slopes = [
            np.concatenate([found.by_state, found.by_input], axis=1)
            for found in (m.linearise(rest, still) for m in (model, candidate))
        ]
        if not (np.isfinite(errors).all() and np.isfinite(slopes[1]).all()):
            return Rejection.NOT_FINITE
        if errors[1] > self.settings.ratio * errors[0]:
            return Rejection.NO_BETTER
        # A gain of the input that changed its sign is no better model of the same machine.
        far = np.abs(slopes[1] - slopes[0]).max(axis=1)
        if (far > self.settings.slopes * np.abs(slopes[0]).max(axis=1)).any():
            return Rejection.SLOPES
        return Rejection.NONE


def _ridged(gram: Array, moment: Array, ridge: float) -> Array:
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), moment), dtype=float)


def _left(block: tuple[Array, Array, Array], change: Array) -> float:
    """Return the squares that a change leaves over of a block."""
    gram, moment, square = block
    return float(np.trace(square - 2 * change.T @ moment + change.T @ gram @ change))
