"""The adjoint load on top of the loaded state, up and down: exact in any regime.

At the equilibrium under F a small load ε(−∂L/∂u) more changes elongations by δe, and
∂L/∂k = e·δe/ε as ε → 0: the small load sees the tangent of the loaded state. The mean of
+ε and −ε is in error by ε² only.

Near a softening state even a small load can take a network to another branch. Then + and −
are no longer mirror images about the loaded state; such a sample is left out and counted.
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
    capped,
    nothing_to_learn,
)
from hil.types import Array, BoolArray, IntArray

FORCE = 0.005  # N, where none is asked for


class OnTopSettings(Settings, frozen=True, kw_only=True):
    """How large adjoint loads may be, and when a network counts as having jumped."""

    force_cap: Annotated[
        float, Meta(gt=0, le=0.1, description="largest adjoint force that is accepted, N")
    ] = 0.02
    both_sides: Annotated[
        bool, Meta(description="mean of +ε and −ε; false: +ε alone, in error by ε")
    ] = True
    come_back: Annotated[
        bool, Meta(description="measure the loaded state once more after the adjoint loads")
    ] = False
    jump_share: Annotated[
        float, Meta(gt=0, description="of the answer: an asymmetry above it is a jump, 1")
    ] = 0.5
    jump_floor: Annotated[
        float, Meta(ge=0, description="asymmetry taken for noise, rms over bonds, m")
    ] = 1e-4


class OnTop(AbstractGradientMethod):
    """∂L/∂k from the loaded state and small steps of load away from it.

    adjoint_force: largest force of every adjoint load case, N; ±5 mN where it is None.
    Raises ConfigError above the cap.
    """

    Settings: ClassVar[type[OnTopSettings]] = OnTopSettings

    def __init__(self, settings: OnTopSettings, *, adjoint_force: float | None) -> None:
        self.settings = settings
        self.adjoint_force = capped(
            adjoint_force, FORCE, settings.force_cap,
            "training.gradient.force_cap: a larger load can take the network to another branch",
        )  # fmt: skip

    def measure(
        self, bench: AbstractBench[E], task: AbstractStaticTask, batch: IntArray
    ) -> LocalGradient[E]:
        """Measure two to four equilibria per sample."""
        settings = self.settings
        load = task.loads(batch)
        forward = bench.settle(load)
        adjoint = AdjointLoads.of(task, forward.displacement, batch, self.adjoint_force)
        if adjoint is None:
            return nothing_to_learn(forward)
        signs = [1.0] + [-1.0] * settings.both_sides + [0.0] * settings.come_back
        # All of a sample one after the other: the network stays near where it is.
        cases = np.stack([load + sign * adjoint.force for sign in signs], axis=1)
        stepped = bench.settle(cases.reshape(-1, cases.shape[-1]))
        moved, stretched = (
            values.reshape(len(batch), len(signs), -1)
            for values in (stepped.displacement, stepped.elongation)
        )
        # (batch, …): of one step of load, half the way from − to + or all of it from 0 to +.
        if settings.both_sides:
            answer = Equilibrium(
                (moved[:, 0] - moved[:, 1]) / 2, (stretched[:, 0] - stretched[:, 1]) / 2
            )
            asymmetry = (stretched[:, 0] + stretched[:, 1]) / 2 - forward.elongation
        else:
            answer = Equilibrium(
                moved[:, 0] - forward.displacement, stretched[:, 0] - forward.elongation
            )
            asymmetry = np.zeros_like(answer.elongation)
        jumped = self._jumped(asymmetry, answer.elongation)
        if settings.come_back:
            jumped |= self._jumped(stretched[:, -1] - forward.elongation, answer.elongation)
        products = np.where(
            jumped[:, None], 0.0, forward.elongation * answer.elongation * adjoint.scale
        )
        return LocalGradient(forward, answer, products, (forward, stepped), jumped)

    def largest_force(self, loads: Array) -> float:
        """Return the largest load with the adjoint load on top, N."""
        return float(np.abs(loads).max()) + self.adjoint_force

    def _jumped(self, apart: Array, answer: Array) -> BoolArray:
        """Return which samples are too far, (batch, bonds), from where they should be."""
        far, size = (np.sqrt((values**2).mean(axis=1)) for values in (apart, answer))
        allowed = np.maximum(self.settings.jump_share * size, self.settings.jump_floor)
        return np.asarray(far > allowed)
