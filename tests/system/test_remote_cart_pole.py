"""A cart-pole through its mirror where time waits: a write's answer brings the next sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.errors import DeadmanError, FaultError
from hil.messages import bus
from hil.rigs.base import RigState
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from tests.system.control import PERIOD_US, active, balance, zero_at
from tests.system.rigs import address, mirror

REST = {"board__plant__start": (3.14, 0.0, 0.0, 0.0)}


def test_it_comes_with_the_write_is_read_once_and_counts_as_missed_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = balance(tmp_path, **REST)
    with mirror(config, tmp_path), active(config) as rig:
        asked: list[type[bus.Request]] = []
        ask = rig.session.ask

        def noting(kind: type[bus.Request], *rest: Any, **fields: Any) -> Any:
            asked.append(kind)
            return ask(kind, *rest, **fields)

        monkeypatch.setattr(rig.session, "ask", noting)
        samples = [rig.read()]
        for force in (1.0, -1.0):
            rig.write(np.array([force]))
            samples.append(rig.read())
            assert samples[-1].u == pytest.approx([force])
        assert asked == [bus.ReadSample, bus.WriteInput, bus.WriteInput]
        samples.append(rig.read())  # no write before it: it is asked for
        assert asked[-1] is bus.ReadSample
        for _ in range(3):
            rig.write(np.zeros(1))
        samples.append(rig.read())
    assert [sample.missed for sample in samples[1:]] == [0, 0, 0, 2]
    times = np.diff([sample.device_us for sample in samples])
    np.testing.assert_array_equal(times, [PERIOD_US, PERIOD_US, PERIOD_US, 3 * PERIOD_US])


def test_what_came_before_a_deactivation_is_not_read_after_it(tmp_path: Path) -> None:
    config, _ = balance(tmp_path, **REST)
    with mirror(config, tmp_path), active(config) as rig:
        rig.read()
        rig.write(np.array([1.0]))  # its answer brings a sample with a force
        rig.deactivate()
        assert rig.read().u == pytest.approx([0.0])


def test_a_token_that_ends_before_that_sample_is_told_by_the_read(tmp_path: Path) -> None:
    config, record = balance(tmp_path, **REST)
    late = RemoteDynamicRig(address(config), mint=Minting, client="late", life_us=7_500)
    with mirror(config, tmp_path), late as rig:
        rig.configure()
        rig.activate()
        begun_us = rig.read().device_us
        assert rig.write(np.array([2.0])) == pytest.approx([2.0])  # it was on
        with pytest.raises(DeadmanError, match="the force is zero"):
            rig.read()
        assert zero_at(record) == begun_us + 7_500
        assert rig.state is RigState.FAULT
        with pytest.raises(FaultError, match="token expired"):
            rig.write(np.array([1.0]))
        rig.clear()
        assert rig.read().u == 0.0
