"""∂L/∂k by moving one bond after the other: nothing is known of the network but its loss.

One measurement of the batch per bond (forward) or two (central): the yardstick for what an
adjoint saves, and an independent truth.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import InputError
from hil.tasks.base import AbstractStaticTask
from hil.training.gradients.base import AbstractBench, AbstractGradientMethod, E, LocalGradient
from hil.types import Array, IntArray


class FiniteDifferencesSettings(Settings, frozen=True, kw_only=True):
    """Which difference, and how far."""

    scheme: Annotated[
        Literal["forward", "central"],
        Meta(description="forward: from here to up, in error by the step; central: by its square"),
    ] = "central"
    step: Annotated[float, Meta(gt=0, description="of a bond's stiffness, N/m")] = 8.0


class FiniteDifferences(AbstractGradientMethod):
    """∂L/∂k from the loss at other stiffness, quotients over what the rig says it applied."""

    Settings: ClassVar[type[FiniteDifferencesSettings]] = FiniteDifferencesSettings

    def __init__(self, settings: FiniteDifferencesSettings, *, adjoint_force: float | None) -> None:
        self.settings = settings

    def measure(
        self, bench: AbstractBench[E], task: AbstractStaticTask, batch: IntArray
    ) -> LocalGradient[E]:
        """Measure one or two equilibria per sample and bond.

        Raises InputError when a bond does not answer to the step.
        """
        before, loads, step = bench.read_stiffness(), task.loads(batch), self.settings.step
        forward = bench.settle(loads)
        here = task.loss(forward.displacement, batch)
        products, measured = np.zeros((len(batch), len(before))), [forward]

        def trial(bond: int, change: float) -> tuple[float, Array]:
            wanted = before.copy()
            wanted[bond] += change
            applied = float(bench.set_stiffness(wanted)[bond])
            measured.append(bench.settle(loads))
            return applied, task.loss(measured[-1].displacement, batch)

        for bond in range(len(before)):
            high, above = trial(bond, step)
            low, below = float(before[bond]), here
            if self.settings.scheme == "central":
                low, below = trial(bond, -step)
            if high <= low:
                raise InputError(
                    f"training.gradient.step: bond {bond + 1} stayed at {low} N/m when asked to "
                    f"move by {step} N/m; take a larger step, or bounds that leave room"
                )
            products[:, bond] = (above - below) / (high - low)
            bench.set_stiffness(before)
        none = np.zeros(len(batch), dtype=np.bool_)
        return LocalGradient(forward, None, products, tuple(measured), none)

    def largest_force(self, loads: Array) -> float:
        """Return the largest load, N: none is added."""
        return float(np.abs(loads).max())
