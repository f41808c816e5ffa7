"""Measured equilibria, as a reply and as telemetry."""

from __future__ import annotations

from hil.messages import bus
from hil.rigs.base import MeasuredEquilibrium
from hil.services.owned.base import Carried
from hil.types import Array


def carried_equilibria(
    measured: MeasuredEquilibrium, loads: Array, residual: float | None, recalibrate: str = ""
) -> Carried:
    """Return measured equilibria as a reply, and the last of them as telemetry.

    loads: (batch, dof), N, as applied. residual: of the twin, relative; recalibrate: why it
    asks for a new calibration.
    """
    values = {
        "device_us": measured.device_us,
        "cases": len(loads),
        "settled": measured.settled,
        "twin_residual": residual,
        "recalibrate": recalibrate,
        "force": loads[-1].tolist(),
        "displacement": measured.displacement[-1].tolist(),
        "elongation": measured.elongation[-1].tolist(),
    }
    fields = {
        "sampled_us": measured.device_us,
        "displacement": bus.ArrayRef.of(measured.displacement),
        "elongation": bus.ArrayRef.of(measured.elongation),
        "settled": measured.settled,
        "twin_residual": residual,
    }
    arrays = [measured.displacement, measured.elongation]
    if measured.applied is not None:
        fields["applied"] = bus.ArrayRef.of(measured.applied)
        arrays.append(measured.applied)
    return Carried(bus.Measured, fields, arrays, ("measurement", values))
