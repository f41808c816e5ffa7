"""Behaviour: under one load, chosen nodes are to move as wanted.

Li & Mao, Nat. Commun. 15:10528 (2024), figure 2: 5 g hang from node 11; of nodes 13 and 14
either one is to do all of the vertical motion, or each is to sag by a given length.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import AbstractMeasuredTask
from hil.tasks.classification import Floor, Node, Y, cross_entropy, cross_entropy_slope, shares
from hil.types import Array, IntArray


class BehaviourSettings(Settings, frozen=True, kw_only=True):
    """What hangs where, and what is to move how."""

    input: Annotated[Node, Meta(description="node that is loaded downwards")] = 11
    outputs: Annotated[
        tuple[Node, ...], Meta(min_length=2, description="nodes whose u_y is read")
    ] = (13, 14)
    force: Annotated[float, Meta(gt=0, le=10, description="that is learned with, N")] = 0.049
    loss: Annotated[
        Literal["cross_entropy", "mse"],
        Meta(description="one output's share of Σ|u_y|, or distance from `targets`"),
    ] = "cross_entropy"
    winner: Annotated[Node, Meta(description="output that is to move alone; cross_entropy")] = 13
    targets: Annotated[
        tuple[float, ...], Meta(description="u_y of each output under `force`, m; mse")
    ] = (-0.0005, -0.0008)
    floor: Floor = 0.0
    tested: Annotated[
        int, Meta(ge=1, le=1000, description="smaller loads it is tested with, evenly spaced, 1")
    ] = 9

    def __post_init__(self) -> None:
        """Refuse a winner that is not read and targets that do not fit the outputs."""
        if len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"`outputs` names a node twice: {list(self.outputs)}")
        if self.loss == "cross_entropy" and self.winner not in self.outputs:
            raise ValueError(f"`winner`: {self.winner} is not among `outputs`")
        if self.loss == "mse" and len(self.targets) != len(self.outputs):
            raise ValueError(
                f"`targets` has {len(self.targets)} entries for {len(self.outputs)} outputs"
            )


class Behaviour(AbstractMeasuredTask):
    """One load case to learn; smaller loads, which a linear network answers alike, to test.

    The loss is the cross-entropy −log p of the winner's share p = |u_y| / Σ|u_y|, or
    ½ Σ (u_y − target)² in m², targets in proportion to the load.
    """

    Settings: ClassVar[type[BehaviourSettings]] = BehaviourSettings

    def __init__(self, settings: BehaviourSettings, *, geometry: Geometry, seed: int = 0) -> None:
        self._inputs = (settings.input - 1,)
        self._outputs = tuple(node - 1 for node in settings.outputs)
        self._read = np.array([geometry.dof(node, Y) for node in self._outputs])
        self._mse, self._floor = settings.loss == "mse", settings.floor
        count = 1 + settings.tested
        share = np.arange(count, 0, -1) / count  # the whole load first
        self._loads = np.zeros((count, len(geometry.free_dofs)))
        self._loads[:, geometry.dof(self._inputs[0], Y)] = -settings.force * share
        self._targets = share[:, None] * np.array(settings.targets)[None]  # mse alone
        self._winner = 0 if self._mse else settings.outputs.index(settings.winner)

    @property
    def train(self) -> IntArray:
        """The whole load."""
        return np.zeros(1, dtype=np.int64)

    @property
    def test(self) -> IntArray:
        """The smaller loads."""
        return np.arange(1, len(self._loads), dtype=np.int64)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The node that is loaded."""
        return self._inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes whose vertical displacement is read."""
        return self._outputs

    def loads(self, batch: IntArray) -> Array:
        """Return the load of each sample: (batch, dof), N."""
        return self._loads[batch]

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return the loss of each sample: (batch,), 1 or m²."""
        u = displacement[:, self._read]
        if self._mse:
            return np.asarray(0.5 * ((u - self._targets[batch]) ** 2).sum(1))
        return cross_entropy(u, self._winners(batch), self._floor)

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement, zero but at the outputs: (batch, dof), 1/m or m."""
        u = displacement[:, self._read]
        loads = np.zeros(displacement.shape)
        if self._mse:
            loads[:, self._read] = self._targets[batch] - u
        else:
            loads[:, self._read] = -cross_entropy_slope(u, self._winners(batch), self._floor)
        return loads

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return the winner's share, or 1 − |u − target| / |target|, at least 0: (batch,)."""
        u = displacement[:, self._read]
        if not self._mse:
            return np.asarray(shares(u)[:, self._winner])
        wanted = self._targets[batch]
        error = np.linalg.norm(u - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        return np.asarray(np.clip(1.0 - error, 0.0, 1.0))

    def _winners(self, batch: IntArray) -> IntArray:
        return np.full(len(batch), self._winner, dtype=np.int64)
