"""A cart-pole behind a microcontroller on a serial line."""

from __future__ import annotations

from typing import Annotated, ClassVar, NoReturn

import numpy as np
from msgspec import Meta

from hil.errors import DeadmanError, FaultError, LinkError
from hil.links.serial import SerialLink
from hil.messages import wire
from hil.messages.layout import Message
from hil.rigs.base import (
    AbstractDynamicRig,
    AbstractTokens,
    DynamicRigInfo,
    DynamicSample,
    Lifecycle,
    RigState,
    microseconds,
)
from hil.rigs.device import AbstractDeviceRig, Device, Patience, board_name
from hil.rigs.settings import DynamicRigSettings
from hil.types import Array, ClockKind

SILENCE_S = 0.25  # beyond a period; then the device is asked for its newest sample
ASKED = 3  # times in a row, before a device without new samples is given up
FLAGS = tuple((int(flag), flag.name.lower()) for flag in wire.SampleFlag)


class CartPoleRigSettings(DynamicRigSettings, frozen=True, kw_only=True):
    """The rig table of a cart-pole behind a microcontroller."""

    port: Annotated[str, Meta(min_length=1, description="pyserial URL of the device")]
    baud: Annotated[int, Meta(gt=0, description="bits per second")] = 921600
    serial_number: Annotated[str, Meta(description="of the USB device, to find it again")] = ""


