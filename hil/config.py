"""TOML → checked parts.

A file may build on another (`base = "rig.toml"`), carries named presets, and is
overlaid by `<base>.sim.toml` when simulated. A text that starts with `./` or `../` is a
path from the file it stands in. Precedence: command line (`--set`),
environment (`HIL_TRAINING__EPOCHS=3`), preset, simulation overlay, file, base.

A part is a table with `kind = "module:Class"`; the class names its `Settings` (a
msgspec Struct with ranges and units), and what is left of the table must fit them.
"""

from __future__ import annotations

import importlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hil.errors import ConfigError
from hil.types import ClockKind

Table = dict[str, Any]
S = TypeVar("S", bound=msgspec.Struct)
ENTRY_POINTS = "hil.parts"  # group in which an installed package offers its own kinds


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every checked part: frozen, unknown keys refused, keywords only."""


class Config(Settings, frozen=True, kw_only=True):
    """One resolved configuration file; the tables are checked by whoever owns them."""

    name: str
    rig: Table = {}  # none: a model is trained by itself
    clock: ClockKind = "wall"
    seed: int = 0
    preset: str = ""
    ideal: bool = False
    board: Table | None = None
    task: Table | None = None
    training: Table | None = None
    model: Table | None = None
    estimator: Table | None = None
    control: Table | None = None
    fallback: Table | None = None
    excitation: Table | None = None
    adaptation: Table | None = None
    calibration: Table | None = None
    environment: Table | None = None
    fit: Table | None = None
    sweep: Table | None = None
    bench: Table | None = None
    loop: Table = {}
    mirror: Table = {}
    inference: Table = {}
    recording: Table = {}


TOP_LEVEL = frozenset(Config.__struct_fields__)


def load(
    path: str | Path,
    *,
    sim: bool = False,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read a configuration file and resolve it.

    overrides: dotted key → value, the strongest source. environ: the environment.
    Raises ConfigError with file, key path, what was found and what is allowed.
    """
    path = Path(path)
    table = _read(path, sim=sim)
    strong = {**_from_environ(environ or {}), **(overrides or {})}
    presets = table.pop("presets", {})
    preset = strong.get("preset", table.get("preset", ""))
    if preset:
        if preset not in presets:
            known = ", ".join(sorted(presets)) or "none"
            raise ConfigError(f"{path}: preset: {preset!r} is not defined here; known: {known}")
        merge(table, presets[preset])
    for key, value in strong.items():
        _assign(table, key.split("."), value)
    if sim and table.get("board") is None:
        raise ConfigError(f"{path}: board: --sim needs a simulation overlay (x.sim.toml beside x)")
    return check(table, Config, "", file=f"{path}: ")


def dump(config: Config) -> bytes:
    """Return a resolved configuration as a TOML file that `load` takes again."""
    table = _stated(msgspec.to_builtins(config))
    if config.preset:
        table["presets"] = {config.preset: {}}  # it has been laid in already
    return msgspec.toml.encode(table)


def parse(content: bytes, where: Path) -> Config:
    """Return the configuration that `dump` wrote; raises ConfigError."""
    try:
        table = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where}: not readable as TOML: {error}") from None
    table.pop("presets", None)
    return check(table, Config, "", file=f"{where}: ")


def _stated(value: Any) -> Any:
    """Return `value` without keys that say None: TOML has no word for it."""
    if isinstance(value, dict):
        return {key: _stated(inner) for key, inner in value.items() if inner is not None}
    return value


def _read(path: Path, *, sim: bool) -> Table:
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None
    table = _anchored(table, path.parent)
    base = table.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: base: expected the path of a TOML file, found {base!r}")
        table = merge(_read(path.parent / base, sim=sim), table)
    overlay = path.with_suffix(".sim.toml")
    if sim and overlay.exists():
        table = merge(table, _read(overlay, sim=False))
    return table


