"""A spring network that a person loads, as its mirror owns it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from hil.config import Config
from hil.messages import bus
from hil.rigs.base import AbstractBoard, Token
from hil.rigs.bench import AbstractBench
from hil.rigs.device_clock import DeviceClock
from hil.rigs.manual import ManualRig
from hil.rigs.twin import SpringNetworkTwin
from hil.safety.deadman import Forwarded
from hil.safety.limits import Limited
from hil.services.owned.base import AbstractOwned, Carried, wrong_kind
from hil.services.owned.equilibria import carried_equilibria
from hil.types import AnyArray


class OwnedManual(AbstractOwned):
    """A spring network that a person loads and a camera sees, its limits and its twin."""

    def __init__(self, rig: ManualRig, tokens: Forwarded) -> None:
        self._inner = rig
        self._rig = Limited(rig)
        self._tokens = tokens
        self._twin = SpringNetworkTwin(rig.statics)
        self._info: dict[str, Any] = {}
        self._measurements = 0
        self._residual: float | None = None

    @property
    def rig(self) -> Limited:
        """The rig behind its limits."""
        return self._rig

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the bench."""
        return self._inner.clock

    @property
    def port(self) -> str:
        """The camera."""
        return self._inner.bench.camera

    @property
    def measurements(self) -> int:
        """Load cases measured."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """Measured minus predicted elongation of the newest load case, relative rms."""
        return self._residual

    def interrupt(self) -> None:
        """Stop: nobody waits any more for what the person is asked."""
        self._inner.stop("ended while a person was asked")

    def counters(self) -> bus.Counters:
        """Return nothing: there is no line to count on."""
        return bus.Counters()

    def configure(self) -> dict[str, Any]:
        """Open the camera."""
        self._info = msgspec.to_builtins(self.rig.configure())
        return self._info

    def read_back(self) -> dict[str, Any]:
        """Return what the rig is; what is mounted is on the bench."""
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Have a load case hung, struts mounted, or say what is mounted."""
        match request:
            case bus.Settle():
                self._tokens.put(Token(request.token, request.valid_until_us))
                measured = self.rig.settle(np.asarray(arrays[0], dtype=np.float64))
                assert measured.applied is not None
                stiffness, loads = self.rig.read_stiffness(), measured.applied
                self._measurements += len(loads)
                self._residual = self._twin.residual(stiffness, loads, measured.elongation)
                return carried_equilibria(measured, loads, self._residual)
            case bus.SetStiffness():
                applied = self.rig.set_stiffness(np.asarray(arrays[0], dtype=np.float64))
            case bus.ReadStiffness():
                applied = self.rig.read_stiffness()
            case _:
                raise wrong_kind(request, "a spring network loaded by hand")
        return Carried(bus.Applied, {"stiffness": bus.ArrayRef.of(applied)}, [applied])


def own(
    kind: type[Any], settings: Any, config: Config, port: str, board: AbstractBoard | None
) -> AbstractOwned:
    """Make what a mirror owns of a rig of this kind; no I/O."""
    tokens = Forwarded()
    bench = board if isinstance(board, AbstractBench) else None
    return OwnedManual(ManualRig(settings, tokens=tokens, clock=config.clock, bench=bench), tokens)
