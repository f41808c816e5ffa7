"""Pen strokes: points on paper that become signals over time, and digits nobody wrote.

A stroke is POINTS points (x, y) evenly spaced along the pen's path; x and y each run from 0
to 100, whatever the shape was: the form of PenDigits (`hil.tasks.pendigits`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.tasks.base import STREAM_SPLIT
from hil.tasks.sequences import AbstractSequenceTask
from hil.types import Array, IntArray

POINTS = 8
SPAN = 100.0  # of a coordinate
STREAM_STROKES = 111  # of the random numbers of a seed
DIGITS = tuple("0123456789")


class StrokeSettings(Settings, frozen=True, kw_only=True):
    """How strokes become signals, and which are kept back."""

    steps: Annotated[int, Meta(ge=2, le=10_000, description="of a signal")] = 100
    jitter: Annotated[
        float, Meta(ge=0, le=1, description="spread of the affine variation, 1; 0 switches it off")
    ] = 0.15
    shake: Annotated[
        float, Meta(ge=0, le=1, description="spread of every point's own variation, half a box")
    ] = 0.0
    validation: Annotated[
        float, Meta(ge=0, lt=0.9, description="part of the training samples kept back, 1")
    ] = 0.0


class AbstractStrokes(AbstractSequenceTask):
    """What tasks on strokes have in common; a leaf gives strokes and labels."""

    @property
    @abstractmethod
    def settings(self) -> StrokeSettings:
        """How strokes become signals."""

    @property
    @abstractmethod
    def strokes(self) -> Array:
        """Every stroke: (n, POINTS, 2), 0 to 100."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The ten digits."""
        return DIGITS

    @property
    def channels(self) -> int:
        """Two: x and y."""
        return 2

    @property
    def steps(self) -> int:
        """Steps of a signal."""
        return self.settings.steps

    def signals(self, batch: IntArray, random: np.random.Generator | None = None) -> Array:
        """Return the strokes as signals over time, (batch, steps, 2), −1 to 1."""
        return resample(self.points(batch, random), self.settings.steps)

    def points(self, batch: IntArray, random: np.random.Generator | None = None) -> Array:
        """Return the points themselves, (batch, POINTS, 2), −1 to 1: what a baseline may see."""
        points = self.strokes[batch] / (SPAN / 2) - 1.0
        if random is not None and (self.settings.jitter > 0 or self.settings.shake > 0):
            points = vary(points, self.settings, random)
        return points


def resample(points: Array, steps: int) -> Array:
    """Return points (n, p, 2) as signals (n, steps, 2): linear in between, ends kept."""
    at = np.linspace(0.0, points.shape[1] - 1.0, steps)
    before = np.minimum(at.astype(np.int64), points.shape[1] - 2)
    part = (at - before)[:, None]
    return np.asarray((1.0 - part) * points[:, before] + part * points[:, before + 1])


def vary(points: Array, settings: StrokeSettings, random: np.random.Generator) -> Array:
    """Return every stroke as another hand might have written it, same shape, −1 to 1.

    x ↦ (1 + A) x with the entries of A normal with deviation `jitter`; every point moved by
    `shake`; then the box is filled again, as it is in the data.
    """
    count = len(points)
    turn = np.eye(2) + settings.jitter * random.standard_normal((count, 2, 2))
    moved = points @ turn.transpose(0, 2, 1)
    if settings.shake > 0:
        moved = moved + settings.shake * random.standard_normal(points.shape)
    return 2.0 * fill(moved) - 1.0


def fill(strokes: Array) -> Array:
    """Return strokes (n, p, 2) moved and stretched so that x and y each run from 0 to 1."""
    low, high = strokes.min(1, keepdims=True), strokes.max(1, keepdims=True)
    return np.asarray((strokes - low) / np.maximum(high - low, 1e-9))


