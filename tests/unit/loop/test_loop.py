"""The control spine: every way to be without a plan has its declared answer."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from hil.control.base import AbstractController, AbstractEstimator, Solution, SolutionStatus
from hil.errors import FaultError, RunError
from hil.loop import Answer, ControlLoop, ControlStep, Delay, LoopSettings
from hil.rigs.base import AbstractDynamicRig, DynamicRigInfo, DynamicSample, RigState
from hil.types import Array

PERIOD = 0.02


class RecordedRig(AbstractDynamicRig):
    """Counts samples and keeps what was written; stops when told."""

    def __init__(self, gaps: dict[int, int] | None = None) -> None:
        self.written: list[float] = []
        self.stopped = ""
        self._count = 0
        self._gaps = gaps or {}  # how many samples are lost before the n-th read, from 1
        self._reads = 0

    @property
    def state(self) -> RigState:
        return RigState.FAULT if self.stopped else RigState.ACTIVE

    @property
    def fault(self) -> str:
        return self.stopped

    def configure(self) -> DynamicRigInfo:
        raise AssertionError

    def activate(self) -> None: ...
    def deactivate(self) -> None: ...
    def clear(self) -> None: ...
    def poll(self) -> None: ...
    def close(self) -> None: ...

    def stop(self, reason: str = "") -> None:
        self.stopped = reason

    def read(self) -> DynamicSample:
        self._reads += 1
        missed = self._gaps.get(self._reads, 0)
        self._count += 1 + missed
        return DynamicSample(np.zeros(2), np.zeros(1), self._count * 20_000, self._count, missed)

    def write(self, u: Array) -> Array:
        applied = np.clip(u, -5.0, 5.0)
        self.written.append(float(applied[0]))
        return applied


class Seen(AbstractEstimator):
    """Keeps the inputs it is told of."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.periods: list[int] = []
        self.prepared: list[float] = []

    def prepare(self, u: Array) -> None:
        self.prepared.append(float(u[0]))

    def update(self, y: Array, u: Array, periods: int = 1) -> Array:
        self.told.append(float(u[0]))
        self.periods.append(periods)
        return np.zeros(4)

    @property
    def disturbance(self) -> Array:
        return np.array([0.25])

    def reset(self, y: Array) -> None:
        self.told.clear()


class Scripted(AbstractController):
    """Answers period k with what the script returns."""

    def __init__(self, script: Callable[[int], Solution]) -> None:
        self._script = script
        self.solved = 0
        self.resets = 0
        self.prepared = 0
        self.known: list[float] = []

    @property
    def horizon(self) -> int:
        return 4

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        assert disturbance is not None
        self.known.append(float(disturbance[0]))
        self.solved += 1
        return self._script(self.solved - 1)

    def prepare(self, x: Array, r: Array) -> None:
        self.prepared += 1

    def reset(self) -> None:
        self.resets += 1


def plan(first: float) -> Solution:
    inputs = first + np.arange(4.0)[:, None]
    return Solution(inputs, np.zeros((5, 4)), SolutionStatus.OPTIMAL, 1.0)


def none(status: SolutionStatus = SolutionStatus.FAILED) -> Solution:
    return Solution(np.zeros((0, 1)), np.zeros((0, 4)), status, 1.0, "because")


def run(
    controller: AbstractController, rig: RecordedRig, estimator: Seen | None = None,
    periods: int = 10, **settings: float,
) -> list[ControlStep]:  # fmt: skip
    loop = ControlLoop(
        rig, estimator or Seen(), controller,
        LoopSettings(duration=periods * PERIOD, **settings),  # type: ignore[arg-type]
        period_s=PERIOD, reference=lambda t: np.zeros(4),
    )  # fmt: skip
    return list(loop.run())


def test_the_estimator_learns_what_was_applied_not_what_was_wanted() -> None:
    rig, estimator = RecordedRig(), Seen()
    steps = run(Scripted(lambda k: plan(9.0)), rig, estimator, periods=3)
    assert rig.written == [5.0, 5.0, 5.0]
    assert estimator.told == [0.0, 5.0, 5.0]
    assert [step.answer for step in steps] == [Answer.PLAN] * 3


def test_a_controller_that_breaks_its_contract_is_a_latched_stop() -> None:
    def script(k: int) -> Solution:
        if k == 2:
            raise ZeroDivisionError("by nothing")
        return plan(1.0)

    rig = RecordedRig()
    with pytest.raises(RunError, match="control: ZeroDivisionError: by nothing"):
        run(Scripted(script), rig)
    assert rig.stopped == "control: ZeroDivisionError: by nothing"
    assert len(rig.written) == 2


def test_what_the_rig_raises_is_the_rigs_to_answer() -> None:
    class Broken(RecordedRig):
        def write(self, u: Array) -> Array:
            raise FaultError("latched")

    rig = Broken()
    with pytest.raises(FaultError, match="latched"):
        run(Scripted(lambda k: plan(1.0)), rig)
    assert rig.stopped == ""


def test_what_was_prepared_is_not_forgotten_at_the_start() -> None:
    controller = Scripted(lambda k: plan(1.0))
    prepared = ControlLoop(
        RecordedRig(), Seen(), controller, LoopSettings(duration=3 * PERIOD),
        period_s=PERIOD, reference=lambda t: np.zeros(4),
    )  # fmt: skip
    prepared.prepare()
    assert (controller.prepared, controller.resets) == (1, 1)
    assert list(prepared.run())
    assert controller.resets == 1
    assert list(prepared.run())  # again, and not prepared
    assert controller.resets == 2


