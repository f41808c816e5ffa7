"""Training without a rig: a task and a model put together, and what that leaves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from hil.config import Config, build
from hil.errors import ConfigError, InputError
from hil.models.gyro_classifier import GyroClassifier
from hil.models.store import save
from hil.recording.run import CHECKPOINT, RESULTS, Run
from hil.services import gyro_pictures
from hil.services.progress import TrainingProgress
from hil.tasks.sequences import AbstractSequenceTask
from hil.training.gyro import GyroTraining, GyroTrainingState

Say = Callable[[str], None]
CURVE = "learning.json"


class EpochRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the learning curve."""

    epoch: int
    loss: float  # of the mini-batches, each before its step
    train_accuracy: float  # of the same, on varied signals
    validation_accuracy: float | None
    validation_loss: float | None


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a killed run needs to go on."""

    state: GyroTrainingState
    curve: list[EpochRecord]
    cpu_seconds: float


class Outcome(msgspec.Struct, frozen=True):
    """What a run ended with: the JSON line of `hil train` without a rig."""

    test_accuracy: float  # after the last epoch
    test_loss: float
    validation_accuracy: float | None
    train_accuracy: float  # of the last epoch, on varied signals
    loss: float
    epochs: int
    parameters: int
    largest_reach: float  # |q|/L over the test signals; a rod ends at 0.98
    cpu_seconds: float
    seconds: float  # of this process
    seed: int
    preset: str
    model: str
    run: str
    plots: list[str]


def train(config: Config, runs: Path, say: Say) -> Outcome:
    """Train a model as a configuration says, in a new run directory; raises ConfigError."""
    task, training = _parts(config)
    run = Run.create(runs, config.name, datetime.now())
    run.write_config(config)
    say(f"run {run.path}")
    try:
        return _learn(config, task, training, run, None, say)
    except InputError:
        if not (run.path / CHECKPOINT).exists():  # refused before anything was learned
            shutil.rmtree(run.path)
        raise


def resume(path: Path, say: Say) -> Outcome:
    """Go on with a run after its last whole epoch; raises InputError without a checkpoint."""
    run = Run.open(path)
    config = run.read_config()
    checkpoint = run.read_json(CHECKPOINT, Checkpoint)
    say(f"run {run.path}, going on after epoch {checkpoint.state.epoch}")
    task, training = _parts(config)
    return _learn(config, task, training, run, checkpoint, say)


def describe(config: Config) -> dict[str, str]:
    """Return what a configuration without a rig trains, part by part; raises ConfigError."""
    task, training = _parts(config)
    network = training.network
    return {
        "task": f"{len(task.train)} to train, {len(task.validation)} to validate, "
        f"{len(task.test)} to test",
        "training": f"{network.n} gyroscopes, {network.spring_count} springs, "
        f"{training.variables} variables, {training.settings.epochs} epochs",
    }


def _parts(config: Config) -> tuple[AbstractSequenceTask, GyroTraining]:
    for name in ("task", "training"):
        if getattr(config, name) is None:
            raise ConfigError(f"{name}: missing; `hil train` needs a [task] and a [training]")
    assert config.task is not None
    assert config.training is not None
    training = build(config.training, "training", seed=config.seed)
    if not isinstance(training, GyroTraining):
        raise ConfigError(
            f"training.kind: {config.training['kind']!r} trains a rig, and there is no [rig]"
        )
    task = build(config.task, "task", seed=config.seed)
    if not isinstance(task, AbstractSequenceTask):
        raise ConfigError(f"task.kind: {config.task['kind']!r} has no signals to learn from")
    return task, training


def _learn(
    config: Config, task: AbstractSequenceTask, training: GyroTraining, run: Run,
    checkpoint: Checkpoint | None, say: Say,
) -> Outcome:  # fmt: skip
    state = checkpoint.state if checkpoint else None
    curve = list(checkpoint.curve) if checkpoint else []
    spent = checkpoint.cpu_seconds if checkpoint else 0.0
    begun, cpu = time.monotonic(), time.process_time() - spent
    epochs = training.settings.epochs
    with TrainingProgress(epochs, say) as progress:
        try:
            for done in training.run(task, state):
                state, score = done.state, done.validation
                found = (score.accuracy, score.loss) if score else (None, None)
                curve.append(EpochRecord(done.epoch, done.loss, done.accuracy, *found))
                seconds = time.process_time() - cpu
                run.write_json(CHECKPOINT, Checkpoint(state, curve, seconds))
                validated = f" validation {score.accuracy:.4f}" if score else ""
                progress.advance(
                    done.epoch,
                    f"loss {done.loss:.4f}, accuracy train {done.accuracy:.4f}{validated}",
                )
        except KeyboardInterrupt:
            say(f"interrupted; go on with: hil train --resume {run.path}")
            raise
    assert state is not None
    model = training.model(state)
    run.write_json(CURVE, curve)
    test, last = training.evaluate(model, task, task.test), curve[-1]
    stored = save(model, run.path, {
        "training": msgspec.to_builtins(training.settings), "seed": config.seed,
        "task": config.task, "test_accuracy": test.accuracy,
    })  # fmt: skip
    outcome = Outcome(
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        validation_accuracy=last.validation_accuracy,
        train_accuracy=last.train_accuracy,
        loss=last.loss,
        epochs=state.epoch,
        parameters=len(state.variable),
        largest_reach=model.largest_reach(task.signals(task.test)),
        cpu_seconds=round(time.process_time() - cpu, 3),
        seconds=round(time.monotonic() - begun, 3),
        seed=config.seed,
        preset=config.preset,
        model=str(stored),
        run=str(run.path),
        plots=[str(path) for path in _draw(run, curve, model, task)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def redraw(path: Path) -> list[Path]:
    """Draw the pictures of a run again, from its last checkpoint; raises InputError."""
    run = Run.open(path)
    checkpoint = run.read_json(CHECKPOINT, Checkpoint)
    task, training = _parts(run.read_config())
    return _draw(run, checkpoint.curve, training.model(checkpoint.state), task)


def _draw(
    run: Run, curve: list[EpochRecord], model: GyroClassifier, task: AbstractSequenceTask
) -> list[Path]:
    epochs = [
        (one.loss, one.train_accuracy, one.validation_accuracy, one.validation_loss)
        for one in curve
    ]
    return gyro_pictures.draw(run, epochs, model, task)


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    validated = outcome.validation_accuracy
    between = "" if validated is None else f", validation {validated:.4f}"
    return "\n".join(
        [
            f"accuracy   test {outcome.test_accuracy:.4f}{between} after {outcome.epochs} epochs",
            f"           train {outcome.train_accuracy:.4f}, on varied signals, in the last epoch",
            f"physics    {outcome.parameters} parameters, |q|/L up to {outcome.largest_reach:.2f}",
            f"work       {outcome.cpu_seconds:.1f} s CPU in {outcome.seconds:.1f} s",
            f"model      {outcome.model}",
            f"run        {outcome.run}",
            *(f"           {path}" for path in outcome.plots),
        ]
    )
