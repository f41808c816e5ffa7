"""What every task keeps; a new file in `hil/tasks` is picked up by itself."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hil.tasks
from hil.config import Settings, load
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.tasks.base import AbstractDynamicTask, AbstractStaticTask
from hil.types import Array, IntArray

CONFIGS = Path(__file__).parents[2] / "configs"


def found(contract: type[Any]) -> list[type[Any]]:
    """Return every task of a contract that can be made, of every module in `hil.tasks`."""
    tasks = []
    for entry in pkgutil.iter_modules(hil.tasks.__path__):
        module = importlib.import_module(f"hil.tasks.{entry.name}")
        tasks += [
            item
            for _, item in inspect.getmembers(module, inspect.isclass)
            if issubclass(item, contract)
            and not inspect.isabstract(item)
            and item.__module__ == module.__name__
        ]
    return tasks


@pytest.fixture(params=found(AbstractStaticTask), ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Any]:
    chosen: type[Any] = request.param
    return chosen


@pytest.fixture(params=found(AbstractDynamicTask), ids=lambda kind: kind.__name__)
def dynamic(request: pytest.FixtureRequest) -> AbstractDynamicTask:
    """A task on a dynamic rig, by its default settings: those of the cart-pole."""
    made: AbstractDynamicTask = request.param(request.param.Settings())
    return made


@pytest.fixture
def geometry() -> Geometry:
    return triangular_lattice(4)


def make(kind: type[Any], geometry: Geometry, seed: int = 3) -> AbstractStaticTask:
    task: AbstractStaticTask = kind(kind.Settings(), geometry=geometry, seed=seed)
    return task


def some(task: AbstractStaticTask, count: int = 24) -> IntArray:
    """Return samples of both parts, or all where there are fewer."""
    everything = np.concatenate([task.train, task.test])
    return np.random.default_rng(1).choice(everything, min(count, len(everything)), replace=False)


def displaced(task: AbstractStaticTask, geometry: Geometry, batch: IntArray) -> Array:
    """Return where a network of uneven stiffness goes under the task's loads."""
    network = SpringNetwork.from_geometry(geometry)
    k = np.random.default_rng(2).uniform(90.0, 180.0, network.bond_count)
    return network.settle(k, task.loads(batch)).displacement


def test_there_are_tasks_to_test() -> None:
    assert "Iris" in {kind.__name__ for kind in found(AbstractStaticTask)}
    assert {"Balance", "SwingUp"} <= {kind.__name__ for kind in found(AbstractDynamicTask)}


def test_it_is_a_part(kind: type[Any]) -> None:
    assert issubclass(kind.Settings, Settings)
    assert kind.Settings() == kind.Settings(), "settings need defaults, and equality"
    with pytest.raises(AttributeError):
        kind.Settings().seed = 1


def test_train_and_test_share_no_sample(kind: type[Any], geometry: Geometry) -> None:
    task = make(kind, geometry)
    assert task.n_train == len(task.train) > 0
    assert task.n_test == len(task.test) > 0
    together = np.concatenate([task.train, task.test])
    assert len(np.unique(together)) == len(together)


def test_shapes_and_ranges(kind: type[Any], geometry: Geometry) -> None:
    task = make(kind, geometry)
    batch = some(task)
    u = displaced(task, geometry, batch)
    assert task.loads(batch).shape == u.shape == (len(batch), 24)
    assert task.adjoint_loads(u, batch).shape == u.shape
    assert task.loss(u, batch).shape == task.predict(u).shape == task.labels(batch).shape
    score = task.score(u, batch)
    assert score.shape == task.labels(batch).shape == (len(batch),)
    assert ((score >= 0) & (score <= 1)).all()
    for name in ("loads", "labels"):
        assert np.isfinite(getattr(task, name)(batch)).all()
    assert np.isfinite(task.loss(u, batch)).all()
    for label in (task.labels(batch), task.predict(u)):
        assert np.issubdtype(label.dtype, np.integer)
        assert ((label >= 0) & (label < max(1, len(task.classes)))).all()
    assert all(geometry.dof(node, 0) >= 0 for node in task.inputs + task.outputs)


def test_one_sample_is_judged_by_itself(kind: type[Any], geometry: Geometry) -> None:
    task = make(kind, geometry)
    batch = some(task)
    u = displaced(task, geometry, batch)
    for i in (0, 7):
        one = slice(i, i + 1)
        assert np.array_equal(task.loads(batch)[one], task.loads(batch[one]))
        assert np.array_equal(task.loss(u, batch)[one], task.loss(u[one], batch[one]))
        assert np.array_equal(
            task.adjoint_loads(u, batch)[one], task.adjoint_loads(u[one], batch[one])
        )


