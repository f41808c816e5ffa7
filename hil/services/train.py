"""In-situ training as a process: rig, task and trainer put together, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hil.clock import make_clock
from hil.config import Config, build, dump, settings_of
from hil.errors import ConfigError, FaultError, InputError, LeaseError
from hil.messages import wire
from hil.recording.run import CHECKPOINT, RESULTS, Run
from hil.recording.writer import Recorder, versions
from hil.rigs.base import RigInfo, RigState
from hil.rigs.manual import ManualRig
from hil.rigs.remote import RemoteRig
from hil.rigs.spring_network import SpringNetworkRig
from hil.safety.deadman import Forwarded, Minting
from hil.services import owner, pictures
from hil.services.mirror import bus_address
from hil.services.progress import TrainingProgress
from hil.services.records import CHANNELS, RunLog, read_history
from hil.services.session import require_mirror
from hil.tasks.base import AbstractStaticTask
from hil.training.events import Started
from hil.training.insitu import InSituTraining
from hil.training.state import StateRecord, TrainingState

Say = Callable[[str], None]
LEASE_WAIT_S = 60.0  # longest a resumed run waits for the lease of the process that was killed


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a killed run needs to go on."""

    state: StateRecord
    device_us: int  # device time after the newest command, us
    records: int  # messages recorded so far
    seconds: float  # spent training so far


class Outcome(msgspec.Struct, frozen=True):
    """What a run ended with: the JSON line of `hil train`."""

    train_accuracy: float
    test_accuracy: float
    loss: float
    epochs: int
    gradient_cosine: float | None  # against the model, pooled over the checks
    gradient_relative_error: float | None
    gradient_cosine_differences: float | None  # against differences measured on the rig
    measurements: int
    twin_residual: float | None
    peak_strain: float  # largest |elongation| over rest length, of all samples at the end
    branch_jumps: int  # samples left out because the network left its branch
    figures: dict[str, float]  # the task's own, of the training samples
    seconds: float
    seed: int
    preset: str
    ideal: bool
    run: str
    plots: list[str]


