"""The contracts of control: what is asked every period, and what comes back.

A controller never raises for "did not converge": its Solution says so, and the loop has a
declared answer to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

from hil.errors import StateError
from hil.types import Array


class SolutionStatus(StrEnum):
    """How a plan came about."""

    OPTIMAL = "optimal"
    SAMPLED = "sampled"  # the best that was found; nothing shows how far it is from optimal
    INFEASIBLE = "infeasible"  # no plan satisfies the constraints
    FAILED = "failed"  # the solver gave up or returned something that does not check
    OUTSIDE = "outside"  # state or input left the domain the model is trusted in

    @property
    def planned(self) -> bool:
        """Whether the controller that was asked has a plan."""
        return self in (SolutionStatus.OPTIMAL, SolutionStatus.SAMPLED)


@dataclass(frozen=True)
class Solution:
    """A plan over the horizon; `inputs` is empty unless there is one to follow."""

    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx), predicted
    status: SolutionStatus
    solve_us: float  # wall time of the solve, us
    detail: str = ""  # one line: what was found, by which path


class AbstractController(ABC):
    """Plans inputs from the present state."""

    @property
    @abstractmethod
    def horizon(self) -> int:
        """Number of periods N a plan covers."""

    @abstractmethod
    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return a plan from state x (nx,) towards the reference r (nx,).

        disturbance: an estimated constant d (nu,) that the plant adds to every input. The
        plan counters it, so that it leaves no steady error; None: none is known.
        """

    def prepare(self, x: Array, r: Array) -> None:  # noqa: B027 - there may be nothing to prepare
        """Do ahead of time what the first solve, from about state x (nx,) to r (nx,), needs.

        Before a rig is activated there is time; in a period there is not.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget warm starts: after a failure, a fault, a jump of the state."""


class AbstractEstimator(ABC):
    """Makes states of measurements."""

    @abstractmethod
    def update(self, y: Array, u: Array, periods: int = 1) -> Array:
        """Return x̂ (nx,) from a measurement y (ny,) and the input applied last time (nu,).

        periods: since the measurement before; more than one where some were missed. The
        input was applied during all of them.
        """

    def prepare(self, u: Array) -> None:  # noqa: B027 - there may be nothing to prepare
        """Do ahead of time what the next update needs of the input applied now (nu,).

        It changes no answer: between an input and the next measurement there is time.
        """

    def go_on_from(self, before: AbstractEstimator) -> None:
        """Take over the estimate of another estimator of the same rig, between two periods.

        Raises StateError where this kind of estimator cannot.
        """
        raise StateError(
            f"{type(self).__name__}: cannot go on from a {type(before).__name__}; "
            "do without an exchange"
        )

    @property
    @abstractmethod
    def disturbance(self) -> Array:
        """What the plant adds to every input, estimated: (nu,); zeros when not estimated."""

    @abstractmethod
    def reset(self, y: Array) -> None:
        """Begin again at rest at a measurement."""
