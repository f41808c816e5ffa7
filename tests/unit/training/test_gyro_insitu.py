"""A gyro classifier on an emulator: what it reads, its gradient, what is won back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.errors import ConfigError, MechanicsError, RunError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.models.gyro_classifier import GyroClassifier
from hil.training.emulated import EmulatedClassifier
from hil.training.gyro import GyroTrainingState, cross_entropy
from hil.training.gyro_insitu import Evaluation, GyroInSituTraining, summed
from hil.types import Array
from tests.unit.instruments.emulators import rig_of, server_of
from tests.unit.training.emulated_digits import STEPS, TASK, classifier, insitu, machine

EXACT = {"board__instrument": {"coefficient_bits": 0, "adc_bits": 0, "dac_bits": 0}}


@contextlib.contextmanager
def on_a_machine(**overrides: Any) -> Iterator[EmulatedClassifier]:
    config = machine(**overrides)
    with server_of(config) as server, rig_of(config, server.url) as rig:
        info = rig.configure()
        rig.activate()
        yield EmulatedClassifier(rig, info, classifier())


def evaluation(made: EmulatedClassifier, training: GyroInSituTraining, state: Any) -> Evaluation:
    return summed(list(training.evaluate(made, training.model(state), TASK, TASK.test)), TASK)


def trained(made: EmulatedClassifier, training: GyroInSituTraining) -> GyroTrainingState:
    state = training.start()
    while state.epoch < training.settings.epochs:
        for done in training.epoch(made, TASK, state):
            assert done.state is not None
            state = done.state
    return state


def test_an_ideal_machine_reads_what_the_model_computes(tmp_path: Path) -> None:
    model, training = classifier(), insitu(tmp_path)
    signals = TASK.signals(TASK.test[:9])
    with on_a_machine(ideal=True, **EXACT) as made:
        applied = made.program(model)
        w = model.weights
        wanted = np.concatenate((w.mass, w.length, w.gamma, w.stiffness))
        np.testing.assert_allclose(applied, wanted, rtol=1e-6)
        measured = made.measure(model, signals)
        expected = model.features(model.run(signals))
        # The machine is the differential equation, the model RK4 at 0.05 s: a few in a thousand.
        np.testing.assert_allclose(made.features(model, measured), expected, atol=0.05)
        found = evaluation(made, training, None)
        assert found.accuracy == training.training.evaluate(model, TASK, TASK.test).accuracy
        assert found.took_s == pytest.approx(found.predicted_s, rel=1e-3)
        assert found.predicted_s == pytest.approx(100 * (1e-4 + STEPS * 0.05 * 1e-3))
        labels = TASK.labels(TASK.test)
        mean = sum(found.per_class[str(k)] * (labels == k).sum() for k in range(10)) / 100
        assert mean == pytest.approx(found.accuracy)


@pytest.mark.parametrize("whole", [False, True], ids=["last state", "whole motion"])
def test_the_gradient_of_an_ideal_machine_is_the_models(whole: bool, tmp_path: Path) -> None:
    training, model = insitu(tmp_path).training, classifier()
    runner = GyroAdjoint(training.network, training.settings.network.dt, inputs=training.inputs)
    some = TASK.train[:16]
    signals, labels = TASK.signals(some), TASK.labels(some)
    with on_a_machine(ideal=True, rig__recorded=[], **EXACT) as made:
        made.program(model)
        measured = made.measure(model, signals, whole)
    motion = measured.states if whole else measured.last
    assert motion is not None
    loss, _, found, _ = training.gradient(model, runner, signals, labels, motion)
    alone, _, expected, _ = training.gradient(model, runner, signals, labels)
    assert loss == pytest.approx(alone, rel=2e-2)
    assert found @ expected > 0.999 * np.linalg.norm(found) * np.linalg.norm(expected)


def test_the_loss_is_the_machines_own(tmp_path: Path) -> None:
    """By the decoder, the slope needs no model: differences of what was measured."""
    training, model = insitu(tmp_path).training, classifier()
    runner = GyroAdjoint(training.network, training.settings.network.dt, inputs=training.inputs)
    some = TASK.train[:16]
    signals, labels = TASK.signals(some), TASK.labels(some)
    with on_a_machine(board__errors={"mismatch": 0.1}) as made:
        made.program(model)
        measured = made.measure(model, signals)

    def loss(decoder: Array) -> float:
        other = GyroClassifier(model.settings, replace(model.weights, decoder=decoder))
        features = made.features(other, measured)
        return float(cross_entropy(other.scores(features), labels)[0].mean())

    found, _, slope, _ = training.gradient(model, runner, signals, labels, measured.last)
    decoder = model.weights.decoder
    assert found == pytest.approx(loss(decoder), rel=1e-6)
    by_decoder = slope[training._slices["decoder"]].reshape(decoder.shape)
    for where in ((0, 0), (3, 5), (9, 7)):
        step = np.zeros_like(decoder)
        step[where] = 1e-4
        difference = (loss(decoder + step) - loss(decoder - step)) / 2e-4
        assert by_decoder[where] == pytest.approx(difference, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("along", ["model", "measured"])
def test_training_in_the_loop_wins_back_what_mismatch_cost(along: str, tmp_path: Path) -> None:
    training = insitu(tmp_path, epochs=3, batch=16, rate=1e-2, encoder_rate=3e-3,
                      physics_rate=3e-3, along=along)  # fmt: skip
    errors = {"mismatch": 0.1, "noise": 1e-3}
    with on_a_machine(board__errors={"noise": 1e-3}, rig__recorded=[]) as made:
        clean = evaluation(made, training, None).loss
    with on_a_machine(board__errors=errors, rig__recorded=[]) as made:
        before = evaluation(made, training, None).loss
        after = evaluation(made, training, trained(made, training)).loss
    assert before > clean + 0.2
    assert after < 0.5 * (before + clean)


def test_what_a_calibration_found_is_made_up_for(tmp_path: Path) -> None:
    model, training = classifier(), insitu(tmp_path)
    w = model.weights
    wanted = np.concatenate((w.mass, w.length, w.gamma, w.stiffness))
    config = machine(board__errors={"mismatch": 0.05, "noise": 1e-3}, **EXACT)
    with server_of(config) as server, rig_of(config, server.url) as rig:
        info = rig.configure()
        rig.activate()
        made = EmulatedClassifier(rig, info, model)
        true = np.concatenate(server.instrument.machine._factors)  # type: ignore[attr-defined]
        before = evaluation(made, training, None).loss
        made.calibrate(model)
        after = evaluation(made, training, None).loss
        acting = rig.read_coefficients() * true
    parts = (slice(0, 9), slice(9, 18), slice(27, None))  # a γ near 0 has no relative error
    off = [np.log(acting[part] / wanted[part]).std() / np.log(true[part]).std() for part in parts]
    assert max(off) < 0.4
    assert after < before


def test_cases_that_left_the_range_are_counted_and_not_learned_from(tmp_path: Path) -> None:
    training = insitu(tmp_path, epochs=1)
    with on_a_machine(ideal=True, rig__position_max=0.35) as made:
        found = evaluation(made, training, None)
        assert 0 < found.overloaded <= 100
    with (
        on_a_machine(ideal=True, rig__position_max=0.01) as made,
        pytest.raises(RunError, match="every case of run"),
    ):
        next(training.epoch(made, TASK, training.start()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rig__driven": [1, 4]}, "rig.driven"),
        ({"rig__recorded": [3]}, "rig.recorded: the model reads"),
        ({"rig__step": 0.1}, "rig.step"),
        ({"rig__geometry": {"rows": 3, "columns": 3, "wrap": "none"}}, "rig.geometry"),
    ],
)
def test_an_emulator_that_is_wired_otherwise_is_refused(
    overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message), on_a_machine(**overrides):
        pass


def test_nudges_beyond_the_range_are_refused_before_a_run() -> None:
    with (
        on_a_machine(ideal=True, rig__force_max=0.5) as made,
        pytest.raises(ConfigError, match=r"rig\.force_max: 0\.5 N"),
    ):
        made.program(classifier())


def test_whole_motions_need_every_gyroscope(tmp_path: Path) -> None:
    training = insitu(tmp_path, epochs=1, along="measured")
    with (
        on_a_machine(ideal=True) as made,
        pytest.raises(ConfigError, match=r"needs rig\.recorded = \[\]"),
    ):
        next(training.epoch(made, TASK, training.start()))
    runner = GyroAdjoint(training.training.network, 0.05, inputs=training.training.inputs)
    tape = runner.forward(classifier().parameters, np.zeros((2, 5, 2, 2)))
    with pytest.raises(MechanicsError, match="measured states: expected"):
        runner.along(tape, np.zeros((2, 5, 9, 4)))
