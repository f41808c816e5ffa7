"""Equilibrium propagation: the energy of every bond, free and nudged.

Scellier & Bengio, Front. Comput. Neurosci. 11:24 (2017). A network nudged by the force
−β ∂L/∂u stores ½ k e² in a bond; ∂L/∂k = (½ e_β² − ½ e_0²)/β as β → 0. One-sided it is in
error by β, between +β and −β (Laborieux et al., Front. Neurosci. 15:633674, 2021) by β². No
product of two measurements is formed: each bond only has to know its own energy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.spring_network import Equilibrium
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

FORCE = 0.02  # N, where none is asked for


class EquilibriumPropagationSettings(Settings, frozen=True, kw_only=True):
    """One-sided or symmetric."""

    symmetric: Annotated[bool, Meta(description="between +β and −β; false: between 0 and +β")] = (
        True
    )


class EquilibriumPropagation(AbstractGradientMethod):
    """∂L/∂k from the energies of the bonds; adjoint_force: largest nudge, N."""

    Settings: ClassVar[type[EquilibriumPropagationSettings]] = EquilibriumPropagationSettings

    def __init__(
        self, settings: EquilibriumPropagationSettings, *, adjoint_force: float | None
    ) -> None:
        self.settings = settings
        self.adjoint_force = FORCE if adjoint_force is None else adjoint_force

    def measure(
        self, bench: AbstractBench[E], task: AbstractStaticTask, batch: IntArray
    ) -> LocalGradient[E]:
        """Measure two or three equilibria per sample."""
        load = task.loads(batch)
        free = bench.settle(load)
        nudge = AdjointLoads.of(task, free.displacement, batch, self.adjoint_force)
        if nudge is None:
            return nothing_to_learn(free)
        up = bench.settle(load + nudge.force)
        down, span = free, 1.0
        measured: tuple[E, ...] = (free, up)
        if self.settings.symmetric:
            down, span = bench.settle(load - nudge.force), 2.0
            measured = (free, up, down)
        products = (up.elongation**2 - down.elongation**2) / 2 * nudge.scale / span
        answer = Equilibrium(
            (up.displacement - down.displacement) / span,
            (up.elongation - down.elongation) / span,
        )
        none = np.zeros(len(batch), dtype=np.bool_)
        return LocalGradient(free, answer, products, measured, none)

    def largest_force(self, loads: Array) -> float:
        """Return the largest load with the nudge on top, N."""
        return float(np.abs(loads).max()) + self.adjoint_force
