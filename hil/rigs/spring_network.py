"""A tunable spring network behind a microcontroller on a serial line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.errors import ConfigError, DeadmanError
from hil.links.serial import SerialLink
from hil.mechanics.finite_springs import make_statics
from hil.mechanics.geometry import make_geometry
from hil.messages import wire
from hil.rigs.base import (
    AbstractStaticRig,
    AbstractTokens,
    Lifecycle,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
    Token,
    in_parts,
    join,
    microseconds,
)
from hil.rigs.device import AbstractDeviceRig, Device, Patience, board_name
from hil.rigs.settings import StaticRigSettings
from hil.types import Array, ClockKind


class SpringNetworkRigSettings(StaticRigSettings, frozen=True, kw_only=True):
    """The rig table of a spring network behind a microcontroller."""

    port: Annotated[str, Meta(min_length=1, description="pyserial URL of the device")]
    baud: Annotated[int, Meta(gt=0, description="bits per second")] = 921600
    serial_number: Annotated[str, Meta(description="of the USB device, to find it again")] = ""


class SpringNetworkRig(AbstractDeviceRig, AbstractStaticRig):
    """Settles a spring network through its microcontroller.

    tokens: where each powered command takes its token from; clock: whose time the device
    keeps; port: replaces the configured one (a simulated board names its own).
    """

    Settings: ClassVar[type[SpringNetworkRigSettings]] = SpringNetworkRigSettings

    def __init__(
        self,
        settings: SpringNetworkRigSettings,
        *,
        tokens: AbstractTokens,
        clock: ClockKind = "wall",
        port: str = "",
    ) -> None:
        self.settings = settings
        geometry = make_geometry(settings.geometry, Path.cwd())
        self.statics = make_statics(geometry, settings.regime)  # the model beside the rig
        self.network = self.statics.linear
        self._pruned = settings.pruned_bonds(self.network)
        self.link = SerialLink(port or settings.port, settings.baud, settings.serial_number)
        self._life = Lifecycle(settings.name)
        self._device = Device(self.link, clock, self._life)
        self._tokens = tokens
        self._batch = 0
        self._info: RigInfo | None = None
        settings.max_cases(capacity=1)  # refuse a watchdog that is too short here already

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device

    def configure(self) -> RigInfo:
        """Connect, check schema, application and size, send limits and timing.

        Raises PortError, LinkError, SchemaError, ConfigError.
        """
        self._info = self.device.connect(self._handshake)
        return self._info

    def clear(self) -> None:
        """Connect again if need be, have the device leave its fault, read it back."""
        self._info = self.device.leave_fault(self._handshake)

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Run load cases on the device, in as many batches as fit under one token each."""
        self._life.require("settle", RigState.ACTIVE)
        assert self._info is not None
        return join([self._settle_part(p) for p in in_parts(loads, self._info.max_cases)])

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """Measure one load case soon after the force; the timing is put back afterwards.

        The device takes a timing while it is inactive only, where its forces are zero anyway.
        """
        self._life.require("sample_after", RigState.ACTIVE)
        usual = self._setup()
        hasty = replace(
            usual, settle_us=wait_us, settle_timeout_us=0, samples=2,
            sample_period_us=max(1, wait_us // 8),
        )  # fmt: skip
        self._set_up(hasty)
        try:
            return self._settle_part(loads[:1])
        finally:
            if self._life.state is RigState.ACTIVE:
                self._set_up(usual)

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what the actuators were set to: (bonds,), N/m."""
        self._life.require("set_stiffness", RigState.ACTIVE)
        self.device.exchange(_writes(wire.Target.STIFFNESS, 0, stiffness), wire.State)
        self.device.act(wire.Apply(len(stiffness)))
        return self.read_stiffness()

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m; 0 where a bond is cut."""
        self._life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
        bonds = self.network.bond_count
        reads = _reads(wire.Target.APPLIED_STIFFNESS, 0, bonds)
        applied = _joined(self.device.exchange(reads, wire.Values))
        applied[self._pruned] = 0.0  # its actuator may still be there, and turn
        return applied

    def _settle_part(self, loads: Array) -> MeasuredEquilibrium:
        device, dof, bonds = self.device, self.network.dof, self.network.bond_count
        cases = range(len(loads))
        device.exchange(
            [w for case in cases for w in _writes(wire.Target.FORCE, case, loads[case])], wire.State
        )
        token = self._tokens.take(device.clock.now_us())
        self._batch += 1
        run = wire.Run(token.valid_until_us, token.sequence, self._batch, len(loads), 0)
        device.act(run)
        self._wait_until_done(len(loads), token)
        displacement = [r for c in cases for r in _reads(wire.Target.DISPLACEMENT, c, dof)]
        elongation = [r for c in cases for r in _reads(wire.Target.ELONGATION, c, bonds)]
        about = device.exchange([wire.CaseRequest(c) for c in cases], wire.Case)
        return MeasuredEquilibrium(
            displacement=_joined(device.exchange(displacement, wire.Values)).reshape(-1, dof),
            elongation=_joined(device.exchange(elongation, wire.Values)).reshape(-1, bonds),
            device_us=about[-1].device_us,
            settled=all(case.flags & wire.CaseFlag.SETTLED for case in about),
        )

    def _wait_until_done(self, cases: int, token: Token) -> None:
        patience = Patience(1.0 + (cases + 1) * self.settings.case_us / 1e6)
        status = wire.RunStatus.RUNNING
        while status is wire.RunStatus.RUNNING:
            if self.device.stopping:
                self.device.stop_now()
                self._life.require("settle", RigState.ACTIVE)
            said = self.device.unasked()
            if isinstance(said, wire.RunDone) and said.batch == self._batch:
                self.device.clock.observe(said.device_us)
                status = wire.RunStatus(said.status)
            elif patience.over:  # the announcement was lost on the way: ask
                status = wire.RunStatus(self.device.query().run)
        if status is wire.RunStatus.EXPIRED:
            self._life.latch("deadman: the token expired during a batch")
            raise DeadmanError(
                f"rig {self._life.name}: token {token.sequence} expired at device time "
                f"{token.valid_until_us} us before its batch of {cases} cases ended; the forces "
                "are zero; clear() first, then send fewer cases per token or let it live longer"
            )
        if status is not wire.RunStatus.DONE:
            self._life.latch(f"batch {self._batch} ended as {status.name}")
            self._life.require("settle", RigState.ACTIVE)

    def _handshake(self) -> RigInfo:
        network, settings = self.network, self.settings
        watchdog_us = microseconds(settings.watchdog)
        info = self.device.handshake(wire.Application.SPRING_NETWORK, watchdog_us)
        if (info.dof, info.bonds) != (network.dof, network.bond_count):
            raise ConfigError(
                f"rig.geometry: has {network.dof} degrees of freedom and {network.bond_count} "
                f"bonds, board {board_name(info)!r} has {info.dof} and {info.bonds}; correct the "
                "geometry or connect the right device"
            )
        state = self.device.ask(self._setup(), wire.State)
        self.device.observe(state)
        self._batch = state.batch
        return RigInfo(
            name=self._life.name,
            device_id=f"{info.device_id:016x}",
            dof=info.dof,
            bonds=info.bonds,
            max_cases=settings.max_cases(info.cases),
            case_us=settings.case_us,
            watchdog_us=watchdog_us,
            stiffness_limits=settings.stiffness,
            force_limit=settings.force_max,
            details={
                "board": board_name(info),
                "firmware": ".".join(str(info.firmware >> shift & 0xFF) for shift in (16, 8, 0)),
                "schema": f"{info.schema:#010x}",
            },
        )

    def _setup(self) -> wire.Setup:
        """Return the limits and the timing that are configured."""
        settings = self.settings
        low, high = settings.stiffness
        return wire.Setup(
            force_max=settings.force_max,
            stiffness_low=low,
            stiffness_high=high,
            drift_max=settings.drift_max,
            watchdog_us=microseconds(settings.watchdog),
            settle_us=microseconds(settings.settle),
            settle_timeout_us=microseconds(settings.settle_timeout),
            sample_period_us=microseconds(settings.sample_period),
            samples=settings.samples,
        )

    def _set_up(self, setup: wire.Setup) -> None:
        """Give an active device another timing."""
        self.device.request_mode(wire.Mode.INACTIVE)
        self.device.observe(self.device.ask(setup, wire.State))
        self.device.request_mode(wire.Mode.ACTIVE)


def _writes(target: wire.Target, case: int, values: Array) -> list[wire.Write]:
    flat = np.asarray(values, dtype=np.float32).tolist()
    size = wire.VALUES
    return [
        wire.Write(target, case, at, len(part), tuple(part + [0.0] * (size - len(part))))
        for at in range(0, len(flat), size)
        for part in [flat[at : at + size]]
    ]


def _reads(target: wire.Target, case: int, length: int) -> list[wire.Read]:
    return [
        wire.Read(target, case, at, min(wire.VALUES, length - at))
        for at in range(0, length, wire.VALUES)
    ]


def _joined(pieces: Sequence[wire.Values]) -> Array:
    return np.array([v for p in pieces for v in p.values[: p.count]], dtype=np.float64)
