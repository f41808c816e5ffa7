"""What a training run records, and reading it back from all its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from hil.errors import InputError
from hil.recording.reader import read_as
from hil.recording.run import Run
from hil.recording.writer import Recorder
from hil.training.events import EpochDone, Evaluation, Event, Started, StepDone
from hil.training.gradients.base import EquilibriumLike


class StartRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rig stood before the first step of a process."""

    seq: int
    t_ns: int
    epoch: int
    step: int
    found: list[float]  # (bonds,), read back before anything was set, N/m
    stiffness: list[float]  # (bonds,), as set, N/m


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One mini-batch: what was asked, measured, learned and applied."""

    seq: int
    t_ns: int
    epoch: int  # from 1
    step: int  # from 1
    samples: list[int]  # indices into the data set
    loss: float
    correct: int
    forward_displacement: list[list[float]]  # (batch, dof), m
    forward_elongation: list[list[float]]  # (batch, bonds), m
    adjoint_displacement: list[list[float]]  # (batch, dof), m; empty where none was applied
    adjoint_elongation: list[list[float]]  # (batch, bonds), m
    gradient: list[float]  # (bonds,), of the mean loss with respect to stiffness, m/N
    stiffness: list[float]  # (bonds,), as applied after the step, N/m
    settled: bool
    twin_residual: float | None  # measured − predicted elongation, relative rms
    jumps: int = 0  # samples left out because the network left its branch


class EpochRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training samples."""

    seq: int
    t_ns: int
    epoch: int  # from 1
    loss: float  # mean over the mini-batches, each before its step


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What all training and test samples gave, measured on the rig."""

    seq: int
    t_ns: int
    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    predicted: list[int]  # class of every test sample
    actual: list[int]
    strain: float = 0.0  # largest |elongation| over rest length of all bonds and samples
    train_figures: dict[str, float] = {}  # the task's own
    test_figures: dict[str, float] = {}


class GradientRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An in-situ gradient beside its reference."""

    seq: int
    t_ns: int
    epoch: int
    reference: str  # "model" or "differences"
    bonds: list[int]  # from 0
    measured: list[float]  # m/N
    expected: list[float]  # m/N


CHANNELS: dict[str, type[msgspec.Struct]] = {
    "start": StartRecord,
    "step": StepRecord,
    "epoch": EpochRecord,
    "evaluation": EvaluationRecord,
    "gradient": GradientRecord,
}


class RunLog:
    """Turns what happens in a run into records.

    seq: number of the newest record.
    """

    def __init__(self, recorder: Recorder, seq: int) -> None:
        self.seq = seq
        self._recorder = recorder

    def write(self, event: Event, t_ns: int) -> None:
        """Record an event at `t_ns`."""
        if isinstance(event, Started):
            state = event.state
            self._put(
                "start", t_ns, epoch=state.epoch + 1, step=state.step + 1,
                found=event.found.tolist(), stiffness=state.applied.tolist(),
            )  # fmt: skip
        elif isinstance(event, StepDone):
            self._step(event, t_ns)
        else:
            self._epoch(event, t_ns)

    def _step(self, event: StepDone, t_ns: int) -> None:
        self._put(
            "step", t_ns, epoch=event.epoch, step=event.step,
            samples=event.batch.tolist(), loss=event.loss, correct=event.correct,
            forward_displacement=event.forward.displacement.tolist(),
            forward_elongation=event.forward.elongation.tolist(),
            adjoint_displacement=_rows(event.adjoint, "displacement"),
            adjoint_elongation=_rows(event.adjoint, "elongation"),
            gradient=event.gradient.tolist(), stiffness=event.applied.tolist(),
            settled=all(m.settled for m in event.measured),
            twin_residual=event.measured[-1].twin_residual, jumps=event.jumps,
        )  # fmt: skip

    def _epoch(self, event: EpochDone, t_ns: int) -> None:
        self._put("epoch", t_ns, epoch=event.epoch, loss=event.loss)
        if event.train is not None and event.test is not None:
            self._evaluation(event.epoch, event.train, event.test, t_ns)
        for check in event.checks:
            self._put(
                "gradient", t_ns, epoch=event.epoch, reference=check.reference,
                bonds=check.bonds.tolist(), measured=check.measured.tolist(),
                expected=check.expected.tolist(),
            )  # fmt: skip

    def _evaluation(self, epoch: int, train: Evaluation, test: Evaluation, t_ns: int) -> None:
        self._put(
            "evaluation", t_ns, epoch=epoch,
            train_loss=train.loss, train_accuracy=train.accuracy,
            test_loss=test.loss, test_accuracy=test.accuracy,
            predicted=test.predicted.tolist(), actual=test.actual.tolist(),
            strain=max(train.strain, test.strain),
            train_figures=train.figures, test_figures=test.figures,
        )  # fmt: skip

    def _put(self, topic: str, t_ns: int, **values: object) -> None:
        self.seq += 1
        self._recorder.write(topic, CHANNELS[topic](seq=self.seq, t_ns=t_ns, **values), t_ns)


def _rows(measured: EquilibriumLike | None, name: str) -> list[list[float]]:
    return [] if measured is None else getattr(measured, name).tolist()


@dataclass
class History:
    """A run as its recordings tell it; what a resumed process repeated counts once."""

    starts: list[StartRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    gradients: list[GradientRecord] = field(default_factory=list)


def read_history(run: Run) -> History:
    """Read all recordings of a run; a damaged end is left out.

    Raises InputError where nothing was recorded.
    """
    steps: dict[tuple[int, int], StepRecord] = {}
    epochs: dict[int, EpochRecord] = {}
    evaluations: dict[int, EvaluationRecord] = {}
    gradients: dict[tuple[int, str], GradientRecord] = {}
    starts: list[StartRecord] = []
    for part in run.parts():
        starts += [record for _, record in read_as(part, "start", StartRecord)]
        steps |= {(r.epoch, r.step): r for _, r in read_as(part, "step", StepRecord)}
        epochs |= {r.epoch: r for _, r in read_as(part, "epoch", EpochRecord)}
        evaluations |= {r.epoch: r for _, r in read_as(part, "evaluation", EvaluationRecord)}
        gradients |= {
            (r.epoch, r.reference): r for _, r in read_as(part, "gradient", GradientRecord)
        }
    if not starts:
        raise InputError(f"{run.path}: nothing was recorded; there is nothing to show")
    return History(
        starts,
        [steps[key] for key in sorted(steps)],
        [epochs[key] for key in sorted(epochs)],
        [evaluations[key] for key in sorted(evaluations)],
        [gradients[key] for key in sorted(gradients)],
    )
