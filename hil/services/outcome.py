"""What a control loop leaves: records while it runs, figures and pictures at its end.

The recording holds nothing that was read off a wall clock, so that a virtual run gives the
same bytes twice. Times are kept apart: their figures in results.json, each period's in
timing.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from hil.errors import RunError
from hil.loop import Answer, ControlStep, Hops
from hil.plots.control import draw_adaptation, draw_budget, draw_control, draw_latency
from hil.recording.run import RESULTS, Run
from hil.services.adaptation_records import AdaptationOutcome
from hil.services.parts import Parts
from hil.services.rates import Rates, line
from hil.types import Array, ClockKind

TIMING = "timing.csv"  # beside results.json
HOPS = {
    "sensor": "sensor to host",
    "estimate": "estimate",
    "solve": "solve",
    "write": "write and apply",
}


class ControlRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One period of a control loop; nothing in it is read off a wall clock."""

    seq: int
    t_ns: int
    sample: int
    device_us: int
    missed: int
    y: list[float]  # (ny,), measured, SI
    x_hat: list[float]  # (nx,), estimated
    u: list[float]  # (nu,), applied
    status: str
    answer: str
    flags: list[str]


class Spread(msgspec.Struct, frozen=True):
    """How long a hop takes, us of wall time."""

    p50: float
    p99: float
    max: float


class ControlOutcome(msgspec.Struct, frozen=True):
    """What a loop ended with: the JSON line of `hil control`."""

    steps: int
    cost: float
    final_error_norm: float
    max_abs_input: float
    solve_us_p50: float
    solve_us_p99: float
    round_trip_us_p50: float
    round_trip_us_p99: float
    missed_deadlines: int
    missed_samples: int
    fallbacks: int
    ended: str  # "done", or why the rig was stopped
    figures: dict[str, float]  # the task's own
    rate: Rates
    hops: dict[str, Spread]
    realtime: list[str]  # what was asked of the system, and what it said
    run: str
    plots: list[str]
    adaptation: AdaptationOutcome | None = None


class History:
    """What is kept of every period until the end of a loop.

    clock: under the virtual one no deadline is missed but by the loop's own word: the device
    waits.
    """

    def __init__(self, period_s: float, clock: ClockKind) -> None:
        self.wall = clock == "wall"
        self._period_us = period_s * 1e6
        self._times: list[int] = []
        self._states: list[Array] = []
        self._inputs: list[Array] = []
        self._hops: list[Hops] = []
        self._solve: list[float] = []
        self.missed_deadlines = self.missed_samples = self.fallbacks = 0
        self.last: ControlStep | None = None

    def __len__(self) -> int:
        return len(self._states)

    def add(self, step: ControlStep) -> int:
        """Keep a period; return how much was missed in it: a deadline, samples."""
        late = step.late or (self.wall and step.hops.round_trip > self._period_us)
        self.missed_deadlines += late
        self.missed_samples += step.sample.missed
        self.fallbacks += step.answer is not Answer.PLAN
        self._times.append(step.sample.device_us)
        self._states.append(step.x_hat)
        self._inputs.append(step.u)
        self._hops.append(step.hops)
        self._solve.append(step.solution.solve_us)
        self.last = step
        return late + step.sample.missed

    @property
    def time(self) -> Array:
        """Device time of every period since the first, (steps,), s."""
        return (np.array(self._times) - self._times[0]) / 1e6

    @property
    def states(self) -> Array:
        """Estimated states, (steps, nx)."""
        return np.array(self._states)

    @property
    def inputs(self) -> Array:
        """Applied inputs, (steps, nu)."""
        return np.array(self._inputs)

    @property
    def solve_us(self) -> Array:
        """What the controller says it took, (steps,), us; `hops` holds the wait for it."""
        return np.array(self._solve)

    @property
    def hops(self) -> dict[str, Array]:
        """Every hop by the name of its field, (steps,), us.

        Under the virtual clock device time says nothing of how old a sample is: left out.
        """
        table = np.array(self._hops)
        columns = dict(zip(Hops._fields, table.T, strict=True))
        return columns if self.wall else {k: v for k, v in columns.items() if k != "sensor"}

    @property
    def round_trip_us(self) -> Array:
        """From a sample's arrival to the applied input, (steps,), us."""
        return np.array([hops.round_trip for hops in self._hops])


def record(seq: int, step: ControlStep, t_ns: int) -> ControlRecord:
    """Return a period as it is recorded."""
    return ControlRecord(
        seq=seq,
        t_ns=t_ns,
        sample=step.sample.sequence,
        device_us=step.sample.device_us,
        missed=step.sample.missed,
        y=step.sample.y.tolist(),
        x_hat=step.x_hat.tolist(),
        u=step.u.tolist(),
        status=step.solution.status,
        answer=step.answer,
        flags=list(step.sample.flags),
    )


