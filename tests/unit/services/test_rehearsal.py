"""The shipped tasks of the spring network, in process: they fit their rig, and they learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hil.config import Config, load
from hil.errors import ConfigError, MechanicsError
from hil.services.checks import validate
from hil.services.rehearsal import Rehearsal

CONFIGS = Path(__file__).parents[3] / "configs"
EXACT = "sim.rigs.exact_spring_network:ExactSpringNetwork"
QUIET = {"training.check.every": 0, "training.evaluate_every": 0, "ideal": True}


def config(name: str, **over: object) -> Config:
    dotted = {key.replace("__", "."): value for key, value in over.items()}
    return load(CONFIGS / f"{name}.toml", sim=True, overrides=QUIET | dotted)


@pytest.mark.parametrize("preset", ["wide", "published"])
@pytest.mark.parametrize("name", ["iris", "penguins", "regression", "behaviour"])
def test_every_preset_fits_the_shipped_rig(name: str, preset: str) -> None:
    found = config(name, preset=preset)
    assert "to train" in validate(found)["task"]
    low, high = (found.training or {})["stiffness"]
    assert found.rig["stiffness"][0] <= low < high <= found.rig["stiffness"][1]


def test_penguins_are_told_apart() -> None:
    last = Rehearsal(config("penguins", training__epochs=40, seed=1000), EXACT).train()
    assert last.test is not None
    assert last.test.accuracy > 0.93
    assert set(last.test.predicted.tolist()) == {0, 1, 2}


def test_a_behaviour_is_learned_to_the_target_and_holds_at_smaller_loads() -> None:
    found = config("behaviour", task__loss="mse", training__epochs=150)
    last = Rehearsal(found, EXACT).train()
    assert last.test is not None
    assert last.test.accuracy > 0.999  # 1 − |u − target| / |target|


def test_a_regression_is_learned_to_the_floor_of_its_bounds() -> None:
    last = Rehearsal(config("regression", training__epochs=100, seed=1000), EXACT).train()
    assert last.train is not None
    assert 1.5e-10 < last.train.loss < 1e-9  # the floor of 1.2 to 2.8 mm is about 2.4e-10


def test_one_task_starts_where_another_ended_and_a_cut_bond_is_out_of_it() -> None:
    first = Rehearsal(config("iris", training__epochs=5), EXACT)
    ended = first.train().state.applied
    cut = first.train(start=ended, pruned=(13,)).state.applied
    assert cut[12] == 0.0
    assert (np.delete(cut, 12) > 0).all()
    assert first.judge(ended, (13,)).accuracy < first.judge(ended).accuracy
    with pytest.raises(MechanicsError, match="zero mode"):
        first.train(pruned=(6,))


def test_what_cannot_be_rehearsed_is_said() -> None:
    with pytest.raises(ConfigError, match=r"\[board\]"):
        Rehearsal(load(CONFIGS / "iris.toml"), EXACT)


def test_iris_comes_back_after_the_regression_between() -> None:
    short = {"training__epochs": 60, "seed": 1000}
    iris = Rehearsal(config("iris", **short), EXACT)
    between = Rehearsal(config("regression_between", **short), EXACT)
    learned = iris.train().state.applied
    away = between.train(start=learned).state.applied
    assert iris.judge(away).accuracy < 0.8  # it has forgotten
    back = iris.train(start=away)
    assert back.train is not None
    assert back.train.accuracy > 0.9
