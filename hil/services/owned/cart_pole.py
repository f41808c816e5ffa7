"""A cart-pole behind a microcontroller, as its mirror owns it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from hil.config import Config
from hil.messages import bus
from hil.rigs.base import AbstractBoard, Token
from hil.rigs.cart_pole import CartPoleRig
from hil.rigs.device import Device
from hil.safety.deadman import Forwarded
from hil.safety.limits import LimitedDynamic
from hil.services.owned.base import AbstractOwned, AbstractOwnedDevice, Carried, wrong_kind
from hil.types import AnyArray


class OwnedCartPole(AbstractOwnedDevice):
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


def own(
    kind: type[Any], settings: Any, config: Config, port: str, board: AbstractBoard | None
) -> AbstractOwned:
    """Make what a mirror owns of a rig of this kind; no I/O."""
    tokens = Forwarded()
    rig = CartPoleRig(settings, tokens=tokens, clock=config.clock, port=port)
    return OwnedCartPole(rig, tokens)
