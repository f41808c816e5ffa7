"""What a training run tells whoever records it, shows it or takes it up again."""

from __future__ import annotations

from dataclasses import dataclass, field

from hil.rigs.base import MeasuredEquilibrium
from hil.training.gradient_check import GradientCheck
from hil.training.gradients.base import EquilibriumLike
from hil.training.state import TrainingState
from hil.types import Array, IntArray


@dataclass(frozen=True)
class Evaluation:
    """What all samples of one part of the data gave, measured on the rig."""

    loss: float
    accuracy: float
    predicted: IntArray  # (n,)
    actual: IntArray  # (n,)
    strain: float = 0.0  # largest |elongation| over rest length of all bonds and samples
    figures: dict[str, float] = field(default_factory=dict)  # the task's own


@dataclass(frozen=True)
class Started:
    """The rig is set to where the run starts, or goes on."""

    state: TrainingState
    found: Array  # (bonds,), stiffness read back before anything was set, N/m
    matched: bool  # whether that was what the state says; a fresh start has none to match


@dataclass(frozen=True)
class StepDone:
    """One mini-batch was learned."""

    epoch: int  # from 1
    step: int  # from 1
    batch: IntArray  # samples
    loss: float  # of the mini-batch, before the step
    correct: int  # sum of scores before the step; of classes, the number of right ones
    gradient: Array  # (bonds,), ∂L/∂k as measured, m/N
    forward: MeasuredEquilibrium
    adjoint: EquilibriumLike | None  # answer to the adjoint loads, where there were any
    measured: tuple[MeasuredEquilibrium, ...]  # everything, in order
    jumps: int  # samples left out because the network left its branch
    applied: Array  # (bonds,), after the step, N/m
    state: TrainingState


@dataclass(frozen=True)
class EpochDone:
    """All training samples were taken once."""

    epoch: int  # from 1
    loss: float  # mean over the mini-batches, each before its step
    train: Evaluation | None  # where evaluated, after the last step
    test: Evaluation | None
    checks: tuple[GradientCheck, ...]
    state: TrainingState


Event = Started | StepDone | EpochDone
