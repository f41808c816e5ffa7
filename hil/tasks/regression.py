"""Regression: a force goes in at one node, two others are to move in proportion to it.

Li & Mao, Nat. Commun. 15:10528 (2024), figure 3.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.mechanics.geometry import Geometry
from hil.tasks.base import AbstractMeasuredTask
from hil.tasks.classification import Node, Share, X, Y, split
from hil.types import Array, IntArray

STREAM_FORCES, STREAM_NOISE = 121, 122  # of the random numbers of a seed
TARGET_MIN = 1e-12  # m; a target smaller than this has no relative error

Slope = Annotated[tuple[float, float], Meta(description="of u_x and u_y over the force, m/N")]


class RegressionSettings(Settings, frozen=True, kw_only=True):
    """Where the force goes in, and how which nodes are to follow it."""

    input: Annotated[Node, Meta(description="node that is loaded vertically")] = 11
    outputs: Annotated[
        tuple[Node, ...], Meta(min_length=1, description="nodes whose displacement is read")
    ] = (13, 14)
    slopes: Annotated[
        tuple[Slope, ...], Meta(min_length=1, description="wanted, one per output")
    ] = ((0.0, 0.016), (0.004, 0.016))
    force: Annotated[float, Meta(gt=0, le=10, description="largest magnitude, up or down, N")] = (
        0.196
    )
    samples: Annotated[int, Meta(ge=10, le=100_000, description="random forces, 1")] = 100
    noise: Annotated[
        float, Meta(ge=0, le=0.1, description="standard deviation of the targets, m")
    ] = 0.0
    train_share: Share = 0.7

    def __post_init__(self) -> None:
        """Refuse an output without a slope and a slope without an output."""
        if len(self.outputs) != len(self.slopes):
            raise ValueError(
                f"`slopes` has {len(self.slopes)} entries for {len(self.outputs)} outputs"
            )
        if len(set(self.outputs)) < len(self.outputs):
            raise ValueError(f"`outputs` names a node twice: {list(self.outputs)}")


class Regression(AbstractMeasuredTask):
    """Displacements learned as linear functions of one force.

    The loss of a sample is ½ Σ (u − target)² over all outputs and both axes, in m². With
    noise of standard deviation σ in every target no network has a mean loss much below
    ½ σ² per read-out. Raises ConfigError for a network that is not plane.
    """

    Settings: ClassVar[type[RegressionSettings]] = RegressionSettings

    def __init__(self, settings: RegressionSettings, *, geometry: Geometry, seed: int = 0) -> None:
        if geometry.dimensions != 2:
            raise ConfigError(
                f"task: regression reads u_x and u_y, the network has {geometry.dimensions} axes"
            )
        self._inputs = (settings.input - 1,)
        self._outputs = tuple(node - 1 for node in settings.outputs)
        self._dof = len(geometry.free_dofs)
        self._read = np.array([geometry.dof(n, axis) for n in self._outputs for axis in (X, Y)])
        count = settings.samples
        random = np.random.default_rng([seed, STREAM_FORCES])
        force = settings.force * random.uniform(-1.0, 1.0, count)
        self._loads = np.zeros((count, self._dof))  # (samples, dof), N
        self._loads[:, geometry.dof(self._inputs[0], Y)] = force
        noise = np.random.default_rng([seed, STREAM_NOISE]).standard_normal(
            (count, len(self._read))
        )
        self._targets = (  # (samples, read-outs), m
            force[:, None] * np.array(settings.slopes).ravel() + settings.noise * noise
        )
        nothing = np.zeros(count, dtype=np.int64)
        self._train, self._test = split(nothing, settings.train_share, "plain", seed)

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self._train

    @property
    def test(self) -> IntArray:
        """The samples that are not."""
        return self._test

    @property
    def inputs(self) -> tuple[int, ...]:
        """The node that is loaded."""
        return self._inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """Nodes whose displacement is read."""
        return self._outputs

    def loads(self, batch: IntArray) -> Array:
        """Return the force of each sample: (batch, dof), N."""
        return self._loads[batch]

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return ½ Σ (u − target)² of each sample: (batch,), m²."""
        return np.asarray(0.5 * (self._error(displacement, batch) ** 2).sum(1))

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return target − u at the read-outs, zero elsewhere: (batch, dof), m."""
        loads = np.zeros(displacement.shape)
        loads[:, self._read] = -self._error(displacement, batch)
        return loads

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return 1 − |u − target| / |target|, at least 0: (batch,), the paper's l2 accuracy."""
        size = np.linalg.norm(self._targets[batch], axis=1)
        error = np.linalg.norm(self._error(displacement, batch), axis=1)
        return np.asarray(np.clip(1.0 - error / np.maximum(size, TARGET_MIN), 0.0, 1.0))

    def _error(self, displacement: Array, batch: IntArray) -> Array:
        """Return how far each read-out is from its target: (batch, read-outs), m."""
        return np.asarray(displacement[:, self._read] - self._targets[batch])
