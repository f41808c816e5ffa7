"""Training a gyro classifier with an emulator in the loop.

Forward on the instrument, backward through the model: the loss is that of what was measured,
its slope goes back through the model's own motion under the same signals, or along the
measured one (physics-aware training, Wright et al., Nature 601, 549 (2022)). The model need
not know what each coefficient really is: the readout learns on what the instrument gives,
and the physics moves where the model says that this loss falls. A mini-batch is one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError, RunError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.models.gyro_classifier import GyroClassifier, load
from hil.tasks.sequences import AbstractSequenceTask
from hil.training.emulated import EmulatedClassifier, Measured
from hil.training.gyro import GyroTraining, GyroTrainingSettings, GyroTrainingState, cross_entropy
from hil.types import Array, IntArray

STREAM_EPOCH = 221  # of the random numbers of a seed

Rate = Annotated[float, Meta(ge=0, le=1)]


class GyroInSituSettings(Settings, frozen=True, kw_only=True):
    """The classifier to begin with, and how it is trained further."""

    model: Annotated[str, Meta(description="file that `hil train` stored")]
    epochs: Annotated[int, Meta(ge=0, le=10_000, description="0: evaluate only")] = 0
    calibrate: Annotated[
        bool, Meta(description="measure every coefficient first, and set what makes up for it")
    ] = False
    batch: Annotated[int, Meta(ge=1, le=4096, description="strokes per step: one run")] = 32
    rate: Annotated[Rate, Meta(description="of the decoder")] = 1e-3
    encoder_rate: Annotated[Rate, Meta(description="of the encoder")] = 1e-3
    physics_rate: Annotated[Rate, Meta(description="0 leaves the coefficients")] = 1e-3
    warm_up: Annotated[int, Meta(ge=0, description="steps over which the rates rise")] = 20
    clip: Annotated[float, Meta(gt=0, description="longest gradient, 1")] = 1.0
    along: Annotated[
        Literal["model", "measured"],
        Meta(description="motion the slope is taken along; measured: rig.recorded = []"),
    ] = "model"


@dataclass(frozen=True)
class BatchMeasured:
    """One run of the instrument, and what came of it."""

    epoch: int  # from 1; 0 outside training
    samples: IntArray  # (cases,), indices into the task
    measured: Measured
    predicted: IntArray  # (cases,), classes
    losses: Array  # (cases,)
    right: int
    applied: Array  # (size,), coefficients it ran with
    state: GyroTrainingState | None = None  # after the step, in training


class GyroInSituTraining:
    """Trains a stored classifier further on an emulator; epochs are functions of the seed.

    What the instrument adds, its noise, is its own. Raises ConfigError for a file that is
    no classifier.
    """

    Settings: ClassVar[type[GyroInSituSettings]] = GyroInSituSettings

    def __init__(self, settings: GyroInSituSettings, *, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self.stored = load(settings.model)
        self.training = GyroTraining(
            GyroTrainingSettings(
                network=self.stored.settings,
                epochs=max(settings.epochs, 1),
                batch=settings.batch,
                rate=max(settings.rate, 1e-12),
                encoder_rate=settings.encoder_rate,
                physics_rate=settings.physics_rate,
                warm_up=settings.warm_up,
                clip=settings.clip,
                coupled=bool(np.any(self.stored.weights.stiffness)),
            ),
            seed=seed,
        )

    def start(self) -> GyroTrainingState:
        """Return the state of the stored classifier."""
        return self.training.start_from(self.stored)

    def model(self, state: GyroTrainingState | None) -> GyroClassifier:
        """Return the classifier of a state; of none, the stored one as it is."""
        return self.stored if state is None else self.training.model(state)

    def epoch(
        self, machine: EmulatedClassifier, task: AbstractSequenceTask, state: GyroTrainingState
    ) -> Iterator[BatchMeasured]:
        """Take every training sample once, a run per mini-batch.

        Raises ConfigError where task and network do not fit, RunError when every case of a
        mini-batch left the machine's range, and what the rig raises.
        """
        s, training = self.settings, self.training
        training.check(task)
        whole = s.along == "measured"
        if whole and not machine.records_everyone:
            raise ConfigError('training.along: "measured" needs rig.recorded = []')
        number = state.epoch + 1
        random = np.random.default_rng([self.seed, STREAM_EPOCH, number])
        order = random.permutation(task.train)
        total = s.epochs * -(-len(order) // s.batch)
        network = training.settings.network
        runner = GyroAdjoint(training.network, network.dt, inputs=training.inputs)
        for first in range(0, len(order), s.batch):
            some = order[first : first + s.batch]
            signals, labels = task.signals(some, random), task.labels(some)
            model = training.model(state)
            applied = machine.program(model)
            measured = machine.measure(model, signals, whole)
            good = measured.trusted
            if not good.any():
                raise RunError(
                    f"training: every case of run {measured.run} overloaded the machine; widen "
                    "rig.position_max and rig.velocity_max"
                )
            motion = measured.last if measured.states is None else measured.states
            _, _, gradient, _ = training.gradient(
                model, runner, signals[good], labels[good], motion[good]
            )
            state = training.step(state, gradient, total)
            if first + s.batch >= len(order):
                state = msgspec.structs.replace(state, epoch=number)
            yield _batch(machine, model, task, some, measured, number, applied, state)

    def evaluate(
        self,
        machine: EmulatedClassifier,
        model: GyroClassifier,
        task: AbstractSequenceTask,
        part: IntArray,
    ) -> Iterator[BatchMeasured]:
        """Set a classifier and run a part of the data as it is, as many at once as fit."""
        self.training.check(task)
        applied = machine.program(model)
        at_once = machine.info.cases_at_once(task.steps, task.steps)
        for first in range(0, len(part), at_once):
            some = part[first : first + at_once]
            measured = machine.measure(model, task.signals(some))
            yield _batch(machine, model, task, some, measured, 0, applied, None)


@dataclass(frozen=True)
class Evaluation:
    """What a part of the data gave on the instrument."""

    accuracy: float
    loss: float
    per_class: dict[str, float]  # accuracy of each class that occurs
    strokes: int
    overloaded: int  # of them, left the machine's range; they count as they came
    predicted_s: float  # on the machine, known before the runs
    took_s: float  # by the machine's own clock


def summed(batches: list[BatchMeasured], task: AbstractSequenceTask) -> Evaluation:
    """Return what all batches of a part gave together."""
    found = np.concatenate([b.predicted for b in batches])
    labels = task.labels(np.concatenate([b.samples for b in batches]))
    right = found == labels
    return Evaluation(
        accuracy=float(right.mean()),
        loss=float(np.concatenate([b.losses for b in batches]).mean()),
        per_class={
            name: float(right[labels == k].mean())
            for k, name in enumerate(task.classes)
            if (labels == k).any()
        },
        strokes=len(found),
        overloaded=int(sum((~b.measured.trusted).sum() for b in batches)),
        predicted_s=sum(b.measured.predicted for b in batches),
        took_s=sum(b.measured.took for b in batches),
    )


def _batch(
    machine: EmulatedClassifier, model: GyroClassifier, task: AbstractSequenceTask,
    some: IntArray, measured: Measured, epoch: int, applied: Array,
    state: GyroTrainingState | None,
) -> BatchMeasured:  # fmt: skip
    scores = model.scores(machine.features(model, measured))
    losses, _ = cross_entropy(scores, task.labels(some))
    predicted = np.asarray(scores.argmax(1), dtype=np.int64)
    right = int((predicted == task.labels(some)).sum())
    return BatchMeasured(epoch, some, measured, predicted, losses, right, applied, state)
