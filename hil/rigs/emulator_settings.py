"""What an analog emulator is told by its configuration."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.mechanics.gyro_geometry import GyroGeometrySettings
from hil.mechanics.gyro_network import DRAG, GRAVITY
from hil.types import IntArray

Node = Annotated[int, Meta(ge=1, description="gyroscope, from 1")]
Range = tuple[float, float]


class EmulatorRigSettings(Settings, frozen=True, kw_only=True):
    """The rig table of an analog emulator."""

    name: Annotated[str, Meta(pattern=r"^[\w.-]+$", description="its mirror is found under")]
    port: Annotated[str, Meta(min_length=1, description="VISA resource string")]
    serial_number: Annotated[str, Meta(description="of the instrument; empty: any")] = ""
    timeout: Annotated[float, Meta(gt=0, le=60, description="for an answer, s")] = 2.0
    geometry: GyroGeometrySettings = GyroGeometrySettings()
    driven: Annotated[tuple[Node, ...], Meta(min_length=1, description="that are nudged")]
    recorded: Annotated[tuple[Node, ...], Meta(description="that are recorded; none: all")] = ()
    gravity: Annotated[float, Meta(ge=0, description="m/s²")] = GRAVITY
    drag: Annotated[float, Meta(ge=0, description="kg/m")] = DRAG
    step: Annotated[float, Meta(gt=0, description="each input is held for, s")] = 0.05
    time_scale: Annotated[float, Meta(gt=0, description="s of the machine per s")] = 1e-3
    ic_time: Annotated[float, Meta(ge=0, le=10, description="for each case, s")] = 1e-4
    position_max: Annotated[float, Meta(gt=0, description="one machine unit, m")] = 1.0
    velocity_max: Annotated[float, Meta(gt=0, description="one machine unit, m/s")] = 4.0
    force_max: Annotated[float, Meta(gt=0, description="one machine unit, N")] = 20.0
    mass: Annotated[Range, Meta(description="[lowest, highest], kg")] = (0.25, 4.0)
    length: Annotated[Range, Meta(description="[lowest, highest], m")] = (0.25, 4.0)
    gamma: Annotated[Range, Meta(description="[lowest, highest], kg/s")] = (-8.0, 8.0)
    stiffness: Annotated[Range, Meta(description="[lowest, highest], N/m")] = (0.0, 60.0)
    halt_on_overload: Annotated[bool, Meta(description="and latch a fault")] = True

    def nodes(self, count: int) -> tuple[IntArray, IntArray]:
        """Return the gyroscopes that are driven and recorded, from 0; raises ConfigError."""
        everyone = tuple(range(1, count + 1))
        found = []
        for key, numbers in (("driven", self.driven), ("recorded", self.recorded or everyone)):
            if max(numbers) > count or len(set(numbers)) < len(numbers):
                raise ConfigError(
                    f"rig.{key}: expected different gyroscopes from 1 to {count}, found "
                    f"{list(numbers)}"
                )
            found.append(np.array(numbers, dtype=np.int64) - 1)
        return found[0], found[1]
