"""A model from the store, as a part of a configuration."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hil.config import Settings
from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.store import load
from hil.types import Array


class StoredModelSettings(Settings, frozen=True, kw_only=True):
    """Which model."""

    path: Annotated[str, Meta(min_length=1, description="<SHA-256>.safetensors of `hil fit`")]


class StoredModel(AbstractLearnedDynamics):
    """A learned model, loaded and verified; raises ConfigError where it cannot be."""

    Settings: ClassVar[type[StoredModelSettings]] = StoredModelSettings

    def __init__(self, settings: StoredModelSettings) -> None:
        self.path = settings.path
        self.model = load(settings.path).model

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self.model.nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self.model.nu

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq)."""
        return self.model.acceleration(q, v, u)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and slopes at one state and input."""
        return self.model.linearise(x, u)

    def domain(self, x: Array, u: Array) -> float:
        """Return how far x, u are from the training data; 1 holds 99.9 % of it."""
        return self.model.domain(x, u)
