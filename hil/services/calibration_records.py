"""What a calibration run records, and reading it back."""

from __future__ import annotations

import msgspec
import numpy as np

from hil.recording.reader import read_as
from hil.recording.run import Run
from hil.training.calibration import CalibrationBatch

TOPIC = "calibration"


class CalibrationRow(msgspec.Struct, frozen=True, kw_only=True):
    """Load cases measured with one command, raw."""

    seq: int
    t_ns: int
    kind: str  # zero, load, step
    device_us: int  # of the last sample, us
    wait_us: int  # after the force at which was looked, us; 0: at rest
    settled: bool
    stiffness: list[float]  # (bonds,), as applied, N/m
    loads: list[list[float]]  # (cases, dof), N
    reading: list[list[float]]  # (cases, channels), displacements, then elongations, m


def row(batch: CalibrationBatch, seq: int, t_ns: int) -> CalibrationRow:
    """Return a batch as it is recorded."""
    return CalibrationRow(
        seq=seq, t_ns=t_ns, kind=batch.kind, device_us=batch.device_us, wait_us=batch.wait_us,
        settled=batch.settled, stiffness=batch.command.tolist(), loads=batch.loads.tolist(),
        reading=batch.reading.tolist(),
    )  # fmt: skip


def batches(run: Run) -> list[CalibrationBatch]:
    """Return what a calibration run recorded; empty for another kind of run."""
    return [
        CalibrationBatch(
            r.kind,  # type: ignore[arg-type]
            np.array(r.stiffness), np.array(r.loads), np.array(r.reading), r.device_us, r.wait_us,
            r.settled,
        )
        for part in run.parts()
        for _, r in read_as(part, TOPIC, CalibrationRow)
    ]  # fmt: skip