def shipped(name: str) -> Path:
    """Return a configuration that came with hil: of the wheel, or of the checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs" / name
    return inside if inside.exists() else package.parent / "configs" / name


def train(config: Config, runs: Path, say: Say) -> Outcome:
    """Train a rig as a configuration says, in a new run directory.

    Raises ConfigError before anything is touched, and what rig and mirror raise.
    """
    parts = _Parts(config)
    run = Run.create(runs, config.name, datetime.now())
    run.write_config(config)
    say(f"run {run.path}")
    try:
        return _session(config, parts, run, None, say)
    except InputError:
        if not run.parts():  # refused before anything was measured: nothing is worth keeping
            shutil.rmtree(run.path)
        raise


def started_from(config: Config, path: Path) -> Config:
    """Return a configuration whose training starts at the stiffness another run ended with.

    The stiffness itself goes into it, so that the new run stands without the old one.
    Raises InputError where the run has no checkpoint, ConfigError where nothing is trained.
    """
    if config.training is None:
        raise ConfigError("training: missing; only what is trained can start from a run")
    found = Run.open(path).read_json(CHECKPOINT, Checkpoint)
    training = config.training | {"start": found.state.applied}
    return msgspec.structs.replace(config, training=training)


def resume(path: Path, say: Say) -> Outcome:
    """Go on with a run where its last checkpoint stands.

    Raises InputError where the run has no checkpoint, RunError when the rig cannot be
    brought back to it.
    """
    run = Run.open(path)
    config = run.read_config()
    checkpoint = run.read_json(CHECKPOINT, Checkpoint)
    say(f"run {run.path}, going on after epoch {checkpoint.state.epoch}")
    return _session(config, _Parts(config), run, checkpoint, say)


class _Parts:
    """What a configuration describes, checked before a device is touched."""

    def __init__(self, config: Config) -> None:
        for name in ("task", "training"):
            if getattr(config, name) is None:
                raise ConfigError(f"{name}: missing; `hil train` needs a [task] and a [training]")
        assert config.task is not None
        assert config.training is not None
        kind, rig_settings = settings_of(config.rig, "rig")
        rig_kind = ManualRig if issubclass(kind, ManualRig) else SpringNetworkRig
        network = rig_kind(rig_settings, tokens=Forwarded()).statics
        self.geometry = network.geometry
        self.task: AbstractStaticTask = build(
            config.task, "task", geometry=network.geometry, seed=config.seed
        )
        self.training: InSituTraining = build(
            config.training, "training", network=network, seed=config.seed
        )
        if not isinstance(self.training, InSituTraining):
            raise ConfigError(f"training.kind: {config.training['kind']!r} does not train in place")
        low, high = self.training.settings.stiffness
        lowest, highest = rig_settings.stiffness
        if low < lowest or high > highest:
            raise ConfigError(
                f"training.stiffness: [{low}, {high}] N/m leaves rig.stiffness "
                f"[{lowest}, {highest}] N/m"
            )
        everything = np.concatenate([self.task.train, self.task.test])
        needed = self.training.method.largest_force(self.task.loads(everything))
        if needed > rig_settings.force_max:
            raise ConfigError(
                f"training.adjoint_force: with the task's loads, forces of {needed:g} N are "
                f"needed, above rig.force_max {rig_settings.force_max} N"
            )


def _session(
    config: Config, parts: _Parts, run: Run, checkpoint: Checkpoint | None, say: Say
) -> Outcome:
    address, keys, _ = bus_address(config)
    hosted: owner.HostedMirror | None = None
    with contextlib.ExitStack() as stack:
        if not require_mirror(config, address):
            say(f"no mirror serves {address.name}: starting one")
            start_us = checkpoint.device_us if checkpoint else 0
            job = owner.MirrorJob(config, start_us)
            if needs_terminal(config):
                hosted = stack.enter_context(owner.HostedMirror(job))
            else:
                stack.enter_context(owner.ChildMirror(job, run.path / "mirror.log"))
        name = f"train-{os.getpid()}"
        rig = stack.enter_context(RemoteRig(address, mint=Minting, client=name, keys=keys))
        if hosted is not None:
            stack.push(hosted.unwind)  # before the lease is given back
        info = _take(rig, patient=checkpoint is not None, say=say)
        recorder = stack.enter_context(
            Recorder(run.next_part(), CHANNELS, _metadata(config, info, checkpoint))
        )
        epochs = parts.training.settings.epochs
        progress = stack.enter_context(TrainingProgress(epochs, say, plain=hosted is not None))
        try:
            outcome = _learn(config, parts, run, checkpoint, rig, recorder, progress, say)
        except (KeyboardInterrupt, FaultError):
            say(f"interrupted; go on with: hil train --resume {run.path}")
            raise
        status = owner.status(config)
        if status is not None and status.recalibrate:
            say(f"mirror: {status.recalibrate}")
        return outcome


def needs_terminal(config: Config) -> bool:
    """Return whether a person at this terminal is the rig's hands."""
    kind, _ = settings_of(config.rig, "rig")
    return issubclass(kind, ManualRig) and config.board is None


def _learn(
    config: Config,
    parts: _Parts,
    run: Run,
    checkpoint: Checkpoint | None,
    rig: RemoteRig,
    recorder: Recorder,
    progress: TrainingProgress,
    say: Say,
) -> Outcome:
    clock = make_clock(config.clock)
    log = RunLog(recorder, checkpoint.records if checkpoint else 0)
    state = TrainingState.from_record(checkpoint.state) if checkpoint else None
    begun = time.monotonic() - (checkpoint.seconds if checkpoint else 0.0)
    for event in parts.training.run(rig, parts.task, state):
        clock.observe(rig.device_us)
        log.write(event, clock.now_ns())
        progress.show(event)
        recorder.flush()  # a checkpoint never knows more than the recording
        seconds = time.monotonic() - begun
        saved = Checkpoint(event.state.to_record(), rig.device_us, log.seq, seconds)
        run.write_json(CHECKPOINT, saved)
        if state is not None and isinstance(event, Started):
            say(f"stiffness read back: {'as' if event.matched else 'set again to what'} it was")
    recorder.close()
    return _finish(config, parts, run, event.state, seconds)