def _anchored(value: Any, directory: Path) -> Any:
    """Return `value` with every string that starts with ./ or ../ as a path of the file."""
    if isinstance(value, dict):
        return {key: _anchored(inner, directory) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anchored(inner, directory) for inner in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str((directory / value).resolve())
    return value


def merge(under: Table, over: Mapping[str, Any]) -> Table:
    """Lay `over` on `under`, table by table; `under` is changed and returned.

    A part of another kind replaces the whole part: its settings are others.
    """
    for key, value in over.items():
        beneath = under.get(key)
        if isinstance(value, Mapping) and isinstance(beneath, dict):
            if "kind" in value and value["kind"] != beneath.get("kind", value["kind"]):
                beneath = under[key] = {}
            merge(beneath, value)
        else:
            under[key] = dict(value) if isinstance(value, Mapping) else value
    return under


def _assign(table: Table, keys: Sequence[str], value: Any) -> None:
    """Set one value, replacing what was there, tables too."""
    for key in keys[:-1]:
        if not isinstance(table.get(key), dict):
            table[key] = {}
        table = table[key]
    table[keys[-1]] = value


def parse_value(text: str) -> Any:
    """Return `text` read as a TOML value, or as the string it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_overrides(settings: Sequence[str]) -> Table:
    """Return `key.path=value` words as a mapping.

    Raises ConfigError for a word without `=` or an empty key.
    """
    found: Table = {}
    for word in settings:
        key, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key.strip()):
            raise ConfigError(f"--set {word}: expected key.path=value")
        found[key.strip()] = parse_value(value.strip())
    return found


def _from_environ(environ: Mapping[str, str]) -> Table:
    found: Table = {}
    for name, value in sorted(environ.items()):
        keys = name.removeprefix("HIL_").lower().split("__")
        if name.startswith("HIL_") and keys[0] in TOP_LEVEL:
            found[".".join(keys)] = parse_value(value)
    return found


def check(table: Mapping[str, Any], settings: type[S], where: str, file: str = "") -> S:
    """Return `table` as checked `settings`; raises ConfigError with the key's path."""
    try:
        return msgspec.convert(table, settings)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `$")
        path = (where + at.removesuffix("`")).lstrip(".")
        raise ConfigError(f"{file}{path}{': ' if path else ''}{text}") from None


def resolve(kind: str, where: str) -> type[Any]:
    """Return the class a `kind` names; only hil, sim or an installed entry point.

    Raises ConfigError.
    """
    module, colon, name = kind.partition(":")
    if not colon:
        for entry in entry_points(group=ENTRY_POINTS, name=kind):
            found: type[Any] = entry.load()
            return found
    if module.split(".")[0] not in ("hil", "sim") or not re.fullmatch(r"[\w.]+:\w+", kind):
        raise ConfigError(
            f"{where}.kind: {kind!r} is not allowed; expected 'hil.module:Class', "
            f"'sim.module:Class' or an installed entry point of group {ENTRY_POINTS}"
        )
    try:
        part = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}.kind: {kind!r} cannot be found: {error}") from None
    if not (isinstance(part, type) and hasattr(part, "Settings")):
        raise ConfigError(f"{where}.kind: {kind!r} is not a part that can be configured")
    return part


def settings_of(table: Mapping[str, Any], where: str) -> tuple[type[Any], Any]:
    """Return the class and the checked settings of a part, without making it."""
    rest = dict(table)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{where}.kind: expected 'module:Class', found {kind!r}")
    part = resolve(kind, where)
    return part, check(rest, part.Settings, where)


def build(table: Mapping[str, Any], where: str, **context: Any) -> Any:
    """Make the part a table describes: `Class(settings, **context)`; no I/O."""
    part, settings = settings_of(table, where)
    return part(settings, **context)


def environment() -> Mapping[str, str]:
    """Return the process environment; the one place that reads it for settings."""
    return os.environ
