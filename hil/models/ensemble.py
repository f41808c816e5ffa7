"""Several networks that learned the same: their mean, and an interval that is calibrated.

Where the members disagree the data said little. Their disagreement alone is no interval: it is
multiplied by a factor found on data that none of them learned from (split conformal prediction,
Lei et al., Journal of the American Statistical Association 113, 2018; the error is taken over
the deviation of the members), which then covers the stated part of what was drawn like it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.fnode import FnodeModel
from hil.types import Array


class EnsembleModel(AbstractLearnedDynamics):
    """The mean of networks as dynamics, with an interval of each acceleration.

    factor: (nq,), half widths over the deviation of the members. floor: (nq,), the least
    deviation, 1/s² times the unit of q: what the members cannot know, such as noise.
    """

    def __init__(self, members: Sequence[FnodeModel], factor: Array, floor: Array) -> None:
        self.members = tuple(members)
        self.factor = factor
        self.floor = floor

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self.members[0].nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self.members[0].nu

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return the mean q̈, (n, nq), for q, v (n, nq) and u (n, nu), SI."""
        return np.asarray(self._all(q, v, u).mean(axis=0))

    def deviation(self, q: Array, v: Array, u: Array) -> Array:
        """Return the deviation of the members with its floor, (n, nq)."""
        spread = self._all(q, v, u).std(axis=0, ddof=1)
        found: Array = np.sqrt(spread**2 + self.floor**2)
        return found

    def interval(self, q: Array, v: Array, u: Array) -> tuple[Array, Array]:
        """Return the lower and upper end of each acceleration, (n, nq)."""
        middle, half = self.acceleration(q, v, u), self.factor * self.deviation(q, v, u)
        return middle - half, middle + half

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return the mean acceleration and its slopes at x (nx,), u (nu,), or many."""
        found = [member.linearise(x, u) for member in self.members]
        return Linearisation(*(np.mean(parts, axis=0) for parts in zip(*found, strict=True)))

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of x (nx,), u (nu,) from the data of the farthest member."""
        return max(member.domain(x, u) for member in self.members)

    def _all(self, q: Array, v: Array, u: Array) -> Array:
        return np.stack([member.acceleration(q, v, u) for member in self.members])
