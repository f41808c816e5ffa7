"""The contract of a task on a moving system: signals go in, one class per signal comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from hil.types import Array, IntArray


class AbstractSequenceTask(ABC):
    """A task learned from signals over time: `Task(settings, seed=…)`.

    A batch is an array of indices into the task's samples. `train`, `validation` and `test`
    are such arrays and share none: settings are chosen on `validation`, `test` is quoted.
    It draws nothing after it was made but from the generator it is given.
    """

    @property
    @abstractmethod
    def train(self) -> IntArray:
        """The samples that are learned from: (n_train,)."""

    @property
    @abstractmethod
    def validation(self) -> IntArray:
        """The samples that settings are chosen on: (n_validation,); may be empty."""

    @property
    @abstractmethod
    def test(self) -> IntArray:
        """The samples that are quoted: (n_test,)."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Numbers per step of a signal."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of a signal."""

    @abstractmethod
    def labels(self, batch: IntArray) -> IntArray:
        """Return the right class of each sample: (batch,)."""

    @abstractmethod
    def signals(self, batch: IntArray, random: np.random.Generator | None = None) -> Array:
        """Return the signals, (batch, steps, channels), 1, about −1 to 1.

        random: draws a new variation of each, to learn from; None: as they are.
        """
