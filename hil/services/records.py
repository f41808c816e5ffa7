"""What a training run records: one Struct per channel of its recording."""

from __future__ import annotations

import msgspec


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One mini-batch: what was asked, measured, learned and applied."""

    seq: int
    t_ns: int
    epoch: int
    step: int
    samples: list[int]  # indices into the data set
    loss: float
    correct: int
    forward_displacement: list[list[float]]  # (batch, dof), m
    forward_elongation: list[list[float]]  # (batch, bonds), m
    adjoint_displacement: list[list[float]]  # (batch, dof), m
    adjoint_elongation: list[list[float]]  # (batch, bonds), m
    gradient: list[float]  # (bonds,), of the loss with respect to stiffness, m/N
    stiffness: list[float]  # (bonds,), as applied after the step, N/m
    settled: bool
    twin_residual: float | None  # of the adjoint batch, relative


class EpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the training set and the test set gave, measured on the rig."""

    seq: int
    t_ns: int
    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    predicted: list[int]  # class of every test sample
    actual: list[int]


class GradientRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An in-situ gradient beside its reference."""

    seq: int
    t_ns: int
    epoch: int
    reference: str  # "model" or "differences"
    bonds: list[int]  # 0-based
    measured: list[float]  # m/N
    expected: list[float]  # m/N


CHANNELS: dict[str, type[msgspec.Struct]] = {
    "step": StepRecord,
    "epoch": EpochRecord,
    "gradient": GradientRecord,
}
