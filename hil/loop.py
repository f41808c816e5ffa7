"""The control spine: read, estimate, plan, write; and the declared answers when it fails.

    y = rig.read() → x̂ = estimator(y, u) → plan = controller.solve(x̂, r) → u = rig.write(plan)

The rig sets the pace. A period without a plan of its own (late, infeasible, failed) is
answered by the next input of the last good plan; `fallback_max` such periods in a row end
in a stop, latched at the device's owner. Nothing here waits longer than a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.control.base import AbstractController, AbstractEstimator, Solution, SolutionStatus
from hil.rigs.base import AbstractDynamicRig, DynamicSample
from hil.types import Array


class Answer(StrEnum):
    """Where the input of a period came from."""

    PLAN = "plan"  # of this period
    FALLBACK = "fallback"  # of the controller declared for outside the model's data
    SHIFTED = "shifted"  # the next input of the last good plan
    SAFE = "safe"  # none: the rig was stopped


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


@dataclass(frozen=True)
class ControlStep:
    """One period of the loop."""

    sample: DynamicSample
    x_hat: Array  # (nx,), estimated, at the time at which the input acts
    u: Array  # (nu,), applied; zeros where the rig was stopped
    solution: Solution
    answer: Answer
    round_trip_us: float  # from the sample's arrival to the applied input, wall time


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
    """Runs a controller on a dynamic rig that is active.

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
        self._plan: Solution | None = None  # the last good one
        self._used = 0  # of its inputs
        self._without = 0  # periods in a row without a plan

    def run(self) -> Iterator[ControlStep]:
        """Yield every period; ends with the duration, or with a step whose answer is SAFE.

        Raises what the rig raises: its owner has made it safe then.
        """
        punctual = Punctual(self._controller, self._settings.deadline * self._period_s)
        try:
            yield from self._periods(punctual)
        finally:
            punctual.close()

    def _periods(self, punctual: Punctual) -> Iterator[ControlStep]:
        u: Array | None = None
        for k in range(round(self._settings.duration / self._period_s)):
            sample = self._rig.read()
            begin = time.perf_counter()
            if u is None:
                self._estimator.reset(sample.y)
                self._controller.reset()
                u = sample.u
            x_hat = self._estimator.update(sample.y, u)
            reference = self._reference(k * self._period_s)
            solution = punctual.solve(x_hat, reference, self._estimator.disturbance)
            wanted, answer = self._answer(solution)
            if wanted is None:
                self._rig.stop(f"control: no plan in {self._without} periods: {solution.detail}")
                yield ControlStep(sample, x_hat, np.zeros_like(u), solution, answer, 0.0)
                return
            u = self._rig.write(wanted)
            trip = (time.perf_counter() - begin) * 1e6
            yield ControlStep(sample, x_hat, u, solution, answer, trip)

    def _answer(self, solution: Solution) -> tuple[Array | None, Answer]:
        """Return the input of this period, None when there is none any more."""
        if solution.status is SolutionStatus.OPTIMAL:
            self._plan, self._used, self._without = solution, 1, 0
            return solution.inputs[0], Answer.PLAN
        if solution.status is SolutionStatus.OUTSIDE and len(solution.inputs):
            self._plan, self._used, self._without = solution, 1, 0
            return solution.inputs[0], Answer.FALLBACK
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
    return Solution(nothing, nothing, SolutionStatus.FAILED, took, "late: past its deadline")
