"""The contract of dynamics: accelerations from positions, velocities and inputs.

State x = (q, v), v = q̇: nx = 2 nq. A model is a plug: a controller does not know whether
equations or a network answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from hil.types import Array, BoolArray


class Linearisation(NamedTuple):
    """Acceleration at a point and its slopes there."""

    acceleration: Array  # (…, nq), 1/s² times the unit of q
    by_state: Array  # (…, nq, nx), ∂a/∂x
    by_input: Array  # (…, nq, nu), ∂a/∂u


class AbstractDynamics(ABC):
    """q̈ = f(q, v, u), in SI."""

    @property
    @abstractmethod
    def nq(self) -> int:
        """Number of positions."""

    @property
    @abstractmethod
    def nu(self) -> int:
        """Number of inputs."""

    @abstractmethod
    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq), for q, v (batch, nq) and u (batch, nu)."""

    @abstractmethod
    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its exact slopes at one state (nx,) and input (nu,).

        Many points at once, x (n, nx) and u (n, nu), give arrays with a leading n.
        """

    @property
    def nx(self) -> int:
        """Number of states."""
        return 2 * self.nq


class PoseStep(NamedTuple):
    """The next poses, and which of them were found."""

    q: Array  # (batch, nq)
    solved: BoolArray  # (batch,); where it is False, q is the best that was met
    iterations: int  # of the slowest


class AbstractPoseDynamics(ABC):
    """The next pose from the last two, a period apart: no velocity is measured or guessed."""

    @property
    @abstractmethod
    def nq(self) -> int:
        """Number of positions."""

    @property
    @abstractmethod
    def nu(self) -> int:
        """Number of inputs."""

    @property
    @abstractmethod
    def period(self) -> float:
        """Time between two poses, s."""

    @abstractmethod
    def step(self, before: Array, now: Array, u_before: Array, u_now: Array) -> PoseStep:
        """Return the poses after `now`.

        before, now: (batch, nq). u_before, u_now: (batch, nu), the mean inputs of the period
        from `before` to `now` and of the period that follows. Where a step has no answer
        that could be found, `solved` says so.
        """


class AbstractLearnedDynamics(AbstractDynamics):
    """Dynamics found in data: they hold near the data, and say how far away a point is."""

    @abstractmethod
    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of x (nx,), u (nu,) from the data; up to 1 it is to be trusted."""


class Weights(Protocol):
    """What training finds."""

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
