"""A simulated rig like a real one, from what runs recorded of it: `hil calibrate --from RUN`.

A calibration run has its load cases in its recording; of a training run they are worked out
again, as they follow from its configuration and from what was measured. What is found is
tried on a recording that took no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli_w

from hil.config import Config, build
from hil.errors import InputError
from hil.plots.calibration import draw_held_out
from hil.recording.reader import read_metadata
from hil.recording.run import RESULTS, Run
from hil.rigs import calibration as kept
from hil.rigs.base import RigInfo
from hil.rigs.calibrated import TRUSTED
from hil.rigs.calibration import CalibrationRecord
from hil.rigs.spring_identification import (
    Identified,
    Prediction,
    ideal,
    identify,
    powers,
    predict,
)
from hil.rigs.spring_network import SpringNetworkRig
from hil.services.calibrate import FILE, protocol, record_of
from hil.services.calibration_records import batches as calibration_batches
from hil.services.records import read_history
from hil.tasks.base import AbstractStaticTask
from hil.training.calibration import (
    CalibrationBatch,
    Noise,
    SpringNetworkCalibration,
    left_noise,
    readings,
    repeat_noise,
    spring_parameters,
    steps_seen,
)
from hil.training.insitu import InSituTraining
from hil.types import Array

Say = Callable[[str], None]
HELD_OUT = 0.3  # of a recording, its end, where no other is named
SEPARATE = "hil.training.gradients.separate:SeparateStates"  # adjoint loads by themselves
ADJOINT_FORCE = 0.1  # N, where a configuration names none
STEPS = 400  # of a training run are used, evenly spread
SURE = 3.0  # standard deviations of the interval that is stated
NAME = "rig"  # of the configuration that simulates the rig: rig.toml and rig.sim.toml


class FitRigOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a fit ended with: the JSON line of `hil calibrate --from`."""

    device_id: str
    chi_square: float  # of the held-out recording, per reading: 1 is its noise
    interval: tuple[float, float]  # in which it is to be expected
    within: bool
    distance: float  # rms of the held-out residual, in units of the noise
    distance_ideal: float  # the same of an ideal rig
    channels: list[float]  # distance, channel by channel; empty channels are −1
    gain_deviation: float  # how well gains are known, median
    stiffness_deviation: float
    scale_deviation: float
    noise_rms: float  # of a sample, of the range
    readings_used: int
    readings_held_out: int
    config: str  # simulates this rig
    run: str
    plots: list[str]


def fit_rig(
    config: Config, path: Path, recordings: Sequence[Path], held_out: Path | None, runs: Path,
    say: Say,
) -> FitRigOutcome:  # fmt: skip
    """Find a rig from recordings, and write a configuration that simulates it.

    path: of the configuration, which the written one builds on. held_out: a run to be
    predicted; without one, the end of the recordings is. Raises InputError where there is
    nothing to go by, or where recordings are of several devices.
    """
    how, rig = protocol(config)
    case_us = rig.settings.case_us
    known = [_recorded(Run.open(one)) for one in recordings]
    learn, test = [b for _, some in known for b in some], []
    if held_out is not None:
        known.append(_recorded(Run.open(held_out)))
        test = known[-1][1]
    else:
        loaded = [b for b in learn if b.kind == "load"]
        test = loaded[round(len(loaded) * (1 - HELD_OUT)) :]
        learn = [b for b in learn if not any(b is other for other in test)]
    steps = [b for b in learn if b.kind == "step"]
    learn = [b for b in learn if b.kind != "step"]
    test = [b for b in test if b.kind != "step"]
    _one_device(known)
    if not learn or not test:
        raise InputError(f"{recordings[0]}: too short to learn from it and to try what was learned")
    say(f"fitting {sum(len(b.loads) for b in learn)} load cases")
    low, high = rig.settings.stiffness
    basis, largest = powers(low, high, how.settings.order), TRUSTED * how.range
    found = identify(how.network, readings(learn, case_us), basis, None, largest, how.prior)
    tried = readings(test, case_us)
    prediction = predict(how.network, found, tried, basis, largest)
    plain = predict(
        how.network, ideal(how.network, len(found.correction), found.noise), tried, basis, largest
    )
    settling = how.settling([*steps, *learn, *test], found)[1]
    seen = steps_seen(np.concatenate([b.reading for b in learn]), how.range, rig.settings.samples)
    zeros = [b for b in learn if b.kind == "zero"]
    noise = repeat_noise(zeros) if zeros else left_noise(found)
    fitted = _Fitted(known[0][0], found, prediction, plain, noise, seen, settling)
    return _finish(config, path, how, rig, fitted, recordings, runs)


