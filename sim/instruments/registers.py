"""What the instrument is built like, what is set on it, and a run of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import DRAG, GRAVITY, GyroParameters
from hil.types import Array, IntArray
from sim.instruments.machine import Scales


class InstrumentSettings(Settings, frozen=True, kw_only=True):
    """What the instrument is built like, beside its analog part."""

    serial: str = "SIM-0001"
    nodes: Annotated[int, Meta(ge=1, le=4096, description="gyroscopes it has")] = 256
    springs: Annotated[int, Meta(ge=0, le=16384, description="springs it has")] = 1024
    cases: Annotated[int, Meta(ge=1, le=65536, description="in one batch")] = 512
    steps: Annotated[int, Meta(ge=1, le=65536, description="in one case")] = 1024
    coefficient_bits: Annotated[int, Meta(ge=0, le=24, description="0: any value")] = 8
    adc_bits: Annotated[int, Meta(ge=0, le=24, description="of the DAQ; 0: ideal")] = 16
    dac_bits: Annotated[int, Meta(ge=0, le=24, description="of the inputs; 0: ideal")] = 16


@dataclass
class Run:
    """A run under way or ended."""

    number: int
    parameters: GyroParameters
    samples: int
    records: np.ndarray[tuple[int], np.dtype[np.void]]
    case_us: int
    started_us: int
    done: int = 0  # cases that are computed, or halted in
    chunk: int = -1  # first case of those being computed
    step: int = 0  # of the chunk
    state: str = "OP"  # OP, HALT (held by hand or by an overload), DONE, IDLE (given up)
    held_us: int = 0  # device time at which it was held
    took_us: int = 0  # from its start to its end


@dataclass
class Registers:
    """Everything `*RST` sets back."""

    constants: tuple[float, float] = (GRAVITY, DRAG)
    geometry: GyroGeometry | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    scales: Scales = field(default_factory=Scales)
    driven: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    recorded: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    step: float = 0.05
    ic_time: float = 1e-4
    halt_on_overload: bool = True
    powered: bool = False
    shape: tuple[int, int, int] = (0, 0, 1)  # cases, steps, a sample every so many
    inputs: Array | None = None
    initial: Array | None = None
