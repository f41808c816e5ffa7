"""The contract of what a mirror owns, and what a command comes to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hil.errors import StateError
from hil.messages import bus
from hil.rigs.base import AbstractRig
from hil.rigs.device import Device
from hil.rigs.device_clock import DeviceClock
from hil.types import AnyArray


@dataclass(frozen=True)
class Carried:
    """What a command came to: the reply, its arrays, and what is to be published."""

    kind: type[bus.Reply]
    fields: dict[str, Any]
    arrays: list[AnyArray] = field(default_factory=list)
    published: tuple[str, dict[str, Any]] | None = None
    then: Callable[[], Carried] | None = None  # to be done in the same answer


class AbstractOwned(ABC):
    """A rig of one kind, as its mirror sees it."""

    @property
    @abstractmethod
    def rig(self) -> AbstractRig:
        """The rig behind its guard: the only way to it."""

    @property
    @abstractmethod
    def clock(self) -> DeviceClock:
        """What time it is on the device."""

    @property
    @abstractmethod
    def port(self) -> str:
        """Where the device answers."""

    @abstractmethod
    def counters(self) -> bus.Counters:
        """Return what happened on the way to the device."""

    @property
    @abstractmethod
    def measurements(self) -> int:
        """How many measurements were handed out."""

    @property
    @abstractmethod
    def twin_residual(self) -> float | None:
        """Newest distance between measured and predicted, relative; None without a twin."""

    @property
    def recalibrate(self) -> str:
        """Why the rig asks for a new calibration, "" when it does not."""
        return ""

    @abstractmethod
    def configure(self) -> dict[str, Any]:
        """Configure the rig; return what it is, for whoever says hello."""

    @abstractmethod
    def read_back(self) -> dict[str, Any]:
        """Read the device's state back after a fault; return what it is."""

    def interrupt(self) -> None:  # noqa: B027 - most rigs ask nobody anything
        """Have whatever a person is being asked end; called from any thread."""

    @abstractmethod
    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Carry out a command of this kind of rig; raises StateError for another kind's."""


class AbstractOwnedDevice(AbstractOwned):
    """A rig behind a microcontroller."""

    @property
    @abstractmethod
    def device(self) -> Device:
        """The microcontroller."""

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the microcontroller."""
        return self.device.clock

    @property
    def port(self) -> str:
        """The pyserial URL it answers on."""
        return self.device.link.url

    def counters(self) -> bus.Counters:
        """Return what its link and its firmware count."""
        link, state = self.device.link, self.device.state
        return bus.Counters(
            requests=link.counters.requests,
            retransmits=link.counters.retransmits,
            timeouts=link.counters.timeouts,
            reconnects=link.counters.reconnects,
            bad_frames_host=link.parser.counters.bad_frames,
            bad_frames_device=state.bad_frames if state else 0,
            unknown_host=link.parser.counters.unknown,
            unknown_device=state.unknown if state else 0,
            refused_device=state.refused if state else 0,
            tokens_expired=state.expired if state else 0,
        )


def carried(kind: type[bus.Reply], **fields: Any) -> Carried:
    """Return a reply whose arrays ride behind it, in the order in which they are named."""
    arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
    described = {
        name: bus.ArrayRef.of(value) if isinstance(value, np.ndarray) else value
        for name, value in fields.items()
    }
    return Carried(kind, described, arrays)


def wrong_kind(request: bus.Request, rig: str) -> StateError:
    """Return the error for a command that belongs to another kind of rig."""
    return StateError(f"{request.__struct_config__.tag}: the rig this mirror owns is {rig}")