@dataclass(frozen=True)
class _Fitted:
    """What the recordings tell."""

    device: str
    found: Identified
    prediction: Prediction
    plain: Prediction  # of an ideal rig
    noise: Noise
    seen: Array  # (channels,), steps of the converters, 0 where none shows, m
    settling: float | None  # time constant, s; None where no response was recorded


def _finish(
    config: Config, path: Path, how: SpringNetworkCalibration, rig: SpringNetworkRig,
    fitted: _Fitted, recordings: Sequence[Path], runs: Path,
) -> FitRigOutcome:  # fmt: skip
    found, prediction, plain = fitted.found, fitted.prediction, fitted.plain
    run = Run.create(runs, f"{config.name}-rig", datetime.now())
    run.write_config(config)
    parameters = spring_parameters(
        found, fitted.noise, rig.settings.samples, how.range, rig.settings.stiffness
    )
    dof, bonds = how.network.dof, how.network.bond_count
    info = RigInfo(config.name, fitted.device, dof, bonds, 1, 1, 1, (0, 0), 0)
    sources = [str(one) for one in recordings]
    record = record_of(config, info, rig, parameters, {"recordings": sources})
    kept.write(record, run.path / FILE)
    written = _write(run, path, record, how, fitted)
    run.plots.mkdir(exist_ok=True)
    picture = run.plots / "held_out.png"
    draw_held_out(prediction.z, prediction.chi, plain.chi, dof, picture)
    low, high = (prediction.expected + s * SURE * prediction.spread for s in (-1, 1))
    outcome = FitRigOutcome(
        device_id=fitted.device,
        chi_square=prediction.chi_square,
        interval=(low, high),
        within=low <= prediction.chi_square <= high,
        distance=prediction.chi_square**0.5,
        distance_ideal=plain.chi_square**0.5,
        channels=np.nan_to_num(np.sqrt(prediction.chi), nan=-1.0).tolist(),
        gain_deviation=float(np.median(found.gain_deviation)),
        stiffness_deviation=float(np.median(found.correction_deviation[0])),
        scale_deviation=found.scale_deviation,
        noise_rms=float(np.sqrt(np.mean((record.array("noise") / how.range) ** 2))),
        readings_used=found.used,
        readings_held_out=prediction.used,
        config=str(written),
        run=str(run.path),
        plots=[str(picture)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def _recorded(run: Run) -> tuple[str, list[CalibrationBatch]]:
    """Return the device of a run and the load cases at rest it recorded, in order."""
    if not run.parts():
        raise InputError(f"{run.path}: nothing was recorded; there is nothing to go by")
    about = read_metadata(run.parts()[0]).get("rig", {})
    if about.get("calibration"):
        raise InputError(
            f"{run.path}: recorded with calibration {about['calibration']} applied; a rig is "
            'found from raw readings: record with rig.calibration = "none"'
        )
    return about.get("device_id", ""), calibration_batches(run) or training_batches(run)


def training_batches(run: Run) -> list[CalibrationBatch]:
    """Return the load cases of a training run, worked out again.

    Loads of a sample follow from the task, adjoint loads from the measured displacement too.
    Raises InputError for a run of another kind.
    """
    config = run.read_config()
    if config.task is None or config.training is None:
        raise InputError(f"{run.path}: neither a calibration nor a training in place")
    _, rig = protocol(config)
    task = build(config.task, "task", geometry=rig.network.geometry, seed=config.seed)
    training = build(config.training, "training", network=rig.network, seed=config.seed)
    if not isinstance(training, InSituTraining) or not isinstance(task, AbstractStaticTask):
        raise InputError(f"{run.path}: not a training in place")
    # Of other ways to measure a gradient only the forward loads are known.
    method = config.training.get("gradient", {}).get("kind", SEPARATE)
    adjoint_force = float(config.training.get("adjoint_force") or ADJOINT_FORCE)
    history = read_history(run)
    stiffness = {(r.epoch, r.step): np.array(r.stiffness) for r in history.starts}
    command = stiffness[min(stiffness)]
    found = []
    every = max(1, len(history.steps) // STEPS)
    for number, step in enumerate(history.steps):
        command = stiffness.get((step.epoch, step.step), command)
        if number % every == 0:
            samples = np.array(step.samples)
            forward = np.array(step.forward_displacement)
            loads = task.loads(samples)
            found.append(_case(command, loads, forward, step.forward_elongation, step.t_ns))
            if step.adjoint_displacement and method == SEPARATE:
                wanted = task.adjoint_loads(forward, samples)
                largest = np.abs(wanted).max(axis=1, keepdims=True)
                scale = np.where(largest > 0, largest, 1.0) / adjoint_force
                adjoint = np.array(step.adjoint_displacement)
                found.append(
                    _case(command, wanted / scale, adjoint, step.adjoint_elongation, step.t_ns)
                )
        command = np.array(step.stiffness)
    return found


def _case(
    command: Array, loads: Array, displacement: Array, elongation: list[list[float]], t_ns: int
) -> CalibrationBatch:
    reading = np.concatenate([displacement, np.array(elongation)], axis=1)
    return CalibrationBatch("load", command, loads, reading, t_ns // 1000, 0, True)


def _one_device(known: Sequence[tuple[str, list[CalibrationBatch]]]) -> None:
    devices = sorted({device for device, _ in known})
    if len(devices) > 1:
        raise InputError(f"recordings of several devices ({', '.join(devices)}); give those of one")


def _write(
    run: Run, base: Path, record: CalibrationRecord, how: SpringNetworkCalibration,
    fitted: _Fitted,
) -> Path:  # fmt: skip
    """Write the configuration that simulates the rig; return its path."""
    own = run.path / f"{NAME}.toml"
    since = float(record.parameters["zero_time"].values)
    drift = record.array("drift")
    # A converter's rounding is in the noise that was seen; the simulated one rounds by itself.
    noise = np.sqrt(np.maximum(record.array("noise") ** 2 - fitted.seen**2 / 12.0, 0.0))
    bits = _bits(how.range, fitted.seen)
    tables = {
        "device_id": record.device_id,
        "source": str(run.path),
        "stiffness_correction": record.array("stiffness_correction").tolist(),
        "gain": record.array("gain").tolist(),
        "zero": (record.array("zero") - drift * since).tolist(),
        "drift": drift.tolist(),
        "noise": noise.tolist(),
    }
    plant: dict[str, Any] = {"measured": tables}
    if bits:
        plant["imperfections"] = {"adc_bits": bits}
    if fitted.settling is not None:
        plant["settling_time"] = fitted.settling
    head = "# A rig as its recordings show it; written by `hil calibrate --from`.\n"
    overlay = tomli_w.dumps({"board": {"plant": plant}})
    (run.path / f"{NAME}.sim.toml").write_text(head + overlay)
    own.write_text(head + tomli_w.dumps({"base": str(base.resolve())}))
    return own


def _bits(ranges: Array, seen: Array) -> int:
    """Return the resolution of the converters, 0 where none shows."""
    shown = seen > 0
    if not shown.any():
        return 0
    return int(np.median(np.round(np.log2(ranges[shown] / seen[shown] + 1.0)) + 1))


def summary(o: FitRigOutcome) -> str:
    """Return a result as lines for a person."""
    low, high = o.interval
    lines = [
        f"device     {o.device_id}, {o.readings_used} readings",
        f"springs    known to {o.stiffness_deviation:.2%}, sensors to {o.gain_deviation:.2%}, the "
        f"scale they share to {o.scale_deviation:.2%}",
        f"noise      {o.noise_rms:.2%} of range per sample",
        f"held out   {o.readings_held_out} readings: {o.distance:.4f} of the noise (an ideal rig: "
        f"{o.distance_ideal:.2f})",
        f"           chi-square {o.chi_square:.4f}, expected {low:.4f} to {high:.4f}: "
        + ("predicted within its noise" if o.within else "NOT predicted within its noise"),
        f"simulate   hil train {o.config} --sim (or any verb)",
        f"run        {o.run}",
        *(f"           {path}" for path in o.plots),
    ]
    return "\n".join(lines)
