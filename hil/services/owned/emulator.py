"""An analog emulator behind an instrument or a LUCIDAC, as its mirror owns it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from hil.config import Config
from hil.messages import bus
from hil.rigs.base import AbstractBoard
from hil.rigs.device_clock import DeviceClock
from hil.rigs.emulator import EmulatorRig
from hil.rigs.lucidac import LucidacRig
from hil.safety.limits import LimitedEmulator
from hil.services.owned.base import AbstractOwned, Carried, carried, wrong_kind
from hil.types import AnyArray, Array


class OwnedEmulator(AbstractOwned):
    """An analog emulator behind an instrument, and its limits."""

    def __init__(self, rig: EmulatorRig | LucidacRig) -> None:
        self._inner = rig
        self._rig = LimitedEmulator(rig)
        self._measurements = 0

    @property
    def rig(self) -> LimitedEmulator:
        """The rig behind its limits."""
        return self._rig

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the instrument."""
        return self._inner.clock

    @property
    def port(self) -> str:
        """The VISA resource string, or the endpoint, it answers on."""
        return self._inner.link.url

    @property
    def measurements(self) -> int:
        """Cases run."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """None: what measured and predicted differ by is what training learns from."""
        return None

    def counters(self) -> bus.Counters:
        """Return what the link counts."""
        link = self._inner.link.counters
        return bus.Counters(
            requests=link.requests, timeouts=link.timeouts, reconnects=link.reconnects
        )

    def configure(self) -> dict[str, Any]:
        """Configure the rig."""
        self.rig.configure()
        return self.read_back()

    def read_back(self) -> dict[str, Any]:
        """Return what the emulator is."""
        found: dict[str, Any] = msgspec.to_builtins(self._inner.info)
        return found

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Set or read coefficients, run a batch, look, calibrate."""
        numbers = [np.asarray(array, dtype=np.float64) for array in arrays]
        match request:
            case bus.SetCoefficients():
                return carried(bus.Coefficients, values=self.rig.set_coefficients(numbers[0]))
            case bus.ReadCoefficients():
                return carried(bus.Coefficients, values=self.rig.read_coefficients())
            case bus.RunBatch():
                initial = numbers[1] if request.initial is not None else None
                return self._run(numbers[0], initial, request.every)
            case bus.ReadEmulator():
                status = self.rig.status()
                fields = {"mode": status.mode, "run": status.run, "overload": status.overload}
                return Carried(bus.EmulatorState, fields | {"looked_us": status.device_us})
            case bus.Calibrate():
                found = self.rig.calibrate()
                return carried(
                    bus.Calibrated, effective=found.effective, applied=found.applied,
                    deviation=found.deviation, residual=found.residual,
                )  # fmt: skip
            case _:
                raise wrong_kind(request, "an emulator")

    def _run(self, inputs: Array, initial: Array | None, every: int) -> Carried:
        traces = self.rig.run(inputs, initial, every)
        self._measurements += len(inputs)
        fields: dict[str, Any] = {
            "run": traces.run, "sequence": traces.sequence, "predicted": traces.predicted,
            "took": traces.took, "overload": traces.overload,
        }  # fmt: skip
        channels = self._inner.info.channels
        last = dict(zip(channels, traces.states[-1, -1].tolist(), strict=True))
        published = fields | last | {
            "device_us": traces.device_us, "cases": len(inputs),
            "overloaded": int(traces.overloaded.sum()),
        }  # fmt: skip
        reply = carried(
            bus.Ran, states=traces.states, overloaded=traces.overloaded,
            ended_us=traces.device_us, **fields,
        )  # fmt: skip
        return replace(reply, published=("run", published))


def own(
    kind: type[Any], settings: Any, config: Config, port: str, board: AbstractBoard | None
) -> AbstractOwned:
    """Make what a mirror owns of a rig of this kind; no I/O."""
    rig: EmulatorRig | LucidacRig = kind(settings, clock=config.clock, port=port)
    return OwnedEmulator(rig)
