"""Plans and sensors that fail: what ends a control loop, judged by the plant's own record.

The whole stack each time: loop, bus, mirror, serial line, firmware, plant.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from hil.config import load
from hil.control.base import AbstractController, Solution
from hil.errors import FaultError
from hil.loop import Answer, ControlLoop, ControlStep
from hil.models.analytic import CartPoleModel
from hil.services.parts import Parts
from hil.types import Array
from tests.system.control import (
    BALANCE,
    PERIOD_US,
    WATCHDOG_US,
    Poisoned,
    active,
    assert_cleared,
    assert_latched,
    balance,
    controller_of,
    end_after,
    ended,
    estimator_of,
    forces,
    loop_of,
    run,
    zero_at,
)
from tests.system.rigs import ROOT, hil, mirror
from tests.unit.sim.cart_pole import double_of


class Slow(AbstractController):
    """Takes `seconds` for every plan from number `begin` on."""

    def __init__(self, inner: AbstractController, begin: int, seconds: float) -> None:
        self._inner, self._begin, self._seconds = inner, begin, seconds
        self._asked = 0

    @property
    def horizon(self) -> int:
        return self._inner.horizon

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        self._asked += 1
        if self._asked > self._begin:
            time.sleep(self._seconds)
        return self._inner.solve(x, r, disturbance)

    def reset(self) -> None:
        self._inner.reset()


def test_a_controller_that_is_late_three_times_ends_in_a_stop(tmp_path: Path) -> None:
    """Under the wall clock: two inputs of the last plan, then no force, before the deadman."""
    config, record = balance(tmp_path, clock="wall", loop__deadline=0.8)
    with mirror(config, tmp_path), active(config) as rig:
        slow = Slow(controller_of(config, CartPoleModel()), 20, 0.2)
        steps = run(loop_of(config, rig, slow))
        answers = [step.answer for step in steps[-4:]]
        assert answers == [Answer.PLAN, Answer.SHIFTED, Answer.SHIFTED, Answer.SAFE]
        assert_stopped_after_the_plan(record, steps)
        assert end_after(record) < WATCHDOG_US
        assert_latched(config, record, rig, "control: no plan in 3 periods: late")
        assert_cleared(config, rig)


def assert_stopped_after_the_plan(record: Path, steps: list[ControlStep]) -> None:
    """The last forces are the first three of the last good plan, then none."""
    plan = next(step.solution for step in reversed(steps) if step.answer is Answer.PLAN)
    *_, first, second, third, zero = (force for _, force in forces(record))
    assert [first, second, third] == pytest.approx(plan.inputs[:3, 0].tolist(), rel=1e-6)
    assert zero == 0.0


@pytest.mark.parametrize("asked_by", ["controller", "estimator", "both"])
def test_a_model_that_says_nan_ends_in_a_stop(tmp_path: Path, asked_by: str) -> None:
    config, record = balance(tmp_path)
    with mirror(config, tmp_path), active(config) as rig:
        good, bad = CartPoleModel(), Poisoned()
        controller = controller_of(config, good if asked_by == "estimator" else bad)
        estimator = estimator_of(config, good if asked_by == "controller" else bad)
        steps = []
        for step in loop_of(config, rig, controller, estimator).run():
            steps.append(step)
            bad.poison = len(steps) >= 20
        plans = [step.answer for step in steps].index(Answer.SHIFTED)
        assert plans in (20, 21)  # an estimator may have looked a period ahead already
        answers = [step.answer for step in steps[plans:]]
        assert answers == [Answer.SHIFTED, Answer.SHIFTED, Answer.SAFE]
        assert_stopped_after_the_plan(record, steps)
        # Lock-step: a period each, and the zero at the sample that found no plan either.
        times = [at for at, _ in forces(record)[-4:]]
        assert np.diff(times).tolist() == [PERIOD_US] * 3
        assert_latched(config, record, rig, "control: no plan in 3 periods")
        assert_cleared(config, rig)


def test_one_nan_is_bridged_by_the_last_plan(tmp_path: Path) -> None:
    config, _ = balance(tmp_path, loop__duration=4.0)
    with mirror(config, tmp_path), active(config) as rig:
        bad = Poisoned()
        steps = []
        for step in loop_of(config, rig, controller_of(config, bad)).run():
            steps.append(step)
            bad.poison = len(steps) in (20, 40, 41)
        shifted = [k for k, step in enumerate(steps) if step.answer is not Answer.PLAN]
        assert shifted == [20, 40, 41]
        assert np.abs(steps[-1].x_hat).max() < 0.05


@pytest.mark.parametrize("stuck", [("angle",), ("position",), ("angle", "position")])
def test_a_frozen_encoder_is_noticed_by_the_device(tmp_path: Path, stuck: tuple[str, ...]) -> None:
    """No more than `rig.stuck_impulse` of changed force acts on a reading that stays."""
    begin = 0.3
    faults = [{"channel": name, "kind": "stuck", "begin": begin} for name in stuck]
    config, record = balance(tmp_path, board__plant__faults=faults)
    with mirror(config, tmp_path), active(config) as rig:
        with pytest.raises(FaultError, match="device fault STUCK"):
            run(loop_of(config, rig))
        acted = impulse_since(record, begin * 1e6)
        assert 0 < acted <= config.rig["stuck_impulse"] + 40.0 * config.rig["tick"]
        assert_latched(config, record, rig, "device fault STUCK")
        assert_cleared(config, rig)
        # The cause is still there: powered again it ends again, within the same bound.
        rig.activate()
        with pytest.raises(FaultError, match="device fault STUCK"):
            run(loop_of(config, rig))
        assert ended(record)


def test_the_command_line_says_why_it_stopped(tmp_path: Path) -> None:
    faults = "board.plant.faults=[{channel='angle', kind='stuck', begin=0.3}]"
    done = hil("control", str(BALANCE), "--sim", "--runs", str(tmp_path), "--set", faults)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hil: ")]
    assert "device fault STUCK" in line
    assert "Traceback" not in done.stderr


def impulse_since(record: Path, begin_us: float) -> float:
    """Return ∫|u − u at begin| dt from then to the first zero after it, N·s."""
    before, after = [[e for e in forces(record) if (e[0] > begin_us) == late] for late in (0, 1)]
    acted, (since, force) = 0.0, (begin_us, before[-1][1])
    for at, value in after:
        acted += abs(force - before[-1][1]) * (at - since) / 1e6
        since, force = at, value
        if value == 0.0:
            break
    return acted


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("balance", {}),
        ("balance", {"board.plant.angle_noise": 0.0, "board.plant.position_noise": 0.0}),
        ("balance", {"board.plant.push": 2.0}),
        ("cart_pole_collect", {}),
        ("swing_up", {}),
    ],
)
def test_what_is_shipped_stays_clear_of_being_taken_for_stuck(
    name: str, overrides: dict[str, float]
) -> None:
    """Where readings rest for the longest, 60 % of what is allowed is not used up."""
    path = ROOT / f"configs/{name}.toml"
    allowed = load(path).rig["stuck_impulse"]
    config = load(
        path,
        sim=True,
        overrides={"loop.duration": 30.0, "rig.stuck_impulse": 0.6 * allowed, **overrides},
    )
    parts = Parts(config, excite=name == "cart_pole_collect")
    with double_of(config) as rig:
        rig.configure()
        rig.activate()
        loop = ControlLoop(
            rig,
            parts.estimator,
            parts.controller,
            parts.loop,
            period_s=parts.period_s,
            reference=parts.task.reference,
        )
        assert len(run(loop)) == parts.periods


def test_a_dead_encoder_is_a_fault_at_once(tmp_path: Path) -> None:
    faults = [{"channel": "angle", "kind": "off", "begin": 0.305}]
    config, record = balance(tmp_path, board__plant__faults=faults)
    with mirror(config, tmp_path), active(config) as rig:
        with pytest.raises(FaultError, match="device fault SENSOR"):
            run(loop_of(config, rig))
        assert zero_at(record) == 305_000  # the very tick
        assert_latched(config, record, rig, "device fault SENSOR")
        rig.clear()  # in vain
        with pytest.raises(FaultError, match="device fault SENSOR"):
            rig.read()
