"""A control loop as a process: its run, its mirror, its recording."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from hil.clock import make_clock
from hil.config import Config, dump
from hil.errors import ConfigError, InputError, RunError
from hil.loop import ControlLoop
from hil.realtime import RealTime
from hil.recording.run import Run
from hil.recording.writer import Recorder, versions
from hil.rigs.base import DynamicRigInfo
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from hil.services import owner
from hil.services.adaptation import Adaptation
from hil.services.adaptation_records import CHANNEL, AdaptationRecord
from hil.services.mirror import bus_address
from hil.services.outcome import ControlOutcome, ControlRecord, History, finish, record, summary
from hil.services.parts import Parts
from hil.services.rates import ControlProgress, RateMeter
from hil.services.session import require_mirror

__all__ = ["ControlOutcome", "ControlRecord", "control", "summary"]
Say = Callable[[str], None]


def control(config: Config, runs: Path, say: Say, *, excite: bool = False) -> ControlOutcome:
    """Run the loop a configuration describes, in a new run directory.

    excite: add the configuration's excitation to the input, to collect data by.

    Raises ConfigError before anything is touched, RunError where the rig ended in a stop.
    """
    adapts = config.adaptation is not None
    parts = Parts(config, excite=excite or (adapts and config.excitation is not None))
    run = Run.create(runs, config.name, datetime.now())
    run.write_config(config)
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


def _session(config: Config, parts: Parts, run: Run, say: Say) -> ControlOutcome:
    address, keys, _ = bus_address(config)
    realtime = RealTime(parts.loop.realtime)
    history, meter = History(parts.period_s, config.clock), RateMeter()
    with contextlib.ExitStack() as stack:
        stack.callback(parts.close)
        if not require_mirror(config, address):
            say(f"no mirror serves {address.name}: starting one")
            job = owner.MirrorJob(config)
            stack.enter_context(owner.ChildMirror(job, run.path / "mirror.log"))
        adaptation = None
        if config.adaptation is not None:
            adaptation = stack.enter_context(Adaptation(config, parts, run, say))
        stack.enter_context(realtime)  # before the threads that talk to others are made
        for answer in realtime.answers:
            say(answer.line)
        parts.reconnect()
        name = f"control-{os.getpid()}"
        rig = stack.enter_context(RemoteDynamicRig(address, mint=Minting, client=name, keys=keys))
        info = rig.configure()
        if round(parts.period_s * 1e6) != info.period_us:
            raise ConfigError(
                f"rig.period: {parts.period_s} s, the mirror's rig has {info.period_us / 1e6} s"
            )
        recorder = stack.enter_context(
            Recorder(run.next_part(), _channels(adaptation), _metadata(config, info))
        )
        loop = ControlLoop(
            rig,
            parts.estimator,
            parts.controller,
            parts.loop,
            period_s=parts.period_s,
            reference=parts.task.reference,
        )
        loop.prepare()
        rig.activate()
        progress = stack.enter_context(ControlProgress(parts.periods, say))
        _run(config, loop, recorder, history, meter, progress, adaptation)
    answers = [answer.line for answer in realtime.answers]
    adapted = None if adaptation is None else adaptation.outcome
    return finish(run, parts, history, meter.rates, answers, adapted)


def _run(
    config: Config,
    loop: ControlLoop,
    recorder: Recorder,
    history: History,
    meter: RateMeter,
    progress: ControlProgress,
    adaptation: Adaptation | None,
) -> None:
    clock = make_clock(config.clock)
    for step in loop.run():
        missed = history.add(step)
        clock.observe(step.sample.device_us)
        t_ns = clock.now_ns()
        recorder.write("step", record(len(history), step, t_ns), t_ns)
        if adaptation is not None:
            adaptation.after(len(history), step, t_ns, recorder)
        now = time.monotonic()
        meter.count(now, missed)
        progress.show(now, len(history), lambda: meter.rates)


def _channels(adaptation: Adaptation | None) -> dict[str, type[msgspec.Struct]]:
    found: dict[str, type[msgspec.Struct]] = {"step": ControlRecord}
    return found if adaptation is None else found | {CHANNEL: AdaptationRecord}


def _metadata(config: Config, info: DynamicRigInfo) -> dict[str, dict[str, str]]:
    return {
        "config": {"toml": dump(config).decode()},
        "versions": versions(),
        "rig": {"name": info.name, "device_id": info.device_id, **info.details},
    }
