"""Forward and adjoint as two states of their own: exact in the linear regime.

Li & Mao, Nat. Commun. 15:10528 (2024), equation 6. Where displacements are not small the
adjoint state sees another tangent than the forward one, and the gradient has an error that
no smaller adjoint load takes away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from hil.config import Settings
from hil.tasks.base import AbstractStaticTask
from hil.training.gradients.base import (
    AbstractBench,
    AbstractGradientMethod,
    AdjointLoads,
    E,
    LocalGradient,
    nothing_to_learn,
)
from hil.types import Array, IntArray

FORCE = 0.1  # N, where none is asked for


class SeparateStatesSettings(Settings, frozen=True, kw_only=True):
    """Nothing is to be set."""


class SeparateStates(AbstractGradientMethod):
    """∂L/∂k from two equilibria, the second under the adjoint load alone.

    adjoint_force: largest force of every adjoint load case, N.
    """

    Settings: ClassVar[type[SeparateStatesSettings]] = SeparateStatesSettings

    def __init__(self, settings: SeparateStatesSettings, *, adjoint_force: float | None) -> None:
        self.adjoint_force = FORCE if adjoint_force is None else adjoint_force

    def measure(
        self, bench: AbstractBench[E], task: AbstractStaticTask, batch: IntArray
    ) -> LocalGradient[E]:
        """Measure two equilibria per sample."""
        return local_gradient(bench.settle, task, batch, self.adjoint_force)

    def largest_force(self, loads: Array) -> float:
        """Return the larger of the two loads, N."""
        return max(self.adjoint_force, float(np.abs(loads).max()))


def local_gradient(
    settle: Callable[[Array], E], task: AbstractStaticTask, batch: IntArray, adjoint_force: float
) -> LocalGradient[E]:
    """Measure ∂L/∂k of every bond from two equilibria, one local product per bond.

    settle: loads (batch, dof), N → equilibrium, of a rig or of a model. adjoint_force: each
    adjoint load case is scaled so that its largest force is this, N, which uses the range
    of actuators and sensors, and its product is scaled back.
    """
    forward = settle(task.loads(batch))  # apply, wait, measure
    loads = AdjointLoads.of(task, forward.displacement, batch, adjoint_force)
    if loads is None:
        return nothing_to_learn(forward)
    adjoint = settle(loads.force)  # applied as forces
    products = adjoint.elongation * forward.elongation * loads.scale
    none = np.zeros(len(products), dtype=np.bool_)
    return LocalGradient(forward, adjoint, products, (forward, adjoint), none)
