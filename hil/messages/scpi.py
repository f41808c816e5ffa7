"""The syntax shared with an instrument: definite-length blocks, numbers in them, error numbers.

IEEE 488.2: `#<n><length><bytes>`, where n is the number of digits of the length. Numbers
travel little-endian, four bytes each: what SCPI calls `FORMat REAL,32` and `BORDer SWAPped`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from hil.errors import LinkError
from hil.types import AnyArray, Array

REAL = np.dtype("<f4")
INTEGER = np.dtype("<i4")
BLOCK_BYTES_MAX = 64 * 1024 * 1024


class ErrorCode(IntEnum):
    """Numbers of `SYSTem:ERRor?`: those of SCPI-99 below 0, the instrument's own above."""

    NO_ERROR = 0
    SYNTAX = -102
    DATA_TYPE = -104
    PARAMETER_COUNT = -108
    UNDEFINED_HEADER = -113
    INVALID_BLOCK = -161
    EXECUTION = -200
    SETTINGS_CONFLICT = -221
    OUT_OF_RANGE = -222
    TOO_MUCH_DATA = -223
    QUEUE_OVERFLOW = -350
    BUFFER_OVERRUN = -363
    QUERY_INTERRUPTED = -410
    OVERLOAD = 101
    BACKEND_LOST = 102


TEXTS = {
    ErrorCode.NO_ERROR: "No error",
    ErrorCode.SYNTAX: "Syntax error",
    ErrorCode.DATA_TYPE: "Data type error",
    ErrorCode.PARAMETER_COUNT: "Parameter count",
    ErrorCode.UNDEFINED_HEADER: "Undefined header",
    ErrorCode.INVALID_BLOCK: "Invalid block data",
    ErrorCode.EXECUTION: "Execution error",
    ErrorCode.SETTINGS_CONFLICT: "Settings conflict",
    ErrorCode.OUT_OF_RANGE: "Data out of range",
    ErrorCode.TOO_MUCH_DATA: "Too much data",
    ErrorCode.QUEUE_OVERFLOW: "Queue overflow",
    ErrorCode.BUFFER_OVERRUN: "Input buffer overrun",
    ErrorCode.QUERY_INTERRUPTED: "Query INTERRUPTED",
    ErrorCode.OVERLOAD: "Overload",
    ErrorCode.BACKEND_LOST: "Analog part lost",
}


class Report(NamedTuple):
    """One entry of an instrument's error queue."""

    code: int
    text: str


def block(data: bytes) -> bytes:
    """Return `data` as a definite-length block."""
    digits = str(len(data)).encode()
    return b"#%d%b%b" % (len(digits), digits, data)


def reals(values: AnyArray) -> bytes:
    """Return numbers as the bytes of a block, row by row."""
    return np.ascontiguousarray(values, dtype=REAL).tobytes()


def integers(values: AnyArray) -> bytes:
    """Return whole numbers as the bytes of a block, row by row."""
    return np.ascontiguousarray(values, dtype=INTEGER).tobytes()


def to_reals(data: bytes, *shape: int) -> Array:
    """Return the numbers of a block in float64; raises LinkError where they are not as many."""
    expected = int(np.prod(shape)) * REAL.itemsize
    if len(data) != expected:
        raise LinkError(f"block of {len(data)} bytes, expected {expected} for numbers {shape}")
    return np.frombuffer(data, dtype=REAL).reshape(shape).astype(np.float64)


def parse_report(line: str) -> Report:
    """Return what `SYSTem:ERRor?` answered; raises LinkError for anything else."""
    number, _, text = line.partition(",")
    try:
        return Report(int(number), text.strip().strip('"'))
    except ValueError:
        raise LinkError(f"expected an error number and a text, found {line!r:.80}") from None
