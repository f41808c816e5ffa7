"""`hil calibrate`: measure what a rig's springs and sensors really are, and keep it."""

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
from hil.config import Config, build, dump, settings_of
from hil.errors import ConfigError, FaultError, InputError
from hil.messages import wire
from hil.plots.calibration import draw_gains, draw_settling, draw_stiffness_curves
from hil.recording.run import RESULTS, Run
from hil.recording.writer import Recorder, versions
from hil.rigs import calibration as kept
from hil.rigs.base import AbstractStaticRig, RigInfo, RigState
from hil.rigs.calibrated import KIND
from hil.rigs.calibration import CalibrationRecord
from hil.rigs.remote import RemoteRig
from hil.rigs.spring_network import SpringNetworkRig
from hil.safety.deadman import Forwarded, Minting
from hil.services import owner
from hil.services.calibration_records import TOPIC, CalibrationRow, row
from hil.services.mirror import bus_address
from hil.services.session import require_mirror
from hil.training.calibration import (
    CalibrationBatch,
    SpringNetworkCalibration,
    SpringNetworkFound,
)

Say = Callable[[str], None]
DOUBTFUL = 1.5  # of chi-square: something else acts as well
FILE = "calibration.json"  # in the run directory


class CalibrateOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration ended with: the JSON line of `hil calibrate`."""

    device_id: str
    chi_square: float  # per degree of freedom: 1 where springs and sensors are as modelled
    gain_error_rms: float  # of the sensors, against one
    stiffness_error_rms: float  # of the springs, against their commands
    gain_deviation: float  # how well gains are known, median
    stiffness_deviation: float  # how well stiffness is known, median
    scale_deviation: float  # of the length scale all gains share
    noise_rms: float  # of a sample, of the sensor's range
    drift_rms: float  # of the zeros, of the range per hour
    drift_deviation: float
    settling_time: float | None  # time constant, s
    settling_deviation: float | None
    converter_steps: list[float]  # steps of converters that show, m
    load_cases: int
    rig_seconds: float
    calibration: str  # where it is kept
    run: str
    plots: list[str]


def protocol(config: Config) -> tuple[SpringNetworkCalibration, SpringNetworkRig]:
    """Return how a configuration's rig is calibrated, and the rig, untouched.

    Raises ConfigError where it says nothing of it.
    """
    kind, settings = settings_of(config.rig, "rig")
    if not issubclass(kind, SpringNetworkRig):
        raise ConfigError(
            f"rig.kind: {config.rig['kind']!r}: `hil calibrate` knows spring networks; an "
            "emulator is calibrated by `hil train` (training.calibrate)"
        )
    if config.calibration is None:
        raise ConfigError("calibration: missing; `hil calibrate` needs a [calibration]")
    rig = SpringNetworkRig(settings, tokens=Forwarded())
    made = build(config.calibration, "calibration", network=rig.statics, seed=config.seed)
    if not isinstance(made, SpringNetworkCalibration):
        raise ConfigError(f"calibration.kind: {config.calibration['kind']!r} calibrates nothing")
    return made, rig


def calibrate(config: Config, runs: Path, say: Say) -> CalibrateOutcome:
    """Calibrate a rig, in a new run directory; keep the result for its device.

    Raises ConfigError before anything is touched, InputError where the mirror applies a
    calibration already, and what rig and mirror raise.
    """
    how, rig = protocol(config)
    raw = msgspec.structs.replace(config, rig=config.rig | {"calibration": "none"})
    run = Run.create(runs, f"{config.name}-calibrate", datetime.now())
    run.write_config(config)
    say(f"run {run.path}")
    try:
        info, batches = _measure(raw, how, run, say)
    except InputError:
        if not run.parts():
            shutil.rmtree(run.path)
        raise
    say("finding stiffness, gains, zeros and drift")
    found = how.find(batches, info, rig.settings.samples)
    record = record_of(config, info, rig, found.parameters, found.figures)
    kept.write(record, run.path / FILE)
    path = kept.store(record)
    outcome = _outcome(record, found, path, run, _draw(run, how, found))
    run.write_json(RESULTS, outcome)
    return outcome


def _measure(
    config: Config, how: SpringNetworkCalibration, run: Run, say: Say
) -> tuple[RigInfo, list[CalibrationBatch]]:
    address, keys, _ = bus_address(config)
    with contextlib.ExitStack() as stack:
        if not require_mirror(config, address):
            say(f"no mirror serves {address.name}: starting one")
            log = run.path / "mirror.log"
            stack.enter_context(owner.ChildMirror(owner.MirrorJob(config), log))
        name = f"calibrate-{os.getpid()}"
        rig = stack.enter_context(RemoteRig(address, mint=Minting, client=name, keys=keys))
        info = rig.configure()
        kept.require_none(info.details)
        if rig.state is RigState.FAULT:
            raise FaultError(
                f"rig {info.name} is in fault ({rig.fault}); remove the cause, then `hil clear "
                "CONFIG`"
            )
        rig.activate()
        metadata = {
            "config": {"toml": dump(config).decode()},
            "versions": versions(),
            "rig": {"name": info.name, "device_id": info.device_id, **info.details},
            "wire": {"schema": f"{wire.SCHEMA_CRC:#010x}"},
        }
        channels = {TOPIC: CalibrationRow}
        recorder = stack.enter_context(Recorder(run.next_part(), channels, metadata))
        return info, _record(config, how, rig, info, recorder, say)


def _record(
    config: Config, how: SpringNetworkCalibration, rig: AbstractStaticRig, info: RigInfo,
    recorder: Recorder, say: Say,
) -> list[CalibrationBatch]:  # fmt: skip
    clock = make_clock(config.clock)
    batches: list[CalibrationBatch] = []
    settings = how.settings
    expected = settings.levels * (settings.cases + settings.zeros)
    cases, told, begun_us = 0, -1, None
    for batch in how.run(rig, info):
        begun_us = batch.device_us if begun_us is None else begun_us
        clock.observe(batch.device_us)
        batches.append(batch)
        recorder.write(TOPIC, row(batch, len(batches), clock.now_ns()), clock.now_ns())
        cases += len(batch.loads)
        share = min(10, 10 * cases // expected)
        if share > told:
            told = share
            say(
                f"calibrating: {cases} load cases, {(batch.device_us - begun_us) / 1e6:.0f} s of "
                "rig time"
            )
    return batches


def record_of(
    config: Config, info: RigInfo, rig: SpringNetworkRig, parameters: dict[str, Any],
    figures: dict[str, Any],
) -> CalibrationRecord:  # fmt: skip
    """Return a calibration as it is kept."""
    return CalibrationRecord(
        kind=KIND,
        device_id=info.device_id,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        board=info.details.get("board", ""),
        firmware=info.details.get("firmware", ""),
        wire_schema=f"{wire.SCHEMA_CRC:#010x}",
        config_hash=kept.digest(config),
        geometry_hash=kept.geometry_hash(rig.network.geometry),
        parameters=parameters,
        figures=figures,
    )


def _draw(run: Run, how: SpringNetworkCalibration, found: SpringNetworkFound) -> list[Path]:
    run.plots.mkdir(exist_ok=True)
    places = [run.plots / f"{name}.png" for name in ("stiffness", "gains", "settling")]
    identified, network = found.identified, how.network
    draw_stiffness_curves(
        found.level_values, found.level_stiffness, found.level_deviation, places[0]
    )
    draw_gains(identified.gain, identified.gain_deviation, network.dof, places[1])
    if not found.steps:
        return places[:2]
    tau = found.parameters["settling_time"].values
    times, shares = np.array([[s.time, s.share] for s in found.steps]).T
    draw_settling(times, shares, tau, places[2])
    return places


def _outcome(
    record: CalibrationRecord, found: SpringNetworkFound, path: Path, run: Run, plots: list[Path]
) -> CalibrateOutcome:
    i, p, figures = found.identified, record.parameters, record.figures
    ranges = record.array("range")
    noise = record.array("noise")
    steps = record.array("converter_step")
    hour = 3600.0 / ranges
    return CalibrateOutcome(
        device_id=record.device_id,
        chi_square=figures["chi_square"],
        gain_error_rms=figures["gain_deviation_rms"],
        stiffness_error_rms=figures["stiffness_deviation_rms"],
        gain_deviation=float(np.median(i.gain_deviation)),
        stiffness_deviation=float(np.median(found.level_deviation / found.level_stiffness)),
        scale_deviation=figures["scale_deviation"],
        noise_rms=float(np.sqrt(np.mean((noise / ranges) ** 2))),
        drift_rms=float(np.sqrt(np.mean((i.drift * hour) ** 2))),
        drift_deviation=float(np.median(i.drift_deviation * hour)),
        settling_time=p["settling_time"].values,
        settling_deviation=p["settling_time"].deviation,
        converter_steps=sorted(set(np.round(steps[steps > 0], 12).tolist())),
        load_cases=figures["load_cases"],
        rig_seconds=figures["rig_seconds"],
        calibration=str(path),
        run=str(run.path),
        plots=[str(plot) for plot in plots],
    )


def summary(o: CalibrateOutcome) -> str:
    """Return a result as lines for a person."""
    settling = "not measured"
    if o.settling_time is not None:
        error = o.settling_deviation or 0.0
        settling = f"time constant {1e3 * o.settling_time:.4g} ± {1e3 * error:.2g} ms"
    steps = ", ".join(f"{1e6 * s:.3g}" for s in o.converter_steps)
    scale = "" if o.scale_deviation < 0.003 else " (a length reference would settle it)"
    lines = [
        f"device     {o.device_id}, {o.load_cases} cases, {o.rig_seconds:.0f} s of rig time",
        f"springs    off by {o.stiffness_error_rms:.2%} rms, known to {o.stiffness_deviation:.2%}",
        f"sensors    off by {o.gain_error_rms:.2%} rms, known to {o.gain_deviation:.2%}",
        f"scale      of all lengths known to {o.scale_deviation:.2%}{scale}",
        f"noise      {o.noise_rms:.2%} of range per sample"
        + (f", converter steps of {steps} µm" if steps else ""),
        f"drift      {o.drift_rms:.2%} of range per hour, known to {o.drift_deviation:.2%}",
        f"settling   {settling}",
        f"fit        {o.chi_square:.3f} of the noise squared (1: all is as modelled)"
        + (
            ""
            if o.chi_square < DOUBTFUL
            else "; more acts than gains, zeros and stiffness: converters, springs that turn "
            "(try a smaller calibration.share), a bond that slips"
        ),
        f"kept       {o.calibration}",
        f"run        {o.run}",
        *(f"           {path}" for path in o.plots),
    ]
    return "\n".join(lines)
