"""A session with the mirror that owns a rig: lease, life, retries, errors as they were."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

from hil import errors
from hil.errors import LeaseError, LinkError, RunError
from hil.links.zeromq import Address, BusClient, Keys
from hil.messages import bus
from hil.rigs.base import Lifecycle, RigState
from hil.rigs.device_clock import DeviceClock
from hil.types import AnyArray

R = TypeVar("R", bound=bus.Reply)
PATIENCE_S = 5.0  # for an answer, beyond the time the work itself takes


class MirrorSession:
    """Holds the lease of one rig from `connect()` to `close()`.

    client: the name that others are told while this process holds the lease.
    """

    def __init__(self, address: Address, client: str, keys: Keys | None = None) -> None:
        self.address = address
        self.keys = keys
        self.life = Lifecycle(address.name)
        self.clock = DeviceClock("wall")
        self._name = client
        self._client: BusClient | None = None
        self._lease = ""

    def connect(self) -> dict[str, Any]:
        """Find the mirror, take the lease, have the rig configured; return what it is.

        Raises LinkError without a mirror, LeaseError when somebody else commands.
        """
        self.life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        if self._client is None:
            self._client = BusClient(
                self.address, "command", bus.CommandReply, self.keys, self._name
            )
        hello, _ = self.ask(bus.Hello, bus.Welcome, leased=False)
        self.clock = DeviceClock(hello.clock)
        leased, _ = self.ask(bus.Acquire, bus.Leased, leased=False, client=self._name)
        self._lease = leased.lease
        self.change(bus.Configure)
        hello, _ = self.ask(bus.Hello, bus.Welcome, leased=False)
        return hello.info

    def change(self, kind: type[bus.Request]) -> None:
        """Ask for a step in the life of the rig and follow it."""
        reply, _ = self.ask(kind, bus.Done)
        self.life.state, self.life.fault = RigState(reply.state), reply.fault

    def close(self) -> None:
        """Give the lease back, which deactivates the rig, and disconnect."""
        client = self._client
        if client is not None:
            with contextlib.suppress(RunError):  # without a mirror there is nothing to give back
                if self._lease:
                    self.ask(bus.Release, bus.Done)
            client.close()
        self._client, self._lease = None, ""
        self.life.state = RigState.UNCONFIGURED

    def ask(
        self,
        kind: type[bus.Request],
        expected: type[R],
        *arrays: AnyArray,
        work: float = 0.0,
        leased: bool = True,
        **fields: Any,
    ) -> tuple[R, list[AnyArray]]:
        """Ask the mirror; the reply must be an `expected`.

        work: seconds the work itself may take. Raises what the mirror refused with.
        """
        if self._client is None:
            raise LinkError(f"rig {self.address.name}: not connected; call configure() first")
        if leased:
            fields["lease"] = self._lease
        reply, found = self._client.ask(kind, *arrays, timeout=PATIENCE_S + work, **fields)
        if isinstance(reply, bus.Refused):
            raise self.refused(reply)
        if not isinstance(reply, expected):
            raise LinkError(f"mirror at {self._client.endpoint}: unexpected reply {reply!r:.80}")
        self.clock.observe(reply.device_us)
        return reply, found

    def refused(self, refusal: bus.Refused) -> errors.HilError:
        """Follow a refusal in the life of the rig and return it as the error it was."""
        error = as_error(refusal)
        if isinstance(error, errors.FaultError | errors.DeadmanError) or (
            isinstance(error, LinkError) and self.life.state is not RigState.UNCONFIGURED
        ):  # a mirror that lost its device has latched a fault over it
            self.life.latch(str(error))
        if isinstance(error, LeaseError):
            self._lease = ""
        return error


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
