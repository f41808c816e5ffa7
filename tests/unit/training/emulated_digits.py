"""A small network that reads synthetic digits, and the emulator it runs on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from hil.config import Config, check
from hil.models.gyro_classifier import GyroClassifier
from hil.models.store import save
from hil.tasks.strokes import SyntheticStrokes, SyntheticStrokeSettings
from hil.training.gyro import GyroTraining, GyroTrainingSettings
from hil.training.gyro_insitu import GyroInSituSettings, GyroInSituTraining
from tests.unit.instruments.emulators import SMALL, shipped

STEPS = 40
NETWORK = {
    "geometry": SMALL["rig.geometry"],
    "inputs": SMALL["rig.driven"],
    "outputs": SMALL["rig.recorded"],
    "drag": SMALL["rig.drag"],
}
STROKES = {"n_train": 400, "n_test": 100, "steps": STEPS, "validation": 0.1}
TASK = SyntheticStrokes(SyntheticStrokeSettings(**STROKES), seed=1)  # type: ignore[arg-type]


@cache
def classifier() -> GyroClassifier:
    """Return a network that was trained for a few epochs."""
    table = {"network": NETWORK, "epochs": 25, "batch": 16, "stiffness": 15.0, "rate": 1e-2}
    training = GyroTraining(check(table, GyroTrainingSettings, "training"), seed=0)
    *_, done = training.run(TASK)
    return training.model(done.state)


def stored(directory: Path) -> Path:
    """Write that network to disk."""
    return save(classifier(), directory, {})


def insitu(directory: Path, **settings: Any) -> GyroInSituTraining:
    """Return its training on an emulator."""
    return GyroInSituTraining(GyroInSituSettings(model=str(stored(directory)), **settings))


def machine(**overrides: Any) -> Config:
    """Return its emulator; `__` stands for a dot."""
    ranges = {"rig__position_max": 2.0, "rig__velocity_max": 8.0}
    return shipped(**{"rig__halt_on_overload": False} | ranges | overrides)
