"""`hil demo emulator`: pen strokes travel through an emulator's gyroscopes and are read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hil.config import Config, build
from hil.errors import LeaseError
from hil.models.gyro_classifier import GyroClassifier
from hil.models.store import save
from hil.plots.gyro import animate_rollout
from hil.recording.run import RESULTS, Run
from hil.rigs.emulator_base import EmulatorInfo, Traces
from hil.rigs.remote_emulator import RemoteEmulatorRig
from hil.services import gyro_pictures, owner
from hil.services.mirror import bus_address
from hil.services.progress import TrainingProgress
from hil.services.session import require_mirror
from hil.tasks.strokes import AbstractStrokes
from hil.training.gyro import GyroTraining
from hil.types import Array, IntArray

Say = Callable[[str], None]
SHOWN = 3  # the digit whose way is drawn
SCALED_ON = 256  # strokes that machine units are chosen on
WITHIN = 99.0  # per cent of them that stay within one machine unit


class Outcome(msgspec.Struct, frozen=True):
    """What the demonstration ended with: the JSON line of `hil demo emulator`."""

    strokes: int  # test strokes that were run
    model_accuracy: float
    instrument_accuracy: float
    agreement: float  # share of strokes that both read alike
    overloaded: int  # strokes that left the machine's range
    written: list[str]  # one stroke of each digit …
    model_read: list[str]
    instrument_read: list[str]
    difference: float  # instrument − model, rms over that of the model, of what is read
    predicted_s: float  # time of those strokes on the machine, before they ran
    took_s: float  # by the machine's own clock
    gyroscopes: int
    epochs: int
    seconds: float
    seed: int
    run: str
    model: str
    plots: list[str]


def demo(config: Config, runs: Path, say: Say) -> Outcome:
    """Train on strokes nobody wrote, load the instrument, let it read; leave pictures.

    Raises ConfigError before anything is touched, and what rig and mirror raise.
    """
    begun = time.monotonic()
    assert config.task is not None
    assert config.training is not None
    task: AbstractStrokes = build(config.task, "task", seed=config.seed)
    training: GyroTraining = build(config.training, "training", seed=config.seed)
    address, keys, _ = bus_address(config)
    if require_mirror(config, address):
        raise LeaseError(
            f"rig {address.name}: a mirror owns it already (`hil status`); end it first"
        )
    run = Run.create(runs, config.name, datetime.now())
    say(f"run {run.path}")
    model = _train(task, training, say)
    stored = save(model, run.path, {"task": config.task, "seed": config.seed})
    config = scaled(config, model, task.signals(task.train[:SCALED_ON]))
    run.write_config(config)
    say(
        "starting the instrument and its mirror, loading the coefficients; one machine unit is "
        f"{config.rig['position_max']} m, {config.rig['velocity_max']} m/s, "
        f"{config.rig['force_max']} N"
    )
    client = f"demo-{os.getpid()}"
    with (
        owner.ChildMirror(owner.MirrorJob(config), run.path / "mirror.log"),
        RemoteEmulatorRig(address, client=client, keys=keys) as rig,
    ):
        info = rig.configure()
        rig.set_coefficients(coefficients(model))
        rig.activate()
        count, steps = len(task.test), task.steps
        predicted = info.run_time(count, steps)
        say(f"{count} strokes will take {predicted:.3g} s on the machine")
        everything = rig.run(_forces(model, task.signals(task.test)), every=steps)
        some = one_of_each(task.labels(task.test), len(task.classes))
        traces = rig.run(_forces(model, task.signals(task.test[some])))
    expected = task.labels(task.test)
    by_model = model.predict(task.signals(task.test))
    final = states_of(info, everything)[:, -1]
    by_machine = model.scores(model.features(final)).argmax(1)
    own = model.features(model.run(task.signals(task.test)))
    say("drawing")
    films = _draw(run, model, task, task.test[some], states_of(info, traces), say)
    outcome = Outcome(
        strokes=count,
        model_accuracy=float((by_model == expected).mean()),
        instrument_accuracy=float((by_machine == expected).mean()),
        agreement=float((by_machine == by_model).mean()),
        overloaded=int(everything.overloaded.sum()),
        written=[task.classes[i] for i in expected[some]],
        model_read=[task.classes[i] for i in by_model[some]],
        instrument_read=[task.classes[i] for i in by_machine[some]],
        difference=float(np.sqrt(((model.features(final) - own) ** 2).sum() / (own**2).sum())),
        predicted_s=predicted,
        took_s=everything.took,
        gyroscopes=model.network.n,
        epochs=training.settings.epochs,
        seconds=round(time.monotonic() - begun, 3),
        seed=config.seed,
        run=str(run.path),
        model=str(stored),
        plots=[str(path) for path in films],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def scaled(config: Config, model: GyroClassifier, signals: Array) -> Config:
    """Return a configuration whose machine units fit a model's motions under signals.

    One stroke in a hundred may go beyond: a machine unit that fits them all drowns the others
    in noise. No nudge can: |W s + b| is bounded by its coefficients, and |s| by 1.
    """
    w, states = model.weights, gyro_pictures.trajectories(model, model.nudges(signals))
    largest = np.abs(states).max(axis=(1, 2))  # (strokes, 4)
    position, velocity = (
        float(np.percentile(largest[:, part].max(axis=1), WITHIN))
        for part in (slice(0, 2), slice(2, 4))
    )
    force = float((np.abs(w.encoder).sum(axis=1) + np.abs(w.encoder_bias)).max())
    units = {"position_max": position, "velocity_max": velocity, "force_max": force}
    rig = config.rig | {key: _up(value) for key, value in units.items()}
    return msgspec.structs.replace(config, rig=rig)


def _up(value: float) -> float:
    """Return two digits that are no less."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(f"{np.ceil(value / unit) * unit:.2g}")


