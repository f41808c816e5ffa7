"""A small emulator for tests: nine gyroscopes, an instrument in a thread, a rig on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hil.config import Config, build, check, load
from hil.rigs.emulator import EmulatorRig
from hil.types import Array
from sim.instruments.server import InstrumentServer, Order, ServerSettings, make_instrument

CONFIG = Path(__file__).parents[3] / "configs" / "emulator.toml"
SMALL = {
    "rig.geometry": {"rows": 3, "columns": 3, "wrap": "x"},
    "rig.driven": [1, 7],
    "rig.recorded": [3, 5],
    "rig.drag": 0.05,
    "rig.position_max": 1.0,
    "rig.velocity_max": 4.0,
    "rig.force_max": 20.0,
    "rig.mass": [0.25, 4.0],
    "rig.length": [0.25, 4.0],
    "rig.gamma": [-8.0, 8.0],
    "rig.stiffness": [0.0, 60.0],
}


def shipped(**overrides: Any) -> Config:
    """Return the shipped emulator, made small; `__` stands for a dot."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(CONFIG, sim=True, overrides=SMALL | dotted)


@contextlib.contextmanager
def server_of(config: Config) -> Iterator[InstrumentServer]:
    """Run the instrument of a configuration in a thread."""
    assert config.board is not None
    table = {key: value for key, value in config.board.items() if key != "kind"}
    settings = check(table, ServerSettings, "board")
    order = Order(settings, config.clock, config.seed, config.ideal)
    server = InstrumentServer(make_instrument(order), settings.port)
    server.start()
    try:
        yield server
    finally:
        server.close()


def rig_of(config: Config, url: str) -> EmulatorRig:
    """Return the rig of a configuration on an instrument."""
    rig: EmulatorRig = build(config.rig, "rig", clock=config.clock, port=url)
    return rig


def coefficients(springs: int, nodes: int = 9) -> Array:
    """Return coefficients inside every range."""
    random = np.random.default_rng(2)
    return np.concatenate((
        random.uniform(0.5, 2.0, nodes), random.uniform(0.5, 2.0, nodes),
        random.normal(0.0, 1.0, nodes), random.uniform(5.0, 20.0, springs),
    ))  # fmt: skip


def nudges(cases: int, steps: int = 20, inputs: int = 4, size: float = 1.0) -> Array:
    """Return random nudges, N."""
    return size * np.random.default_rng(3).uniform(-1.0, 1.0, (cases, steps, inputs))
