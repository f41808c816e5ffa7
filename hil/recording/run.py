"""The directory of one run: `runs/<date>-<name>/`, what lies in it and under which name.

config.toml       the resolved configuration, a file any verb takes
recording.mcap    what was measured and commanded; -2, -3 … by processes that resumed
checkpoint.json   enough to go on after a kill
results.json      figures of a finished run
plots/            pictures
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from hil.config import Config, dump, parse
from hil.errors import InputError, RunError

CONFIG = "config.toml"
RESULTS = "results.json"
CHECKPOINT = "checkpoint.json"
PART = re.compile(r"recording(?:-([2-9]|[1-9]\d+))?\.mcap")
NAME = re.compile(r"\w[\w.-]*")


class Run:
    """One run directory; made by `Run.create`, found again by `Run.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, runs: Path, name: str, date: datetime) -> Self:
        """Make `runs/<date>-<name>/`; a second one in the same second gets `-2`, and so on.

        Raises InputError when the name is no file name or the place cannot be written.
        """
        if not NAME.fullmatch(name):
            raise InputError(
                f"run name {name!r}: expected letters, digits, '.', '_' and '-' only, because "
                "it names a directory"
            )
        stem = f"{date:%Y-%m-%d-%H%M%S}-{name}"
        number = 1
        while True:
            path = runs / (stem if number == 1 else f"{stem}-{number}")
            try:
                runs.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if not runs.is_dir():
                    raise InputError(f"{runs}: not a directory; name another --runs") from None
                number += 1
            except OSError as error:
                raise InputError(
                    f"{path}: cannot be made: {error.strerror}; name another --runs"
                ) from None
            else:
                return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Return the run at `path`; raises InputError when there is none."""
        path = Path(path)
        if not (path / CONFIG).is_file():
            found = f"no {CONFIG} in it" if path.is_dir() else "no such directory"
            raise InputError(f"{path}: not a run directory: {found}")
        return cls(path)

    @property
    def config(self) -> Path:
        """Where the resolved configuration lies."""
        return self.path / CONFIG

    @property
    def results(self) -> Path:
        """Where the figures of a finished run lie."""
        return self.path / RESULTS

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint lies."""
        return self.path / CHECKPOINT

    @property
    def plots(self) -> Path:
        """Where pictures go; made by whoever saves the first."""
        return self.path / "plots"

    def parts(self) -> list[Path]:
        """Return the recordings of the run, oldest process first."""
        return [path for _, path in self._numbered_parts()]

    def next_part(self) -> Path:
        """Return where the next process records: `recording.mcap`, then `-2` and so on."""
        numbers = [number for number, _ in self._numbered_parts()]
        number = max(numbers, default=0) + 1
        return self.path / ("recording.mcap" if number == 1 else f"recording-{number}.mcap")

    def _numbered_parts(self) -> list[tuple[int, Path]]:
        found = ((PART.fullmatch(path.name), path) for path in self.path.iterdir())
        return sorted((int(match[1] or 1), path) for match, path in found if match)

    def write_config(self, config: Config) -> Path:
        """Write the resolved configuration and return its path; raises RunError."""
        return self._write(CONFIG, dump(config))

    def read_config(self) -> Config:
        """Return the resolved configuration.

        Raises InputError when it is missing and ConfigError when it is damaged.
        """
        try:
            return parse(self.config.read_bytes(), self.config)
        except OSError as error:
            raise InputError(f"{self.config}: cannot be read: {error.strerror}") from None

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as the file `name`, whole or not at all, and return its path.

        value: what msgspec encodes, and NumPy arrays and scalars; a float that is not
        finite becomes null. Survives a kill of the process, not a loss of power.
        Raises RunError when the file cannot be written.
        """
        text = msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2)
        return self._write(name, text + b"\n")

    def _write(self, name: str, content: bytes) -> Path:
        path = self.path / name
        temporary = path.with_name(f".{name}.{os.getpid()}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None
        return path

    def read_json(self, name: str, kind: Any = Any) -> Any:
        """Return the file `name`, checked against the type `kind` when one is given.

        Raises InputError when it is missing, damaged or of another shape.
        """
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except msgspec.ValidationError as error:
            raise InputError(f"{path}: not what was expected: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: damaged, not readable as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a JSON file")
