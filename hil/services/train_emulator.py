"""A gyro classifier on an emulator: evaluated, calibrated, trained further in place."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hil.clock import make_clock
from hil.config import Config, build, dump, settings_of
from hil.errors import ConfigError, FaultError, InputError
from hil.mechanics.gyro_geometry import make_geometry
from hil.models.gyro_classifier import GyroClassifier
from hil.models.store import save
from hil.recording.run import CHECKPOINT, RESULTS, Run
from hil.recording.writer import Recorder, versions
from hil.rigs.base import RigState
from hil.rigs.emulator import EmulatorRig
from hil.rigs.emulator_base import EmulatorInfo
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.services import owner
from hil.services.emulator_records import CHANNELS, EmulatorLog
from hil.services.mirror import bus_address
from hil.services.progress import TrainingProgress
from hil.services.session import require_mirror
from hil.tasks.sequences import AbstractSequenceTask
from hil.training.emulated import EmulatedClassifier
from hil.training.gyro import GyroTrainingState
from hil.training.gyro_insitu import BatchMeasured, Evaluation, GyroInSituTraining, summed
from hil.types import IntArray

Say = Callable[[str], None]


class EpochRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the learning curve, measured on the instrument."""

    epoch: int
    loss: float  # of the mini-batches, each before its step, on varied signals
    train_accuracy: float  # of the same
    validation_accuracy: float | None
    validation_loss: float | None


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a killed run needs to go on after its last whole epoch."""

    state: GyroTrainingState
    factors: list[float]
    curve: list[EpochRecord]
    before: float  # test accuracy before the first epoch
    device_us: int
    records: int
    machine_s: float  # on the machine so far
    seconds: float  # of the host so far


class Outcome(msgspec.Struct, frozen=True):
    """What a run ended with: the JSON line of `hil train` on an emulator."""

    test_accuracy: float  # measured on the instrument, after the last epoch
    test_loss: float
    test_accuracy_before: float | None  # before training in the loop; None without
    model_accuracy: float  # of the stored model by itself: what the instrument is to reach
    validation_accuracy: float | None
    per_class: dict[str, float]
    strokes: int
    overloaded: int
    predicted_s: float  # of the test run on the machine, said before it
    took_s: float  # by the machine's clock
    machine_s: float  # all runs together, by the machine's clock
    time_scale: float
    epochs: int
    calibrated: bool
    calibration_residual: float | None
    mismatch_found: float | None  # root mean square of ln(effective/applied)
    clipped: int  # coefficients outside the rig's limits, set to the nearest
    seconds: float
    seed: int
    preset: str
    ideal: bool
    model: str
    run: str


def train(config: Config, runs: Path, say: Say) -> Outcome:
    """Run a classifier on an emulator as a configuration says, in a new run directory.

    Raises ConfigError before anything is touched, and what rig and mirror raise.
    """
    parts = _Parts(config)
    run = Run.create(runs, config.name, datetime.now())
    run.write_config(config)
    say(f"run {run.path}")
    try:
        return _session(config, parts, run, None, say)
    except InputError:
        if not (run.path / CHECKPOINT).exists():  # refused before anything was learned
            shutil.rmtree(run.path)
        raise


def resume(path: Path, say: Say) -> Outcome:
    """Go on with a run after its last whole epoch; raises InputError without a checkpoint.

    A simulated instrument counts its runs anew, so its noise is another one than it would
    have been.
    """
    run = Run.open(path)
    config = run.read_config()
    checkpoint = run.read_json(CHECKPOINT, Checkpoint)
    say(f"run {run.path}, going on after epoch {checkpoint.state.epoch}")
    return _session(config, _Parts(config), run, checkpoint, say)


class _Parts:
    """What a configuration describes, checked before an instrument is touched."""

    def __init__(self, config: Config) -> None:
        for name in ("task", "training"):
            if getattr(config, name) is None:
                raise ConfigError(f"{name}: missing; `hil train` needs a [task] and a [training]")
        assert config.task is not None
        assert config.training is not None
        kind, rig = settings_of(config.rig, "rig")
        if not issubclass(kind, EmulatorRig):
            raise ConfigError(f"rig.kind: {config.rig['kind']!r} cannot run a gyro classifier")
        training = build(config.training, "training", seed=config.seed)
        if not isinstance(training, GyroInSituTraining):
            raise ConfigError(
                f"training.kind: {config.training['kind']!r} does not train on an emulator"
            )
        task = build(config.task, "task", seed=config.seed)
        if not isinstance(task, AbstractSequenceTask):
            raise ConfigError(f"task.kind: {config.task['kind']!r} has no signals to learn from")
        self.training, self.task = training, task
        training.training.check(task)
        settings = training.stored.settings
        ours, wanted = make_geometry(rig.geometry), training.stored.network.geometry
        same = ours.springs.shape == wanted.springs.shape and all(
            np.array_equal(getattr(ours, name), getattr(wanted, name))
            for name in ("springs", "between", "lengths")
        )
        if not same:
            raise ConfigError("rig.geometry: not the network that the model was trained as")
        for name, found, expected in (
            ("gravity", rig.gravity, settings.gravity), ("drag", rig.drag, settings.drag),
            ("step", rig.step, settings.dt), ("driven", rig.driven, settings.inputs),
        ):  # fmt: skip
            if found != expected:
                raise ConfigError(f"rig.{name}: {found}, the model was trained with {expected}")


def _session(
    config: Config, parts: _Parts, run: Run, checkpoint: Checkpoint | None, say: Say
) -> Outcome:
    address, keys, _ = bus_address(config)
    with contextlib.ExitStack() as stack:
        if not require_mirror(config, address):
            say(f"no mirror serves {address.name}: starting one")
            job = owner.MirrorJob(config, checkpoint.device_us if checkpoint else 0)
            stack.enter_context(owner.ChildMirror(job, run.path / "mirror.log"))
        name = f"train-{os.getpid()}"
        rig = stack.enter_context(RemoteEmulatorRig(address, client=name, keys=keys))
        info = rig.configure()
        if rig.state is RigState.FAULT:
            raise FaultError(
                f"rig {info.name} is in fault ({rig.fault}); remove the cause, then "
                "`hil clear CONFIG`"
            )
        factors = np.array(checkpoint.factors) if checkpoint else None
        machine = EmulatedClassifier(rig, info, parts.training.stored, factors)
        rig.activate()
        recorder = stack.enter_context(Recorder(run.next_part(), CHANNELS, _metadata(config, info)))
        work = _Work(config, parts, run, machine, recorder, checkpoint, say)
        try:
            return work.do()
        except KeyboardInterrupt:
            if (run.path / CHECKPOINT).exists():
                say(f"interrupted; go on with: hil train --resume {run.path}")
            raise


class _Work:
    """One run on an instrument that is ready."""

    def __init__(
        self, config: Config, parts: _Parts, run: Run, machine: EmulatedClassifier,
        recorder: Recorder, checkpoint: Checkpoint | None, say: Say,
    ) -> None:  # fmt: skip
        self.config, self.run, self.machine, self.say = config, run, machine, say
        self.task, self.training = parts.task, parts.training
        self.checkpoint, self.recorder = checkpoint, recorder
        self.log = EmulatorLog(recorder, checkpoint.records if checkpoint else 0)
        self.clock = make_clock(config.clock)
        self.machine_s = checkpoint.machine_s if checkpoint else 0.0
        self.begun = time.monotonic() - (checkpoint.seconds if checkpoint else 0.0)
        self.device_us = 0
        self.residual: float | None = None

    def do(self) -> Outcome:
        """Calibrate, train, evaluate, as the settings say."""
        s, training, task, say = self.training.settings, self.training, self.task, self.say
        saved = self.checkpoint
        state = saved.state if saved else None
        if s.calibrate and saved is None:
            self._calibrate()
        curve = list(saved.curve) if saved else []
        before = saved.before if saved else None
        if s.epochs:
            state = state or training.start()
            if before is None:
                before = self._evaluate(training.stored, "test", task.test).accuracy
                say(f"accuracy on the instrument before training {before:.4f}")
            while state.epoch < s.epochs:
                state = self._epoch(state, curve, before)
        model = training.model(state)
        validation = curve[-1].validation_accuracy if curve else None
        found = self._evaluate(model, "test", task.test)
        alone = training.training.evaluate(training.stored, task, task.test)
        stored = Path(s.model)
        if s.epochs:
            stored = save(model, self.run.path, {
                "training": msgspec.to_builtins(s), "seed": self.config.seed,
                "task": self.config.task, "device_id": self.machine.info.device_id,
                "factors": self.machine.factors.tolist(), "test_accuracy": found.accuracy,
            })  # fmt: skip
        outcome = Outcome(
            test_accuracy=found.accuracy, test_loss=found.loss, test_accuracy_before=before,
            model_accuracy=alone.accuracy, validation_accuracy=validation,
            per_class=found.per_class, strokes=found.strokes, overloaded=found.overloaded,
            predicted_s=found.predicted_s, took_s=found.took_s, machine_s=self.machine_s,
            time_scale=self.machine.info.time_scale, epochs=state.epoch if state else 0,
            calibrated=s.calibrate, calibration_residual=self.residual,
            mismatch_found=self._mismatch() if s.calibrate else None,
            clipped=self.machine.clipped, seconds=round(time.monotonic() - self.begun, 3),
            seed=self.config.seed, preset=self.config.preset, ideal=self.config.ideal,
            model=str(stored), run=str(self.run.path),
        )  # fmt: skip
        self.recorder.close()
        self.run.write_json(RESULTS, outcome)
        return outcome

    def _calibrate(self) -> None:
        self.say("calibrating: known motions on every gyroscope")
        found = self.machine.calibrate(self.training.stored)
        self.residual = found.residual
        self.log.calibration(found, self.clock.now_ns())
        self.say(f"coefficients are off by {self._mismatch():.2%} (root mean square)")

    def _mismatch(self) -> float:
        return float(np.sqrt((np.log(np.abs(self.machine.factors)) ** 2).mean()))

    def _epoch(
        self, state: GyroTrainingState, curve: list[EpochRecord], before: float
    ) -> GyroTrainingState:
        s, task = self.training.settings, self.task
        number, count = state.epoch + 1, len(task.train)
        self._announce(f"epoch {number}/{s.epochs}", count)
        seen, right, loss = 0, 0, 0.0
        with TrainingProgress(count, self.say, f"epoch {number}/{s.epochs}, stroke") as progress:
            for done in self.training.epoch(self.machine, task, state):
                self._note("train", done)
                assert done.state is not None
                state, seen = done.state, seen + len(done.samples)
                right, loss = right + done.right, loss + float(done.losses.sum())
                figures = f"loss {loss / seen:.4f}, accuracy {right / seen:.4f}"
                progress.advance(seen, figures)
        score: Evaluation | None = None
        if len(task.validation):
            score = self._evaluate(self.training.model(state), "validation", task.validation)
            self.say(f"epoch {number}/{s.epochs}: validation {score.accuracy:.4f}")
        found = (score.accuracy, score.loss) if score else (None, None)
        curve.append(EpochRecord(number, loss / seen, right / seen, *found))
        self.recorder.flush()  # a checkpoint never knows more than the recording
        self.run.write_json(CHECKPOINT, Checkpoint(
            state, self.machine.factors.tolist(), curve, before, self.device_us, self.log.seq,
            self.machine_s, time.monotonic() - self.begun,
        ))  # fmt: skip
        return state

    def _evaluate(self, model: GyroClassifier, part: str, samples: IntArray) -> Evaluation:
        self._announce(part, len(samples))
        found: list[BatchMeasured] = []
        with TrainingProgress(len(samples), self.say, f"{part}, stroke") as progress:
            seen = right = 0
            for done in self._noted(part, model, samples):
                found.append(done)
                seen, right = seen + len(done.samples), right + done.right
                progress.advance(seen, f"accuracy {right / seen:.4f}")
        return summed(found, self.task)

    def _noted(
        self, part: str, model: GyroClassifier, samples: IntArray
    ) -> Iterator[BatchMeasured]:
        for done in self.training.evaluate(self.machine, model, self.task, samples):
            self._note(part, done)
            yield done

    def _note(self, part: str, done: BatchMeasured) -> None:
        self.machine_s += done.measured.took
        self.device_us = done.measured.device_us
        self.clock.observe(self.device_us)
        self.log.batch(part, done, self.clock.now_ns())

    def _announce(self, what: str, cases: int) -> None:
        """Say how long the machine will take for it, before it does."""
        seconds = self.machine.info.run_time(cases, self.task.steps)
        self.say(f"{what}: {cases} strokes will take {seconds:.3f} s on the machine")


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    before = outcome.test_accuracy_before
    trained = "" if before is None else f", {before:.4f} before {outcome.epochs} epochs in the loop"
    worst = min(outcome.per_class, key=lambda name: outcome.per_class[name])
    lines = [
        f"accuracy   test {outcome.test_accuracy:.4f} on the instrument{trained}",
        f"           {outcome.model_accuracy:.4f} by the model alone; worst class {worst}: "
        f"{outcome.per_class[worst]:.4f}",
        f"time       {outcome.took_s:.4f} s on the machine, {outcome.predicted_s:.4f} s said "
        f"before (time scale {outcome.time_scale:g})",
        f"overload   {outcome.overloaded} of {outcome.strokes} strokes left the machine's range",
    ]
    if outcome.mismatch_found is not None:
        lines.append(f"calibrated coefficients were off by {outcome.mismatch_found:.2%}")
    if outcome.clipped:
        lines.append(f"clipped    {outcome.clipped} coefficients are outside the rig's limits")
    return "\n".join(
        [
            *lines,
            f"work       {outcome.machine_s:.1f} s of the machine in {outcome.seconds:.1f} s",
            f"model      {outcome.model}",
            f"run        {outcome.run}",
        ]
    )


def _metadata(config: Config, info: EmulatorInfo) -> dict[str, dict[str, str]]:
    return {
        "config": {"toml": dump(config).decode()},
        "versions": versions(),
        "rig": {"name": info.name, "device_id": info.device_id, **info.details},
    }
