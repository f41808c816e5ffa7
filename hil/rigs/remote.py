"""A rig owned by another process: the same contract, over the bus."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from hil import errors
from hil.errors import LeaseError, LimitError, LinkError, RunError
from hil.links.zeromq import Address, BusClient, Keys
from hil.messages import bus
from hil.rigs.base import (
    AbstractStaticRig,
    AbstractTokens,
    Lifecycle,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
    in_parts,
    join,
)
from hil.rigs.device_clock import DeviceClock
from hil.types import AnyArray, Array

R = TypeVar("R", bound=bus.Reply)
PATIENCE_S = 5.0  # for an answer, beyond the time the work itself takes


class RemoteRig(AbstractStaticRig):
    """Commands a rig through its mirror, holding the lease from configure() to close().

    mint: makes, for a token life in microseconds, the source of this process's tokens;
    client: the name that others are told while this process holds the lease.
    """

    def __init__(
        self,
        address: Address,
        *,
        mint: Callable[[int], AbstractTokens],
        client: str,
        keys: Keys | None = None,
    ) -> None:
        self._address = address
        self._keys = keys
        self._mint = mint
        self._client_name = client
        self._client: BusClient | None = None
        self._tokens: AbstractTokens | None = None
        self._life = Lifecycle(address.name)
        self._clock = DeviceClock("wall")
        self._lease = ""
        self._info: RigInfo | None = None

    @property
    def state(self) -> RigState:
        """Where the rig is in its life, as of the newest reply."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    @property
    def device_us(self) -> int:
        """Device time in microseconds."""
        return self._clock.now_us()

    def configure(self) -> RigInfo:
        """Find the mirror, take the lease, have the rig configured where it is not.

        Raises LinkError without a mirror, LeaseError when somebody else commands.
        """
        self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        if self._client is None:
            self._client = BusClient(
                self._address, "command", bus.CommandReply, self._keys, self._client_name
            )
        hello, _ = self._ask(bus.Hello, bus.Welcome, leased=False)
        self._clock = DeviceClock(hello.clock)
        leased, _ = self._ask(bus.Acquire, bus.Leased, leased=False, client=self._client_name)
        self._lease = leased.lease
        self._state(self._ask(bus.Configure, bus.Done)[0])
        hello, _ = self._ask(bus.Hello, bus.Welcome, leased=False)
        self._info = msgspec.convert(hello.info, RigInfo)
        self._tokens = self._mint(self._info.watchdog_us)
        return self._info

    def activate(self) -> None:
        """Power the outputs."""
        self._life.require("activate", RigState.INACTIVE)
        self._state(self._ask(bus.Activate, bus.Done)[0])

    def deactivate(self) -> None:
        """Make the outputs safe."""
        self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self._state(self._ask(bus.Deactivate, bus.Done)[0])

    def stop(self, reason: str = "stopped by hand") -> None:
        """Stop the rig, without the lease and beside whatever is being asked."""
        stop_rig(self._address, reason, self._keys)
        self._life.latch(reason)

    def clear(self) -> None:
        """Leave fault."""
        self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
        self._state(self._ask(bus.Clear, bus.Done)[0])

    def poll(self) -> None:
        """Do nothing: the mirror owns the device and looks after it."""

    def close(self) -> None:
        """Give the lease back, which deactivates the rig, and disconnect."""
        client = self._client
        if client is not None:
            with contextlib.suppress(RunError):  # without a mirror there is nothing to give back
                if self._lease:
                    self._ask(bus.Release, bus.Done)
            client.close()
        self._client, self._lease = None, ""
        self._life.state = RigState.UNCONFIGURED

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Measure load cases, in as many commands as tokens are needed."""
        self._life.require("settle", RigState.ACTIVE)
        assert self._info is not None
        if not len(loads):
            raise LimitError("settle: a batch needs at least one load case")
        return join([self._settle_part(part) for part in in_parts(loads, self._info.max_cases)])

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what was applied: (bonds,), N/m."""
        self._life.require("set_stiffness", RigState.ACTIVE)
        ref = bus.ArrayRef.of(stiffness)
        _, (applied,) = self._ask(bus.SetStiffness, bus.Applied, stiffness, stiffness=ref)
        return applied

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m."""
        self._life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
        _, (applied,) = self._ask(bus.ReadStiffness, bus.Applied, leased=False)
        return applied

    def _settle_part(self, loads: Array) -> MeasuredEquilibrium:
        assert self._info is not None
        assert self._tokens is not None
        token = self._tokens.take(self._clock.now_us())
        measured, (displacement, elongation) = self._ask(
            bus.Settle,
            bus.Measured,
            loads,
            work=(len(loads) + 1) * self._info.case_us / 1e6,
            token=token.sequence,
            valid_until_us=token.valid_until_us,
            loads=bus.ArrayRef.of(loads),
        )
        return MeasuredEquilibrium(
            displacement=displacement,
            elongation=elongation,
            device_us=measured.sampled_us,
            settled=measured.settled,
            twin_residual=measured.twin_residual,
        )

    def _state(self, reply: bus.Done) -> None:
        self._life.state, self._life.fault = RigState(reply.state), reply.fault

    def _ask(
        self,
        kind: type[bus.Request],
        expected: type[R],
        *arrays: AnyArray,
        work: float = 0.0,
        leased: bool = True,
        **fields: Any,
    ) -> tuple[R, list[AnyArray]]:
        if self._client is None:
            raise LinkError(f"rig {self._address.name}: not connected; call configure() first")
        if leased:
            fields["lease"] = self._lease
        reply, found = self._client.ask(kind, *arrays, timeout=PATIENCE_S + work, **fields)
        if isinstance(reply, bus.Refused):
            error = as_error(reply)
            if isinstance(error, errors.FaultError | errors.DeadmanError):
                self._life.latch(str(error))
            if isinstance(error, LeaseError):
                self._lease = ""
            raise error
        if not isinstance(reply, expected):
            raise LinkError(f"mirror at {self._client.endpoint}: unexpected reply {reply!r:.80}")
        self._clock.observe(reply.device_us)
        return reply, found


def as_error(refusal: bus.Refused) -> errors.HilError:
    """Return a refusal as the error it was on the other side."""
    kind = getattr(errors, refusal.error, None)
    if isinstance(kind, type) and issubclass(kind, errors.HilError):
        return kind(refusal.reason)
    return RunError(refusal.reason)


def enquire(
    address: Address,
    kind: type[bus.Request],
    keys: Keys | None = None,
    timeout: float = 2.0,
    **fields: Any,
) -> bus.Reply:
    """Ask the status socket of a mirror; raises LinkError, or what it refused with."""
    client = BusClient(address, "status", bus.EnquiryReply, keys, "enquiry")
    try:
        reply, _ = client.ask(kind, timeout=timeout, **fields)
    finally:
        client.close()
    if isinstance(reply, bus.Refused):
        raise as_error(reply)
    assert isinstance(reply, bus.Reply)
    return reply


def stop_rig(address: Address, reason: str, keys: Keys | None = None) -> str:
    """Stop a rig without a lease; return the state it is in then."""
    reply = enquire(address, bus.Stop, keys, reason=reason)
    assert isinstance(reply, bus.Done)
    return reply.state
