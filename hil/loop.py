"""The control spine: read, estimate, plan, write; and the declared answers when it fails.

    y = rig.read() → x̂ = estimator(y, u) → plan = controller.solve(x̂, r) → u = rig.write(plan)

The rig sets the pace. A period without a plan of its own (late, infeasible, failed) is
answered by the next input of the last good plan; `fallback_max` such periods in a row end
in a stop, latched at the device's owner. Nothing here waits longer than a deadline.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.control.base import AbstractController, AbstractEstimator, Solution, SolutionStatus
from hil.errors import HilError, RunError
from hil.realtime import RealTimeSettings
from hil.rigs.base import AbstractDynamicRig, DynamicSample
from hil.types import Array

LATE = "late: past its deadline"


class Answer(StrEnum):
    """Where the input of a period came from."""

    PLAN = "plan"  # of this period
    FALLBACK = "fallback"  # of the controller declared for outside the model's data
    SHIFTED = "shifted"  # the next input of the last good plan
    SAFE = "safe"  # none: the rig was stopped


FOLLOWED = {
    SolutionStatus.OPTIMAL: Answer.PLAN,
    SolutionStatus.SAMPLED: Answer.PLAN,
    SolutionStatus.OUTSIDE: Answer.FALLBACK,
}


class LoopSettings(Settings, frozen=True, kw_only=True):
    """How a loop ends and what it does without a plan."""

    duration: Annotated[float, Meta(gt=0, le=86400, description="s")] = 10.0
    deadline: Annotated[
        float,
        Meta(ge=0, lt=1, description="share of a period a plan may take; 0: no deadline"),
    ] = 0.0
    fallback_max: Annotated[
        int, Meta(ge=1, le=1000, description="periods in a row without a plan before a stop")
    ] = 3
    realtime: RealTimeSettings = RealTimeSettings()


class Hops(NamedTuple):
    """What a period is spent on, wall time, us."""

    sensor: float  # from the measurement until it was read
    estimate: float
    solve: float  # waiting for the controller
    write: float  # until the rig said what it applied

    @property
    def round_trip(self) -> float:
        """From the sample's arrival to the applied input."""
        return self.estimate + self.solve + self.write


@dataclass(frozen=True)
class ControlStep:
    """One period of the loop."""

    sample: DynamicSample
    x_hat: Array  # (nx,), estimated, at the time at which the input acts
    u: Array  # (nu,), applied; zeros where the rig was stopped
    solution: Solution
    answer: Answer
    hops: Hops  # nothing that is recorded may depend on them

    @property
    def late(self) -> bool:
        """Whether the controller did not answer within its deadline."""
        return self.solution.detail == LATE


class Delay:
    """How much longer than the fastest of late a sample took to get here.

    Two clocks that are not set by each other show differences of delays only; the fastest
    of the last samples is the zero, so that their drift does not count.
    """

    WINDOW = 256

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=self.WINDOW)

    def of(self, device_us: int, arrived: float) -> float:
        """Return it in us for a sample of `device_us` that arrived at `arrived` s, host time."""
        apart = arrived * 1e6 - device_us
        self._newest.append(apart)
        return apart - min(self._newest)


class Punctual:
    """Asks a controller and gives up at a deadline; the answer then is FAILED, "late".

    A solve that is still running when the next period begins makes that one late as well:
    two never run side by side. deadline_s: 0 asks in this thread and waits.
    """

    def __init__(self, controller: AbstractController, deadline_s: float) -> None:
        self._controller = controller
        self._deadline_s = deadline_s
        self._worker = ThreadPoolExecutor(1, "controller") if deadline_s > 0 else None
        self._pending: Future[Solution] | None = None

    def solve(self, x: Array, r: Array, disturbance: Array) -> Solution:
        """Return a plan, or why there is none."""
        if self._worker is None:
            return self._controller.solve(x, r, disturbance)
        begin = time.perf_counter()
        if self._pending is None:
            self._pending = self._worker.submit(self._controller.solve, x, r, disturbance)
            fresh = True
        else:
            fresh = False  # still busy with an earlier state: its plan is not for this one
        try:
            solution = self._pending.result(self._deadline_s)
        except Late:
            return _late(begin)
        self._pending = None
        return solution if fresh else _late(begin)

    def close(self) -> None:
        """Wait for a solve that is still running."""
        if self._worker is not None:
            self._worker.shutdown()


