"""What a mirror owns: a rig behind its guard, and how commands are carried out; a file per kind."""

from __future__ import annotations

import importlib

from hil.config import Config, settings_of
from hil.errors import ConfigError
from hil.rigs.base import AbstractBoard
from hil.services.owned.base import AbstractOwned

__all__ = ["own"]

# Class of a rig → the file that owns it: a mirror loads what its own rig needs and no more.
OWNERS = {
    "SpringNetworkRig": "spring_network",
    "ManualRig": "by_hand",
    "CartPoleRig": "cart_pole",
    "EmulatorRig": "emulator",
    "LucidacRig": "emulator",
}


def own(config: Config, port: str, board: AbstractBoard | None = None) -> AbstractOwned:
    """Make what a mirror owns; no I/O. Raises ConfigError for a rig no mirror can own."""
    kind, settings = settings_of(config.rig, "rig")
    if kind.__name__ not in OWNERS or kind.__module__.split(".")[0] != "hil":
        raise ConfigError(
            f"rig.kind: {config.rig['kind']!r} is not a rig a mirror can own; a rig in process "
            "needs none"
        )
    owner = importlib.import_module(f"{__name__}.{OWNERS[kind.__name__]}")
    owned: AbstractOwned = owner.own(kind, settings, config, port, board)
    return owned
