"""An emulator owned by another process: the same contract, over the bus."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from hil.errors import StateError
from hil.links.zeromq import Address, Keys
from hil.messages import bus
from hil.rigs.base import RigState
from hil.rigs.emulator_base import (
    AbstractEmulatorRig,
    Calibration,
    EmulatorInfo,
    EmulatorMode,
    EmulatorStatus,
    Traces,
    check_batch,
    in_batches,
    joined,
)
from hil.rigs.remote import AbstractRemoteRig
from hil.rigs.session import MirrorSession
from hil.types import Array

CALIBRATION_S = 300.0  # what a calibration may take
PACE = 50  # times the predicted time that a simulated machine may need for a run
AT_LEAST_S = 120.0


class RemoteEmulatorRig(AbstractRemoteRig, AbstractEmulatorRig):
    """Commands an emulator through its mirror.

    client: the name that others are told while this process holds the lease.
    """

    def __init__(self, address: Address, *, client: str, keys: Keys | None = None) -> None:
        self._session = MirrorSession(address, client, keys)
        self._info: EmulatorInfo | None = None

    @property
    def session(self) -> MirrorSession:
        """The session with its mirror."""
        return self._session

    @property
    def info(self) -> EmulatorInfo:
        """What the emulator is; raises StateError before it is configured."""
        if self._info is None:
            raise StateError(f"rig {self.session.address.name}: call configure() first")
        return self._info

    def configure(self) -> EmulatorInfo:
        """Take the lease and have the emulator configured; raises LinkError, LeaseError."""
        self._info = msgspec.convert(self.session.connect(), EmulatorInfo)
        return self._info

    def set_coefficients(self, values: Array) -> Array:
        """Set every coefficient; return what was applied: (size,)."""
        self._require("set_coefficients")
        ref = bus.ArrayRef.of(values)
        _, (applied,) = self.session.ask(bus.SetCoefficients, bus.Coefficients, values, values=ref)
        return applied

    def read_coefficients(self) -> Array:
        """Read back what the coefficients are set to: (size,)."""
        self._require("read_coefficients")
        _, (applied,) = self.session.ask(bus.ReadCoefficients, bus.Coefficients, leased=False)
        return applied

    def run(self, inputs: Array, initial: Array | None = None, every: int = 1) -> Traces:
        """Run cases, in as many commands as their size asks for."""
        self.session.life.require("run", RigState.ACTIVE)
        check_batch(self.info, inputs, initial, every)
        at_once = self.info.cases_at_once(inputs.shape[1], every)
        parts = in_batches(inputs, initial, at_once)
        return joined([self._run_part(*part, every) for part in parts])

    def status(self) -> EmulatorStatus:
        """Return mode, run and overload latches."""
        self._require("status")
        found, _ = self.session.ask(bus.ReadEmulator, bus.EmulatorState, leased=False)
        return EmulatorStatus(EmulatorMode(found.mode), found.run, found.overload, found.looked_us)

    def calibrate(self) -> Calibration:
        """Measure what the coefficients that are set really are."""
        self.session.life.require("calibrate", RigState.ACTIVE)
        found, arrays = self.session.ask(bus.Calibrate, bus.Calibrated, work=CALIBRATION_S)
        effective, applied, deviation = arrays
        return Calibration(effective, applied, deviation, found.residual)

    def _run_part(self, inputs: Array, initial: Array | None, every: int) -> Traces:
        predicted = self.info.run_time(*inputs.shape[:2])
        arrays = [np.asarray(a, dtype=np.float64) for a in (inputs, initial) if a is not None]
        refs: dict[str, Any] = dict(
            zip(("inputs", "initial"), map(bus.ArrayRef.of, arrays), strict=False)
        )
        ran, (states, overloaded) = self.session.ask(
            bus.RunBatch,
            bus.Ran,
            *arrays,
            work=max(AT_LEAST_S, PACE * predicted),
            every=every,
            **({"initial": None} | refs),
        )
        return Traces(
            states=states,
            overloaded=overloaded,
            overload=ran.overload,
            run=ran.run,
            sequence=ran.sequence,
            predicted=ran.predicted,
            took=ran.took,
            device_us=ran.ended_us,
        )

    def _require(self, call: str) -> None:
        self.session.life.require(call, RigState.INACTIVE, RigState.ACTIVE)
