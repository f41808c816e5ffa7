"""Training in place: what a step does, what it counts, what it refuses, what it reaches."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError, InputError, RunError
from hil.rigs.base import MeasuredEquilibrium
from hil.training.adam import AdamState
from hil.training.events import EpochDone, Started, StepDone
from hil.training.insitu import InSituSettings
from hil.types import Array
from tests.unit.training.parts import ExactRig, Parts, parts

QUIET: dict[str, Any] = {"training__check__every": 0, "training__evaluate_every": 0}


def steps_of(p: Parts, rig: Any) -> list[StepDone]:
    return [e for e in p.training.run(rig, p.task) if isinstance(e, StepDone)]


def last_of(p: Parts, rig: Any) -> EpochDone:
    *_, last = p.training.run(rig, p.task)
    assert isinstance(last, EpochDone)
    return last


def test_the_order_of_events() -> None:
    p = parts(training__epochs=2, **QUIET)
    events = list(p.training.run(ExactRig(p.network), p.task))
    kinds = [type(e) for e in events]
    assert kinds == [Started, *[StepDone] * 7, EpochDone, *[StepDone] * 7, EpochDone]
    places = [(e.epoch, e.step) for e in events if isinstance(e, StepDone)]
    assert places == [(1, s) for s in range(1, 8)] + [(2, s) for s in range(1, 8)]


def test_an_epoch_takes_every_training_sample_once_in_an_order_of_its_own() -> None:
    p = parts(training__epochs=2, **QUIET)
    taken = [e.batch for e in steps_of(p, ExactRig(p.network))]
    first, second = np.concatenate(taken[:7]), np.concatenate(taken[7:])
    assert [len(b) for b in taken[:7]] == [16] * 6 + [9]
    assert np.array_equal(np.sort(first), p.task.train)
    assert np.array_equal(np.sort(second), p.task.train)
    assert not np.array_equal(first, second)
    assert np.array_equal(p.training.batch(p.task, 1, 3), taken[10])


def test_another_seed_takes_another_order() -> None:
    p, other = parts(seed=0), parts(seed=1)
    q = other.training.batch(p.task, 0, 0)
    assert not np.array_equal(p.training.batch(p.task, 0, 0), q)


def test_one_step_by_hand() -> None:
    p = parts(training__epochs=1, training__rate=0.01, **QUIET)
    rig = ExactRig(p.network)
    done = next(e for e in p.training.run(rig, p.task) if isinstance(e, StepDone))
    k = np.full(28, 137.5)
    u = p.network.settle(k, p.task.loads(done.batch))
    adjoint = p.network.settle(k, p.task.adjoint_loads(u.displacement, done.batch))
    gradient = (adjoint.elongation * u.elongation).mean(0)
    assert np.allclose(done.gradient, gradient, rtol=1e-12)
    assert done.loss == pytest.approx(p.task.loss(u.displacement, done.batch).mean(), rel=1e-12)
    assert done.correct == p.task.score(u.displacement, done.batch).sum()
    # The first step of Adam is the rate against the sign, as far as epsilon lets it.
    slope = gradient * 10.0 * (137.5 - 89.375) / 2
    s = -0.01 * slope / (np.abs(slope) + 1e-8)
    assert np.allclose(done.applied, 89.375 + 96.25 / (1 + np.exp(-10.0 * s)), rtol=1e-12)
    assert np.array_equal(done.applied, rig.stiffness)


def test_without_the_chain_factor_adam_is_given_the_stiffness_gradient() -> None:
    p = parts(preset="published", training__epochs=1, **QUIET)
    done = steps_of(p, ExactRig(p.network))[0]
    assert np.array_equal(done.state.adam.first, (1 - 0.9) * done.gradient)


def test_measurements_are_load_cases() -> None:
    p = parts(training__epochs=2, training__evaluate_every=1, training__check__every=1)
    rig = ExactRig(p.network)
    last = last_of(p, rig)
    per_epoch = 2 * 105 + 150 + 2 * 16 + 6 * 2 * 16
    assert last.state.measurements == rig.settled == 2 * per_epoch


def test_device_time_is_that_of_the_newest_sample() -> None:
    p = parts(training__epochs=1, training__batch=100, **QUIET)
    events = list(p.training.run(p.rig(), p.task))
    seen = [e.measured[-1].device_us for e in events if isinstance(e, StepDone)]
    assert [e.state.device_us for e in events if isinstance(e, StepDone)] == seen
    assert events[-1].state.device_us > seen[-1]  # the evaluation came after


def test_evaluation_is_of_the_stiffness_after_the_last_step() -> None:
    p = parts(training__epochs=2, training__evaluate_every=0)
    rig = ExactRig(p.network)
    events = [e for e in p.training.run(rig, p.task) if isinstance(e, EpochDone)]
    assert [e.test is None for e in events] == [True, False]
    last = events[-1]
    assert last.train is not None
    assert last.test is not None
    for found, samples in ((last.train, p.task.train), (last.test, p.task.test)):
        u = p.network.settle(rig.stiffness, p.task.loads(samples)).displacement
        assert found.accuracy == np.mean(p.task.predict(u) == p.task.labels(samples))
        assert found.loss == pytest.approx(p.task.loss(u, samples).mean(), rel=1e-12)
        assert np.array_equal(found.predicted, p.task.predict(u))
        assert np.array_equal(found.actual, p.task.labels(samples))


def test_the_published_loss_of_a_short_batch_is_divided_by_16() -> None:
    over: dict[str, Any] = {"training__epochs": 1, "training__rate": 1e-9} | QUIET
    mean = parts(preset="published", training__short_batch="mean", **over)
    published = parts(preset="published", **over)
    a, b = (last_of(p, ExactRig(p.network)) for p in (mean, published))
    short = steps_of(mean, ExactRig(mean.network))[-1].loss
    assert len(steps_of(mean, ExactRig(mean.network))[-1].batch) == 9
    assert b.loss == pytest.approx(a.loss - short * (1 - 9 / 16) / 7, rel=1e-12)
    # Only what is reported differs: what is learned is the mean in both.
    assert np.array_equal(a.state.applied, b.state.applied)


def test_a_limit_of_the_rig_pulls_the_variable_back() -> None:
    p = parts(training__epochs=3, training__rate=0.05, **QUIET)
    rig = ExactRig(p.network, limits=(130.0, 145.0))
    state = last_of(p, rig).state
    assert state.applied.min() == 130.0
    assert state.applied.max() == 145.0
    asked = p.training.bounded.stiffness(state.variable)
    assert np.abs(asked - state.applied).max() <= p.training.settings.rounding


def test_rounding_does_not_stop_steps_smaller_than_a_level() -> None:
    p = parts(training__epochs=10, training__rate=1e-4, **QUIET)
    rig = ExactRig(p.network, level=0.9)
    done = steps_of(p, rig)
    moved = [np.abs(b.applied - a.applied).max() for a, b in pairwise(done)]
    assert min(moved) == 0.0  # steps were smaller than a level
    assert np.abs(done[-1].applied - done[0].applied).max() > 1.0  # and added up


@pytest.mark.parametrize("chain_factor", [True, False])
def test_saturated_stiffness_comes_back(chain_factor: bool) -> None:
    training = parts(training__rate=0.02, training__chain_factor=chain_factor).training
    variable, push, state = np.zeros(28), np.full(28, 1e-3), AdamState.start(28)

    def towards(sign: float, steps: int) -> Array:
        nonlocal variable, state
        for _ in range(steps):
            slope = training.bounded.derivative(training.bounded.stiffness(variable))
            gradient = sign * push * (slope if chain_factor else 1.0)
            change, state = training.optimizer.step(gradient, state)
            variable = training.bounded.clip(variable + change)
        return training.bounded.stiffness(variable)

    assert (towards(-1.0, 1500) > 184.0).all()  # saturated for most of this
    assert (towards(+1.0, 200) < 137.5).all()


def test_a_gradient_that_is_no_number_is_refused() -> None:
    p = parts(training__epochs=1, **QUIET)

    class Broken(ExactRig):
        def settle(self, loads: Array) -> MeasuredEquilibrium:
            found = super().settle(loads)
            found.elongation[:, 4] = np.nan
            return found

    with pytest.raises(RunError, match="epoch 1, step 1: the gradient of bond 5 is not a finite"):
        steps_of(p, Broken(p.network))


def test_training_lowers_the_loss() -> None:
    p = parts(seed=2, training__epochs=8, training__rate=0.02, training__evaluate_every=1,
              training__check__every=0)  # fmt: skip
    epochs = [e for e in p.training.run(ExactRig(p.network), p.task) if isinstance(e, EpochDone)]
    first, last = epochs[0].train, epochs[-1].train
    assert first is not None
    assert last is not None
    assert last.loss < first.loss - 0.1
    assert last.accuracy > first.accuracy


def test_wide_reaches_its_figures_on_an_ideal_rig() -> None:
    accuracy = []
    for seed in range(10):
        p = parts(seed=seed, **QUIET)
        test = last_of(p, ExactRig(p.network)).test
        assert test is not None
        accuracy.append(test.accuracy)
    assert np.mean(accuracy) >= 0.95
    assert min(accuracy) >= 0.9


def test_wide_reaches_its_figures_on_the_imperfect_rig() -> None:
    p = parts(seed=0, **QUIET)
    test = last_of(p, p.rig()).test
    assert test is not None
    assert test.accuracy >= 0.88


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"stiffness": [150.0, 100.0]}, "lowest must be below highest"),
        ({"start": 300.0}, "start"),
        ({"epochs": 0}, "epochs"),
        ({"adam_beta1": 1.0}, "adam_beta1"),
        ({"check": {"step": 0.0}}, "check.step"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"short_batch": "sum"}, "short_batch"),
    ],
)
def test_settings_refuse_what_cannot_be(over: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check(over, InSituSettings, "training")


def test_a_start_other_than_midway() -> None:
    p = parts(training__start=120.0)
    started = next(iter(p.training.run(ExactRig(p.network), p.task)))
    assert isinstance(started, Started)
    assert np.allclose(started.state.applied, 120.0, rtol=1e-13)
    assert not started.matched
    assert (started.found == 130.0).all()


def test_it_starts_where_another_run_ended_held_in_its_own_bounds() -> None:
    start = np.random.default_rng(0).uniform(70.0, 200.0, 28)
    p = parts(training__start=start.tolist(), training__saturation=0.0)
    first = next(p.training.run(ExactRig(p.network), p.task))
    assert np.allclose(first.state.applied, np.clip(start, 89.375, 185.625), atol=1e-9)


def test_it_starts_from_the_stiffness_it_finds() -> None:
    p, rig = parts(training__start="found"), ExactRig(parts().network)
    rig.stiffness = np.linspace(100.0, 160.0, 28)
    first = next(p.training.run(rig, p.task))
    assert np.allclose(first.state.applied, np.linspace(100.0, 160.0, 28), rtol=1e-12)


def test_a_start_of_another_network_is_refused() -> None:
    p = parts(training__start=[130.0, 140.0])
    with pytest.raises(InputError, match="2 values, the rig has 28 bonds"):
        next(p.training.run(ExactRig(p.network), p.task))


def test_bonds_may_start_at_random_by_the_seed() -> None:
    def first(seed: int) -> Any:
        p = parts(seed=seed, training__epochs=1, training__start_spread=20.0, **QUIET)
        return next(iter(p.training.run(ExactRig(p.network), p.task))).state.applied

    low, high = parts().training.settings.stiffness
    assert np.array_equal(first(1), first(1))
    assert not np.allclose(first(1), first(2))
    assert np.abs(first(1) - (low + high) / 2).max() < 20.0
    assert np.ptp(first(1)) > 20.0


def test_steps_may_get_shorter_every_epoch() -> None:
    p = parts(training__epochs=3, training__batch=105, training__decay=0.1, **QUIET)
    events = list(p.training.run(ExactRig(p.network), p.task))
    seen = [e.state.variable for e in events if isinstance(e, StepDone)]
    lengths = [np.abs(later - earlier).max() for earlier, later in pairwise(seen)]
    assert np.abs(seen[0]).max() == pytest.approx(p.training.settings.rate, rel=1e-2)
    assert lengths[0] <= 0.11 * p.training.settings.rate
    assert lengths[1] <= 0.02 * p.training.settings.rate