class CartPoleRig(AbstractDeviceRig, AbstractDynamicRig):
    """Drives a cart-pole through its microcontroller: y = (angle, position), u = (force,).

    The angle is in rad, 0 upright and not wrapped, the position in m, the force in N.
    tokens: where each write takes its token from; clock: whose time the device keeps; port:
    replaces the configured one (a simulated board names its own).
    """

    Settings: ClassVar[type[CartPoleRigSettings]] = CartPoleRigSettings

    def __init__(
        self,
        settings: CartPoleRigSettings,
        *,
        tokens: AbstractTokens,
        clock: ClockKind = "wall",
        port: str = "",
    ) -> None:
        self.settings = settings
        self.link = SerialLink(port or settings.port, settings.baud, settings.serial_number)
        self._life = Lifecycle(settings.name)
        self._device = Device(self.link, clock, self._life)
        self._lock_step = clock == "virtual"
        self._tokens = tokens
        self._newest: wire.Sample | None = None  # that arrived
        self._returned = 0  # number of the sample that read() returned last
        self._stands_at = 0  # lock-step: number of the sample the device waits at, or goes to
        self._every = settings.stream_every  # refuse what does not fit here already

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device

    def configure(self) -> DynamicRigInfo:
        """Connect, check schema and application, send limits and timing; samples begin.

        Raises PortError, LinkError, SchemaError, ConfigError.
        """
        return self.device.connect(self._handshake)

    def activate(self) -> None:
        """Let the device power its output."""
        super().activate()
        if not self._lock_step and self.device.state is not None:
            self._returned = self.device.state.batch  # what came before is not news any more

    def clear(self) -> None:
        """Connect again if need be, have the device leave its fault, set it up anew."""
        self.device.leave_fault(self._handshake)

    def read(self) -> DynamicSample:
        """Return the newest sample not returned before; how many were missed stands in it.

        Raises DeadmanError, FaultError, LinkError.
        """
        self._look_for_stop("read", RigState.INACTIVE, RigState.ACTIVE)
        if self._lock_step and self._returned == self._stands_at:
            state = self.device.ask(wire.Pass(self._returned), wire.State)
            self.device.observe(state)
            self._stands_at = max(state.batch, self._returned + 1)
        sample = self._wait()
        self.device.clock.observe(sample.device_us)
        if sample.mode == wire.Mode.FAULT:
            self._faulted(wire.Fault(sample.fault), sample.device_us)
        missed = sample.sample - self._returned - 1
        self._returned = sample.sample
        return DynamicSample(
            y=np.array([sample.angle, sample.position]),
            u=np.array([sample.force]),
            device_us=sample.device_us,
            sequence=sample.sample,
            missed=missed,
            flags=tuple(name for flag, name in FLAGS if sample.flags & flag),
        )

    def write(self, u: Array) -> Array:
        """Command the force; return what the device applied, less where its interlock acts.

        u: (1,), N. Raises LimitError, DeadmanError, FaultError, LinkError.
        """
        self._look_for_stop("write", RigState.ACTIVE)
        force = self.settings.checked_force(u)
        token = self._tokens.take(self.device.clock.now_us())
        request = wire.Drive(token.valid_until_us, token.sequence, force)
        driven = self.device.ask(request, wire.Driven)
        self.device.clock.observe(driven.device_us)
        self._stands_at = driven.sample + 1
        return np.array([driven.force])

    def _wait(self) -> wire.Sample:
        """Return the newest sample once there is one that was not returned."""
        wanted = self._returned + 1
        if self._lock_step:
            wanted = max(wanted, self._stands_at)
        patience = Patience(self.settings.period + SILENCE_S)
        asked = 0
        self._take(self.device.arrived())
        while self._newest is None or self._newest.sample < wanted:
            said = self.device.unasked()
            self._take([said, *self.device.arrived()] if said is not None else [])
            self._look_for_stop("read", RigState.INACTIVE, RigState.ACTIVE)
            if patience.over:  # it was lost on the way: ask
                if asked == ASKED:
                    self._silent()
                asked += 1
                self._take([self.device.ask(wire.SampleRequest(0), wire.Sample)])
                patience = Patience(self.settings.period + SILENCE_S)
        return self._newest

    def _take(self, said: list[Message]) -> None:
        for message in said:
            if isinstance(message, wire.Sample):
                self._newest = message

    def _silent(self) -> NoReturn:
        error = LinkError(
            f"port {self.link.url}: the device sends no new samples; it may have restarted, "
            "call clear() to set it up again"
        )
        self._life.latch(str(error))
        raise error

    def _faulted(self, fault: wire.Fault, device_us: int) -> NoReturn:
        if fault is wire.Fault.TOKEN_EXPIRED:
            self._life.latch("deadman: the token expired before the next command")
            raise DeadmanError(
                f"rig {self._life.name}: the newest token expired before another command came, "
                f"seen at device time {device_us} us; the force is zero; clear() first, then "
                "answer faster or let tokens live longer"
            )
        self._life.latch(f"device fault {fault.name}")
        raise FaultError(
            f"rig {self._life.name}: device fault {fault.name}, seen at device time "
            f"{device_us} us; the force is zero; remove the cause, then clear()"
        )

    def _handshake(self) -> DynamicRigInfo:
        settings = self.settings
        watchdog_us = microseconds(settings.watchdog)
        info = self.device.handshake(wire.Application.CART_POLE, watchdog_us)
        state = self.device.ask(
            wire.CartPoleSetup(
                force_max=settings.force_max,
                travel=settings.travel,
                travel_hard=settings.travel_hard,
                watchdog_us=watchdog_us,
                tick_us=microseconds(settings.tick),
                stream_every=self._every,
                stuck_impulse=settings.stuck_impulse,
            ),
            wire.State,
        )
        self.device.observe(state)
        self._newest = None
        self._returned, self._stands_at = state.batch, state.batch + 1
        return settings.info(
            device_id=f"{info.device_id:016x}",
            details={
                "board": board_name(info),
                "firmware": ".".join(str(info.firmware >> shift & 0xFF) for shift in (16, 8, 0)),
                "schema": f"{info.schema:#010x}",
            },
        )

    def _look_for_stop(self, call: str, *allowed: RigState) -> None:
        if self.device.stopping and self.state is not RigState.FAULT:
            self.device.stop_now()
        self._life.require(call, *allowed)
