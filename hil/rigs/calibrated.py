"""A static rig in true units: its calibration between the commands and the readings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hil.errors import ConfigError
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import AbstractStaticRig, MeasuredEquilibrium, RigInfo, RigState
from hil.rigs.calibration import CalibrationRecord, chosen, geometry_hash
from hil.rigs.spring_identification import powers
from hil.types import Array

KIND = "spring_network"
TRUSTED = 0.9  # of a sensor's range: readings beyond may have met its end
NEWTON = 50  # steps to the command of a stiffness, at most


class SpringCalibration:
    """What a calibration says of a spring network, as arrays.

    Raises ConfigError where it does not fit the network.
    """

    def __init__(self, record: CalibrationRecord, dof: int, bonds: int) -> None:
        self.record = record
        channels = dof + bonds
        self.gain = record.array("gain")  # (channels,)
        self.zero = record.array("zero")  # (channels,), m
        self.noise = record.array("noise")  # (channels,), m, of one sample
        self.largest = TRUSTED * record.array("range")  # (channels,), m
        self.correction = record.array("stiffness_correction")  # (terms, bonds), 1
        low, high = record.array("command_range")  # N/m
        self.low, self.high = float(low), float(high)
        self._basis = powers(self.low, self.high, len(self.correction) - 1)
        fits = all(len(a) == channels for a in (self.gain, self.zero, self.noise, self.largest))
        if not fits or self.correction.ndim != 2 or self.correction.shape[1] != bonds:
            raise ConfigError(
                f"calibration of {record.device_id}: made for another number of channels or "
                f"bonds; this rig has {channels} and {bonds}; calibrate again"
            )
        self._dof = dof

    def stiffness(self, command: Array) -> Array:
        """Return what a command comes to, (bonds,), N/m; 0 stays 0: nobody knows."""
        found = command + (self.correction * self._basis(command)).sum(0)
        return np.where(command > 0, found, 0.0)

    def command(self, stiffness: Array, low: float, high: float) -> Array:
        """Return the command within [low, high], N/m, that comes closest to a stiffness."""
        command = np.asarray(stiffness, dtype=np.float64)
        step = 1e-6 * (self.high - self.low)
        for _ in range(NEWTON):
            slope = (self.stiffness(command + step) - self.stiffness(command)) / step
            change = (stiffness - self.stiffness(command)) / np.maximum(slope, 0.1)
            command = np.clip(command + change, low, high)
            if np.abs(change).max() < 1e-9 * self.high:
                break
        return command

    def corrected(self, displacement: Array, elongation: Array) -> tuple[Array, Array]:
        """Return readings, (batch, dof) and (batch, bonds), m, as true lengths."""
        u, e = slice(0, self._dof), slice(self._dof, None)
        return (
            (displacement - self.zero[u]) / self.gain[u],
            (elongation - self.zero[e]) / self.gain[e],
        )

    def raw(self, displacement: Array, elongation: Array) -> tuple[Array, Array]:
        """Return true lengths as the sensors said them: the inverse of `corrected`."""
        u, e = slice(0, self._dof), slice(self._dof, None)
        return (
            displacement * self.gain[u] + self.zero[u],
            elongation * self.gain[e] + self.zero[e],
        )


class Calibrated(AbstractStaticRig):
    """Wraps a static rig: stiffness and lengths in true units, on both ways.

    which: "none", "auto" or the path of a calibration; looked up when the rig is configured
    and says which device it is. Without one everything passes as it is. What is commanded
    stays within the limits of the rig inside, whatever the calibration says.
    """

    def __init__(self, rig: AbstractStaticRig, network: SpringNetwork, which: str) -> None:
        self._rig = rig
        self._network = network
        self._which = which
        self._limits = (0.0, np.inf)
        self.calibration: SpringCalibration | None = None

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._rig.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._rig.fault

    def configure(self) -> RigInfo:
        """Configure the rig, then find its calibration.

        Raises ConfigError for a calibration of another device or geometry.
        """
        info = self._rig.configure()
        self._limits = info.stiffness_limits
        geometry = geometry_hash(self._network.geometry)
        record = chosen(self._which, KIND, info.device_id, geometry)
        self.calibration = None
        if record is None:
            return info
        self.calibration = SpringCalibration(record, info.dof, info.bonds)
        details = info.details | {"calibration": record.name}
        return replace(info, details=details)

    def activate(self) -> None:
        """Power the outputs."""
        self._rig.activate()

    def deactivate(self) -> None:
        """Make the outputs safe."""
        self._rig.deactivate()

    def stop(self, reason: str = "stopped by hand") -> None:
        """Make the outputs safe now."""
        self._rig.stop(reason)

    def clear(self) -> None:
        """Leave fault."""
        self._rig.clear()

    def poll(self) -> None:
        """Give the rig a moment."""
        self._rig.poll()

    def close(self) -> None:
        """Let go of the rig."""
        self._rig.close()

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Measure load cases; lengths are true ones."""
        return self._corrected(self._rig.settle(loads))

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """Measure soon after the force; lengths are true ones."""
        return self._corrected(self._rig.sample_after(loads, wait_us))

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond to a true stiffness; return the one applied: (bonds,), N/m."""
        known = self.calibration
        if known is None:
            return self._rig.set_stiffness(stiffness)
        return known.stiffness(self._rig.set_stiffness(known.command(stiffness, *self._limits)))

    def read_stiffness(self) -> Array:
        """Read back the true stiffness the actuators give: (bonds,), N/m."""
        applied = self._rig.read_stiffness()
        return applied if self.calibration is None else self.calibration.stiffness(applied)

    def _corrected(self, measured: MeasuredEquilibrium) -> MeasuredEquilibrium:
        known = self.calibration
        if known is None:
            return measured
        displacement, elongation = known.corrected(measured.displacement, measured.elongation)
        return MeasuredEquilibrium(
            displacement, elongation, measured.device_us, measured.settled, measured.twin_residual
        )
