"""A microcontroller on a link: handshake, modes, and its refusals as our errors.

Every rig behind a microcontroller has one; what it measures is the rig's own business.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from hil.errors import (
    ConfigError,
    DeadmanError,
    FaultError,
    LimitError,
    LinkError,
    PortError,
    RunError,
    SchemaError,
    StateError,
)
from hil.links.serial import SerialLink
from hil.messages import wire
from hil.messages.layout import Message
from hil.rigs.base import AbstractRig, DynamicRigInfo, Lifecycle, RigInfo, RigState
from hil.rigs.device_clock import DeviceClock
from hil.types import ClockKind

M = TypeVar("M", bound=Message)
Info = TypeVar("Info", RigInfo, DynamicRigInfo)
RECONNECT_S = 1.0  # between two attempts to find an unplugged device again


class Device:
    """The core protocol every firmware application speaks.

    A lost link or a fault of the device latches `life`; the error is raised as well.
    """

    def __init__(self, link: SerialLink, clock: ClockKind, life: Lifecycle) -> None:
        self.link = link
        self.clock = DeviceClock(clock)
        self.state: wire.State | None = None
        self.life = life
        self._stop = threading.Event()
        self._stop_reason = ""
        self._reconnect = Patience(0.0)

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
            self.life.latch(f"device fault {fault}")
            raise FaultError(
                f"device on {self.link.url}: {type(request).__name__} ended in fault {fault}; "
                "remove the cause, then clear()"
            )

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for a stop that has not been cleared."""
        return self._stop.is_set()

    def ask_stop(self, reason: str) -> None:
        """Ask the owner thread for a stop; from any thread."""
        self._stop_reason = reason
        self._stop.set()

    def stop_now(self) -> None:
        """Latch the fault and stop the device; by the owner thread."""
        self.life.latch(self._stop_reason)
        with contextlib.suppress(LinkError):  # no way to the device: its watchdog stops it
            self.request_mode(wire.Mode.FAULT)

    def connect(self, set_up: Callable[[], Info]) -> Info:
        """Open the port and set the device up; the rig is inactive then.

        set_up: says hello and sends what the device is to know. Raises what it raises, and
        PortError.
        """
        self.life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        self.link.open()
        return self._set_up(set_up)

    def leave_fault(self, set_up: Callable[[], Info]) -> Info:
        """Open the port again if need be and set the device up anew."""
        self.life.require("clear", RigState.FAULT, RigState.INACTIVE)
        if not self.link.is_open:
            self.link.reopen()
        return self._set_up(set_up)

    def _set_up(self, set_up: Callable[[], Info]) -> Info:
        try:
            info = set_up()
        except Exception:
            self.link.close()
            raise
        self._stop.clear()  # a stop has been answered by what was just done
        self.life.cleared()
        return info

    def poll(self) -> None:
        """Act on a stop, look for a lost device, ask one that is there how it is."""
        if self.life.state is RigState.UNCONFIGURED:
            return
        if self.stopping and self.life.state is not RigState.FAULT:
            self.stop_now()
        if not self.link.is_open and self._reconnect.over:
            self._reconnect = Patience(RECONNECT_S)
            with contextlib.suppress(PortError):  # still away
                self.link.reopen()
        if self.link.is_open:
            with contextlib.suppress(LinkError):  # latched where it happened
                self.query()

    def close(self) -> None:
        """Have the outputs made safe and close the port."""
        if self.link.is_open:
            with contextlib.suppress(RunError):  # the device's own watchdog counts now
                self.request_mode(wire.Mode.INACTIVE)
            self.link.close()
        self.life.state = RigState.UNCONFIGURED

    def query(self) -> wire.State:
        """Return the state of the device; a fault of the device latches ours."""
        state = self.ask(wire.StateRequest(0), wire.State)
        self.observe(state)
        if state.mode == wire.Mode.FAULT:
            self.life.latch(f"device fault {wire.Fault(state.fault).name}")
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
        self.life.latch(str(error))
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
            self.life.latch(f"device fault {fault}")
            raise FaultError(f"{text}, device fault {fault}; remove the cause, then clear()")
        if reason in (wire.Reason.TOKEN_STALE, wire.Reason.TOKEN_EXPIRED):
            raise DeadmanError(text)
        if reason in (wire.Reason.LIMIT, wire.Reason.NOT_FINITE, wire.Reason.RANGE):
            raise LimitError(text)
        if reason is wire.Reason.SCHEMA:
            raise SchemaError(text)
        raise StateError(text)


class AbstractDeviceRig(AbstractRig):
    """The life of a rig behind a microcontroller."""

    @property
    @abstractmethod
    def device(self) -> Device:
        """The microcontroller."""

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self.device.life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self.device.life.fault

    def activate(self) -> None:
        """Let the device power its outputs."""
        self.device.life.require("activate", RigState.INACTIVE)
        self.device.request_mode(wire.Mode.ACTIVE)
        self.device.life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Have the device make its outputs safe."""
        self.device.life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self.device.request_mode(wire.Mode.INACTIVE)
        self.device.life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Ask the owner thread to stop the device at once; from any thread.

        Work in progress sees it within 5 ms, an idle rig at its next `poll()`.
        """
        self.device.ask_stop(reason)

    def poll(self) -> None:
        """Act on a stop and notice a lost or faulted device, while nothing else is asked."""
        self.device.poll()

    def close(self) -> None:
        """Make the outputs safe and close the port."""
        self.device.close()


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
