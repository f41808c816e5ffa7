"""A control loop as a process: rig, model, estimator and controller put together."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hil.clock import make_clock
from hil.config import Config, build, check, merge
from hil.control.base import AbstractController
from hil.control.domain_guard import DomainGuard
from hil.control.excitation import Excited
from hil.errors import ConfigError, InputError, RunError
from hil.loop import Answer, ControlLoop, ControlStep, LoopSettings
from hil.plots.control import draw_control, draw_latency
from hil.recording.run import CONFIG, RESULTS, Run
from hil.recording.writer import Recorder, versions
from hil.rigs.base import DynamicRigInfo
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from hil.services import owner
from hil.services.mirror import bus_address
from hil.services.session import require_mirror
from hil.tasks.balance import Balance
from hil.types import Array

Say = Callable[[str], None]
PARTS = ("task", "model", "estimator", "control")


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
    run: str
    plots: list[str]


def control(config: Config, runs: Path, say: Say, *, excite: bool = False) -> ControlOutcome:
    """Run the loop a configuration describes, in a new run directory.

    excite: add the configuration's excitation to the input, to collect data by.

    Raises ConfigError before anything is touched, RunError where the rig ended in a stop.
    """
    parts = _Parts(config, excite)
    run = Run.create(runs, config.name, datetime.now())
    run.write_json(CONFIG, config)
    say(f"run {run.path}")
    try:
        outcome = _session(config, parts, run, say)
    except InputError:
        if not run.parts():  # refused before anything was measured: nothing is worth keeping
            shutil.rmtree(run.path)
        raise
    if outcome.ended != "done":
        raise RunError(f"{outcome.ended}; the recording is in {run.path}")
    return outcome


class _Parts:
    """What a configuration describes, checked before a device is touched."""

    def __init__(self, config: Config, excite: bool) -> None:
        for name in (*PARTS, "excitation") if excite else PARTS:
            if getattr(config, name) is None:
                raise ConfigError(f"{name}: missing; it needs [{'], ['.join(PARTS)}]")
        assert config.task is not None
        assert config.model is not None
        assert config.estimator is not None
        assert config.control is not None
        period = float(config.rig.get("period", 0.0))
        self.period_s = period
        self.task: Balance = build(config.task, "task")
        self.model = build(config.model, "model")
        self.estimator = build(_paced(config.estimator, "estimator", period), "estimator",
                               dynamics=self.model)  # fmt: skip
        self.controller = build(
            _paced(config.control, "control", period), "control", dynamics=self.model
        )
        if config.fallback is not None and hasattr(self.model, "domain"):
            self.controller = DomainGuard(
                self.controller, self.model, self._fallback(config.fallback, period)
            )
        if excite:
            assert config.excitation is not None
            signal = build(config.excitation, "excitation", seed=config.seed)
            self.controller = Excited(self.controller, signal, period)
        self.loop = check(config.loop, LoopSettings, "loop")

    @staticmethod
    def _fallback(table: dict[str, Any], period: float) -> AbstractController:
        """Return the controller for outside the model's data, on a model of its own."""
        rest = dict(table)
        model = build(rest.pop("model", {}), "fallback.model")
        made: AbstractController = build(
            _paced(rest, "fallback", period), "fallback", dynamics=model
        )
        return made


def _paced(table: dict[str, Any], where: str, period: float) -> dict[str, Any]:
    """Return a part's table with the period of the rig as its dt."""
    if table.get("dt", period) != period:
        raise ConfigError(
            f"{where}.dt: {table['dt']} s, the rig's period is {period} s; leave it out"
        )
    return merge({"dt": period}, table)


def _session(config: Config, parts: _Parts, run: Run, say: Say) -> ControlOutcome:
    address, keys, _ = bus_address(config)
    with contextlib.ExitStack() as stack:
        if not require_mirror(config, address):
            say(f"no mirror serves {address.name}: starting one")
            job = owner.MirrorJob(config)
            stack.enter_context(owner.ChildMirror(job, run.path / "mirror.log"))
        name = f"control-{os.getpid()}"
        rig = stack.enter_context(RemoteDynamicRig(address, mint=Minting, client=name, keys=keys))
        info = rig.configure()
        if round(parts.period_s * 1e6) != info.period_us:
            raise ConfigError(
                f"rig.period: {parts.period_s} s, the mirror's rig has {info.period_us / 1e6} s"
            )
        rig.activate()
        recorder = stack.enter_context(
            Recorder(run.next_part(), {"step": ControlRecord}, _metadata(config, info))
        )
        loop = ControlLoop(
            rig,
            parts.estimator,
            parts.controller,
            parts.loop,
            period_s=parts.period_s,
            reference=parts.task.reference,
        )
        return _run(config, parts, run, loop, recorder, say)


