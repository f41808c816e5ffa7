"""What the analog emulator's instrument and its driver say in blocks; docs/instrument.md.

Numbers are little-endian, four bytes each. States and forces are in machine units: 1 is
what the host has set with `SCALe`, and beyond it an integrator is overloaded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

GROUPS = ("MASS", "LENGth", "GAMMa", "STIFfness")  # of coefficients, in the order of `GroupName`
GroupName = Literal["mass", "length", "gamma", "stiffness"]
GROUP_NAMES: tuple[GroupName, ...] = ("mass", "length", "gamma", "stiffness")
GROUP_UNITS = ("kg", "m", "kg/s", "N/m")

MODEL = "GYRO-EMULATOR"  # second field of *IDN?
POWER_ON = 128  # bit of *ESR?: it has been switched on since it was asked last
OVERLOADED = 1  # bit of a record's flags
STATES = 4  # of each gyroscope: x, y, v_x, v_y

SPRING = np.dtype(
    [
        ("from", "<i4"),  # gyroscope, from 0
        ("to", "<i4"),
        ("dx", "<f4"),  # from the near end to the far one at rest, m
        ("dy", "<f4"),
        ("length", "<f4"),  # of the spring when nothing pulls, m
    ]
)
"""One entry of the block of `NETWork:DEFine`."""


def record(samples: int, nodes: int) -> np.dtype[np.void]:
    """Return what `FETCh:TRACes?` answers for one case: its head and its states."""
    return np.dtype(
        [
            ("run", "<u4"),  # number of the run since power-on
            ("sequence", "<u4"),  # number of the case since power-on
            ("samples", "<u4"),
            ("flags", "<u4"),
            ("states", "<f4", (samples, nodes, STATES)),
        ]
    )
