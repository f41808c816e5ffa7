"""After `clear` nothing of before acts: no input, no plan, no command of who was away."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from hil.errors import FaultError, LeaseError
from hil.loop import Answer
from hil.models.analytic import CartPoleModel
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from tests.system.control import (
    Poisoned,
    active,
    balance,
    controller_of,
    ended,
    forces,
    loop_of,
    report,
    run,
)
from tests.system.rigs import address, mirror, until


@pytest.mark.parametrize("same_loop", [True, False])
def test_after_clear_the_restart_begins_where_the_cart_pole_is(
    tmp_path: Path, same_loop: bool
) -> None:
    """The first force is that of a fresh plan from rest at what is measured, nothing older."""
    config, record = balance(tmp_path, loop__duration=4.0)
    with mirror(config, tmp_path), active(config) as rig:
        loop = loop_of(config, rig)
        *_, before = itertools.islice(loop.run(), 8)  # it is moving fast
        rig.stop("hand on the button")
        rig.clear()
        for _ in range(3):
            rig.read()  # inactive: the pole falls on
        assert ended(record)
        count = len(forces(record))
        rig.activate()
        steps = run(loop if same_loop else loop_of(config, rig))
        start = steps[0].sample.y
        fresh = controller_of(config, CartPoleModel())
        expected = fresh.solve(np.concatenate([start, np.zeros(2)]), np.zeros(4), np.zeros(1))
        assert forces(record)[count][1] == pytest.approx(expected.inputs[0, 0], rel=1e-6)
        assert steps[0].u == pytest.approx(expected.inputs[0], rel=1e-6)
        assert steps[0].answer is Answer.PLAN
        stale = before.solution.inputs[1:, 0]
        assert np.abs(stale - expected.inputs[0, 0]).min() > 0.1
        assert np.abs(steps[-1].x_hat).max() < 0.1


def test_a_plan_of_before_a_failure_is_not_replayed_after_it(tmp_path: Path) -> None:
    """Where the first solve after `clear` fails there is no input at all, and no old one."""
    config, record = balance(tmp_path)
    with mirror(config, tmp_path), active(config) as rig:
        bad = Poisoned()
        loop = loop_of(config, rig, controller_of(config, bad))
        running = loop.run()
        for _ in range(8):
            next(running)
        rig.stop("hand on the button")
        with pytest.raises(FaultError, match="hand on the button"):
            next(running)
        rig.clear()
        count = len(forces(record))
        rig.activate()
        bad.poison = True
        (step,) = loop.run()
        assert step.answer is Answer.SAFE
        assert [force for _, force in forces(record)[count:] if force] == []


def test_who_was_away_while_another_cleared_commands_nothing(tmp_path: Path) -> None:
    """A client that froze with a plan in hand finds its lease gone; its force never acts."""
    config, record = balance(tmp_path, mirror__lease=0.3)
    with mirror(config, tmp_path), active(config, "frozen") as frozen:
        frozen.read()
        frozen.write(np.array([3.25]))
        until(lambda: report(config).holder == "")
        other = RemoteDynamicRig(address(config), mint=Minting, client="other")
        with other:
            other.configure()
            other.stop("by the other")
            other.clear()
            other.activate()
            other.read()
            other.write(np.array([-1.5]))
            count = len(forces(record))
            with pytest.raises(LeaseError, match="other holds it"):
                frozen.write(np.array([7.75]))
            other.read()
            other.write(np.array([-2.5]))
            assert [force for _, force in forces(record)[count:]] == [-2.5]