def _run(
    config: Config, parts: _Parts, run: Run, loop: ControlLoop, recorder: Recorder, say: Say
) -> ControlOutcome:
    clock = make_clock(config.clock)
    steps: list[ControlStep] = []
    total = round(parts.loop.duration / parts.period_s)
    for step in loop.run():
        steps.append(step)
        clock.observe(step.sample.device_us)
        recorder.write("step", _record(len(steps), step, clock.now_ns()), clock.now_ns())
        if len(steps) % max(1, total // 10) == 0:
            say(f"{len(steps)}/{total}: {_live(steps[-max(1, total // 10) :])}")
    recorder.close()
    last = steps[-1]
    states = np.array([step.x_hat for step in steps])
    inputs = np.array([step.u for step in steps])
    solve = np.array([step.solution.solve_us for step in steps])
    trips = np.array([step.round_trip_us for step in steps])
    outcome = ControlOutcome(
        steps=len(steps),
        cost=parts.task.cost(states, inputs),
        final_error_norm=parts.task.error_norm(last.x_hat),
        max_abs_input=float(np.abs(inputs).max()),
        solve_us_p50=float(np.percentile(solve, 50)),
        solve_us_p99=float(np.percentile(solve, 99)),
        round_trip_us_p50=float(np.percentile(trips, 50)),
        round_trip_us_p99=float(np.percentile(trips, 99)),
        missed_deadlines=int((trips > parts.period_s * 1e6).sum()),
        missed_samples=sum(step.sample.missed for step in steps),
        fallbacks=sum(step.answer is not Answer.PLAN for step in steps),
        ended="done" if last.answer is not Answer.SAFE else last.solution.detail or "no plan",
        run=str(run.path),
        plots=[str(p) for p in _draw(run, steps, states, inputs, trips, solve)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _record(seq: int, step: ControlStep, t_ns: int) -> ControlRecord:
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


def _live(steps: list[ControlStep]) -> str:
    x = steps[-1].x_hat
    trips = sorted(step.round_trip_us for step in steps)
    return (
        f"θ {x[0]:+.3f} rad, x {x[1]:+.3f} m, u {float(steps[-1].u[0]):+.2f} N, round trip "
        f"{trips[len(trips) // 2]:.0f} us, worst {trips[-1]:.0f} us"
    )


def _draw(
    run: Run, steps: list[ControlStep], states: Array, inputs: Array, trips: Array, solve: Array
) -> list[Path]:
    run.plots.mkdir(exist_ok=True)
    first = steps[0].sample.device_us
    time = np.array([(step.sample.device_us - first) / 1e6 for step in steps])
    motion, latency = run.plots / "control.png", run.plots / "latency.png"
    draw_control(time, states, inputs, motion, title=f"Control, {len(steps)} periods")
    draw_latency({"solve": solve, "sample to applied": trips}, latency, title="Time per period")
    return [motion, latency]


def summary(outcome: ControlOutcome) -> str:
    """Return a result as lines for a person."""
    return "\n".join(
        [
            f"steps      {outcome.steps}, cost {outcome.cost:.2f}, final error "
            f"{outcome.final_error_norm:.2e}, largest input {outcome.max_abs_input:.2f}",
            f"solve      p50 {outcome.solve_us_p50:.0f} us, p99 {outcome.solve_us_p99:.0f} us",
            f"round trip p50 {outcome.round_trip_us_p50:.0f} us, p99 "
            f"{outcome.round_trip_us_p99:.0f} us (sample to applied input)",
            f"missed     {outcome.missed_deadlines} deadlines, {outcome.missed_samples} samples, "
            f"{outcome.fallbacks} fallbacks",
            f"run        {outcome.run}",
            *(f"           {path}" for path in outcome.plots),
        ]
    )


def _metadata(config: Config, info: DynamicRigInfo) -> dict[str, dict[str, str]]:
    return {
        "config": {"json": msgspec.json.encode(config).decode()},
        "versions": versions(),
        "rig": {"name": info.name, "device_id": info.device_id, **info.details},
    }