@pytest.mark.parametrize("deadline", [0.0, 0.9])
def test_the_controller_is_told_of_the_disturbance(deadline: float) -> None:
    controller = Scripted(lambda k: plan(1.0))
    run(controller, RecordedRig(), periods=3, deadline=deadline)
    assert controller.known == [0.25] * 3


@pytest.mark.parametrize("status", [SolutionStatus.FAILED, SolutionStatus.INFEASIBLE])
def test_without_a_plan_the_last_one_goes_on_and_the_next_starts_cold(
    status: SolutionStatus,
) -> None:
    rig = RecordedRig()
    controller = Scripted(lambda k: none(status) if k in (1, 2, 5) else plan(float(k) / 10))
    steps = run(controller, rig, periods=7)
    assert rig.written == pytest.approx([0.0, 1.0, 2.0, 0.3, 0.4, 1.4, 0.6])
    shifted = [k for k, step in enumerate(steps) if step.answer is Answer.SHIFTED]
    assert shifted == [1, 2, 5]
    assert controller.resets == 1 + 3  # at the start, and after each failure


def test_three_periods_without_a_plan_end_in_a_stop() -> None:
    rig = RecordedRig()
    steps = run(Scripted(lambda k: plan(1.0) if k < 2 else none()), rig)
    assert [step.answer for step in steps][-3:] == [Answer.SHIFTED, Answer.SHIFTED, Answer.SAFE]
    assert len(steps) == 5
    assert "no plan in 3 periods: because" in rig.stopped
    assert len(rig.written) == 4


def test_no_plan_from_the_start_is_a_stop_at_once() -> None:
    rig = RecordedRig()
    (step,) = run(Scripted(lambda k: none()), rig)
    assert step.answer is Answer.SAFE
    assert rig.written == []


def test_a_late_controller_is_answered_inside_its_deadline() -> None:
    """It hangs until released: the loop does not, and stops after three."""
    release = threading.Event()

    def script(k: int) -> Solution:
        if k == 1:
            release.wait(30)
        return plan(1.0)

    rig = RecordedRig()
    loop = ControlLoop(
        rig, Seen(), Scripted(script), LoopSettings(duration=1.0, deadline=0.5),
        period_s=PERIOD, reference=lambda t: np.zeros(4),
    )  # fmt: skip
    steps = []
    for step in loop.run():
        steps.append(step)
        if step.answer is Answer.SAFE:
            release.set()
    assert [step.answer for step in steps] == [
        Answer.PLAN, Answer.SHIFTED, Answer.SHIFTED, Answer.SAFE,
    ]  # fmt: skip
    assert "late" in rig.stopped
    assert rig.written == [1.0, 2.0, 3.0]


def test_a_plan_for_an_older_state_is_not_followed() -> None:
    """A solve that ends in the next period belongs to a state that is gone."""
    release = threading.Event()

    def script(k: int) -> Solution:
        if k == 1:
            release.wait(30)
        return plan(10.0 * k)

    rig = RecordedRig()
    loop = ControlLoop(
        rig, Seen(), Scripted(script),
        LoopSettings(duration=5 * PERIOD, deadline=0.9, fallback_max=1000),
        period_s=PERIOD, reference=lambda t: np.zeros(4),
    )  # fmt: skip
    answers = []
    for k, step in enumerate(loop.run()):
        answers.append(step.answer)
        if k == 1:
            release.set()
    assert answers[:3] == [Answer.PLAN, Answer.SHIFTED, Answer.SHIFTED]
    assert Answer.PLAN in answers[3:]
    assert rig.written[2] == 2.0


def test_missed_samples_advance_the_estimator_and_the_time() -> None:
    """Two samples are lost before the third read; what was applied acted in all three periods."""
    rig, seen = RecordedRig({1: 7, 3: 2}), Seen()
    asked: list[float] = []

    def reference(t: float) -> Array:
        asked.append(t)
        return np.zeros(4)

    loop = ControlLoop(
        rig, seen, Scripted(lambda k: plan(1.0 + k)), LoopSettings(duration=6 * PERIOD),
        period_s=PERIOD, reference=reference,
    )  # fmt: skip
    steps = list(loop.run())
    assert [step.sample.missed for step in steps] == [0, 0, 2, 0]  # before the first: nobody's
    assert seen.periods == [1, 1, 3, 1]
    assert seen.told == [0.0, 1.0, 2.0, 3.0]
    assert seen.prepared == rig.written == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(asked, np.array([0, 1, 4, 5]) * PERIOD)


def test_the_hops_add_up_to_the_round_trip() -> None:
    steps = run(Scripted(lambda k: plan(1.0)), RecordedRig())
    for step in steps:
        assert min(step.hops) >= 0
        assert step.hops.round_trip == sum(step.hops[1:])


def test_a_delay_is_counted_from_the_fastest_of_late() -> None:
    """The device's clock is 50 ppm slow; samples come 300 us after they are taken, one 500."""
    delay, found = Delay(), []
    for k in range(4000):  # the clocks part by 2 ms, ten times what is looked for
        taken = 0.01 * k
        late = 5e-4 if k == 3000 else 3e-4
        found.append(delay.of(round(taken * (1 - 5e-5) * 1e6), 7.0 + taken + late))
    ours = Delay.WINDOW * 0.01 * 50  # us that the clocks part in what is remembered
    assert found[3000] == pytest.approx(200.0, abs=ours + 1)
    assert max(found[:3000]) < ours + 1
