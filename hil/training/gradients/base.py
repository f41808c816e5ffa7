"""The contract of a way to measure ∂L/∂k of every bond of a network in place.

A method is a part, `kind` of the table `[training.gradient]`: `Method(settings,
adjoint_force=…)`. It loads a bench, which is a rig or a model, reads displacements and
elongations off it, and returns one product per sample and bond. It keeps nothing between two
measurements and leaves the stiffness as it found it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from hil.errors import ConfigError
from hil.mechanics.finite_springs import AbstractStatics
from hil.mechanics.spring_network import Equilibrium
from hil.tasks.base import AbstractStaticTask
from hil.types import Array, BoolArray, IntArray


class EquilibriumLike(Protocol):
    """What a rig measures and what a model computes."""

    @property
    def displacement(self) -> Array:
        """(batch, dof), m."""

    @property
    def elongation(self) -> Array:
        """(batch, bonds), m."""


E = TypeVar("E", bound=EquilibriumLike)
E_co = TypeVar("E_co", bound=EquilibriumLike, covariant=True)


class AbstractBench(Protocol[E_co]):
    """What a gradient is measured on; every static rig is one."""

    def settle(self, loads: Array) -> E_co:
        """Return the equilibria under loads (batch, dof), N, taken in this order."""

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond, (bonds,), N/m; return what was applied."""

    def read_stiffness(self) -> Array:
        """Return what every bond is set to, (bonds,), N/m."""


class ModelBench:
    """Equations as a bench: what is measured is what they say."""

    def __init__(self, statics: AbstractStatics, stiffness: Array) -> None:
        self._statics, self._stiffness = statics, stiffness.copy()

    def settle(self, loads: Array) -> Equilibrium:
        """Return the equilibria under loads (batch, dof), N."""
        return self._statics.settle(self._stiffness, loads)

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond, (bonds,), N/m; return it."""
        self._stiffness = stiffness.copy()
        return stiffness

    def read_stiffness(self) -> Array:
        """Return what every bond is set to, (bonds,), N/m."""
        return self._stiffness.copy()


@dataclass(frozen=True)
class LocalGradient(Generic[E]):
    """What was measured of a batch and the gradient it gives."""

    forward: E
    adjoint: EquilibriumLike | None  # answer to the adjoint loads; None: none was needed
    products: Array  # (batch, bonds), ∂L/∂k of each sample's loss, m/N; zero where it jumped
    measured: tuple[E, ...]  # everything that was measured, in order
    jumped: BoolArray  # (batch,), samples left out: the network left its branch

    @property
    def gradient(self) -> Array:
        """∂L/∂k of the mean loss of the samples that did not jump: (bonds,), m/N."""
        if not self.jumped.any():
            return np.asarray(self.products.mean(0))
        return np.asarray(self.products.sum(0) / max(1, int((~self.jumped).sum())))


class AbstractGradientMethod(ABC):
    """How ∂L/∂k is measured."""

    @abstractmethod
    def measure(
        self, bench: AbstractBench[E], task: AbstractStaticTask, batch: IntArray
    ) -> LocalGradient[E]:
        """Measure ∂L/∂k of every bond for the samples of a batch."""

    @abstractmethod
    def largest_force(self, loads: Array) -> float:
        """Return the largest force the method may ask for, N, given loads (samples, dof)."""


@dataclass(frozen=True)
class AdjointLoads:
    """−∂L/∂u of a batch, as forces."""

    force: Array  # (batch, dof), N; each case's largest is `adjoint_force`, or all are zero
    scale: Array  # (batch, 1), 1/(m N): loss per m that one N stands for

    @classmethod
    def of(
        cls, task: AbstractStaticTask, displacement: Array, batch: IntArray, adjoint_force: float
    ) -> AdjointLoads | None:
        """Return the loads at a displacement (batch, dof), m; None where all are zero."""
        wanted = task.adjoint_loads(displacement, batch)  # −∂L/∂u, (batch, dof), 1/m
        largest = np.abs(wanted).max(axis=1, keepdims=True)  # (batch, 1), 1/m
        if not largest.any():
            return None
        scale = np.where(largest > 0, largest, 1.0) / adjoint_force
        return cls(wanted / scale, scale)


def nothing_to_learn(forward: E) -> LocalGradient[E]:
    """Return the gradient of samples whose loss has none: nothing more was applied."""
    none = np.zeros(len(forward.elongation), dtype=np.bool_)
    return LocalGradient(forward, None, np.zeros_like(forward.elongation), (forward,), none)


def capped(force: float | None, default: float, cap: float, why: str) -> float:
    """Return the adjoint force of a method, N; raises ConfigError above its cap."""
    if force is None:
        return min(default, cap)
    if force > cap:
        raise ConfigError(f"training.adjoint_force: {force} N is above {cap} N, {why}")
    return force
