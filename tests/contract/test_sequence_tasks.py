"""What every task on signals keeps; a new file in `hil/tasks` is picked up by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import hil.tasks
from hil.config import Settings, environment
from hil.tasks.sequences import AbstractSequenceTask

NEEDS_DATA = {"Pendigits"}


def found() -> list[Any]:
    """Return every task that can be made; what needs data that is not here is skipped."""
    tasks = []
    for entry in pkgutil.iter_modules(hil.tasks.__path__):
        module = importlib.import_module(f"hil.tasks.{entry.name}")
        for name, item in inspect.getmembers(module, inspect.isclass):
            if not issubclass(item, AbstractSequenceTask) or inspect.isabstract(item):
                continue
            if item.__module__ == module.__name__:
                missing = name in NEEDS_DATA and "HIL_DATA" not in environment()
                skip = pytest.mark.skipif(missing, reason="HIL_DATA is not set")
                tasks.append(pytest.param(item, id=name, marks=skip))
    return tasks


@pytest.fixture(params=found())
def kind(request: pytest.FixtureRequest) -> type[Any]:
    chosen: type[Any] = request.param
    return chosen


def make(kind: type[Any], seed: int = 3, **settings: Any) -> AbstractSequenceTask:
    task: AbstractSequenceTask = kind(kind.Settings(**settings), seed=seed)
    return task


def test_there_are_tasks_to_test() -> None:
    assert {"SyntheticStrokes", "Pendigits"} <= {str(each.id) for each in found()}


def test_it_is_a_part(kind: type[Any]) -> None:
    assert issubclass(kind.Settings, Settings)
    assert kind.Settings() == kind.Settings(), "settings need defaults, and equality"


def test_the_parts_share_no_sample_and_hold_every_class(kind: type[Any]) -> None:
    task = make(kind, validation=0.2)
    parts = [task.train, task.validation, task.test]
    everything = np.concatenate(parts)
    assert len(np.unique(everything)) == len(everything)
    for part in parts:
        assert set(task.labels(part)) == set(range(len(task.classes)))
    assert 0.15 < len(parts[1]) / (len(parts[0]) + len(parts[1])) < 0.25


def test_the_seed_alone_decides(kind: type[Any]) -> None:
    one, same, other = make(kind), make(kind), make(kind, seed=4)
    np.testing.assert_array_equal(one.signals(one.test[:9]), same.signals(same.test[:9]))
    kept = make(kind, validation=0.2), make(kind, seed=4, validation=0.2)
    assert kept[0].validation.tolist() != kept[1].validation.tolist()
    assert len(other.train) == len(one.train)


def test_signals_have_the_shape_and_the_size_that_was_said(kind: type[Any]) -> None:
    task = make(kind, steps=37)
    signals = task.signals(task.train[:20])
    assert signals.shape == (20, 37, task.channels) == (20, task.steps, task.channels)
    assert np.abs(signals).max() <= 1.0
    assert signals.std() > 0.2


def test_variation_is_drawn_from_the_generator_and_changes_no_label(kind: type[Any]) -> None:
    task = make(kind)
    some = task.train[:20]
    plain = task.signals(some)
    first = task.signals(some, np.random.default_rng(1))
    np.testing.assert_array_equal(first, task.signals(some, np.random.default_rng(1)))
    assert (first != task.signals(some, np.random.default_rng(2))).any()
    np.testing.assert_array_equal(task.signals(some), plain)
    assert 0.0 < np.abs(first - plain).mean() < 0.5
    assert np.abs(first).max() <= 1.0 + 1e-12
