"""The limits of a rig, enforced for every path that leads to it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from hil.errors import LimitError
from hil.rigs.base import (
    AbstractDynamicRig,
    AbstractRig,
    AbstractStaticRig,
    DynamicRigInfo,
    DynamicSample,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
)
from hil.rigs.emulator_base import (
    AbstractEmulatorRig,
    Calibration,
    EmulatorInfo,
    EmulatorStatus,
    Traces,
    check_batch,
    check_coefficients,
)
from hil.types import Array


class AbstractLimited(AbstractRig):
    """The life of a rig that is wrapped."""

    @property
    @abstractmethod
    def inner(self) -> AbstractRig:
        """The rig inside."""

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self.inner.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self.inner.fault

    def activate(self) -> None:
        """Power the outputs."""
        self.inner.activate()

    def deactivate(self) -> None:
        """Make the outputs safe."""
        self.inner.deactivate()

    def stop(self, reason: str = "stopped by hand") -> None:
        """Make the outputs safe now."""
        self.inner.stop(reason)

    def clear(self) -> None:
        """Leave fault."""
        self.inner.clear()

    def poll(self) -> None:
        """Give the rig a moment."""
        self.inner.poll()

    def close(self) -> None:
        """Let go of the rig."""
        self.inner.close()


class Limited(AbstractLimited, AbstractStaticRig):
    """Wraps a static rig: refuses loads outside its limits, clips stiffness into them.

    A clipped load would silently be another experiment, so it is refused; a stiffness
    saturates as the actuator would, and the caller learns from what was applied.
    """

    def __init__(self, rig: AbstractStaticRig) -> None:
        self._rig = rig
        self._info: RigInfo | None = None

    @property
    def inner(self) -> AbstractStaticRig:
        """The rig inside."""
        return self._rig

    def configure(self) -> RigInfo:
        """Configure the rig and take its limits from it."""
        self._info = self.inner.configure()
        return self._info

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Measure a batch of load cases whose every force is within the limits."""
        return self.inner.settle(self._checked(loads))

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """Look soon after a force within the limits."""
        return self.inner.sample_after(self._checked(loads), wait_us)

    def _checked(self, loads: Array) -> Array:
        """Return load cases, all within the limits; raises LimitError."""
        info = self._known("settle")
        _check_array("settle", loads, 2, info.dof)
        if not len(loads):
            raise LimitError("settle: a batch needs at least one load case")
        outside = ~(np.abs(loads) <= info.force_limit)  # true for NaN as well
        if outside.any():
            case, dof = (int(i) for i in np.argwhere(outside)[0])
            raise LimitError(
                f"settle: load case {case}, degree of freedom {dof}: force {loads[case, dof]:g} N "
                f"is outside ±{info.force_limit:g} N; nothing was applied"
            )
        return loads

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond, clipped into the limits; return what was applied."""
        info = self._known("set_stiffness")
        _check_array("set_stiffness", stiffness, 1, info.bonds)
        if not np.isfinite(stiffness).all():
            bond = int(np.argmin(np.isfinite(stiffness)))
            raise LimitError(
                f"set_stiffness: bond {bond}: {stiffness[bond]} N/m is not a number; nothing was "
                "applied"
            )
        return self.inner.set_stiffness(np.clip(stiffness, *info.stiffness_limits))

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to."""
        return self.inner.read_stiffness()

    def _known(self, call: str) -> RigInfo:
        if self._info is None:
            raise _unknown(call)
        return self._info


class LimitedDynamic(AbstractLimited, AbstractDynamicRig):
    """Wraps a dynamic rig: clips inputs into its limits, refuses what is no number.

    An input saturates as the actuator would; the caller goes on from what was applied.
    """

    def __init__(self, rig: AbstractDynamicRig) -> None:
        self._rig = rig
        self._info: DynamicRigInfo | None = None
        self._low = self._high = np.empty(0)  # of the inputs, (nu,)

    @property
    def inner(self) -> AbstractDynamicRig:
        """The rig inside."""
        return self._rig

    def configure(self) -> DynamicRigInfo:
        """Configure the rig and take its limits from it."""
        self._info = self.inner.configure()
        self._low, self._high = np.array(self._info.input_limits).T
        return self._info

    def read(self) -> DynamicSample:
        """Return the newest sample."""
        return self.inner.read()

    def write(self, u: Array) -> Array:
        """Set the inputs, clipped into the limits; return what was applied."""
        if self._info is None:
            raise _unknown("write")
        _check_array("write", u, 1, len(self._low))
        if not np.isfinite(u).all():
            name = self._info.inputs[int(np.argmin(np.isfinite(u)))]
            raise LimitError(f"write: {name} is not a number ({u}); nothing was applied")
        return self.inner.write(np.minimum(np.maximum(u, self._low), self._high))


class LimitedEmulator(AbstractLimited, AbstractEmulatorRig):
    """Wraps an emulator: refuses inputs outside its limits, clips coefficients into them.

    As for a static rig: a clipped input would silently be another experiment.
    """

    def __init__(self, rig: AbstractEmulatorRig) -> None:
        self._rig = rig
        self._info: EmulatorInfo | None = None

    @property
    def inner(self) -> AbstractEmulatorRig:
        """The rig inside."""
        return self._rig

    def configure(self) -> EmulatorInfo:
        """Configure the rig and take its limits from it."""
        self._info = self.inner.configure()
        return self._info

    def set_coefficients(self, values: Array) -> Array:
        """Set every coefficient, clipped into the limits; return what was applied."""
        if self._info is None:
            raise _unknown("set_coefficients")
        return self.inner.set_coefficients(check_coefficients(self._info, values))

    def read_coefficients(self) -> Array:
        """Read back what the coefficients are set to."""
        return self.inner.read_coefficients()

    def run(self, inputs: Array, initial: Array | None = None, every: int = 1) -> Traces:
        """Run a batch whose every input is within the limits."""
        if self._info is None:
            raise _unknown("run")
        check_batch(self._info, inputs, initial, every)
        return self.inner.run(inputs, initial, every)

    def status(self) -> EmulatorStatus:
        """Return mode, run and overload latches."""
        return self.inner.status()

    def calibrate(self) -> Calibration:
        """Measure what the coefficients that are set really are."""
        return self.inner.calibrate()


def _unknown(call: str) -> LimitError:
    return LimitError(f"{call}: the limits of the rig are not known; call configure() first")


def _check_array(call: str, array: Array, ndim: int, last: int) -> None:
    if array.ndim != ndim or array.shape[-1] != last:
        shape = (last,) if ndim == 1 else ("batch", last)
        raise LimitError(f"{call}: expected an array of shape {shape}, found {array.shape}")
