"""A rig owned by another process: the same contracts, over the bus."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import msgspec
import numpy as np

from hil.errors import LimitError
from hil.links.zeromq import Address, Keys
from hil.messages import bus
from hil.rigs.base import (
    AbstractDynamicRig,
    AbstractRig,
    AbstractStaticRig,
    AbstractTokens,
    DynamicRigInfo,
    DynamicSample,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
    in_parts,
    join,
)
from hil.rigs.session import MirrorSession, stop_rig
from hil.types import Array

Mint = Callable[[int], AbstractTokens]


class AbstractRemoteRig(AbstractRig):
    """The life of a rig that another process owns."""

    @property
    @abstractmethod
    def session(self) -> MirrorSession:
        """The session with its mirror."""

    @property
    def state(self) -> RigState:
        """Where the rig is in its life, as of the newest reply."""
        return self.session.life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self.session.life.fault

    @property
    def device_us(self) -> int:
        """Device time in microseconds."""
        return self.session.clock.now_us()

    def activate(self) -> None:
        """Power the outputs."""
        self.session.life.require("activate", RigState.INACTIVE)
        self.session.change(bus.Activate)

    def deactivate(self) -> None:
        """Make the outputs safe."""
        self.session.life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self.session.change(bus.Deactivate)

    def stop(self, reason: str = "stopped by hand") -> None:
        """Stop the rig, without the lease and beside whatever is being asked."""
        stop_rig(self.session.address, reason, self.session.keys)
        self.session.life.latch(reason)

    def clear(self) -> None:
        """Leave fault."""
        self.session.life.require("clear", RigState.FAULT, RigState.INACTIVE)
        self.session.change(bus.Clear)

    def poll(self) -> None:
        """Do nothing: the mirror owns the device and looks after it."""

    def close(self) -> None:
        """Give the lease back, which deactivates the rig, and disconnect."""
        self.session.close()


class RemoteRig(AbstractRemoteRig, AbstractStaticRig):
    """Commands a static rig through its mirror.

    mint: makes, for a token life in microseconds, the source of this process's tokens;
    client: the name that others are told while this process holds the lease.
    """

    def __init__(
        self, address: Address, *, mint: Mint, client: str, keys: Keys | None = None
    ) -> None:
        self._session = MirrorSession(address, client, keys)
        self._mint = mint
        self._tokens: AbstractTokens | None = None
        self._info: RigInfo | None = None

    @property
    def session(self) -> MirrorSession:
        """The session with its mirror."""
        return self._session

    def configure(self) -> RigInfo:
        """Take the lease and have the rig configured; raises LinkError, LeaseError."""
        self._info = msgspec.convert(self.session.connect(), RigInfo)
        self._tokens = self._mint(self._info.watchdog_us)
        return self._info

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Measure load cases, in as many commands as tokens are needed."""
        self.session.life.require("settle", RigState.ACTIVE)
        assert self._info is not None
        if not len(loads):
            raise LimitError("settle: a batch needs at least one load case")
        return join([self._settle_part(part) for part in in_parts(loads, self._info.max_cases)])

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """Measure one load case soon after the force."""
        self.session.life.require("sample_after", RigState.ACTIVE)
        return self._settle_part(loads[:1], wait_us)

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what was applied: (bonds,), N/m."""
        self.session.life.require("set_stiffness", RigState.ACTIVE)
        ref = bus.ArrayRef.of(stiffness)
        _, (applied,) = self.session.ask(bus.SetStiffness, bus.Applied, stiffness, stiffness=ref)
        return applied

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m."""
        self.session.life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
        _, (applied,) = self.session.ask(bus.ReadStiffness, bus.Applied, leased=False)
        return applied

    def _settle_part(self, loads: Array, wait_us: int | None = None) -> MeasuredEquilibrium:
        assert self._info is not None
        assert self._tokens is not None
        token = self._tokens.take(self.session.clock.now_us())
        measured, (displacement, elongation, *applied) = self.session.ask(
            bus.Settle,
            bus.Measured,
            loads,
            work=(len(loads) + 1) * self._info.case_us / 1e6,
            token=token.sequence,
            valid_until_us=token.valid_until_us,
            loads=bus.ArrayRef.of(loads),
            wait_us=wait_us,
        )
        return MeasuredEquilibrium(
            displacement=displacement,
            elongation=elongation,
            device_us=measured.sampled_us,
            settled=measured.settled,
            twin_residual=measured.twin_residual,
            applied=applied[0] if applied else None,
        )


class RemoteDynamicRig(AbstractRemoteRig, AbstractDynamicRig):
    """Drives a dynamic rig through its mirror; mint and client as for a static one.

    life_us: life of each token, microseconds; 0: what the rig's watchdog allows.
    """

    def __init__(
        self,
        address: Address,
        *,
        mint: Mint,
        client: str,
        keys: Keys | None = None,
        life_us: int = 0,
    ) -> None:
        self._session = MirrorSession(address, client, keys)
        self._mint = mint
        self._life_us = life_us
        self._next: bus.Reply | None = None  # virtual clock: came with the answer to a write
        self._tokens: AbstractTokens | None = None
        self._info: DynamicRigInfo | None = None

    @property
    def session(self) -> MirrorSession:
        """The session with its mirror."""
        return self._session

    def configure(self) -> DynamicRigInfo:
        """Take the lease and have the rig configured; raises LinkError, LeaseError."""
        self._next = None
        self._info = msgspec.convert(self.session.connect(), DynamicRigInfo)
        self._tokens = self._mint(self._life_us or self._info.watchdog_us)
        return self._info

    def read(self) -> DynamicSample:
        """Return the newest sample, waiting for one if need be."""
        self.session.life.require("read", RigState.INACTIVE, RigState.ACTIVE)
        assert self._info is not None
        sample, self._next = self._next, None
        if isinstance(sample, bus.Refused):
            raise self.session.refused(sample)
        if not isinstance(sample, bus.Sampled):
            work = self._info.period_us / 1e6
            sample, _ = self.session.ask(bus.ReadSample, bus.Sampled, work=work)
        return DynamicSample(
            y=np.array(sample.y),
            u=np.array(sample.u),
            device_us=sample.sampled_us,
            sequence=sample.sample,
            missed=sample.missed,
            flags=sample.flags,
        )

    def activate(self) -> None:
        """Power the outputs; what was sampled before is nobody's."""
        super().activate()
        self._next = None

    def deactivate(self) -> None:
        """Take the power off; what was sampled before is nobody's."""
        super().deactivate()
        self._next = None

    def clear(self) -> None:
        """Leave fault; what was sampled before is nobody's."""
        super().clear()
        self._next = None

    def write(self, u: Array) -> Array:
        """Set the inputs, (nu,); return what was applied, (nu,).

        Where time waits for the host the next sample comes with the answer: half as many
        messages.
        """
        self.session.life.require("write", RigState.ACTIVE)
        assert self._tokens is not None
        assert self._info is not None
        token = self._tokens.take(self.session.clock.now_us())
        driven, _ = self.session.ask(
            bus.WriteInput,
            bus.Driven,
            token=token.sequence,
            valid_until_us=token.valid_until_us,
            u=tuple(u.tolist()),
            work=self._info.period_us / 1e6,
            then_read=self.session.clock.kind == "virtual",
        )
        unread, self._next = self._next, driven.then
        if isinstance(unread, bus.Sampled) and isinstance(driven.then, bus.Sampled):
            missed = driven.then.missed + unread.missed + 1  # nobody read it
            self._next = msgspec.structs.replace(driven.then, missed=missed)
        return np.array(driven.u)
