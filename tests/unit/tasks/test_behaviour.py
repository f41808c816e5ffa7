"""Behaviour: one load to learn, two ways to say what is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError
from hil.mechanics.geometry import triangular_lattice
from hil.tasks.behaviour import Behaviour, BehaviourSettings

GEOMETRY = triangular_lattice(4)
READ = [GEOMETRY.dof(node, 1) for node in (12, 13)]


def make(**over: object) -> Behaviour:
    return Behaviour(check(over, BehaviourSettings, "task"), geometry=GEOMETRY)


def test_five_grams_train_and_smaller_loads_test() -> None:
    task = make()
    loads = task.loads(np.arange(10))
    assert loads[0, GEOMETRY.dof(10, 1)] == -0.049
    assert np.allclose(loads[task.test].min(axis=1), -0.0049 * np.arange(9, 0, -1))
    assert (np.count_nonzero(loads, axis=1) == 1).all()


def test_the_winner_is_to_have_all_of_the_motion() -> None:
    u = np.zeros((1, 24))
    u[0, READ] = [-3e-4, 1e-4]
    first, second = make(), make(winner=14)
    batch = np.array([0])
    assert first.loss(u, batch)[0] == pytest.approx(-np.log(0.75))
    assert second.loss(u, batch)[0] == pytest.approx(-np.log(0.25))
    assert (first.score(u, batch)[0], second.score(u, batch)[0]) == pytest.approx((0.75, 0.25))


def test_targets_go_with_the_load() -> None:
    task = make(loss="mse")
    u = np.zeros((10, 24))
    u[:, READ] = np.linspace(1.0, 0.1, 10)[:, None] * [-5e-4, -8e-4]
    assert task.loss(u, np.arange(10)).max() < 1e-30
    u[0, READ[0]] -= 1e-4
    assert task.loss(u, np.arange(10))[0] == pytest.approx(0.5e-8)
    assert task.adjoint_loads(u, np.arange(10))[0, READ[0]] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"winner": 12}, "winner"),
        ({"loss": "mse", "targets": [-1e-4]}, "targets"),
        ({"outputs": [13]}, "outputs"),
    ],
)
def test_settings_refuse_what_cannot_be(over: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(over, BehaviourSettings, "task")
