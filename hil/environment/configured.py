"""An environment from a configuration: on the double, on the firmware, or on the rig."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from hil.config import Config, Table, build, check, environment, load, merge
from hil.environment.episodes import AbstractEpisodes, Rebuilt, Waited
from hil.environment.rig_environment import EnvironmentSettings, RigEnvironment
from hil.errors import ConfigError
from hil.rigs.base import AbstractDynamicRig, microseconds
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from hil.services import owner
from hil.services.mirror import bus_address
from hil.services.session import require_mirror
from hil.types import Array

Through = Literal["process", "firmware", "rig"]
_numbers = itertools.count()


def make(
    config: str | Path, *, through: Through = "process", overrides: Mapping[str, Any] | None = None
) -> RigEnvironment:
    """Make the environment of a configuration; no I/O but reading it.

    config: a path, or the name of a configuration that came with hil. through: `process`,
    the rig's double in this process; `firmware`, the firmware's C code behind a mirror,
    both started for every episode (a second or two); `rig`, the real one, through the mirror
    that serves it or one of its own. overrides: dotted key → value. Raises ConfigError.
    """
    if through not in ("process", "firmware", "rig"):
        raise ConfigError(f"through: {through!r}: expected 'process', 'firmware' or 'rig'")
    path = Path(config)
    if not path.exists() and path.name == str(config):
        path = _shipped(path.name)
    found = load(path, sim=through != "rig", overrides=overrides, environ=environment())
    if found.environment is None:
        raise ConfigError(f"{path}: environment: missing; it needs [environment]")
    settings = check(found.environment, EnvironmentSettings, "environment")
    model = build(_table(found, "model"), "model")
    period = float(found.rig.get("period", 0.0))
    estimator = _table(found, "estimator")
    if estimator.get("dt", period) != period:
        raise ConfigError(f"estimator.dt: the rig's period is {period} s; leave it out")
    return RigEnvironment(
        _episodes(found, settings, through),
        build(_table(found, "task"), "task"),
        build(merge({"dt": period}, estimator), "estimator", dynamics=model),
        settings.checked(model.nx),
        nu=model.nu,
        period_s=period,
    )


def _shipped(name: str) -> Path:
    """Return a configuration that came with hil: of the wheel, or of the checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs" / name
    return inside if inside.exists() else package.parent / "configs" / name


def _table(config: Config, name: str) -> Table:
    table: Table | None = getattr(config, name)
    if table is None:
        raise ConfigError(f"{name}: missing; it needs [{name}]")
    return table


def _episodes(config: Config, settings: EnvironmentSettings, through: Through) -> AbstractEpisodes:
    if through == "rig":
        return Waited(
            lambda: _served(config), tolerance=np.array(settings.tolerance), wait=settings.wait
        )
    if through == "firmware":
        return Rebuilt(lambda seed, start: _on_firmware(config, seed, start))
    if not settings.double:
        raise ConfigError("environment.double: missing; the class that plays the rig in process")
    return Rebuilt(lambda seed, start: _in_process(config, settings.double, seed, start))


def _in_process(config: Config, double: str, seed: int, start: Array) -> AbstractDynamicRig:
    """Return the rig's double at a start: the rig's table and the board's plant."""
    table = config.rig | {"kind": double, "plant": _placed(config, start)["plant"]}
    tokens = Minting(microseconds(float(config.rig["watchdog"])))
    rig: AbstractDynamicRig = build(table, "rig", tokens=tokens, seed=seed, ideal=config.ideal)
    return rig


@contextmanager
def _on_firmware(config: Config, seed: int, start: Array) -> Iterator[AbstractDynamicRig]:
    """Start the firmware with its plant at a start, and a mirror; give the rig it owns."""
    name = f"{config.rig.get('name', 'rig')}-env-{os.getpid()}-{next(_numbers)}"
    job = msgspec.structs.replace(
        config, seed=seed, board=_placed(config, start), rig=config.rig | {"name": name}
    )
    with ExitStack() as stack:
        _start_mirror(job, stack)
        yield stack.enter_context(_remote(job))


@contextmanager
def _served(config: Config) -> Iterator[AbstractDynamicRig]:
    """Give the rig through its mirror, started here where none serves it."""
    address, _, _ = bus_address(config)
    with ExitStack() as stack:
        if not require_mirror(config, address):
            _start_mirror(config, stack)
        yield stack.enter_context(_remote(config))


def _start_mirror(config: Config, stack: ExitStack) -> None:
    """Start a mirror that ends with the stack; its words are kept until then."""
    logs = tempfile.mkdtemp(prefix="hil-")  # not TemporaryDirectory, which an exit cleans up first
    stack.callback(shutil.rmtree, logs, ignore_errors=True)
    stack.enter_context(owner.ChildMirror(owner.MirrorJob(config), Path(logs) / "mirror.log"))


def _remote(config: Config) -> RemoteDynamicRig:
    address, keys, _ = bus_address(config)
    return RemoteDynamicRig(address, mint=Minting, client=f"environment-{os.getpid()}", keys=keys)


def _placed(config: Config, start: Array) -> Table:
    """Return the board's table with its plant at a start, let go."""
    assert config.board is not None  # load() has seen to it
    plant = config.board.get("plant", {}) | {"start": start.tolist(), "held": False}
    return config.board | {"plant": plant}
