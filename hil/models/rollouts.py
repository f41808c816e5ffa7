"""What many sampled plans would cost: the plug of a sampling controller.

Every sample is a sequence of inputs v, and is followed as the policy

    u_k = clip(v_k − K (x_k − x̄_k)),

around the states x̄ of the plan the samples lie about. Without K (zeros), an unstable plant
spreads the samples by orders of magnitude within a horizon (the upright cart-pole by e^6 a second)
and hardly one is worth anything; with it they stay together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from hil.compiled import in_order, threaded
from hil.config import Settings
from hil.errors import ConfigError
from hil.mechanics.cart_pole_steps import constants, free_step
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.types import Array

TURN = 2 * np.pi


class Charges(NamedTuple):
    """What is charged for: Σ_{k<N} e_kᵀQ e_k + u_kᵀR u_k + e_NᵀP e_N, and ρ s² beyond limits."""

    q: Array  # (nx,), diagonal of Q
    r: Array  # (nu,), diagonal of R
    end: Array  # (nx, nx), P
    low: Array  # (nx,), limits of the states from x_1 on
    high: Array  # (nx,)
    penalties: Array  # (nx,), ρ; 0 where there is no limit
    turn: Array  # (nx,), 2π where that much more is the same; 0 elsewhere
    dt: float


class About(NamedTuple):
    """What the samples of one solve have in common."""

    start: Array  # (nx,)
    target: Array  # (nx,)
    gain: Array  # (nu, nx), K
    states: Array  # (N + 1, nx), x̄
    low: Array  # (nu,), limits of the input
    high: Array  # (nu,)


class Followed(NamedTuple):
    """What samples cost, and the cheapest of them as it went."""

    costs: Array  # (n,), not finite where a rollout is not
    inputs: Array  # (N, nu), of the cheapest, feedback and limits in it
    states: Array  # (N + 1, nx), of the cheapest


class NoSettings(Settings, frozen=True, kw_only=True):
    """Nothing to choose."""


class AbstractRollouts(ABC):
    """Follows samples with a model and charges them: `Rollouts(settings, dynamics=, charges=)`."""

    @abstractmethod
    def follow(self, about: About, samples: Array) -> Followed | None:
        """Return what samples (n, N, nu) cost, and the cheapest; None: no answer came in time."""


class BatchedRollouts(AbstractRollouts):
    """Asks any model for all samples at once, four times a period (RK4)."""

    Settings: ClassVar[type[NoSettings]] = NoSettings

    def __init__(
        self, settings: NoSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        self._dynamics, self._charges = dynamics, charges

    def follow(self, about: About, samples: Array) -> Followed:
        """Return what samples (n, N, nu) cost, and the cheapest."""
        c, (count, horizon, nu) = self._charges, samples.shape
        inputs = np.empty((horizon, count, nu))
        states = np.empty((horizon + 1, count, len(about.start)))
        states[0] = about.start
        costs = np.zeros(count)
        with np.errstate(over="ignore", invalid="ignore"):  # what is lost is not followed
            for k in range(horizon):
                x = states[k]
                u = inputs[k] = self._input(about, samples[:, k], x, k)
                costs += self._charged(about, x, k) + (u * u) @ c.r
                states[k + 1] = rk4(self._dynamics.acceleration, x, u, c.dt)
            x = states[-1]
            error = _error(x - about.target, c.turn)
            costs += self._charged(about, x, -1) - (error * error) @ c.q
            costs += np.einsum("ni,ij,nj->n", error, c.end, error)
        best = cheapest(costs)
        return Followed(costs, inputs[:, best].copy(), states[:, best].copy())

    def _input(self, about: About, v: Array, x: Array, k: int) -> Array:
        u: Array = np.clip(v - (x - about.states[k]) @ about.gain.T, about.low, about.high)
        return u

    def _charged(self, about: About, x: Array, k: int) -> Array:
        """Return what states (n, nx) cost; those at the start cannot be helped."""
        c, error = self._charges, _error(x - about.target, self._charges.turn)
        found: Array = (error * error) @ c.q
        if k != 0:
            beyond = np.maximum(np.maximum(c.low - x, x - c.high), 0.0)
            found += np.where(c.penalties > 0, c.penalties * beyond * beyond, 0.0).sum(axis=1)
        return found


class CompiledRollouts(AbstractRollouts):
    """The cart-pole's equations, sample by sample, in machine code.

    Raises ConfigError for another model.
    """

    Settings: ClassVar[type[NoSettings]] = NoSettings

    def __init__(
        self, settings: NoSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        if not isinstance(dynamics, CartPoleModel):
            raise ConfigError(
                f"control.rollouts.kind: CompiledRollouts knows the equations of a cart-pole, "
                f"not {type(dynamics).__name__}; leave it out"
            )
        self._charges = charges
        self._constants = constants(dynamics.parameters)
        self._constants[6:8] = 0.0  # no dry friction, as in the model

    def follow(self, about: About, samples: Array) -> Followed:
        """Return what samples (n, N, 1) cost, and the cheapest."""
        return Followed(*_followed(self._constants, self._charges, about, samples))


class FollowsSamples(Protocol):
    """A model that follows samples itself, since it is somewhere else."""

    def follow(self, charges: Charges, about: About, samples: Array) -> Followed | None:
        """Return what samples (n, N, nu) cost, and the cheapest; None: no answer came in time."""


class OwnRollouts(AbstractRollouts):
    """Lets the model follow the samples, which it can; raises ConfigError for one that cannot."""

    Settings: ClassVar[type[NoSettings]] = NoSettings

    def __init__(self, settings: NoSettings, *, dynamics: Any, charges: Charges) -> None:
        if not hasattr(dynamics, "follow"):
            raise ConfigError(
                f"control.rollouts.kind: {type(dynamics).__name__} follows no samples itself; "
                "leave it out"
            )
        self._dynamics: FollowsSamples = dynamics
        self._charges = charges

    def follow(self, about: About, samples: Array) -> Followed | None:
        """Return what samples (n, N, nu) cost, and the cheapest; None: no answer came in time."""
        return self._dynamics.follow(self._charges, about, samples)


def cheapest(costs: Array) -> int:
    """Return which of the costs (n,) is the least finite one; 0 where none is."""
    return int(np.argmin(np.where(np.isfinite(costs), costs, np.inf)))


def rollouts_for(dynamics: AbstractDynamics, charges: Charges) -> AbstractRollouts:
    """Return the fastest rollouts of a model; its own where it is elsewhere."""
    if hasattr(dynamics, "follow"):
        return OwnRollouts(NoSettings(), dynamics=dynamics, charges=charges)
    kind = CompiledRollouts if isinstance(dynamics, CartPoleModel) else BatchedRollouts
    return kind(NoSettings(), dynamics=dynamics, charges=charges)


def _error(gap: Array, turn: Array) -> Array:
    """Return states less their target, angles from half a turn below to half a turn above."""
    whole = np.where(turn > 0, turn, 1.0)
    found: Array = gap - np.where(turn > 0, whole * np.rint(gap / whole), 0.0)
    return found


@in_order
def _follow(
    p: Array, charges: Charges, about: About, sample: Array, inputs: Array, states: Array
) -> float:
    """Fill inputs (N, 1) and states (N + 1, 4) of one sample; return its cost."""
    horizon, total = len(sample), 0.0
    states[0] = about.start
    error = np.empty(4)
    for k in range(horizon + 1):
        for i in range(4):
            gap = states[k, i] - about.target[i]
            if charges.turn[i] > 0:
                gap -= charges.turn[i] * np.rint(gap / charges.turn[i])
            error[i] = gap
            if k > 0 and charges.penalties[i] > 0:
                beyond = max(charges.low[i] - states[k, i], states[k, i] - charges.high[i], 0.0)
                total += charges.penalties[i] * beyond * beyond
        if k == horizon:
            break
        u = sample[k, 0]
        for i in range(4):
            u -= about.gain[0, i] * (states[k, i] - about.states[k, i])
            total += charges.q[i] * error[i] * error[i]
        u = min(max(u, about.low[0]), about.high[0])
        total += charges.r[0] * u * u
        inputs[k, 0] = u
        theta, x, omega, speed = free_step(
            p, 1, 1, u, charges.dt, states[k, 0], states[k, 1], states[k, 2], states[k, 3]
        )
        states[k + 1, 0], states[k + 1, 1] = theta, x
        states[k + 1, 2], states[k + 1, 3] = omega, speed
    for i in range(4):
        for j in range(4):
            total += error[i] * charges.end[i, j] * error[j]
    return total


@threaded
def _followed(
    p: Array, charges: Charges, about: About, samples: Array
) -> tuple[Array, Array, Array]:
    """Return costs (n,), and inputs (N, 1) and states (N + 1, 4) of the cheapest sample."""
    count, horizon = samples.shape[0], samples.shape[1]
    costs, inputs, states = np.empty(count), np.empty((horizon, 1)), np.empty((horizon + 1, 4))
    best, least = 0, np.inf
    for n in range(count):
        costs[n] = _follow(p, charges, about, samples[n], inputs, states)
        if costs[n] < least:
            best, least = n, costs[n]
    if best != count - 1:  # the last one is there already
        _follow(p, charges, about, samples[best], inputs, states)
    return costs, inputs, states