def even_split(labels: IntArray, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Return (kept, held back), `share` of every class held back; a function of the seed."""
    random = np.random.default_rng([seed, STREAM_SPLIT])
    held = [
        random.permutation(np.flatnonzero(labels == label))[
            : round(share * (labels == label).sum())
        ]
        for label in np.unique(labels)
    ]
    back = np.sort(np.concatenate(held)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels)), back).astype(np.int64), back


# Paths of a pen that writes each digit in one go; x to the right, y up, in a box of 1 × 1.
PATHS: tuple[tuple[tuple[float, float], ...], ...] = (
    ((.6, 1.0), (.2, .8), (.1, .4), (.3, .0), (.7, .1), (.9, .5), (.8, .9), (.5, 1.0)),
    ((.2, .7), (.5, 1.0), (.5, .5), (.5, .0)),
    ((.1, .8), (.4, 1.0), (.8, .8), (.6, .4), (.1, .0), (.5, .05), (1.0, .0)),
    ((.1, .9), (.5, 1.0), (.8, .8), (.4, .55), (.9, .3), (.6, .0), (.1, .1)),
    ((.5, 1.0), (.1, .4), (.5, .4), (.9, .45), (.7, .8), (.7, .4), (.65, .0)),
    ((.9, 1.0), (.3, 1.0), (.2, .6), (.6, .65), (.8, .3), (.5, .0), (.1, .1)),
    ((.7, 1.0), (.3, .7), (.1, .3), (.4, .0), (.8, .2), (.6, .5), (.2, .3)),
    ((.1, 1.0), (.5, 1.0), (.9, 1.0), (.6, .5), (.4, .0)),
    ((.8, .9), (.4, 1.0), (.3, .7), (.7, .3), (.5, .0), (.2, .2), (.6, .6), (.8, .9)),
    ((.8, .8), (.4, 1.0), (.2, .7), (.6, .6), (.8, .9), (.7, .4), (.6, .0)),
)  # fmt: skip


def write_digits(labels: IntArray, random: np.random.Generator) -> Array:
    """Return strokes of these digits, (n, POINTS, 2), 0 to 100, as a shaky hand writes them.

    Every point of a path is moved, the path turned and sheared, its points spread evenly
    along it and the box filled: synthetic, made for tests and demonstrations.
    """
    strokes = np.empty((len(labels), POINTS, 2))
    for stroke, label in zip(strokes, labels, strict=True):
        path = np.array(PATHS[label])
        path = path + 0.04 * random.standard_normal(path.shape)
        path = path @ (np.eye(2) + 0.12 * random.standard_normal((2, 2))).T
        length = np.concatenate(([0.0], np.cumsum(np.sqrt((np.diff(path, axis=0) ** 2).sum(1)))))
        even = np.linspace(0.0, length[-1], POINTS)
        for axis in range(2):
            stroke[:, axis] = np.interp(even, length, path[:, axis])
    return np.rint(SPAN * fill(strokes))


class SyntheticStrokeSettings(StrokeSettings, frozen=True, kw_only=True):
    """How many digits are written."""

    n_train: Annotated[int, Meta(ge=20, le=1_000_000)] = 1000
    n_test: Annotated[int, Meta(ge=10, le=1_000_000)] = 500


class SyntheticStrokes(AbstractStrokes):
    """Digits from a generator: needs no data and no download."""

    Settings: ClassVar[type[SyntheticStrokeSettings]] = SyntheticStrokeSettings

    def __init__(self, settings: SyntheticStrokeSettings, *, seed: int = 0) -> None:
        self._settings = settings
        random = np.random.default_rng([seed, STREAM_STROKES])
        count = settings.n_train + settings.n_test
        self._labels = random.permutation(np.arange(count) % len(DIGITS)).astype(np.int64)
        self._strokes = write_digits(self._labels, random)
        self._test = np.arange(settings.n_train, count, dtype=np.int64)
        known = self._labels[: settings.n_train]
        self._train, self._validation = even_split(known, settings.validation, seed)

    @property
    def settings(self) -> SyntheticStrokeSettings:
        """How many there are, and how they become signals."""
        return self._settings

    @property
    def strokes(self) -> Array:
        """Every stroke."""
        return self._strokes

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self._train

    @property
    def validation(self) -> IntArray:
        """The samples that settings are chosen on."""
        return self._validation

    @property
    def test(self) -> IntArray:
        """The samples that are quoted."""
        return self._test

    def labels(self, batch: IntArray) -> IntArray:
        """Return the digit of each sample."""
        return self._labels[batch]


def checked_strokes(strokes: Array, where: str) -> Array:
    """Return strokes (n, POINTS, 2); raises ConfigError for values outside 0 to 100."""
    if not ((strokes >= 0) & (strokes <= SPAN)).all():
        raise ConfigError(f"{where}: coordinates from {strokes.min()} to {strokes.max()}; 0 to 100")
    return strokes
