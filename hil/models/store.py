"""Models on disk: one safetensors file, named by what is in it.

The file carries the weights and, in its header, one JSON text: the kind of the model, its
settings and whatever training has to say (data, seeds, versions). Its name is the SHA-256
of its bytes, so `sha256sum` checks it as well as `load` does. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from hil.config import Settings, check, resolve
from hil.errors import ConfigError
from hil.models.base import AbstractLearnedDynamics, Weights

SUFFIX = ".safetensors"
HEADER = "hil"  # the one key of the header: more would come in no fixed order
FORMAT = 1
M = TypeVar("M")


class Storable(Protocol):
    """A model that settings and weights make."""

    @property
    def settings(self) -> Settings:
        """Return the architecture."""

    @property
    def weights(self) -> Weights:
        """Return what training found."""


class Stored(NamedTuple):
    """A model of a moving system, and what was written beside it."""

    model: AbstractLearnedDynamics
    metadata: dict[str, Any]


def versions() -> dict[str, str]:
    """Return the versions that made a model: of this package, NumPy and Python."""
    try:
        own = version("hil")
    except PackageNotFoundError:
        own = "unknown"
    return {"hil": own, "numpy": np.__version__, "python": platform.python_version()}


def save(model: Storable, directory: str | Path, metadata: Mapping[str, Any]) -> Path:
    """Write a model; returns the path, `<SHA-256>.safetensors` in `directory`.

    metadata: anything JSON can hold, under the names training chooses. Equal weights and
    metadata give the same file. The file appears whole or not at all. Raises ConfigError
    when the metadata is not JSON or the directory cannot be written.
    """
    about = {
        "format": FORMAT,
        "kind": f"{type(model).__module__}:{type(model).__qualname__}",
        "settings": msgspec.to_builtins(model.settings),
        "training": dict(metadata),
        "versions": versions(),
    }
    try:
        text = json.dumps(about, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata of a model: not JSON: {error}") from None
    arrays = {name: np.asarray(a, order="C") for name, a in model.weights.arrays().items()}
    content = serialise(arrays, {HEADER: text})
    path = Path(directory) / f"{hashlib.sha256(content).hexdigest()}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.parent}: a model cannot be written here: {error}") from None
    return path


def load(path: str | Path) -> Stored:
    """Read a model of a moving system and its metadata; raises ConfigError as `read` does."""
    return Stored(*read(path, AbstractLearnedDynamics))  # type: ignore[type-abstract]


def read(path: str | Path, kind: type[M]) -> tuple[M, dict[str, Any]]:
    """Return a stored model of a kind, and its metadata.

    Raises ConfigError when the file is missing, its bytes are not those its name stands
    for, or it holds something else than a model this version knows.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: no model can be read here: {error.strerror}") from None
    if not re.fullmatch(r"[0-9a-f]{64}", path.name.removesuffix(SUFFIX)):
        raise ConfigError(
            f"{path}: the name of a model is the SHA-256 of the file and {SUFFIX}; "
            "give the file its own name again"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != path.name.removesuffix(SUFFIX):
        raise ConfigError(
            f"{path}: the file was changed: its SHA-256 is {found[:12]}…, its name says "
            f"{path.name[:12]}…; fit or copy the model again"
        )
    try:
        arrays = parse(content)
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER])
        form, name, settings = about["format"], about["kind"], about["settings"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a model of this program: {error!r}") from None
    if form != FORMAT:
        raise ConfigError(f"{path}: format {form}, this version reads {FORMAT}; fit it again")
    part = resolve(name, str(path))
    if not issubclass(part, kind) or not hasattr(part, "from_arrays"):
        raise ConfigError(f"{path}: {name} is not a model of the kind wanted here, {kind.__name__}")
    stored: Any = part
    checked = check(settings, stored.Settings, "settings", file=f"{path}: ")
    model: M = stored.from_arrays(checked, arrays)
    return model, about