def test_the_same_seed_is_the_same_task(kind: type[Any], geometry: Geometry) -> None:
    first, again, other = (make(kind, geometry, seed) for seed in (3, 3, 4))
    batch = some(first)
    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.test, again.test)
    assert np.array_equal(first.loads(batch), again.loads(batch))
    u = displaced(first, geometry, batch)
    assert np.array_equal(first.adjoint_loads(u, batch), again.adjoint_loads(u, batch))
    if first.n_train > 1:  # a single load case is always the same
        same = np.array_equal(first.train, other.train)
        assert not same or not np.array_equal(first.loads(first.test), other.loads(other.test))


def test_adjoint_loads_are_minus_the_slope_of_the_loss(kind: type[Any], geometry: Geometry) -> None:
    task = make(kind, geometry)
    batch = some(task)
    u = displaced(task, geometry, batch)
    step = 1e-5 * np.abs(u).max()
    slope = np.zeros_like(u)
    for dof in range(u.shape[1]):
        up, down = u.copy(), u.copy()
        up[:, dof] += step
        down[:, dof] -= step
        slope[:, dof] = (task.loss(up, batch) - task.loss(down, batch)) / (2 * step)
    adjoint = task.adjoint_loads(u, batch)
    scale = np.abs(slope).max(axis=1, keepdims=True)
    assert (scale > 0).all()
    # Samples whose loss bends hard (an output close to its kink) have the larger error.
    error = np.abs(adjoint + slope) / scale
    assert np.median(error.max(axis=1)) < 1e-6
    assert error.max() < 1e-2


def test_nothing_it_is_given_is_changed(kind: type[Any], geometry: Geometry) -> None:
    task = make(kind, geometry)
    batch = some(task)
    loads = task.loads(batch)
    u = displaced(task, geometry, batch)
    u.setflags(write=False)
    task.loss(u, batch), task.adjoint_loads(u, batch), task.predict(u), task.score(u, batch)
    loads[:] = 7.0  # a caller may scribble on what it was given
    assert (task.loads(batch) != 7.0).any()


def test_loads_are_inside_the_limit_of_the_shipped_rig(kind: type[Any], geometry: Geometry) -> None:
    limit = load(CONFIGS / "spring_network.toml").rig["force_max"]
    for seed in range(5):
        task = make(kind, geometry, seed)
        everything = np.concatenate([task.train, task.test])
        assert 0 < np.abs(task.loads(everything)).max() <= limit


def run(task: AbstractDynamicTask, steps: int = 30) -> tuple[Array, Array, Array]:
    """Return time (steps,), states (steps, nx) and inputs (steps, 1) that end at the reference."""
    end = task.reference(0.02 * steps)
    fade = np.linspace(1.0, 0.0, steps)[:, None]
    start = np.random.default_rng(2).normal(size=(1, len(end)))
    return np.linspace(0.0, 0.58, steps), end + fade * start, fade


def test_a_reference_is_a_state_and_nobodys_to_change(dynamic: AbstractDynamicTask) -> None:
    for time in (0.0, 1.0, 1e4):
        reference = dynamic.reference(time)
        assert reference.ndim == 1
        assert np.isfinite(reference).all()
        reference[:] = 7.0  # a caller may scribble on what it was given
        assert (dynamic.reference(time) != 7.0).any()


def test_cost_and_error_vanish_at_the_reference_only(dynamic: AbstractDynamicTask) -> None:
    _, states, inputs = run(dynamic)
    assert dynamic.error_norm(states[-1]) == pytest.approx(0.0, abs=1e-9)
    assert dynamic.error_norm(states[0]) > 0
    assert dynamic.cost(states[-1:], 0 * inputs[-1:]) == pytest.approx(0.0, abs=1e-9)
    assert dynamic.cost(states, inputs) > dynamic.cost(states, 0 * inputs) > 0


def test_cost_is_summed_over_the_steps(dynamic: AbstractDynamicTask) -> None:
    _, states, inputs = run(dynamic)
    parts = dynamic.cost(states[:11], inputs[:11]) + dynamic.cost(states[11:], inputs[11:])
    assert dynamic.cost(states, inputs) == pytest.approx(parts)


def test_figures_are_named_numbers_and_draw_nothing(dynamic: AbstractDynamicTask) -> None:
    time, states, inputs = run(dynamic)
    given = states.copy()
    figures = dynamic.figures(time, states, inputs)
    np.testing.assert_array_equal(states, given)
    assert figures
    for name, value in figures.items():
        assert name.isidentifier()
        assert isinstance(value, float)
        assert not np.isnan(value)
    assert dynamic.figures(time, states, inputs) == figures
