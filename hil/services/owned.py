"""What a mirror owns: a rig behind its guard, and how the commands of its kind are carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from hil.config import Config, settings_of
from hil.errors import ConfigError, StateError
from hil.messages import bus
from hil.rigs.base import AbstractRig, Token
from hil.rigs.cart_pole import CartPoleRig
from hil.rigs.device import Device
from hil.rigs.spring_network import SpringNetworkRig
from hil.rigs.twin import SpringNetworkTwin
from hil.safety.deadman import Forwarded
from hil.safety.limits import Limited, LimitedDynamic
from hil.types import AnyArray, Array


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
    def device(self) -> Device:
        """The microcontroller, for its counters and its clock."""

    @property
    @abstractmethod
    def measurements(self) -> int:
        """How many measurements were handed out."""

    @property
    @abstractmethod
    def twin_residual(self) -> float | None:
        """Newest distance between measured and predicted, relative; None without a twin."""

    @abstractmethod
    def configure(self) -> dict[str, Any]:
        """Configure the rig; return what it is, for whoever says hello."""

    @abstractmethod
    def read_back(self) -> dict[str, Any]:
        """Read the device's state back after a fault; return what it is."""

    @abstractmethod
    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Carry out a command of this kind of rig; raises StateError for another kind's."""


class OwnedSpringNetwork(AbstractOwned):
    """A spring network, its limits and its twin."""

    def __init__(self, rig: SpringNetworkRig, tokens: Forwarded) -> None:
        self._device_rig = rig
        self._rig = Limited(rig)
        self._tokens = tokens
        self._twin = SpringNetworkTwin(rig.network)
        self._applied: Array | None = None
        self._info: dict[str, Any] = {}
        self._measurements = 0
        self._residual: float | None = None

    @property
    def rig(self) -> Limited:
        """The rig behind its limits."""
        return self._rig

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device_rig.device

    @property
    def measurements(self) -> int:
        """Load cases measured."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """Measured minus predicted elongation of the newest batch, relative rms."""
        return self._residual

    def configure(self) -> dict[str, Any]:
        """Configure the rig and read its stiffness."""
        self._info = msgspec.to_builtins(self.rig.configure())
        return self.read_back()

    def read_back(self) -> dict[str, Any]:
        """Read the stiffness the actuators are set to."""
        self._applied = self.rig.read_stiffness()
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Settle, set or read the stiffness."""
        match request:
            case bus.Settle():
                self._tokens.put(Token(request.token, request.valid_until_us))
                return self._settle(np.asarray(arrays[0], dtype=np.float64))
            case bus.SetStiffness():
                self._applied = self.rig.set_stiffness(np.asarray(arrays[0], dtype=np.float64))
            case bus.ReadStiffness():
                self._applied = self.rig.read_stiffness()
            case _:
                raise wrong_kind(request, "a spring network")
        return Carried(bus.Applied, {"stiffness": bus.ArrayRef.of(self._applied)}, [self._applied])

    def _settle(self, loads: Array) -> Carried:
        measured = self.rig.settle(loads)
        self._measurements += len(loads)
        if self._applied is not None and (self._applied > 0).all():
            self._residual = self._twin.residual(self._applied, loads, measured.elongation)
        values = {
            "device_us": measured.device_us,
            "cases": len(loads),
            "settled": measured.settled,
            "twin_residual": self._residual,
            "force": loads[-1].tolist(),
            "displacement": measured.displacement[-1].tolist(),
            "elongation": measured.elongation[-1].tolist(),
        }
        fields = {
            "sampled_us": measured.device_us,
            "displacement": bus.ArrayRef.of(measured.displacement),
            "elongation": bus.ArrayRef.of(measured.elongation),
            "settled": measured.settled,
            "twin_residual": self._residual,
        }
        arrays = [measured.displacement, measured.elongation]
        return Carried(bus.Measured, fields, arrays, ("measurement", values))


class OwnedCartPole(AbstractOwned):
    """A cart-pole and its limits."""

    def __init__(self, rig: CartPoleRig, tokens: Forwarded) -> None:
        self._device_rig = rig
        self._rig = LimitedDynamic(rig)
        self._tokens = tokens
        self._info: dict[str, Any] = {}
        self._measurements = 0

    @property
    def rig(self) -> LimitedDynamic:
        """The rig behind its limits."""
        return self._rig

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device_rig.device

    @property
    def measurements(self) -> int:
        """Samples handed out."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """None: no twin runs beside a cart-pole yet."""
        return None

    def configure(self) -> dict[str, Any]:
        """Configure the rig; its samples begin."""
        self._info = msgspec.to_builtins(self.rig.configure())
        return self._info

    def read_back(self) -> dict[str, Any]:
        """Return what the rig is; its next sample tells where it stands."""
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Read a sample or set the force."""
        match request:
            case bus.ReadSample():
                return self._read()
            case bus.WriteInput():
                self._tokens.put(Token(request.token, request.valid_until_us))
                applied = self.rig.write(np.array(request.u, dtype=np.float64))
                then = self._read if request.then_read else None
                return Carried(bus.Driven, {"u": tuple(applied.tolist())}, then=then)
            case _:
                raise wrong_kind(request, "a cart-pole")

    def _read(self) -> Carried:
        sample = self.rig.read()
        self._measurements += 1
        fields: dict[str, Any] = {
            "y": tuple(sample.y.tolist()),
            "u": tuple(sample.u.tolist()),
            "sampled_us": sample.device_us,
            "sample": sample.sequence,
            "missed": sample.missed,
            "flags": sample.flags,
        }
        values = dict(zip(self._info["measurements"], fields["y"], strict=True))
        values |= dict(zip(self._info["inputs"], fields["u"], strict=True))
        values |= {"device_us": sample.device_us, "missed": sample.missed}
        return Carried(bus.Sampled, fields, published=("sample", values))


def own(config: Config, port: str) -> AbstractOwned:
    """Make what a mirror owns; no I/O. Raises ConfigError for a rig no mirror can own."""
    kind, settings = settings_of(config.rig, "rig")
    tokens = Forwarded()
    if issubclass(kind, SpringNetworkRig):
        spring = SpringNetworkRig(settings, tokens=tokens, clock=config.clock, port=port)
        return OwnedSpringNetwork(spring, tokens)
    if issubclass(kind, CartPoleRig):
        cart = CartPoleRig(settings, tokens=tokens, clock=config.clock, port=port)
        return OwnedCartPole(cart, tokens)
    raise ConfigError(
        f"rig.kind: {config.rig['kind']!r} is not a rig a mirror can own; a rig in process "
        "needs none"
    )


def wrong_kind(request: bus.Request, rig: str) -> StateError:
    """Return the error for a command that belongs to another kind of rig."""
    return StateError(f"{request.__struct_config__.tag}: the rig this mirror owns is {rig}")
