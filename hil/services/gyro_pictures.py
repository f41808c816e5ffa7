"""The pictures of a gyro classifier: how it learned, what it learned, a stroke on its way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.models.gyro_classifier import GyroClassifier
from hil.plots.gyro import draw_rollout
from hil.plots.gyro_charts import draw_gyro_maps, draw_signals
from hil.plots.gyro_rollout import Marked, Rollout
from hil.plots.learning import draw_learning
from hil.recording.run import Run
from hil.tasks.sequences import AbstractSequenceTask
from hil.types import Array

PARTS = (0.1, 0.3, 0.6, 1.0)  # of a stroke, at which it is drawn


def draw(
    run: Run,
    epochs: Sequence[tuple[float, float, float | None, float | None]],
    model: GyroClassifier,
    task: AbstractSequenceTask,
) -> list[Path]:
    """Draw what training left; return the files.

    epochs: loss and accuracy of training, accuracy and loss of validation, of each epoch.
    """
    learning, maps_drawn = _learning(run, epochs), maps(run, model)
    if task.channels != 2:  # no pen
        return [learning, maps_drawn]
    stroke = task.test[:1]
    name = task.classes[int(task.labels(stroke)[0])]
    rollout = rollout_of(model, task.signals(stroke)[0])
    return [learning, maps_drawn, *strokes(run, rollout, f"The pen writes {name}")]


def rollout_of(model: GyroClassifier, signal: Array, states: Array | None = None) -> Rollout:
    """Return a signal (steps, 2) on its way; states (steps + 1, n, 4): measured ones."""
    nudges = model.nudges(signal[None])
    if states is None:
        states = trajectories(model, nudges)[0]
    where = Marked(model.network.geometry, model.inputs, model.outputs)
    return Rollout(where, states, nudges[0], signal, model.settings.dt)


def trajectories(model: GyroClassifier, nudges: Array) -> Array:
    """Return every state of the model, (batch, steps + 1, n, 4)."""
    runner = GyroAdjoint(model.network, model.settings.dt, inputs=model.inputs)
    return runner.forward(model.parameters, nudges).trajectory()


def shares(model: GyroClassifier, states: Array) -> Array:
    """Return what the readout gives each class, softmax, at states (…, n, 4): (…, classes)."""
    scores = model.scores(model.features(states))
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def maps(run: Run, model: GyroClassifier) -> Path:
    """Draw what was learned, where it is."""
    path, w = run.plots / "maps.png", model.weights
    draw_gyro_maps(
        Marked(model.network.geometry, model.inputs, model.outputs), w.mass, w.length, w.gamma,
        w.stiffness, path, title="What was learned, where it is",
    )  # fmt: skip
    return path


def strokes(run: Run, rollout: Rollout, title: str, model: Array | None = None) -> list[Path]:
    """Draw a stroke from above and over time; model: (steps + 1, outputs, 4), for comparison."""
    above, over_time = run.plots / "rollout.png", run.plots / "signals.png"
    draw_rollout(rollout, [max(1, round(p * rollout.steps)) for p in PARTS], above, title=title)
    draw_signals(rollout, over_time, model=model, title=title)
    return [above, over_time]


def _learning(run: Run, epochs: Sequence[tuple[float, float, float | None, float | None]]) -> Path:
    path = run.plots / "learning.png"
    table = np.array(epochs, dtype=np.float64)  # None becomes NaN
    loss, accuracy, held_accuracy, held_loss = table.T
    draw_learning(
        loss, accuracy, held_accuracy, path, test_loss=held_loss, first_epoch=1,
        held_out="validation", title="Learning",
    )  # fmt: skip
    return path
