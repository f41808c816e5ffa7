"""Iris: its forces, its loss, its split, its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

from hil.config import check
from hil.errors import ConfigError, MechanicsError
from hil.mechanics.geometry import triangular_lattice
from hil.tasks.classification import split
from hil.tasks.iris import Iris, IrisSettings
from hil.types import Array

GEOMETRY = triangular_lattice(4)
READ = [GEOMETRY.dof(node - 1, 0) for node in (8, 2, 3)]
DATA = load_iris()


def make(seed: int = 0, **over: object) -> Iris:
    return Iris(check(over, IrisSettings, "task"), geometry=GEOMETRY, seed=seed)


def moved(*outputs: tuple[float, float, float]) -> Array:
    """Return displacements that are zero but for the outputs' u_x, in µm."""
    u = np.zeros((len(outputs), 24))
    u[:, READ] = 1e-6 * np.array(outputs)
    return u


def first_of(task: Iris, label: int, count: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.flatnonzero(DATA.target == label)[:count].astype(np.int64)


def test_features_pull_their_nodes_down() -> None:
    task = make(scale_with="all")
    loads = task.loads(np.array([0, 149]))
    pulled = [GEOMETRY.dof(node - 1, 1) for node in (14, 12, 13, 10)]
    expected = -0.049 * DATA.data[[0, 149]] / DATA.data.max(axis=0)
    assert np.allclose(loads[:, pulled], expected, rtol=1e-15)
    rest = np.delete(loads, pulled, axis=1)
    assert not rest.any()


def test_scaling_with_the_training_part_never_sees_the_test_part() -> None:
    task = make(seed=1)
    largest = -task.loads(task.train).min(axis=0)
    assert np.allclose(largest[largest > 0], 0.049, rtol=1e-15)
    assert -task.loads(task.test).min() > 0.049  # some flower outside is larger


def test_stratified_takes_as_many_of_each_species() -> None:
    task = make(seed=2)
    assert np.bincount(task.labels(task.train)).tolist() == [35, 35, 35]
    assert np.bincount(task.labels(task.test)).tolist() == [15, 15, 15]


def test_plain_takes_105_of_150_unevenly() -> None:
    counts = [np.bincount(make(seed=s, split="plain").labels(make(seed=s, split="plain").train))
              for s in range(4)]  # fmt: skip
    assert all(c.sum() == 105 for c in counts)
    assert any(c.tolist() != [35, 35, 35] for c in counts)


def test_split_is_a_function_of_the_seed() -> None:
    labels = np.repeat([0, 1], [10, 30])
    train, test = split(labels, 0.5, "stratified", 4)
    again, _ = split(labels, 0.5, "stratified", 4)
    assert np.array_equal(train, again)
    assert np.bincount(labels[train]).tolist() == [5, 15]
    assert sorted([*train, *test]) == list(range(40))


def test_loss_is_the_cross_entropy_of_the_shares() -> None:
    task = make(floor=0.0)
    loss = task.loss(moved((50.0, -30.0, 20.0)), first_of(task, 1))
    assert loss[0] == pytest.approx(-np.log(0.3), rel=1e-14)


def test_adjoint_loads_in_closed_form() -> None:
    # L = −log(|u_1|/Σ): ∂L/∂u_i = sign(u_i)/Σ − δ_i1/u_1
    task = make(floor=0.0)
    loads = task.adjoint_loads(moved((50.0, -30.0, 20.0)), first_of(task, 1))
    expected = -np.array([1 / 100, -1 / 100 + 1 / 30, 1 / 100]) * 1e6
    assert np.allclose(loads[0, READ], expected, rtol=1e-13)
    assert not np.delete(loads[0], READ).any()


def test_below_the_floor_the_loss_is_its_tangent() -> None:
    task, batch = make(floor=0.1), np.tile(first_of(make(), 0), 3)
    losses = task.loss(moved((0.0, 50.0, 50.0), (5.0, 45.0, 50.0), (10.0, 40.0, 50.0)), batch)
    at_floor = -np.log(0.1)
    assert np.allclose(losses, [at_floor + 1.0, at_floor + 0.5, at_floor], rtol=1e-14)


def test_the_floor_bounds_the_slope() -> None:
    near = moved((1e-6, 50.0, 50.0))
    bounded, free = (
        np.abs(task.adjoint_loads(near, first_of(task, 0))).max()
        for task in (make(floor=0.05), make(floor=0.0))
    )
    assert bounded == pytest.approx(1 / (0.05 * 100e-6), rel=1e-6)
    assert free > 1e6 * bounded


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_outputs_measured_as_zero_stay_finite(floor: float) -> None:
    task, batch = make(floor=floor), np.tile(first_of(make(), 0), 2)
    u = moved((0.0, 0.0, 0.0), (0.0, 1.0, -1.0))
    assert np.isfinite(task.loss(u, batch)).all()
    assert np.isfinite(task.adjoint_loads(u, batch)).all()


def test_the_largest_output_names_the_species() -> None:
    task = make()
    u = moved((3.0, -1.0, 2.0), (1.0, -3.0, 2.0), (1.0, 2.0, -3.0))
    assert task.predict(u).tolist() == [0, 1, 2]
    assert task.score(u, np.array([0, 0, 149])).tolist() == [1.0, 0.0, 1.0]
    assert task.classes == ("setosa", "versicolor", "virginica")
    assert (task.inputs, task.outputs) == ((13, 11, 12, 9), (7, 1, 2))


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"inputs": [14, 14, 13, 10]}, "names a node twice"),
        ({"outputs": [8, 2]}, "outputs"),
        ({"inputs": [0, 12, 13, 10]}, "inputs"),
        ({"floor": 0.5}, "floor"),
        ({"force": -0.1}, "force"),
        ({"split": "random"}, "split"),
        ({"fource": 0.1}, "fource"),
    ],
)
def test_settings_refuse_what_cannot_be(over: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(over, IrisSettings, "task")


def test_a_fixed_or_missing_node_is_named() -> None:
    with pytest.raises(MechanicsError, match="node 5 is fixed"):
        make(inputs=[5, 12, 13, 10])
    with pytest.raises(MechanicsError, match="node 15 does not exist"):
        make(outputs=[8, 2, 15])
