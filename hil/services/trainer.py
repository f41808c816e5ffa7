"""Which service trains what a configuration describes."""

from __future__ import annotations

from types import ModuleType

from hil.config import Config, settings_of
from hil.rigs.emulator_base import AbstractEmulatorRig


def trainer(config: Config) -> ModuleType:
    """Return the service with `train`, `resume` and `summary` for a configuration.

    Raises ConfigError for a rig that cannot be.
    """
    if not config.rig:
        from hil.services import train_model

        return train_model
    kind, _ = settings_of(config.rig, "rig")
    if issubclass(kind, AbstractEmulatorRig):
        from hil.services import train_emulator

        return train_emulator
    from hil.services import train

    return train