def _finish(
    config: Config, parts: _Parts, run: Run, state: TrainingState, seconds: float
) -> Outcome:
    history = read_history(run)
    plots = pictures.draw(run, history, parts.geometry, parts.task, parts.training)
    final = history.evaluations[-1]
    outcome = Outcome(
        train_accuracy=final.train_accuracy,
        test_accuracy=final.test_accuracy,
        loss=final.train_loss,
        epochs=state.epoch,
        gradient_cosine=state.model.cosine,
        gradient_relative_error=state.model.relative_error,
        gradient_cosine_differences=state.differences.cosine,
        measurements=state.measurements,
        twin_residual=history.steps[-1].twin_residual,
        peak_strain=final.strain,
        branch_jumps=sum(step.jumps for step in history.steps),
        figures=final.train_figures,
        seconds=round(seconds, 3),
        seed=config.seed,
        preset=config.preset,
        ideal=config.ideal,
        run=str(run.path),
        plots=[str(path) for path in plots],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def redraw(path: Path) -> list[Path]:
    """Draw the pictures of a run again from its recordings, whole or not."""
    run = Run.open(path)
    parts = _Parts(run.read_config())
    return pictures.draw(run, read_history(run), parts.geometry, parts.task, parts.training)


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    cosine, error = outcome.gradient_cosine, outcome.gradient_relative_error
    lines = [
        f"accuracy   train {outcome.train_accuracy:.3f}, test {outcome.test_accuracy:.3f} "
        f"after {outcome.epochs} epochs (loss {outcome.loss:.4g})",
    ]
    if cosine is not None and error is not None:
        lines.append(
            f"gradient   1 − cos {1 - cosine:.1e}, relative error {error:.1e} "
            "(measured in place, against the model)"
        )
    if outcome.gradient_cosine_differences is not None:
        lines.append(
            f"           1 − cos {1 - outcome.gradient_cosine_differences:.1e} "
            "(against finite differences measured on the rig)"
        )
    named = [f"{name} {value:.4g}" for name, value in outcome.figures.items()]
    lines.append(f"           {', '.join([*named, f'peak strain {outcome.peak_strain:.3f}'])}")
    if outcome.branch_jumps:
        lines.append(f"jumps      {outcome.branch_jumps} samples left out: another branch")
    if outcome.twin_residual is not None:
        lines.append(f"twin       measured − predicted elongation {outcome.twin_residual:.2%}")
    lines += [
        f"work       {outcome.measurements} load cases in {outcome.seconds:.1f} s",
        f"run        {outcome.run}",
        *(f"           {path}" for path in outcome.plots),
    ]
    return "\n".join(lines)


def _take(rig: RemoteRig, patient: bool, say: Say) -> RigInfo:
    """Take the lease and power the rig; a resumed run waits for the lease of the killed one."""
    end = time.monotonic() + LEASE_WAIT_S
    while True:
        try:
            info = rig.configure()
            break
        except LeaseError as error:
            if not patient or time.monotonic() > end:
                raise
            say(f"waiting: {error}")
            time.sleep(1.0)
    if rig.state is RigState.FAULT:
        raise FaultError(
            f"rig {info.name} is in fault ({rig.fault}); remove the cause, then `hil clear CONFIG`"
        )
    rig.activate()
    return info


def _metadata(
    config: Config, info: RigInfo, checkpoint: Checkpoint | None
) -> dict[str, dict[str, str]]:
    """Return what stands at the head of a recording; nothing in it differs between reruns."""
    return {
        "config": {"toml": dump(config).decode()},
        "versions": versions(),
        "rig": {"name": info.name, "device_id": info.device_id, **info.details},
        "wire": {"schema": f"{wire.SCHEMA_CRC:#010x}"},
        "resumed": {"device_us": str(checkpoint.device_us)} if checkpoint else {},
    }
