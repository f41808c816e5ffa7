"""Training of a gyro classifier: its gradient, its path, what it learns, what it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError, MechanicsError, RunError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.models.gyro_classifier import GyroClassifier, GyroClassifierSettings, load
from hil.models.store import save
from hil.tasks.strokes import SyntheticStrokes, SyntheticStrokeSettings
from hil.training.baselines import Linear, Lstm
from hil.training.gyro import (
    GyroTraining,
    GyroTrainingSettings,
    GyroTrainingState,
    cross_entropy,
    schedule,
)
from hil.types import Array

NETWORK = {
    "geometry": {"rows": 4, "columns": 4},
    "inputs": [1, 9],
    "outputs": [4, 12],
    "drag": 0.1,
}
TASK = SyntheticStrokes(
    SyntheticStrokeSettings(n_train=220, n_test=100, steps=30, validation=0.1), seed=1
)


def training(seed: int = 0, **settings: Any) -> GyroTraining:
    table = {"network": {**NETWORK, **settings.pop("network", {})}, "epochs": 2, **settings}
    return GyroTraining(check(table, GyroTrainingSettings, "training"), seed=seed)


def runner(trainer: GyroTraining, **settings: Any) -> GyroAdjoint:
    return GyroAdjoint(
        trainer.network, trainer.settings.network.dt, inputs=trainer.inputs, **settings
    )


@pytest.mark.parametrize("free", [False, True])
def test_the_gradient_is_that_of_differences(free: bool) -> None:
    """Every variable: physics, encoder, decoder, through exp or without."""
    trainer = training(network={"free": free}, physics_rate=1e-2, barrier=2.0, free_reach=0.01)
    adjoint = runner(trainer, dtype=np.float64, barrier=2.0, free_reach=0.01)
    state = trainer.start(TASK, adjoint)
    some = TASK.train[:20]
    signals, labels = TASK.signals(some), TASK.labels(some)
    flat = np.array(state.variable)
    if free:
        flat[3] = -0.8  # a negative mass on purpose

    def at(variable: Array) -> GyroClassifier:
        return trainer.model(replace_variable(state, variable))

    loss, right, gradient, reach = trainer.gradient(at(flat), adjoint, signals, labels)
    assert 0 <= right <= 20
    assert min(loss, reach) > 0
    assert len(gradient) == len(flat) == 16 * 3 + 48 + 4 * 2 + 4 + 10 * 8 + 10
    for index in np.linspace(0, len(flat) - 1, 60).astype(int):
        ends = []
        for change in (1e-5, -1e-5):
            moved = flat.copy()
            moved[index] += change
            ends.append(trainer.gradient(at(moved), adjoint, signals, labels)[0])
        expected = (ends[0] - ends[1]) / 2e-5
        assert gradient[index] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def replace_variable(state: GyroTrainingState, variable: Array) -> GyroTrainingState:
    zeros = [0.0] * len(variable)
    return GyroTrainingState(0, variable.tolist(), zeros, zeros, 0, state.scale)


def test_cross_entropy_and_its_slope() -> None:
    random = np.random.default_rng(0)
    scores, labels = 300.0 * random.standard_normal((6, 4)), np.array([0, 1, 2, 3, 0, 1])
    losses, slope = cross_entropy(scores, labels)
    for row in range(6):
        shares = np.exp(scores[row] - np.logaddexp.reduce(scores[row]))
        assert losses[row] == pytest.approx(
            -scores[row, labels[row]] + np.logaddexp.reduce(scores[row])
        )
        np.testing.assert_allclose(slope[row], shares - np.eye(4)[labels[row]], atol=1e-12)


def test_the_rates_rise_in_a_line_and_fall_in_a_cosine() -> None:
    assert [schedule(k, 4, 104) for k in (1, 2, 4, 104)] == pytest.approx([0.25, 0.5, 1.0, 0.0])
    assert schedule(54, 4, 104) == pytest.approx(0.5)
    assert schedule(1, 0, 10) > 0.9


def test_it_learns_synthetic_strokes_and_without_springs_it_cannot() -> None:
    """Nothing passes from inputs to outputs but through springs."""
    task = SyntheticStrokes(SyntheticStrokeSettings(n_train=800, n_test=200, steps=50), seed=2)

    def accuracy(**settings: Any) -> float:
        trainer = training(epochs=5, encoder_rate=3e-2, physics_rate=3e-2, rate=1e-2, **settings)
        *_, last = trainer.run(task)
        return trainer.evaluate(trainer.model(last.state), task, task.test).accuracy

    assert accuracy() > 0.7
    assert accuracy(coupled=False) < 0.2, "chance is 0.1"


def test_it_is_a_function_of_the_seed_and_goes_on_where_it_was() -> None:
    whole = [done.state for done in training().run(TASK)]
    again = [done.state for done in training().run(TASK)]
    other = [done.state for done in training(seed=1).run(TASK)]
    assert whole == again
    assert whole[-1].variable != other[-1].variable
    (resumed,) = training().run(TASK, whole[0])
    assert resumed.state == whole[-1]
    assert not list(training().run(TASK, whole[-1])), "a finished run has nothing left"


@pytest.mark.parametrize("free", [False, True])
def test_masses_stay_where_the_step_can_follow(free: bool) -> None:
    """However large the rates: the bound on |ω| dt holds after every epoch."""
    trainer = training(network={"free": free}, physics_rate=0.2, mass=0.12, clip=1e3)
    for done in trainer.run(TASK):
        p = trainer.model(done.state).parameters
        assert trainer.network.fastest(p) * 0.05 <= 2.5 * (1 + 1e-9)
    assert trainer.network.fastest(p) * 0.05 > 2.0, "the limit has to be met to be tested"


def test_frozen_physics_stays_and_the_rest_moves() -> None:
    trainer = training(physics_rate=0.0, epochs=1)
    start = trainer.start(TASK, runner(trainer))
    (done,) = trainer.run(TASK)
    before, after = trainer.model(start).weights, trainer.model(done.state).weights
    for name in ("mass", "length", "gamma", "stiffness"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.encoder != before.encoder).any()


def test_a_stored_classifier_answers_the_same(tmp_path: Path) -> None:
    trainer = training(epochs=1)
    (done,) = trainer.run(TASK)
    model = trainer.model(done.state)
    again = load(save(model, tmp_path, {"seed": 0}))
    signals = TASK.signals(TASK.test)
    np.testing.assert_array_equal(again.run(signals), model.run(signals))
    np.testing.assert_array_equal(again.predict(signals), model.predict(signals))
    score = trainer.evaluate(model, TASK, TASK.test)
    assert score.accuracy == (model.predict(signals) == TASK.labels(TASK.test)).mean()
    states = model.network.rollout(
        model.parameters, model.nudges(signals), 0.05, inputs=model.inputs
    )
    np.testing.assert_allclose(model.run(signals), states[:, -1], atol=1e-4)
    reach = model.network.reach(model.parameters, states).max()
    assert model.largest_reach(signals) == pytest.approx(reach, rel=1e-4)


def test_a_negative_mass_is_loaded_only_where_it_is_meant(tmp_path: Path) -> None:
    trainer = training(epochs=1)
    model = trainer.model(next(trainer.run(TASK)).state)
    mass = model.weights.mass.copy()
    mass[2] = -1.0
    weights = replace(model.weights, mass=mass)
    with pytest.raises(MechanicsError, match="set `free` where that is meant"):
        load(save(GyroClassifier(model.settings, weights), tmp_path, {}))
    free = check({**NETWORK, "free": True}, GyroClassifierSettings, "network")
    assert load(save(GyroClassifier(free, weights), tmp_path, {})).weights.mass[2] == -1.0


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="outputs: expected different gyroscopes from 1 to 16"):
        training(network={"outputs": [4, 17]})
    with pytest.raises(ConfigError, match="the task has 2 and 10"):
        next(training(network={"classes": 3}).run(TASK))
    with pytest.raises(MechanicsError, match="too long for motions"):
        next(training(gamma=100.0).run(TASK))
    arrays = training().model(training().start(TASK, runner(training()))).weights.arrays()
    arrays.pop("mass")
    with pytest.raises(ConfigError, match="arrays missing or unknown: mass"):
        GyroClassifier.from_arrays(training().settings.network, arrays)


def test_numbers_that_stop_being_finite_end_the_run() -> None:
    trainer = training()
    state = trainer.start(TASK, runner(trainer))
    broken = replace_variable(state, np.array(state.variable))
    broken.variable[-1] = float("nan")
    with pytest.raises(RunError, match="not finite in epoch 1"):
        next(trainer.run(TASK, broken))


@pytest.mark.parametrize("kind", ["linear", "lstm"])
def test_the_baselines_have_the_right_gradient(kind: str) -> None:
    """They stand beside the network in the tables: they must not be handicapped."""
    random = np.random.default_rng(0)
    model: Linear | Lstm = Linear(6, 4, random) if kind == "linear" else Lstm(3, 5, 4, random)
    x = random.standard_normal((7, 6) if kind == "linear" else (7, 9, 3))
    labels = random.integers(0, 4, 7)
    _, by_scores = cross_entropy(np.asarray(model.forward(x)), labels)
    slopes = model.backward(x, by_scores)
    for name, weight in model.weights.items():
        flat = weight.astype(complex)
        for index in [tuple(random.integers(weight.shape)) for _ in range(6)]:
            moved = flat.copy()
            moved[index] += 1e-30j
            model.weights[name] = moved
            scores = model.forward(x)
            loss = np.log(np.exp(scores).sum(1)) - scores[np.arange(7), labels]
            assert slopes[name][index] == pytest.approx(loss.sum().imag / 1e-30, rel=1e-9)
        model.weights[name] = weight
