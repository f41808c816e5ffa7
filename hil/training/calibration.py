"""How a spring network is calibrated: what is set, loaded and measured, and what it comes to.

Stiffness commands are visited so that at every setting each bond stands at another level;
load cases are drawn as displacements inside the sensors' ranges and turned into forces by the
linear model, so that every sensor is used. Zero loads between them show noise and drift, single
samples soon after a force show how fast the network settles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from scipy.optimize import minimize_scalar

from hil.config import Settings
from hil.errors import ConfigError, InputError, MechanicsError, RunError, StateError
from hil.mechanics.finite_springs import AbstractStatics
from hil.rigs.base import AbstractStaticRig, MeasuredEquilibrium, RigInfo
from hil.rigs.calibrated import TRUSTED
from hil.rigs.calibration import Parameter
from hil.rigs.spring_identification import (
    FLOOR,
    Identified,
    Prior,
    Readings,
    Reference,
    identify,
    levels,
    powers,
)
from hil.types import Array

Range = Annotated[float, Meta(gt=0, description="sensors read up to plus and minus this, m")]
FORCE_SHARE = 0.95  # of the largest force
SPARSE = 0.15  # share of degrees of freedom loaded in the load cases drawn as forces
STEP_WAITS = 12  # times after the force at which the response is looked at
SAME_STEP = 0.05  # of a step: readings this close to whole steps show a converter


class ReferenceSettings(Settings, frozen=True, kw_only=True):
    """One displacement sensor that was checked against a length: a dial gauge, a gauge block."""

    node: Annotated[int, Meta(ge=1, description="whose motion was gauged, from 1")]
    axis: Literal["x", "y", "z"]
    gain: Annotated[float, Meta(gt=0, description="reading over true length, 1")]
    deviation: Annotated[float, Meta(gt=0, lt=1, description="standard deviation of gain, 1")]


class SpringNetworkCalibrationSettings(Settings, frozen=True, kw_only=True):
    """How a spring network is calibrated."""

    displacement_range: (
        Range | Annotated[tuple[Range, ...], Meta(description="one per axis, x first, m")]
    )
    elongation_range: Range
    levels: Annotated[int, Meta(ge=2, le=64, description="stiffness commands per bond")] = 5
    cases: Annotated[int, Meta(ge=8, le=65536, description="load cases at each setting")] = 256
    zeros: Annotated[int, Meta(ge=4, le=4096, description="zero loads at each setting")] = 16
    share: Annotated[
        float, Meta(gt=0, le=0.85, description="of the ranges that load cases are meant to use")
    ] = 0.7
    drift_time: Annotated[
        float, Meta(ge=0, le=86400, description="between first and last zero, at least, s")
    ] = 60.0
    step_repeats: Annotated[
        int, Meta(ge=0, le=256, description="of every look at the settling; 0: none")
    ] = 4
    order: Annotated[int, Meta(ge=0, le=4, description="of stiffness against command")] = 1
    gain_spread: Annotated[
        float, Meta(gt=0, le=1, description="of sensor gains, what the maker allows, 1")
    ] = 0.1
    stiffness_spread: Annotated[
        float, Meta(gt=0, le=1, description="of stiffness, what the maker allows, 1")
    ] = 0.05
    reference: ReferenceSettings | None = None


@dataclass(frozen=True)
class CalibrationBatch:
    """Load cases measured with one command."""

    kind: Literal["zero", "load", "step"]
    command: Array  # (bonds,), N/m, as applied
    loads: Array  # (cases, dof), N
    reading: Array  # (cases, channels), m
    device_us: int  # of the last sample
    wait_us: int  # after the force at which was looked; 0: at rest
    settled: bool


@dataclass(frozen=True)
class Step:
    """How far the network has come at a time after the force."""

    time: float  # s
    share: float  # of the way to rest, 1


@dataclass(frozen=True)
class SpringNetworkFound:
    """What a calibration found."""

    parameters: dict[str, Parameter]
    figures: dict[str, Any]
    identified: Identified
    level_values: Array  # (levels,), N/m
    level_stiffness: Array  # (levels, bonds), N/m
    level_deviation: Array  # (levels, bonds), N/m
    steps: list[Step]


class SpringNetworkCalibration:
    """Measures an active rig, and finds what explains the readings.

    network: the model of the rig, in the regime it is in; seed: of the load cases. Raises
    ConfigError for settings that do not fit the geometry.
    """

    Settings: ClassVar[type[SpringNetworkCalibrationSettings]] = SpringNetworkCalibrationSettings

    def __init__(
        self, settings: SpringNetworkCalibrationSettings, *, network: AbstractStatics, seed: int = 0
    ) -> None:
        self.settings, self.network, self.seed = settings, network, seed
        geometry = network.geometry
        given = np.atleast_1d(settings.displacement_range)
        if len(given) not in (1, geometry.dimensions):
            raise ConfigError(
                f"calibration.displacement_range: {len(given)} values; give one for all axes or "
                f"one for each of {geometry.dimensions}"
            )
        per_axis = np.broadcast_to(given, geometry.dimensions)
        self.range = np.concatenate(
            [
                np.tile(per_axis, len(geometry.free_nodes)),
                np.full(network.bond_count, settings.elongation_range),
            ]
        )  # (channels,), m
        self.prior = Prior(settings.gain_spread, settings.stiffness_spread, self._reference())

    def _reference(self) -> Reference | None:
        told = self.settings.reference
        if told is None:
            return None
        try:
            channel = self.network.geometry.dof(told.node - 1, "xyz".index(told.axis))
        except (MechanicsError, ValueError) as error:
            raise ConfigError(f"calibration.reference: {error}") from None
        return Reference(channel, told.gain, told.deviation)

    # -- measuring ------------------------------------------------------------------------

    def run(self, rig: AbstractStaticRig, info: RigInfo) -> Iterator[CalibrationBatch]:
        """Measure an active rig; the stiffness is put back to what it was."""
        random = np.random.default_rng([self.seed, 301])
        before = rig.read_stiffness()
        low, high = info.stiffness_limits
        values = np.linspace(low, high, self.settings.levels)
        place = random.permutation(info.bonds)
        begun_us: int | None = None
        loads = np.zeros((1, info.dof))
        for level in range(len(values)):
            command = rig.set_stiffness(values[(place + level) % len(values)])
            if not (command > 0).all():
                raise InputError(
                    f"calibration: bond {int(np.argmin(command)) + 1} has no stiffness to be "
                    "found; calibrate the whole network"
                )
            zeros = np.zeros((self.settings.zeros, info.dof))
            loads = self.loads(command, info.force_limit, random)
            for batch in self._settled(rig, info, "zero", command, zeros):
                begun_us = batch.device_us if begun_us is None else begun_us
                yield batch
            yield from self._settled(rig, info, "load", command, loads)
        yield from self._stepped(rig, info, command, loads[:1])
        late_us = (begun_us or 0) + round(1e6 * self.settings.drift_time)
        zeros = np.zeros((max(self.settings.zeros, info.max_cases), info.dof))
        while True:
            for batch in self._settled(rig, info, "zero", command, zeros):
                yield batch
            if batch.device_us >= late_us:
                break
        rig.set_stiffness(np.clip(before, low, high))

    def loads(self, command: Array, force_limit: float, random: np.random.Generator) -> Array:
        """Return load cases, (cases, dof), N, that use the sensors and respect the limits."""
        count, dof, linear = self.settings.cases, self.network.dof, self.network.linear
        sparse = count // 2
        wanted = random.uniform(-1.0, 1.0, (count - sparse, dof)) * self.range[:dof]
        forces = np.zeros((count, dof))
        forces[sparse:] = (linear.stiffness_matrix(command) @ wanted.T).T
        some = random.random((sparse, dof)) < SPARSE
        some[np.arange(sparse), random.integers(0, dof, sparse)] = True
        forces[:sparse] = random.uniform(-1.0, 1.0, (sparse, dof)) * some
        found = linear.settle(command, forces)
        x = np.concatenate([found.displacement, found.elongation], axis=1)
        reached = (np.abs(x) / (self.settings.share * self.range)).max(axis=1)
        asked = np.abs(forces).max(axis=1) / (FORCE_SHARE * force_limit)
        return np.asarray(forces / np.maximum(reached, asked)[:, None])

    def _settled(
        self, rig: AbstractStaticRig, info: RigInfo, kind: Literal["zero", "load"],
        command: Array, loads: Array,
    ) -> Iterator[CalibrationBatch]:  # fmt: skip
        for at in range(0, len(loads), info.max_cases):
            part = loads[at : at + info.max_cases]
            yield _batch(kind, command, part, rig.settle(part), 0)

    def _stepped(
        self, rig: AbstractStaticRig, info: RigInfo, command: Array, load: Array
    ) -> Iterator[CalibrationBatch]:
        rest_us = info.case_us
        waits = np.unique(np.geomspace(max(20, rest_us // 400), rest_us, STEP_WAITS).astype(int))
        try:
            for _ in range(self.settings.step_repeats):
                yield _batch("load", command, load, rig.settle(load), 0)
                for wait_us in waits.tolist():
                    rig.settle(np.zeros_like(load))  # from rest
                    measured = rig.sample_after(load, wait_us)
                    yield _batch("step", command, load, measured, wait_us)
        except StateError:
            return  # this rig only measures at rest: nothing is said about settling

    # -- what it comes to -------------------------------------------------------------------

    def find(
        self, batches: Sequence[CalibrationBatch], info: RigInfo, samples: int
    ) -> SpringNetworkFound:
        """Return the parameters that explain what was measured.

        samples: averaged per load case. Raises RunError where nothing can be found.
        """
        at_rest = [b for b in batches if b.kind != "step"]
        if not all(b.settled for b in at_rest):
            raise RunError(
                "calibration: some load cases did not come to rest inside the time granted; raise "
                "rig.settle or rig.settle_timeout"
            )
        measured = readings(at_rest, info.case_us)
        repeats = repeat_noise([b for b in batches if b.kind == "zero"])
        low, high = info.stiffness_limits
        largest = TRUSTED * self.range
        found = identify(
            self.network, measured, powers(low, high, self.settings.order), repeats.size, largest,
            self.prior,
        )  # fmt: skip
        values = np.unique(np.round(np.concatenate([g.command for g in measured]), 6))
        values = _clustered(values, (high - low) / 1000)
        single = identify(
            self.network, measured, levels(values), repeats.size, largest,
            replace(self.prior, stiffness_spread=self.prior.stiffness_spread * len(values) ** 0.5),
        )  # fmt: skip
        steps, settling, settling_deviation = self.settling(batches, found)
        seen = steps_seen(np.concatenate([g.reading for g in measured]), self.range, samples)
        parameters = spring_parameters(found, repeats, samples, self.range, (low, high)) | {
            "settling_time": Parameter("s", settling, settling_deviation),
            "converter_step": Parameter("m", seen.tolist(), [0.0] * len(seen)),
        }
        stiffness = values[:, None] * (1.0 + single.correction)
        figures = {
            "chi_square": found.chi_square,
            "scale_deviation": found.scale_deviation,
            "gain_deviation_rms": _rms(found.gain - 1.0),
            "stiffness_deviation_rms": _rms(stiffness / values[:, None] - 1.0),
            "length_reference": self.settings.reference is not None,
            "load_cases": int(sum(len(b.loads) for b in batches)),
            "readings_used": found.used,
            "rig_seconds": (batches[-1].device_us - batches[0].device_us) / 1e6,
        }
        return SpringNetworkFound(
            parameters, figures, found, values, stiffness,
            values[:, None] * single.correction_deviation, steps,
        )  # fmt: skip

    def settling(
        self, batches: Sequence[CalibrationBatch], found: Identified
    ) -> tuple[list[Step], float | None, float | None]:
        """Return the step response, its time constant and its deviation, s.

        None where no response was looked at.
        """
        steps = [b for b in batches if b.kind == "step"]
        if not steps:
            return [], None, None
        load = steps[0].loads[0]
        rest = np.mean(
            [b.reading[0] for b in batches
             if b.kind == "load" and len(b.loads) == 1 and (b.loads[0] == load).all()], axis=0
        )  # fmt: skip
        noise = np.maximum(found.noise, FLOOR * self.range)
        weight = (rest - found.zero) / noise**2
        norm = float(weight @ (rest - found.zero))
        times = np.array([b.wait_us for b in steps]) * 1e-6
        later = times + np.maximum(1, np.array([b.wait_us for b in steps]) // 8) * 1e-6
        shares = np.array([float(weight @ (b.reading[0] - found.zero)) / norm for b in steps])

        def cost(log_tau: float) -> float:
            tau = np.exp(log_tau)
            left = shares - 1.0 + 0.5 * (np.exp(-times / tau) + np.exp(-later / tau))
            return float(left @ left)

        best = minimize_scalar(
            cost, bounds=(np.log(times.min() / 10), np.log(10 * times.max())), method="bounded",
            options={"xatol": 1e-9},
        )  # fmt: skip
        tau = float(np.exp(best.x))
        by_tau = 0.5 * (times * np.exp(-times / tau) + later * np.exp(-later / tau)) / tau**2
        scatter = max(cost(best.x) / max(1, len(steps) - 1), 1e-16)
        deviation = float(np.sqrt(scatter / max(float(by_tau @ by_tau), 1e-300)))
        shown = [Step(float(t), float(s)) for t, s in zip((times + later) / 2, shares, strict=True)]
        if tau <= times.min() / 9:
            return shown, 0.0, float(times.min())  # faster than could be looked at
        return shown, tau, deviation


def readings(batches: Sequence[CalibrationBatch], case_us: int) -> list[Readings]:
    """Return batches at rest put together where the command is the same."""
    groups: list[tuple[Array, list[CalibrationBatch]]] = []
    for batch in batches:
        if not groups or not np.array_equal(groups[-1][0], batch.command):
            groups.append((batch.command, []))
        groups[-1][1].append(batch)
    return [
        Readings(
            command,
            np.concatenate([b.loads for b in some]),
            np.concatenate([b.reading for b in some]),
            np.concatenate(
                [1e-6 * (b.device_us - case_us * np.arange(len(b.loads))[::-1]) for b in some]
            ),
        )
        for command, some in groups
    ]


@dataclass(frozen=True)
class Noise:
    """Of a load case."""

    size: Array  # (channels,), m
    known: float  # how well, relative standard deviation


def repeat_noise(zeros: Sequence[CalibrationBatch]) -> Noise:
    """Return the noise of a load case from zero loads in each batch; raises RunError."""
    enough = [b.reading for b in zeros if len(b.reading) > 1]
    if not enough:
        raise RunError("calibration: no zero load was repeated; raise calibration.zeros")
    squares = sum(((r - r.mean(0)) ** 2).sum(0) for r in enough)
    freedom = sum(len(r) - 1 for r in enough)
    return Noise(np.asarray(np.sqrt(squares / freedom)), (2.0 * freedom) ** -0.5)


def left_noise(found: Identified) -> Noise:
    """Return the noise of a load case as the fit leaves it, where nothing was repeated."""
    return Noise(found.noise, (2.0 * found.used / len(found.noise)) ** -0.5)


def steps_seen(reading: Array, ranges: Array, samples: int) -> Array:
    """Return the step of each channel's converter where readings show it, else 0, (channels,), m.

    A mean of n samples lies on a grid of a step over n; whether it does is what is looked at.
    """
    found = np.zeros(len(ranges))
    for channel, (values, full) in enumerate(zip(reading.T, ranges, strict=True)):
        gaps = np.diff(np.unique(values))
        gaps = gaps[gaps > 1e-6 * full]
        if len(gaps) < 32:
            continue
        grid = float(gaps.min())
        for _ in range(3):  # the smallest gap carries the rounding of float32
            counts = np.rint(gaps / grid)
            grid = float(gaps.sum() / counts.sum())
        small = counts <= 8
        if np.abs(gaps / grid - counts)[small].max() < SAME_STEP:
            found[channel] = grid * samples
    return found


def spring_parameters(
    found: Identified, noise: Noise, samples: int, ranges: Array, limits: tuple[float, float]
) -> dict[str, Parameter]:
    """Return what was identified as a calibration keeps it.

    noise: the sensors' own; what the fit leaves, with the rounding of the forces in it, is
    kept beside it as `case_noise`.
    """
    of_sample, left = samples**0.5 * noise.size, left_noise(found)
    return {
        "stiffness_correction": Parameter(
            "1", found.correction.tolist(), found.correction_deviation.tolist()
        ),
        "command_range": Parameter("N/m", list(limits), [0.0, 0.0]),
        "gain": Parameter("1", found.gain.tolist(), found.gain_deviation.tolist()),
        "zero": Parameter("m", found.zero.tolist(), found.zero_deviation.tolist()),
        "zero_time": Parameter("s", found.since, 0.0),
        "drift": Parameter("m/s", found.drift.tolist(), found.drift_deviation.tolist()),
        "noise": Parameter("m", of_sample.tolist(), (noise.known * of_sample).tolist()),
        "case_noise": Parameter("m", left.size.tolist(), (left.known * left.size).tolist()),
        "range": Parameter("m", ranges.tolist(), [0.0] * len(ranges)),
    }


def _batch(
    kind: Literal["zero", "load", "step"], command: Array, loads: Array,
    measured: MeasuredEquilibrium, wait_us: int,
) -> CalibrationBatch:  # fmt: skip
    reading = np.concatenate([measured.displacement, measured.elongation], axis=1)
    return CalibrationBatch(
        kind, command, loads, reading, measured.device_us, wait_us, measured.settled
    )


def _clustered(values: Array, apart: float) -> Array:
    """Return values with those closer than `apart` as one, rounding of the actuators."""
    groups = np.split(values, np.flatnonzero(np.diff(values) > apart) + 1)
    return np.array([group.mean() for group in groups])


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
