"""What was measured about one device, kept per device: a JSON file that names its device.

A calibration holds for the device, the geometry and the messages it was made with; with
another one it is refused. Where they are kept: `HIL_CALIBRATIONS`, or this user's data
directory.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from platformdirs import user_data_path

from hil.errors import ConfigError, InputError, RunError
from hil.mechanics.geometry import Geometry

FORMAT = 1


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of one kind, with what they can be trusted to."""

    unit: str
    values: Any  # a number, a list, or a list of lists
    deviation: Any  # standard deviation of each, of the same shape


class CalibrationRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A calibration as it lies on disk."""

    format: int = FORMAT
    kind: str  # of the rig: "spring_network", "emulator"
    device_id: str
    date: str  # ISO 8601
    board: str
    firmware: str
    wire_schema: str
    config_hash: str  # of the configuration it was measured with
    geometry_hash: str
    parameters: dict[str, Parameter]
    figures: dict[str, Any]

    @property
    def name(self) -> str:
        """What tells it from every other: device, date and a digest of what was found."""
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]
        return f"{self.device_id} of {self.date} ({digest})"

    def array(self, parameter: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the values of a parameter; raises ConfigError where it has none."""
        if parameter not in self.parameters:
            raise ConfigError(f"calibration of {self.device_id}: no {parameter!r} in it")
        return np.asarray(self.parameters[parameter].values, dtype=np.float64)


def digest(value: Any) -> str:
    """Return a short hash of anything that can be JSON."""
    plain = msgspec.json.encode(msgspec.to_builtins(value), order="deterministic")
    return hashlib.sha256(plain).hexdigest()[:16]


def geometry_hash(geometry: Geometry) -> str:
    """Return a short hash of nodes (to a nanometre), bonds and fixed nodes."""
    nodes = np.rint(geometry.nodes * 1e9).astype(np.int64)
    return digest([nodes.tolist(), geometry.bonds.tolist(), sorted(geometry.fixed)])


def directory() -> Path:
    """Return where this user's calibrations are (`HIL_CALIBRATIONS` moves it)."""
    named = os.environ.get("HIL_CALIBRATIONS")
    return Path(named) if named else user_data_path("hil") / "calibrations"


def path_of(kind: str, device_id: str) -> Path:
    """Return where the calibration of a device is kept."""
    return directory() / f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]', '_', device_id)}.json"


def store(record: CalibrationRecord) -> Path:
    """Keep a calibration as the newest one of its device; raises RunError."""
    path = path_of(record.kind, record.device_id)
    write(record, path)
    return path


def write(record: CalibrationRecord, path: Path) -> None:
    """Write a calibration, whole or not at all; raises RunError."""
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(text + b"\n")
        beside.replace(path)
    except OSError as error:
        raise RunError(f"{path}: the calibration cannot be kept: {error.strerror}") from None


def read(path: Path) -> CalibrationRecord:
    """Return a calibration from disk; raises ConfigError."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=CalibrationRecord)
    except OSError as error:
        raise ConfigError(f"calibration {path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"calibration {path}: not a calibration: {error}") from None
    if record.format != FORMAT:
        raise ConfigError(
            f"calibration {path}: format {record.format}, this version reads {FORMAT}; calibrate "
            "again"
        )
    return record


def chosen(which: str, kind: str, device_id: str, geometry: str) -> CalibrationRecord | None:
    """Return the calibration a rig's configuration asks for.

    which: "none"; "auto", the newest one of this device if there is one; or a path.
    Raises ConfigError for one of another device, kind or geometry.
    """
    if which == "none":
        return None
    path = path_of(kind, device_id) if which == "auto" else Path(which)
    if which == "auto" and not path.exists():
        return None
    record = read(path)
    refuse_other(record, kind, device_id, geometry, str(path))
    return record


def refuse_other(
    record: CalibrationRecord, kind: str, device_id: str, geometry: str, where: str
) -> None:
    """Raise ConfigError unless a calibration is one of this rig."""
    for what, has, needed in (
        ("a rig of kind", record.kind, kind),
        ("device", record.device_id, device_id),
        ("geometry", record.geometry_hash, geometry),
    ):
        if has != needed:
            raise ConfigError(
                f"rig.calibration: {where} is of {what} {has}, this rig is {needed}; run `hil "
                'calibrate` on this rig, or set rig.calibration = "none"'
            )


def require_none(details: dict[str, str]) -> None:
    """Raise InputError where a rig's readings are corrected already."""
    if details.get("calibration"):
        raise InputError(
            f"the mirror applies calibration {details['calibration']}; end it, then calibrate "
            "(raw readings are needed)"
        )