class ControlLoop:
    """Runs a controller on a dynamic rig that is active; prepares it while it is not.

    period_s: of the rig's samples; reference: time since the start, s → r (nx,).
    """

    def __init__(
        self,
        rig: AbstractDynamicRig,
        estimator: AbstractEstimator,
        controller: AbstractController,
        settings: LoopSettings,
        *,
        period_s: float,
        reference: Callable[[float], Array],
    ) -> None:
        self._rig = rig
        self._estimator = estimator
        self._controller = controller
        self._settings = settings
        self._period_s = period_s
        self._reference = reference
        self._delay = Delay()
        self._plan: Solution | None = None  # the last good one
        self._used = 0  # of its inputs
        self._without = 0  # periods in a row without a plan
        self._prepared = False

    def prepare(self) -> None:
        """Let the controller get ready from where the rig stands, inactive.

        A first plan may take longer than a period. Raises what the rig raises.
        """
        y = self._rig.read().y
        self._estimator.reset(y)
        self._controller.reset()
        x_hat = self._estimator.update(y, np.zeros_like(self._estimator.disturbance))
        self._controller.prepare(x_hat, self._reference(0.0))
        self._prepared = True

    def run(self) -> Iterator[ControlStep]:
        """Yield every period; ends with the duration, or with a step whose answer is SAFE.

        Raises what the rig raises: its owner has made it safe then. Anything else that is
        raised breaks a contract; the rig is stopped, and RunError says what it was.
        """
        punctual = Punctual(self._controller, self._settings.deadline * self._period_s)
        try:
            yield from self._periods(punctual)
        except HilError:
            raise
        except Exception as error:
            said = f"control: {type(error).__name__}: {error}"
            self._rig.stop(said)
            raise RunError(said) from error
        finally:
            punctual.close()

    def _periods(self, punctual: Punctual) -> Iterator[ControlStep]:
        u: Array | None = None
        first = 0
        self._plan, self._used, self._without = None, 0, 0  # no earlier run is replayed
        end = round(self._settings.duration / self._period_s)
        k = -1  # of the sample at hand, from 0; a missed one has its number, too
        while k + 1 < end:
            sample = self._rig.read()
            arrived = time.perf_counter()
            if u is None:
                self._estimator.reset(sample.y)
                if not self._prepared:
                    self._controller.reset()
                self._prepared = False
                sample = replace(sample, missed=0)  # what was before is nobody's
                u, first = sample.u, sample.sequence
            k = sample.sequence - first
            x_hat = self._estimator.update(sample.y, u, 1 + sample.missed)
            estimated = time.perf_counter()
            reference = self._reference(k * self._period_s)
            solution = punctual.solve(x_hat, reference, self._estimator.disturbance)
            wanted, answer = self._answer(solution)
            solved = time.perf_counter()
            if wanted is None:
                self._rig.stop(f"control: no plan in {self._without} periods: {solution.detail}")
                u = np.zeros_like(u)
            else:
                u = self._rig.write(wanted)
            hops = Hops(
                self._delay.of(sample.device_us, arrived),
                (estimated - arrived) * 1e6,
                (solved - estimated) * 1e6,
                (time.perf_counter() - solved) * 1e6,
            )
            if wanted is not None:
                self._estimator.prepare(u)
            yield ControlStep(sample, x_hat, u, solution, answer, hops)
            if wanted is None:
                return

    def _answer(self, solution: Solution) -> tuple[Array | None, Answer]:
        """Return the input of this period, None when there is none any more."""
        answer = FOLLOWED.get(solution.status)
        if answer is not None and len(solution.inputs) and np.isfinite(solution.inputs).all():
            self._plan, self._used, self._without = solution, 1, 0
            return solution.inputs[0], answer
        self._without += 1
        self._controller.reset()  # a start from a failed solve poisons the next
        plan = self._plan
        if plan is None or self._without >= self._settings.fallback_max:
            return None, Answer.SAFE
        at = min(self._used, len(plan.inputs) - 1)
        self._used += 1
        return plan.inputs[at], Answer.SHIFTED


def _late(begin: float) -> Solution:
    took = (time.perf_counter() - begin) * 1e6
    nothing = np.zeros((0, 0))
    return Solution(nothing, nothing, SolutionStatus.FAILED, took, LATE)
