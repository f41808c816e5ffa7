"""What computes behind an instrument: wired, given coefficients, run in slices.

The instrument's commands, registers and latches are the same whatever does: equations with
an error model (`gyro_machine`), or a circuit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroParameters
from hil.types import Array, IntArray


@dataclass(frozen=True)
class Scales:
    """One machine unit in SI, and one second of the system on the machine."""

    position: float = 1.0  # m
    velocity: float = 1.0  # m/s
    force: float = 1.0  # N
    time: float = 1e-3  # s per s


@dataclass(frozen=True)
class Batch:
    """Cases that are run together: all that the machine needs for them."""

    parameters: GyroParameters  # as the registers hold them
    scales: Scales
    driven: IntArray  # (k,), gyroscopes that are nudged, from 0
    nudges: Array  # (cases, steps, k, 2), machine units
    initial: Array  # (cases, n, 4), machine units
    step: float  # each nudge is held for, s of the system
    run: int  # number of the run: noise depends on it and on the seed alone
    first: int  # number of the first case within the run
    device_us: int  # device time at which it begins: drift depends on it


class MachineError(Exception):
    """The machine cannot do what it was asked, in one line; `lost`: it cannot do anything."""

    def __init__(self, text: str, lost: bool = False) -> None:
        super().__init__(text)
        self.lost = lost


class AbstractMachine(ABC):
    """Computes the trajectories of a batch, one step of the system per call."""

    side_by_side: ClassVar[int] = 256  # cases of a batch, at most

    @abstractmethod
    def wire(self, geometry: GyroGeometry) -> None:
        """Connect gyroscopes and springs; raises MachineError for what cannot be."""

    @abstractmethod
    def begin(self, batch: Batch) -> None:
        """Prepare the initial conditions of a batch; raises MachineError."""

    @abstractmethod
    def advance(self) -> Array:
        """Operate for one step; return the states (cases, n, 4), machine units.

        Raises MachineError.
        """

    @abstractmethod
    def trim(self) -> None:
        """Measure and take away what can be trimmed without the host: offsets."""

    @abstractmethod
    def close(self) -> None:
        """Let go of whatever runs; may be called twice."""