def coefficients(model: GyroClassifier) -> Array:
    """Return a model's physics in the order in which an emulator takes it, SI."""
    w = model.weights
    return np.concatenate((w.mass, w.length, w.gamma, w.stiffness))


def states_of(info: EmulatorInfo, traces: Traces) -> Array:
    """Return traces of every gyroscope as states, (cases, samples, n, 4)."""
    return traces.states.reshape(*traces.states.shape[:2], len(info.elements), 4)


def one_of_each(labels: IntArray, classes: int) -> IntArray:
    """Return where the first of each class stands: (classes,)."""
    return np.array([np.flatnonzero(labels == c)[0] for c in range(classes)], dtype=np.int64)


def _train(task: AbstractStrokes, training: GyroTraining, say: Say) -> GyroClassifier:
    say(
        f"{len(task.train)} pen strokes teach {training.network.n} gyroscopes "
        "(the first time, kernels are compiled)"
    )
    epochs = training.settings.epochs
    with TrainingProgress(epochs, say) as progress:
        for done in training.run(task):
            progress.advance(done.epoch, f"loss {done.loss:.3f}, accuracy {done.accuracy:.3f}")
    return training.model(done.state)


def _forces(model: GyroClassifier, signals: Array) -> Array:
    nudges = model.nudges(signals)
    return nudges.reshape(*nudges.shape[:2], -1)


def _draw(
    run: Run, model: GyroClassifier, task: AbstractStrokes, some: IntArray, states: Array, say: Say
) -> list[Path]:
    """Draw the way of one stroke as the instrument recorded it; states: (classes, …)."""
    signal = task.signals(some)[SHOWN]
    measured = gyro_pictures.rollout_of(model, signal, states[SHOWN])
    own = gyro_pictures.rollout_of(model, signal).states[:, model.outputs]
    title = f"The pen writes {task.classes[SHOWN]}: recorded on the instrument"
    made = gyro_pictures.strokes(run, measured, title, own)
    film = run.plots / "stroke.gif"
    now = gyro_pictures.shares(model, measured.states)
    animate_rollout(measured, film, scores=now, classes=task.classes, title=title)
    return [*made, film, gyro_pictures.maps(run, model)]


def summary(outcome: Outcome) -> str:
    """Return a result as lines for a person."""
    return "\n".join(
        [
            f"written       {'  '.join(outcome.written)}",
            f"model reads   {'  '.join(outcome.model_read)}",
            f"instrument    {'  '.join(outcome.instrument_read)}",
            f"accuracy      model {outcome.model_accuracy:.3f}, instrument "
            f"{outcome.instrument_accuracy:.3f} of {outcome.strokes} test strokes; they agree on "
            f"{outcome.agreement:.1%}",
            f"machine       took {outcome.took_s:.4g} s, predicted {outcome.predicted_s:.4g} s; "
            f"{outcome.overloaded} strokes overloaded it",
            f"difference    {outcome.difference:.1%} of what is read, rms: 8 bits, mismatch, noise",
            f"work          {outcome.seconds:.1f} s",
            f"run           {outcome.run}",
            *(f"              {path}" for path in outcome.plots),
        ]
    )
