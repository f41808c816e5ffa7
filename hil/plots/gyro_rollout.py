"""What pictures of gyroscopes are drawn from: where they are, and where a stroke moves them.

A spring that is wrapped round an edge is drawn as two halves: one leaves the gyroscope where
it begins, the other comes back where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.mechanics.gyro_geometry import GyroGeometry
from hil.types import AnyArray, Array, IntArray


@dataclass(frozen=True)
class Marked:
    """A network whose gyroscopes are nudged (inputs, (k,)) and read (outputs), from 0."""

    geometry: GyroGeometry
    inputs: IntArray
    outputs: IntArray

    @property
    def spacing(self) -> float:
        """Distance of neighbours, m: the median of all springs at rest."""
        between = self.geometry.between
        return float(np.median(np.linalg.norm(between, axis=1))) if len(between) else 1.0

    @property
    def wrapped(self) -> AnyArray:
        """Which springs are wrapped round an edge, (springs,), boolean."""
        return np.asarray(self.geometry.offsets.any(axis=1))

    def box(self, margin: float) -> tuple[Array, Array]:
        """Return the corners around all gyroscopes at rest; margin: of a spacing, around them."""
        nodes, room = self.geometry.nodes, margin * self.spacing
        return nodes.min(axis=0) - room, nodes.max(axis=0) + room

    def elongation(self, q: Array) -> Array:
        """Return how much longer than at rest each spring is, (springs,), m; q: (n, 2), m."""
        return np.asarray(np.linalg.norm(self._between(q), axis=1) - self.geometry.lengths)

    def segments(self, q: Array | float = 0.0) -> tuple[Array, Array]:
        """Return springs as lines (…, 2 ends, 2): those inside, and the halves of wrapped ones.

        q: (n, 2), displacements, m. The two halves of a spring are neighbours.
        """
        near, far = self.geometry.springs.T
        at = self.geometry.nodes + q
        between, wrapped = self._between(at - self.geometry.nodes), self.wrapped
        inside = np.stack((at[near], at[far]), axis=1)[~wrapped]
        half = 0.5 * between[wrapped]
        leaving, coming = at[near[wrapped]], at[far[wrapped]]
        halves = np.stack(
            (np.stack((leaving, leaving + half), 1), np.stack((coming, coming - half), 1)), axis=1
        )
        return inside, halves.reshape(-1, 2, 2)

    def colored(self, rest: str, inputs: str, outputs: str) -> list[str]:
        """Return a colour for every gyroscope."""
        found = np.full(len(self.geometry.nodes), rest, dtype=object)
        found[self.inputs], found[self.outputs] = inputs, outputs
        return [str(color) for color in found]

    def _between(self, q: Array) -> Array:
        near, far = self.geometry.springs.T
        return np.asarray(self.geometry.between + q[far] - q[near])


@dataclass(frozen=True)
class Rollout:
    """A stroke on its way through a network.

    states: (steps + 1, n, 4), m and m/s. nudges: (steps, k, 2), N, each held for dt s.
    signal: (steps, 2), −1 to 1, where the pen was.
    """

    network: Marked
    states: Array
    nudges: Array
    signal: Array
    dt: float

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.nudges)

    @property
    def time(self) -> Array:
        """When each state was, (steps + 1,), s."""
        return np.asarray(self.dt * np.arange(self.steps + 1))

    def displacement(self, step: int) -> Array:
        """Return where every gyroscope is after `step` steps, from rest, (n, 2), m."""
        return np.asarray(self.states[step, :, :2])
