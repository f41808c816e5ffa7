"""A microcontroller on a link: handshake, modes, and its refusals as our errors.

Every rig behind a microcontroller has one; what it measures is the rig's own business.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NoReturn, TypeVar

from hil.errors import (
    ConfigError,
    DeadmanError,
    FaultError,
    LimitError,
    LinkError,
    SchemaError,
    StateError,
)
from hil.links.serial import SerialLink
from hil.messages import wire
from hil.messages.layout import Message
from hil.rigs.base import Lifecycle
from hil.rigs.device_clock import DeviceClock
from hil.types import ClockKind

M = TypeVar("M", bound=Message)


class Device:
    """The core protocol every firmware application speaks.

    A lost link or a fault of the device latches `life`; the error is raised as well.
    """

    def __init__(self, link: SerialLink, clock: ClockKind, life: Lifecycle) -> None:
        self.link = link
        self.clock = DeviceClock(clock)
        self.state: wire.State | None = None
        self._life = life

    def handshake(self, application: wire.Application, watchdog_us: int) -> wire.Info:
        """Ask who the device is, check that both ends agree, and make it inactive.

        Raises SchemaError for other firmware, ConfigError for the wrong device.
        """
        (info,) = self.link.exchange([wire.InfoRequest(wire.SCHEMA_CRC)])
        where = f"port {self.link.url}"
        if not isinstance(info, wire.Info) or info.schema != wire.SCHEMA_CRC:
            found = f"{info.schema:#010x}" if isinstance(info, wire.Info) else type(info).__name__
            raise SchemaError(
                f"{where}: the firmware's message schema is {found}, this host speaks "
                f"{wire.SCHEMA_CRC:#010x}; build and flash the firmware of this version"
            )
        if info.application != application:
            raise ConfigError(
                f"{where}: board {board_name(info)!r} runs application {info.application}, "
                f"this rig needs {application:d} ({application.name}); connect the right device"
            )
        if watchdog_us > info.watchdog_max_us:
            raise ConfigError(
                f"rig.watchdog: {watchdog_us / 1e6} s, board {board_name(info)!r} allows at most "
                f"{info.watchdog_max_us / 1e6} s"
            )
        self.clock.restart(info.device_us)
        state = self.ask(wire.StateRequest(0), wire.State)
        if state.mode == wire.Mode.FAULT:
            self.request_mode(wire.Mode.CLEAR)
        elif state.mode == wire.Mode.ACTIVE:
            self.request_mode(wire.Mode.INACTIVE)
        self.clock.synchronise(self.link)
        return info

    def request_mode(self, mode: wire.Mode) -> None:
        """Ask the device to become active or inactive, to stop, or to leave its fault."""
        self.observe(self.ask(wire.ModeRequest(mode), wire.State))

    def act(self, request: Message) -> None:
        """Have the device do something; raises FaultError when it ended in fault over it."""
        state = self.ask(request, wire.State)
        self.observe(state)
        if state.mode == wire.Mode.FAULT:
            fault = wire.Fault(state.fault).name
            self._life.latch(f"device fault {fault}")
            raise FaultError(
                f"device on {self.link.url}: {type(request).__name__} ended in fault {fault}; "
                "remove the cause, then clear()"
            )

    def query(self) -> wire.State:
        """Return the state of the device; a fault of the device latches ours."""
        state = self.ask(wire.StateRequest(0), wire.State)
        self.observe(state)
        if state.mode == wire.Mode.FAULT:
            self._life.latch(f"device fault {wire.Fault(state.fault).name}")
        return state

    def observe(self, state: wire.State) -> None:
        """Keep the newest state and device time."""
        self.state = state
        self.clock.observe(state.device_us)

    def unasked(self) -> Message | None:
        """Return what the device said by itself, or None after 5 ms."""
        try:
            return self.link.unasked()
        except LinkError as error:
            self._lost(error)

    def arrived(self) -> list[Message]:
        """Return what the device has said by itself and nobody has taken; does not wait."""
        try:
            said = []
            while self.link.pending:
                if (message := self.link.unasked()) is not None:
                    said.append(message)
            return said
        except LinkError as error:
            self._lost(error)

    def ask(self, request: Message, kind: type[M]) -> M:
        """Send one request and return its answer, which must be a `kind`."""
        return self.exchange([request], kind)[0]

    def exchange(self, requests: Sequence[Message], kind: type[M]) -> list[M]:
        """Send requests and return their answers, each of which must be a `kind`.

        Raises LinkError, and what the device's refusals mean: LimitError, DeadmanError,
        FaultError, SchemaError, StateError.
        """
        try:
            answers = self.link.exchange(requests)
        except LinkError as error:
            self._lost(error)
        good: list[M] = []
        for answer in answers:
            if isinstance(answer, wire.Refused):
                self._refused(answer)
            if not isinstance(answer, kind):
                raise LinkError(
                    f"port {self.link.url}: expected {kind.__name__}, the device answered "
                    f"{type(answer).__name__}; is its firmware of this version?"
                )
            good.append(answer)
        return good

    def _lost(self, error: LinkError) -> NoReturn:
        self.link.close()
        self._life.latch(str(error))
        raise error

    def _refused(self, refusal: wire.Refused) -> NoReturn:
        kind = wire.BY_TYPE.get(refusal.type)
        reason = wire.Reason(refusal.reason)
        text = (
            f"device on {self.link.url} refused {kind.__name__ if kind else refusal.type}: "
            f"{reason.name} (at {refusal.detail})"
        )
        self.clock.observe(refusal.device_us)
        if refusal.mode == wire.Mode.FAULT:
            fault = wire.Fault(refusal.fault).name
            self._life.latch(f"device fault {fault}")
            raise FaultError(f"{text}, device fault {fault}; remove the cause, then clear()")
        if reason in (wire.Reason.TOKEN_STALE, wire.Reason.TOKEN_EXPIRED):
            raise DeadmanError(text)
        if reason in (wire.Reason.LIMIT, wire.Reason.NOT_FINITE, wire.Reason.RANGE):
            raise LimitError(text)
        if reason is wire.Reason.SCHEMA:
            raise SchemaError(text)
        raise StateError(text)


class Patience:
    """How long to wait, on the host's clock, for something the device announces."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._end


def board_name(info: wire.Info) -> str:
    """Return the name of the board in an INFO answer."""
    return bytes(info.board).rstrip(b"\0").decode("ascii", "replace")
