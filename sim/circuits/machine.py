"""The analog machine as a live circuit: an instrument's commands, ngspice's physics.

Cases run one after the other, each from a netlist of its own; a step of the run is a slice of
the circuit, and where the instrument halts, so does ngspice. What happens to ngspice's process
is an error of the instrument ("Analog part lost"), which latches a fault in the rig.
"""

from __future__ import annotations

from typing import ClassVar

from hil.errors import HilError
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.types import Array
from sim.circuits.live import CircuitLostError, LiveCircuit, need_library
from sim.circuits.netlist import CircuitParts, netlist
from sim.instruments.machine import AbstractMachine, Batch, MachineError


class CircuitMachine(AbstractMachine):
    """Plays the circuit of a network, slice by slice."""

    side_by_side: ClassVar[int] = 1

    def __init__(self, parts: CircuitParts) -> None:
        self.parts = parts
        self.live = LiveCircuit()
        self._geometry: GyroGeometry | None = None
        self._step = 0

    def wire(self, geometry: GyroGeometry) -> None:
        """Take the network; there is nothing to connect before its coefficients are known."""
        try:
            need_library()
        except HilError as error:
            raise MachineError(str(error)) from None
        self._geometry = geometry

    def begin(self, batch: Batch) -> None:
        """Load the circuit with the initial conditions of one case."""
        if self._geometry is None:
            raise MachineError("no network is wired")
        self._batch, self._step = batch, 0
        try:
            circuit = netlist(
                self._geometry, batch.parameters, batch.scales, self.parts,
                driven=batch.driven, initial=batch.initial[0],
            )  # fmt: skip
            self.live.load(circuit, batch.nudges.shape[1], batch.step * batch.scales.time)
        except HilError as error:
            raise _as_machine(error) from None

    def advance(self) -> Array:
        """Let the circuit operate for one slice."""
        nudges = self._batch.nudges[0, self._step]
        self._step += 1
        try:
            return self.live.advance(nudges)[None]
        except HilError as error:
            raise _as_machine(error) from None

    def trim(self) -> None:
        """Do nothing: these op-amps have no offsets."""

    def close(self) -> None:
        """End ngspice."""
        self.live.close()


def _as_machine(error: HilError) -> MachineError:
    return MachineError(str(error), lost=isinstance(error, CircuitLostError))
