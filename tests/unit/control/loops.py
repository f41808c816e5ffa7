"""Closed loops of the cart-pole, with equations of their own, and who runs in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics, Linearisation
from hil.types import Array

START = np.array([np.pi / 6, 1.0, 0.0, 0.0])
OPEN = (-np.inf, np.inf)
PAPER: dict[str, Any] = {
    "input_limits": ((-50.0, 50.0),),
    "state_limits": ((-np.pi / 2, np.pi / 2), (-10.0, 10.0), OPEN, OPEN),
}


def settings(**changes: Any) -> MpcSettings:
    """Return the paper's problem, changed."""
    return MpcSettings(**{**PAPER, **changes})


def mpc(**changes: Any) -> LinearMpc:
    """Return the fast controller of the paper's problem, changed."""
    return LinearMpc(settings(**changes), dynamics=CartPoleModel())


def slope(x: Array, u: float) -> Array:
    """Return ẋ from the mass matrix: M = m = 1, l = 0.5, point mass, no friction."""
    theta, _, omega, speed = x
    m, length, g = 1.0, 0.5, 9.81
    mass = [[m * length**2, m * length * np.cos(theta)], [m * length * np.cos(theta), 2.0]]
    force = [m * g * length * np.sin(theta), u + m * length * omega**2 * np.sin(theta)]
    return np.array([omega, speed, *np.linalg.solve(mass, force)])


def plant(x: Array, u: float, dt: float = 0.05, parts: int = 10) -> Array:
    """Return the state a period later with u held: RK4 in fine steps."""
    h = dt / parts
    for _ in range(parts):
        k1 = slope(x, u)
        k2 = slope(x + h / 2 * k1, u)
        k3 = slope(x + h / 2 * k2, u)
        k4 = slope(x + h * k3, u)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@dataclass
class Loop:
    """What happened."""

    states: list[Array] = field(default_factory=list)  # at which a plan was asked for
    inputs: list[float] = field(default_factory=list)
    solutions: list[Solution] = field(default_factory=list)
    cost: float = 0.0  # Σ xᵀx + u²
    norms: list[float] = field(default_factory=list)  # every 2 s, of 0.05 s

    @property
    def bounded_share(self) -> float:
        """Share of the steps whose plan has active bounds."""
        return float(np.mean(["bounds active" in s.detail for s in self.solutions]))


def run(
    controller: AbstractController, start: Array = START, steps: int = 200, kick: float = 0.0
) -> Loop:
    """Close the loop; kick: m/s the cart is given every 0.5 s, to and fro.

    Ends early at a solution that is not optimal; it is the last in the record.
    """
    loop, x = Loop(), start
    for k in range(steps):
        if kick and k % 10 == 0:
            x = x + np.array([0.0, 0.0, 0.0, kick * (1.0 if k % 20 else -1.0)])
        solution = controller.solve(x, np.zeros(4))
        loop.states.append(x)
        loop.solutions.append(solution)
        if solution.status is not SolutionStatus.OPTIMAL:
            break
        u = float(solution.inputs[0, 0])
        loop.inputs.append(u)
        loop.cost += float(x @ x + u * u)
        x = plant(x, u)
        if (k + 1) % 40 == 0:
            loop.norms.append(float(np.linalg.norm(x)))
    return loop


class LinearDynamics(AbstractDynamics):
    """q̈ = S x + G u + f: a plug with any number of positions and inputs."""

    def __init__(self, by_state: Array, by_input: Array, constant: Array) -> None:
        self.by_state, self.by_input, self.constant = by_state, by_input, constant

    @property
    def nq(self) -> int:
        return len(self.by_state)

    @property
    def nu(self) -> int:
        return int(self.by_input.shape[1])

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        x = np.concatenate([q, v], axis=1)
        return x @ self.by_state.T + u @ self.by_input.T + self.constant

    def linearise(self, x: Array, u: Array) -> Linearisation:
        lead = x.shape[:-1]
        return Linearisation(
            x @ self.by_state.T + u @ self.by_input.T + self.constant,
            np.broadcast_to(self.by_state, (*lead, *self.by_state.shape)),
            np.broadcast_to(self.by_input, (*lead, *self.by_input.shape)),
        )
