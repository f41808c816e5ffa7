"""A spring network behind a microcontroller, as its mirror owns it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from hil.config import Config
from hil.messages import bus
from hil.rigs.base import AbstractBoard, Token
from hil.rigs.calibrated import Calibrated
from hil.rigs.device import Device
from hil.rigs.spring_network import SpringNetworkRig
from hil.rigs.twin import SpringNetworkTwin
from hil.safety.deadman import Forwarded
from hil.safety.limits import Limited
from hil.services.owned.base import AbstractOwned, AbstractOwnedDevice, Carried, wrong_kind
from hil.services.owned.equilibria import carried_equilibria
from hil.types import AnyArray, Array


class OwnedSpringNetwork(AbstractOwnedDevice):
    """A spring network, its limits and its twin."""

    def __init__(self, rig: SpringNetworkRig, tokens: Forwarded) -> None:
        self._device_rig = rig
        self._calibrated = Calibrated(rig, rig.network, rig.settings.calibration)
        self._rig = Limited(self._calibrated)
        self._tokens = tokens
        self._twin = SpringNetworkTwin(rig.statics)
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

    @property
    def recalibrate(self) -> str:
        """What the twin says of a drift."""
        return self._twin.recalibrate

    def configure(self) -> dict[str, Any]:
        """Configure the rig, put its calibration between, and read its stiffness."""
        self._info = msgspec.to_builtins(self.rig.configure())
        rig = self._device_rig
        self._twin = SpringNetworkTwin(
            rig.statics, self._calibrated.calibration, rig.settings.samples
        )
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
                loads = np.asarray(arrays[0], dtype=np.float64)
                if request.wait_us is None:
                    return self._settle(loads)
                hasty = self.rig.sample_after(loads, request.wait_us)
                return carried_equilibria(hasty, loads, self._residual, self.recalibrate)
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
        if self._applied is not None and (self._applied > 0).any():
            self._residual = self._twin.residual(
                self._applied, loads, measured.elongation, measured.displacement
            )
        return carried_equilibria(measured, loads, self._residual, self.recalibrate)


def own(
    kind: type[Any], settings: Any, config: Config, port: str, board: AbstractBoard | None
) -> AbstractOwned:
    """Make what a mirror owns of a rig of this kind; no I/O."""
    tokens = Forwarded()
    rig = SpringNetworkRig(settings, tokens=tokens, clock=config.clock, port=port)
    return OwnedSpringNetwork(rig, tokens)
