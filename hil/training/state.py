"""Everything a training run has to remember between two steps, and how it is kept in JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from hil.errors import InputError
from hil.training.adam import AdamState
from hil.types import Array


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far measured gradients agree with their references, over any number of pairs.

    Only sums are kept, so that agreements can be pooled and a resumed run ends with the
    figures of the run that was never interrupted.
    """

    pairs: int = 0
    product: float = 0.0  # Σ measured·expected, (m/N)²
    measured: float = 0.0  # Σ measured², (m/N)²
    expected: float = 0.0  # Σ expected², (m/N)²
    difference: float = 0.0  # Σ (measured − expected)², (m/N)²

    def add(self, measured: Array, expected: Array) -> Agreement:
        """Return the agreement with these pairs pooled in; both (n,), m/N."""
        error = measured - expected
        return Agreement(
            self.pairs + len(measured),
            self.product + float(measured @ expected),
            self.measured + float(measured @ measured),
            self.expected + float(expected @ expected),
            self.difference + float(error @ error),
        )

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between measured and expected; None without pairs."""
        lengths = math.sqrt(self.measured) * math.sqrt(self.expected)
        return self.product / lengths if lengths > 0 else None

    @property
    def relative_error(self) -> float | None:
        """|measured − expected| / |expected|, L2; None without pairs."""
        return math.sqrt(self.difference / self.expected) if self.expected > 0 else None


class StateRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A TrainingState as it stands in a file; JSON keeps every float64 bit for bit."""

    epoch: int
    step: int
    variable: list[float]
    adam_first: list[float]
    adam_second: list[float]
    adam_steps: int
    applied: list[float]  # N/m
    cost: float
    measurements: int
    device_us: int
    model: Agreement
    differences: Agreement


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands: with settings, task and seed, all that decides what follows."""

    epoch: int  # under way, from 0
    step: int  # next one inside the epoch, from 0
    variable: Array  # (bonds,), of the bounded stiffness
    adam: AdamState
    applied: Array  # (bonds,), what the rig is set to, N/m
    cost: float  # sum of the mini-batch losses of the epoch under way
    measurements: int  # load cases the rig has measured
    device_us: int  # device time of the newest sample, us
    model: Agreement  # in-situ gradient against the model's
    differences: Agreement  # in-situ gradient against differences measured on the rig

    def to_record(self) -> StateRecord:
        """Return what to write to a file."""
        return StateRecord(
            epoch=self.epoch,
            step=self.step,
            variable=self.variable.tolist(),
            adam_first=self.adam.first.tolist(),
            adam_second=self.adam.second.tolist(),
            adam_steps=self.adam.steps,
            applied=self.applied.tolist(),
            cost=self.cost,
            measurements=self.measurements,
            device_us=self.device_us,
            model=self.model,
            differences=self.differences,
        )

    @classmethod
    def from_record(cls, record: StateRecord) -> TrainingState:
        """Return the state a record holds, bit for bit.

        Raises InputError when its arrays do not belong to one network.
        """
        lists = (record.variable, record.adam_first, record.adam_second, record.applied)
        if len({len(values) for values in lists}) != 1:
            raise InputError(
                "training state: its arrays have different lengths "
                f"{[len(values) for values in lists]}; the checkpoint is damaged, take another"
            )
        variable, first, second, applied = (np.array(v, dtype=np.float64) for v in lists)
        return cls(
            epoch=record.epoch,
            step=record.step,
            variable=variable,
            adam=AdamState(first, second, record.adam_steps),
            applied=applied,
            cost=record.cost,
            measurements=record.measurements,
            device_us=record.device_us,
            model=record.model,
            differences=record.differences,
        )
