"""The pictures of a training run, from its recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hil.mechanics.geometry import Geometry
from hil.plots.learning import (
    draw_confusion,
    draw_gradient,
    draw_learning,
    draw_residual,
    draw_stiffness,
)
from hil.plots.network import Mark, draw_network
from hil.recording.run import Run
from hil.services.records import History
from hil.tasks.base import AbstractStaticTask
from hil.training.insitu import InSituTraining
from hil.types import Array

DOWN, ACROSS = (0.0, -1.0), (1.0, 0.0)


def draw(
    run: Run,
    history: History,
    geometry: Geometry,
    task: AbstractStaticTask,
    training: InSituTraining,
) -> list[Path]:
    """Draw everything the recordings have something for; return the files."""
    run.plots.mkdir(exist_ok=True)
    made: list[Path] = []

    def place(name: str) -> Path:
        made.append(run.plots / f"{name}.png")
        return made[-1]

    limits = training.settings.stiffness
    first = np.array(history.starts[0].stiffness)
    trajectory = np.array([first, *(step.stiffness for step in history.steps)])
    if geometry.nodes.shape[1] == 2:
        draw_network(
            geometry.nodes,
            geometry.bonds,
            trajectory[-1],
            place("network"),
            fixed=geometry.fixed,
            inputs=[Mark(n, f"x{i}", DOWN) for i, n in enumerate(task.inputs, start=1)],
            outputs=_outputs(task),
            before=first,
            limits=limits,
            title="Stiffness before and after training",
        )
    if history.evaluations:
        _draw_learning(history, place("learning"))
        final = history.evaluations[-1]
        if task.classes:
            counts = np.zeros((len(task.classes), len(task.classes)), dtype=np.int64)
            np.add.at(counts, (final.actual, final.predicted), 1)
            draw_confusion(counts, task.classes, place("confusion"), title="Test set")
    for reference in ("model", "differences"):
        checks = [g for g in history.gradients if g.reference == reference]
        if checks:
            draw_gradient(
                np.concatenate([g.measured for g in checks]),
                np.concatenate([g.expected for g in checks]),
                place(f"gradient_{reference}"),
                title=GRADIENT_TITLES[reference],
            )
    residuals = [s.twin_residual for s in history.steps if s.twin_residual is not None]
    if residuals:
        draw_residual(np.array(residuals), place("twin"), title="Rig against its twin")
    if history.steps:
        draw_stiffness(trajectory, place("stiffness"), limits=limits, title="Every bond")
    return made


def _outputs(task: AbstractStaticTask) -> list[Mark]:
    """Return the nodes that are read: across for classes, downwards for what has none.

    Where a class has no node of its own, as with the sign of a displacement, nodes are numbered.
    """
    names = task.classes
    if len(names) != len(task.outputs):
        names = tuple(f"y{i}" for i in range(1, len(task.outputs) + 1))
    way = ACROSS if task.classes else DOWN
    return [Mark(node, name, way) for node, name in zip(task.outputs, names, strict=True)]


GRADIENT_TITLES = {
    "model": "Gradient in place against the model",
    "differences": "Gradient in place against differences",
}


def _draw_learning(history: History, path: Path) -> None:
    epochs = [record.epoch for record in history.epochs]
    draw_learning(
        np.array([record.loss for record in history.epochs]),
        _at_epochs(epochs, {e.epoch: e.train_accuracy for e in history.evaluations}),
        _at_epochs(epochs, {e.epoch: e.test_accuracy for e in history.evaluations}),
        path,
        test_loss=_at_epochs(epochs, {e.epoch: e.test_loss for e in history.evaluations}),
        first_epoch=epochs[0],
        title="Learning in place",
    )


def _at_epochs(epochs: list[int], values: dict[int, float]) -> Array:
    """Return a value per epoch, NaN where there is none."""
    return np.array([values.get(epoch, np.nan) for epoch in epochs])
