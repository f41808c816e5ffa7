"""Regression: its forces and targets, its loss, what noise does, its refusals."""

from __future__ import annotations

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError, MechanicsError
from hil.mechanics.geometry import triangular_lattice
from hil.tasks.regression import Regression, RegressionSettings
from hil.types import Array

GEOMETRY = triangular_lattice(4)
FORCE = GEOMETRY.dof(10, 1)
READ = [GEOMETRY.dof(node, axis) for node in (12, 13) for axis in (0, 1)]
ALL = np.arange(100)


def make(seed: int = 0, **over: object) -> Regression:
    return Regression(check(over, RegressionSettings, "task"), geometry=GEOMETRY, seed=seed)


def wanted(task: Regression) -> Array:
    """Return displacements of every sample that are as published, zero elsewhere."""
    u = np.zeros((100, 24))
    u[:, READ] = task.loads(ALL)[:, [FORCE]] * np.array([0.0, 0.016, 0.004, 0.016])
    return u


def test_a_force_at_node_11_alone_either_way() -> None:
    loads = make().loads(ALL)
    assert not np.delete(loads, FORCE, axis=1).any()
    assert loads.min() < -0.15
    assert loads.max() > 0.15
    assert np.abs(loads).max() <= 0.02 * 9.8


def test_seventy_of_a_hundred_train() -> None:
    assert (make().n_train, make().n_test) == (70, 30)


def test_the_published_response_costs_nothing() -> None:
    task = make()
    assert task.loss(wanted(task), ALL).max() < 1e-30
    assert task.score(wanted(task), ALL).min() > 1.0 - 1e-9


def test_half_the_squares_of_four_outputs() -> None:
    task, u = make(), wanted(make())
    u[:, READ] += [1e-4, -2e-4, 3e-4, -4e-4]
    assert np.allclose(task.loss(u, ALL), 0.5 * 30e-8, rtol=1e-12)
    assert np.allclose(task.adjoint_loads(u, ALL)[:, READ], [-1e-4, 2e-4, -3e-4, 4e-4])


def test_noise_moves_targets_not_forces_and_by_what_it_says() -> None:
    clean, noisy = make(), make(noise=1e-4)
    assert np.array_equal(clean.loads(ALL), noisy.loads(ALL))
    loss = np.mean(
        [make(seed, noise=1e-4).loss(wanted(make(seed)), ALL).mean() for seed in range(20)]
    )
    assert loss == pytest.approx(0.5 * 4 * 1e-8, rel=0.05)  # ½ σ² for each of four
    assert np.array_equal(clean.train, noisy.train)


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"outputs": [13]}, "slopes"),
        ({"outputs": [13, 13]}, "names a node twice"),
        ({"noise": -1.0}, "noise"),
        ({"samples": 3}, "samples"),
    ],
)
def test_settings_refuse_what_cannot_be(over: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(over, RegressionSettings, "task")


def test_a_fixed_node_is_named() -> None:
    with pytest.raises(MechanicsError, match="node 5 is fixed"):
        make(input=5)
