"""Is the gradient that was measured in place the gradient? Looked at in every run.

Two references, on a random mini-batch: the model's exact gradient at the stiffness the rig
reports, and central differences of the loss, measured on the rig itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import InputError, RunError
from hil.tasks.base import AbstractStaticTask
from hil.training.gradients.base import AbstractBench, E
from hil.types import Array, BoolArray, IntArray

STREAM_CHECK = 202  # of the random numbers of a seed
# Where the slope of the loss changes by more than this share between the two ends of a
# difference, the quotient is no derivative: |u| has a kink at 0, and −log p bends hard
# near it. A loss like −log u bends by b and leaves an error of b²/12.
BEND_MAX = 0.2

Reference = Literal["model", "differences"]


class GradientCheckSettings(Settings, frozen=True, kw_only=True):
    """How often the gradient is looked at, and how much of it."""

    every: Annotated[
        int, Meta(ge=0, description="after the first epoch and every so many; 0: never, epochs")
    ] = 20
    batch: Annotated[int, Meta(ge=1, le=1024, description="random training samples, 1")] = 16
    bonds: Annotated[
        int, Meta(ge=0, description="random bonds whose difference is measured on the rig, 1")
    ] = 6
    step: Annotated[
        float, Meta(gt=0, description="of the differences, up and down from a stiffness, N/m")
    ] = 8.0

    def due(self, epoch: int, epochs: int) -> bool:
        """Return whether there is a check after this epoch, counted from 1."""
        if not self.every:
            return False
        return epoch == 1 or epoch % self.every == 0 or epoch == epochs


@dataclass(frozen=True)
class GradientCheck:
    """A gradient measured in place beside a reference."""

    reference: Reference
    bonds: IntArray  # (n,), from 0
    measured: Array  # (n,), m/N
    expected: Array  # (n,), m/N


def draw(
    settings: GradientCheckSettings, train: IntArray, bonds: int, seed: int, epoch: int
) -> tuple[IntArray, IntArray]:
    """Return the samples and the bonds of a check, a pure function of seed and epoch."""
    random = np.random.default_rng([seed, STREAM_CHECK, epoch])
    samples = random.choice(train, min(settings.batch, len(train)), replace=False)
    chosen = random.choice(bonds, min(settings.bonds, bonds), replace=False)
    return samples, np.sort(chosen).astype(np.int64)


@dataclass(frozen=True)
class Differences:
    """Difference quotients of the loss of every sample of a batch."""

    slopes: Array  # (batch, n), m/N
    smooth: BoolArray  # (batch, n), whether the quotient stands for a derivative


def differences(
    bench: AbstractBench[E],
    task: AbstractStaticTask,
    batch: IntArray,
    bonds: IntArray,
    step: float,
) -> Differences:
    """Return ∂L/∂k of some bonds by central differences measured on the rig.

    bonds: (n,), from 0. step: N/m, up and down; the quotient is over
    what the rig says it applied. Afterwards the stiffness is what it was before.
    Raises InputError when a bond does not answer to the step, RunError when the stiffness
    read back afterwards is not what it was.
    """
    before = bench.read_stiffness()
    loads = task.loads(batch)
    slopes, smooth = [], []
    for bond in bonds:
        ends = []  # stiffness, displacements and losses above and below
        for change in (step, -step):
            trial = before.copy()
            trial[bond] += change
            stiffness = float(bench.set_stiffness(trial)[bond])
            displacement = bench.settle(loads).displacement
            ends.append((stiffness, displacement, task.loss(displacement, batch)))
        (k_up, up, loss_up), (k_down, down, loss_down) = ends
        if k_up <= k_down:
            raise InputError(
                f"training.check.step: bond {bond + 1} stayed at {k_up} N/m when asked to move "
                f"by {step} N/m; take a larger step"
            )
        slopes.append((loss_up - loss_down) / (k_up - k_down))
        smooth.append(_bend(task, up, down, batch) < BEND_MAX)
    bench.set_stiffness(before)
    found = bench.read_stiffness()
    if not np.array_equal(found, before):
        bond = int(np.abs(found - before).argmax())
        raise RunError(
            f"gradient check: bond {bond + 1} was at {before[bond]} N/m before the differences "
            f"and reads {found[bond]} N/m after them; check the actuator"
        )
    return Differences(np.array(slopes).T, np.array(smooth).T)


def compare(products: Array, quotients: Differences, bonds: IntArray) -> GradientCheck:
    """Return the in-situ gradient beside the difference quotients of the same samples.

    products: (batch, bonds of the network), of one local product per sample and bond, m/N.
    Samples whose loss is not smooth over a step are left out of both sides for that bond.
    """
    count = quotients.smooth.sum(0)  # (n,)
    kept = count > 0
    measured, expected = (
        np.where(quotients.smooth, values, 0.0).sum(0)[kept] / count[kept]
        for values in (products[:, bonds], quotients.slopes)
    )
    return GradientCheck("differences", bonds[kept], measured, expected)


def _bend(task: AbstractStaticTask, up: Array, down: Array, batch: IntArray) -> Array:
    """Return how much the slope of the loss changes from one end to the other: (batch,), 1."""
    above, below = task.adjoint_loads(up, batch), task.adjoint_loads(down, batch)
    size = np.maximum(np.linalg.norm(above, axis=1), np.linalg.norm(below, axis=1))
    change = np.linalg.norm(above - below, axis=1)
    return np.asarray(np.divide(change, size, out=np.zeros(len(batch)), where=size > 0))