def finish(
    run: Run,
    parts: Parts,
    history: History,
    rate: Rates,
    realtime: Sequence[str],
    adaptation: AdaptationOutcome | None = None,
) -> ControlOutcome:
    """Draw, write down and return what a loop came to; raises RunError without a period."""
    last = history.last
    if last is None:
        raise RunError(f"{run.path}: not one period; loop.duration is shorter than rig.period")
    states, inputs = history.states, history.inputs
    hops = {name: spread(values) for name, values in history.hops.items()}
    solve, trip = spread(history.solve_us), spread(history.round_trip_us)
    outcome = ControlOutcome(
        steps=len(history),
        cost=parts.task.cost(states, inputs),
        final_error_norm=parts.task.error_norm(last.x_hat),
        max_abs_input=float(np.abs(inputs).max()),
        solve_us_p50=solve.p50,
        solve_us_p99=solve.p99,
        round_trip_us_p50=trip.p50,
        round_trip_us_p99=trip.p99,
        missed_deadlines=history.missed_deadlines,
        missed_samples=history.missed_samples,
        fallbacks=history.fallbacks,
        ended="done" if last.answer is not Answer.SAFE else last.solution.detail or "no plan",
        figures=parts.task.figures(history.time, states, inputs),
        rate=rate,
        hops=hops,
        realtime=list(realtime),
        run=str(run.path),
        plots=[str(path) for path in _draw(run, history, adaptation)],
        adaptation=adaptation,
    )
    _write_timing(run, history)
    run.write_json(RESULTS, outcome)
    return outcome


def spread(values: Array) -> Spread:
    """Return median, 99th percentile and largest of times in us."""
    return Spread(*(float(v) for v in np.percentile(values, [50, 99, 100])))


def _write_timing(run: Run, history: History) -> None:
    columns = {"time": history.time} | {f"{k}_us": v for k, v in history.hops.items()}
    table = np.column_stack(list(columns.values()))
    header = ",".join(columns)
    np.savetxt(run.path / TIMING, table, "%.6f", ",", header=header, comments="")


def _draw(run: Run, history: History, adaptation: AdaptationOutcome | None) -> list[Path]:
    run.plots.mkdir(exist_ok=True)
    motion, latency, budget = (
        run.plots / f"{name}.png" for name in ("control", "latency", "budget")
    )
    title = f"Control, {len(history)} periods"
    draw_control(history.time, history.states, history.inputs, motion, title=title)
    times = {"solve": history.solve_us, "sample to applied": history.round_trip_us}
    draw_latency(times, latency, title="Time per period")
    named = {HOPS[name]: values for name, values in history.hops.items()}
    draw_budget(named, budget, title="Where a period goes")
    if adaptation is None:
        return [motion, latency, budget]
    adapted, judged = run.plots / "adaptation.png", adaptation.judged
    draw_adaptation(
        np.array([r.time for r in judged]),
        np.array([r.error for r in judged]),
        np.array([r.candidate_error for r in judged]),
        np.array([r.taken for r in judged], dtype=bool),
        adapted,
    )
    return [motion, latency, budget, adapted]


def summary(outcome: ControlOutcome) -> str:
    """Return a result as lines for a person."""
    hops = ", ".join(f"{HOPS[name]} {s.p50:.0f}/{s.p99:.0f}" for name, s in outcome.hops.items())
    figures = ", ".join(f"{name} {value:.4g}" for name, value in outcome.figures.items())
    return "\n".join(
        [
            f"steps      {outcome.steps}, cost {outcome.cost:.2f}, final error "
            f"{outcome.final_error_norm:.2e}, largest input {outcome.max_abs_input:.2f}",
            *([f"task       {figures}"] if figures else []),
            f"rate       {line(outcome.rate)}",
            f"solve      p50 {outcome.solve_us_p50:.0f} us, p99 {outcome.solve_us_p99:.0f} us",
            f"round trip p50 {outcome.round_trip_us_p50:.0f} us, p99 "
            f"{outcome.round_trip_us_p99:.0f} us (sample to applied input)",
            f"hops       {hops} us (p50/p99)",
            f"missed     {outcome.missed_deadlines} deadlines, {outcome.missed_samples} samples, "
            f"{outcome.fallbacks} fallbacks",
            *([] if outcome.adaptation is None else [outcome.adaptation.line]),
            *outcome.realtime,
            f"run        {outcome.run}",
            *(f"           {path}" for path in outcome.plots),
        ]
    )
