"""A gyro classifier whose physics is an emulator's: nudges go in, what it did comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError
from hil.models.gyro_classifier import GyroClassifier
from hil.rigs.emulator_base import AbstractEmulatorRig, Calibration, EmulatorInfo
from hil.types import Array

PARTS = ("x", "y", "v_x", "v_y")


@dataclass(frozen=True)
class Measured:
    """What an emulator did under a batch of signals, SI."""

    last: Array  # (cases, outputs, 4)
    states: Array | None  # (cases, steps + 1, n, 4), where the whole motion was recorded
    trusted: NDArray[np.bool_]  # (cases,), False where a case left the machine's range
    run: int  # number of the newest run since power-on
    sequence: int  # number of the first case since power-on
    predicted: float  # time on the machine as known before, s
    took: float  # by the machine's own clock, s
    device_us: int  # device time at the end, us


class EmulatedClassifier:
    """Puts the physics of classifiers of one architecture on an emulator and reads them.

    Coefficient θ is set to θ/factor, so that θ acts; factors are one until they were
    measured. rig: configured, its info beside it. Raises ConfigError where the emulator is
    not wired for the classifier.
    """

    def __init__(
        self,
        rig: AbstractEmulatorRig,
        info: EmulatorInfo,
        model: GyroClassifier,
        factors: Array | None = None,
    ) -> None:
        self.rig, self.info = rig, info
        self.factors = np.ones(info.size) if factors is None else factors  # (size,)
        self.clipped = 0  # coefficients the last classifier wanted outside their limits
        network = model.network
        counts = {group.name: group.count for group in info.coefficients}
        wanted = {"mass": network.n, "length": network.n, "gamma": network.n}
        if counts != wanted | {"stiffness": network.spring_count}:
            raise ConfigError(f"rig.geometry: the emulator has {counts}, the model {wanted}")
        driven = tuple(f"force_{axis} {i + 1}" for i in model.inputs for axis in "xy")
        if info.inputs != driven:
            raise ConfigError(f"rig.driven: expected {list(model.settings.inputs)} as in the model")
        if abs(info.step - model.settings.dt) > 1e-6 * info.step:
            raise ConfigError(f"rig.step: {info.step} s, the model has {model.settings.dt} s")
        place = {name: k for k, name in enumerate(info.channels)}
        names = [[f"{part} {i + 1}" for part in PARTS] for i in range(network.n)]
        try:
            self._outputs = [[place[name] for name in names[i]] for i in model.outputs]
        except KeyError as missing:
            raise ConfigError(f"rig.recorded: the model reads {missing}") from None
        whole = all(name in place for row in names for name in row)
        self._everyone = [[place[name] for name in row] for row in names] if whole else None

    @property
    def records_everyone(self) -> bool:
        """Whether whole motions can be had: the rig records every gyroscope."""
        return self._everyone is not None

    def program(self, model: GyroClassifier) -> Array:
        """Set the physics of a classifier; return what was applied: (size,).

        Raises ConfigError for nudges beyond the emulator's range, whatever the signal.
        """
        w = model.weights
        largest = float((np.abs(w.encoder).sum(1) + np.abs(w.encoder_bias)).max())
        if largest > self.info.input_limit:
            raise ConfigError(
                f"rig.force_max: {self.info.input_limit:g} N; signals of size 1 become nudges of "
                f"up to {largest:.3g} N in this model"
            )
        wanted = np.concatenate([getattr(w, g.name) for g in self.info.coefficients])
        values = wanted / self.factors
        low, high = self.info.bounds()
        self.clipped = int(((values < low) | (values > high)).sum())
        return self.rig.set_coefficients(np.clip(values, low, high))

    def calibrate(self, model: GyroClassifier) -> Calibration:
        """Measure the factors at the coefficients of a classifier, then set it with them."""
        self.program(model)
        found = self.rig.calibrate()
        known = found.applied != 0.0
        ratio = np.divide(found.effective, found.applied, out=np.ones(len(known)), where=known)
        self.factors = np.asarray(ratio)
        self.program(model)
        return found

    def measure(self, model: GyroClassifier, signals: Array, whole: bool = False) -> Measured:
        """Run signals (cases, steps, channels); the physics is what was set last.

        whole: bring the motion of every gyroscope along, which the rig has to record.
        """
        nudges = model.nudges(signals)
        cases, steps = nudges.shape[:2]
        traces = self.rig.run(nudges.reshape(cases, steps, -1), every=1 if whole else steps)
        states = None
        if whole:
            if self._everyone is None:
                raise ConfigError("rig.recorded: whole motions need every gyroscope: []")
            states = traces.states[:, :, self._everyone]
        return Measured(
            last=traces.states[:, -1][:, self._outputs],
            states=states,
            trusted=traces.overloaded == 0.0,
            run=traces.run,
            sequence=traces.sequence,
            predicted=traces.predicted,
            took=traces.took,
            device_us=traces.device_us,
        )

    def features(self, model: GyroClassifier, measured: Measured) -> Array:
        """Return what a classifier reads of a measurement, (cases, 4 outputs), 1."""
        return np.asarray(measured.last.reshape(len(measured.last), -1) / model.weights.scale)
