"""Calibrations the tests make up."""

from __future__ import annotations

from typing import Any

import numpy as np

from hil.mechanics.geometry import triangular_lattice
from hil.rigs.calibrated import KIND
from hil.rigs.calibration import CalibrationRecord, Parameter, geometry_hash
from hil.types import Array

GEOMETRY = triangular_lattice(4)
RANGE = np.concatenate([np.tile([0.0006, 0.004], 12), np.full(28, 0.0015)])


def record(
    device_id: str = "sim-0", gain: Array | float = 1.0, mismatch: Array | float = 0.0,
    noise: float = 0.01, **changed: Any,
) -> CalibrationRecord:  # fmt: skip
    """Return a calibration of the shipped rig: k = command·(1 + mismatch)."""
    low, high = 68.75, 206.25
    slope = np.broadcast_to(np.asarray(mismatch, dtype=float), 28)
    values: dict[str, tuple[str, Any]] = {
        "stiffness_correction": ("1", [slope, slope * (high - low) / (high + low)]),
        "command_range": ("N/m", [low, high]),
        "gain": ("1", np.broadcast_to(np.asarray(gain, dtype=float), 52)),
        "zero": ("m", np.zeros(52)),
        "noise": ("m", noise * RANGE),
        "range": ("m", RANGE),
    }
    parameters = {
        name: Parameter(unit, np.asarray(found).tolist(), np.zeros_like(found).tolist())
        for name, (unit, found) in values.items()
    }
    told: dict[str, Any] = {
        "kind": KIND, "device_id": device_id, "date": "2026-01-02", "board": "", "firmware": "",
        "wire_schema": "", "config_hash": "", "geometry_hash": geometry_hash(GEOMETRY),
        "parameters": parameters, "figures": {},
    }  # fmt: skip
    return CalibrationRecord(**told | changed)
