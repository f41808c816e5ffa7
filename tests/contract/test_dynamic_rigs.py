"""The contract of a dynamic rig, held by every implementation there is."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hil.errors import FaultError, LimitError, StateError
from hil.rigs.base import AbstractDynamicRig, RigState
from tests.unit.sim.cart_pole import balance, board_of, double_of, rig_of, shipped

Maker = Callable[[], contextlib.AbstractContextManager[AbstractDynamicRig]]
START = {"board__plant__start": (0.05, 0.0, 0.0, 0.0)}


@contextlib.contextmanager
def cart_pole_in_process() -> Iterator[AbstractDynamicRig]:
    with double_of(shipped(ideal=True, **START)) as rig:
        yield rig


@contextlib.contextmanager
def cart_pole_on_a_board() -> Iterator[AbstractDynamicRig]:
    config = shipped(ideal=True, **START)
    with board_of(config) as port, rig_of(config, port) as rig:
        yield rig


RIGS: list[Maker] = [cart_pole_in_process, cart_pole_on_a_board]


@pytest.fixture(params=RIGS, ids=lambda make: make.__name__)
def rig(request: pytest.FixtureRequest) -> Iterator[AbstractDynamicRig]:
    with request.param() as made:
        yield made


def test_its_life_goes_in_order(rig: AbstractDynamicRig) -> None:
    for call in (rig.activate, rig.read):
        with pytest.raises(StateError, match=r"is unconfigured; call configure\(\) first"):
            call()
    info = rig.configure()
    assert rig.read().y.shape == (len(info.measurements),)
    with pytest.raises(StateError, match=r"is inactive; call activate\(\) first"):
        rig.write(np.zeros(1))
    rig.activate()
    with pytest.raises(StateError, match=r"is active; call deactivate\(\) first"):
        rig.activate()
    assert rig.write(np.ones(1)) == 1.0
    rig.deactivate()
    assert rig.read().u == 1.0  # measured before
    assert rig.read().u == 0.0
    states = [rig.state]
    rig.close()
    rig.close()
    states.append(rig.state)
    assert states == [RigState.INACTIVE, RigState.UNCONFIGURED]
    rig.configure()
    rig.activate()
    assert rig.write(np.ones(1)) == 1.0


def test_samples_go_forward_and_say_what_was_missed(rig: AbstractDynamicRig) -> None:
    info = rig.configure()
    rig.activate()
    samples = [rig.read()]
    for _ in range(5):
        rig.write(np.zeros(len(info.inputs)))
        samples.append(rig.read())
    for before, after in itertools.pairwise(samples):
        assert after.sequence == before.sequence + after.missed + 1
        periods = after.missed + 1
        assert after.device_us == before.device_us + periods * info.period_us


def test_limits_hold(rig: AbstractDynamicRig) -> None:
    info = rig.configure()
    rig.activate()
    ((low, high),) = info.input_limits
    rig.write(np.array([1.5]))
    for value in (high * 1.001, low * 1.001, np.nan, -np.inf, 1e300):
        with pytest.raises(LimitError, match="nothing was changed"):
            rig.write(np.array([value]))
    for shape in ((0,), (2,), (1, 1)):
        with pytest.raises(LimitError, match="shape"):
            rig.write(np.zeros(shape))
    assert rig.read().u == 1.5
    assert rig.write(np.array([high])) == high
    assert rig.state is RigState.ACTIVE


def test_it_can_be_controlled(rig: AbstractDynamicRig) -> None:
    rig.configure()
    rig.activate()
    samples = balance(rig, 3.0)
    assert np.abs(samples[-1].y).max() < 0.05


def test_a_stop_latches_until_it_is_cleared(rig: AbstractDynamicRig) -> None:
    rig.configure()
    rig.activate()
    rig.read()
    rig.write(np.array([2.0]))
    rig.stop("hand on the button")
    rig.poll()
    assert rig.state is RigState.FAULT
    assert rig.fault == "hand on the button"
    for call in (rig.read, rig.activate, lambda: rig.write(np.zeros(1))):
        with pytest.raises(FaultError, match=r"hand on the button.*clear\(\)"):
            call()
    rig.clear()
    assert (rig.state, rig.fault) == (RigState.INACTIVE, "")
    assert rig.read().u == 0.0
    rig.activate()
    assert rig.write(np.array([1.0])) == 1.0
