"""What a run of a classifier on an emulator records."""

from __future__ import annotations

import msgspec

from hil.recording.writer import Recorder
from hil.rigs.emulator_base import Calibration
from hil.training.gyro_insitu import BatchMeasured


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the instrument: what was asked and what it gave."""

    seq: int
    t_ns: int
    part: str  # of the data: train, validation, test
    epoch: int  # from 1; 0 outside training
    samples: list[int]  # indices into the data set
    run: int  # since power-on of the instrument
    sequence: int  # of the first case, since power-on
    read: list[list[float]]  # (cases, 4 outputs), last x, y, v_x, v_y of each output, SI
    predicted: list[int]  # classes
    overloaded: list[int]  # cases that left the machine's range
    loss: float
    expected_s: float  # on the machine, known before
    took_s: float  # by the machine's clock
    applied: list[float]  # (size,), coefficients, SI


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the coefficients were found to be."""

    seq: int
    t_ns: int
    applied: list[float]  # (size,)
    effective: list[float]
    deviation: list[float]
    residual: float


CHANNELS: dict[str, type[msgspec.Struct]] = {
    "batch": BatchRecord,
    "calibration": CalibrationRecord,
}


class EmulatorLog:
    """Turns what the instrument did into records; seq: number of the newest one."""

    def __init__(self, recorder: Recorder, seq: int = 0) -> None:
        self.seq = seq
        self._recorder = recorder

    def batch(self, part: str, done: BatchMeasured, t_ns: int) -> None:
        """Record a run."""
        self.seq += 1
        measured = done.measured
        record = BatchRecord(
            seq=self.seq,
            t_ns=t_ns,
            part=part,
            epoch=done.epoch,
            samples=done.samples.tolist(),
            run=measured.run,
            sequence=measured.sequence,
            read=measured.last.reshape(len(measured.last), -1).tolist(),
            predicted=done.predicted.tolist(),
            overloaded=(~measured.trusted).nonzero()[0].tolist(),
            loss=float(done.losses.mean()),
            expected_s=measured.predicted,
            took_s=measured.took,
            applied=done.applied.tolist(),
        )
        self._recorder.write("batch", record, t_ns)

    def calibration(self, found: Calibration, t_ns: int) -> None:
        """Record a calibration."""
        self.seq += 1
        record = CalibrationRecord(
            seq=self.seq, t_ns=t_ns, applied=found.applied.tolist(),
            effective=found.effective.tolist(), deviation=found.deviation.tolist(),
            residual=found.residual,
        )  # fmt: skip
        self._recorder.write("calibration", record, t_ns)
