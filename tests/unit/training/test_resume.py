"""A run taken up from any of its states is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hil.errors import InputError, RunError
from hil.training.adam import AdamState
from hil.training.events import EpochDone, Event, Started, StepDone
from hil.training.state import Agreement, StateRecord, TrainingState
from hil.types import Array
from tests.unit.training.parts import ExactRig, Parts, parts

# Two epochs, each with an evaluation and a gradient check, on the imperfect rig.
SHORT = parts(
    seed=5,
    training__epochs=2,
    training__batch=40,
    training__evaluate_every=1,
    training__check__every=1,
    training__check__batch=4,
    training__check__bonds=2,
)


def from_json(state: TrainingState) -> TrainingState:
    text = msgspec.json.encode(state.to_record())
    return TrainingState.from_record(msgspec.json.decode(text, type=StateRecord))


def trace(events: list[Event]) -> list[bytes]:
    """Return what events measured and led to, as bytes."""
    found = []
    for event in events:
        if isinstance(event, StepDone):
            assert event.adjoint is not None
            measured = (event.gradient, event.forward.displacement, event.adjoint.elongation)
            found.append(b"".join(a.tobytes() for a in (event.batch, *measured, event.applied)))
        elif isinstance(event, EpochDone):
            assert event.test is not None
            found.append(
                msgspec.json.encode([event.loss, event.test.loss])
                + b"".join(c.measured.tobytes() + c.expected.tobytes() for c in event.checks)
            )
        found.append(msgspec.json.encode(event.state.to_record()))
    return found


def whole(p: Parts) -> list[Event]:
    return list(p.training.run(p.rig(), p.task))


@pytest.fixture(scope="module")
def uninterrupted() -> list[Event]:
    return whole(SHORT)


def test_there_is_noise_and_two_runs_are_the_same(uninterrupted: list[Event]) -> None:
    assert trace(whole(SHORT)) == trace(uninterrupted)
    agreement = uninterrupted[-1].state.model
    assert agreement.relative_error is not None
    assert agreement.relative_error > 1e-3


@pytest.mark.parametrize("cut", range(9))
def test_resumed_from_any_event(uninterrupted: list[Event], cut: int) -> None:
    state = from_json(uninterrupted[cut].state)
    rig = SHORT.rig(start_us=SHORT.start_us(state.device_us))
    started, *rest = SHORT.training.run(rig, SHORT.task, state)
    assert isinstance(started, Started)
    assert trace(rest) == trace(uninterrupted[cut + 1 :])


def test_every_cut_was_tried(uninterrupted: list[Event]) -> None:
    kinds = [type(e) for e in uninterrupted]
    assert kinds == [Started, *([StepDone] * 3 + [EpochDone]) * 2]


def test_the_stiffness_is_read_back_and_set_again(uninterrupted: list[Event]) -> None:
    state = uninterrupted[3].state
    fresh = SHORT.rig()
    started = next(iter(SHORT.training.run(fresh, SHORT.task, state)))
    assert isinstance(started, Started)
    assert not started.matched
    assert np.array_equal(fresh.read_stiffness(), state.applied)
    again = next(iter(SHORT.training.run(fresh, SHORT.task, state)))
    assert isinstance(again, Started)
    assert again.matched


def test_a_rig_that_cannot_go_back_is_named(uninterrupted: list[Event]) -> None:
    class Stuck(ExactRig):
        def set_stiffness(self, stiffness: Array) -> Array:
            applied = super().set_stiffness(stiffness)
            self.stiffness[6] = 130.0
            return applied

    rig = Stuck(SHORT.network)
    with pytest.raises(RunError, match=r"bond 7 was at .* reads 130\.0 N/m after being set again"):
        next(iter(SHORT.training.run(rig, SHORT.task, uninterrupted[3].state)))


def test_a_state_of_another_network_is_refused() -> None:
    state = TrainingState(
        epoch=0, step=0, variable=np.zeros(5), adam=AdamState.start(5), applied=np.ones(5),
        cost=0.0, measurements=0, device_us=0, model=Agreement(), differences=Agreement(),
    )  # fmt: skip
    with pytest.raises(InputError, match="has 5 bonds, the rig has 28"):
        next(iter(SHORT.training.run(ExactRig(SHORT.network), SHORT.task, state)))


def test_a_damaged_record_is_refused(uninterrupted: list[Event]) -> None:
    record = uninterrupted[2].state.to_record()
    damaged = msgspec.structs.replace(record, adam_first=record.adam_first[:-1])
    with pytest.raises(InputError, match="different lengths"):
        TrainingState.from_record(damaged)


def test_a_finished_run_has_nothing_left(uninterrupted: list[Event]) -> None:
    state = uninterrupted[-1].state
    assert [type(e) for e in SHORT.training.run(SHORT.rig(), SHORT.task, state)] == [Started]


def test_awkward_floats_survive_json() -> None:
    values = np.array([0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 2**-1074 * 3])
    state = TrainingState(
        epoch=3, step=4, variable=values, adam=AdamState(values, values[::-1].copy(), 25),
        applied=np.random.default_rng(0).uniform(size=6), cost=1 / 7, measurements=2**60,
        device_us=2**52 + 1, model=Agreement(3, 0.1, 0.2, 0.3, 1e-300), differences=Agreement(),
    )  # fmt: skip
    back = from_json(state)
    assert back.to_record() == state.to_record()
    for a, b in ((back.variable, values), (back.adam.first, values), (back.applied, state.applied)):
        assert a.tobytes() == b.tobytes()
