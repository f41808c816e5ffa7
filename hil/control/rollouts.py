"""What many sampled plans would cost: the plug of a sampling controller.

Every sample is a sequence of inputs v, and is followed as the policy

    u_k = clip(v_k − K (x_k − x̄_k)),

around the states x̄ of the plan the samples lie about. Without K (zeros), an unstable plant
spreads the samples by orders of magnitude within a horizon (the upright cart-pole by e^6 a second)
and hardly one is worth anything; with it they stay together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hil.compiled import in_order, threaded
from hil.config import Settings
from hil.control.discretise import advance
from hil.errors import ConfigError
from hil.mechanics.cart_pole_steps import constants, free_step
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


class NoSettings(Settings, frozen=True, kw_only=True):
    """Nothing to choose."""


class AbstractRollouts(ABC):
    """Follows samples with a model and charges them: `Rollouts(settings, dynamics=, charges=)`."""

    @abstractmethod
    def costs(self, about: About, samples: Array) -> Array:
        """Return what samples (n, N, nu) cost, (n,); not finite where a rollout is not."""

    @abstractmethod
    def trace(self, about: About, sample: Array) -> tuple[Array, Array]:
        """Return inputs (N, nu) and states (N + 1, nx) of one sample (N, nu)."""


class BatchedRollouts(AbstractRollouts):
    """Asks any model for all samples at once, four times a period (RK4)."""

    Settings: ClassVar[type[NoSettings]] = NoSettings

    def __init__(
        self, settings: NoSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        self._dynamics, self._charges = dynamics, charges

    def costs(self, about: About, samples: Array) -> Array:
        """Return what samples (n, N, nu) cost, (n,)."""
        c, x = self._charges, np.tile(about.start, (len(samples), 1))
        total = np.zeros(len(samples))
        with np.errstate(over="ignore", invalid="ignore"):  # what is lost is not followed
            for k in range(samples.shape[1]):
                u = self._input(about, samples[:, k], x, k)
                total += self._charged(about, x, k) + (u * u) @ c.r
                x = advance(self._dynamics, x, u, c.dt, 4)
            error = _error(x - about.target, c.turn)
            total += self._charged(about, x, -1) - (error * error) @ c.q
            total += np.einsum("ni,ij,nj->n", error, c.end, error)
        return total

    def trace(self, about: About, sample: Array) -> tuple[Array, Array]:
        """Return inputs (N, nu) and states (N + 1, nx) of one sample (N, nu)."""
        inputs, states = np.empty_like(sample), np.empty_like(about.states)
        states[0] = about.start
        for k, v in enumerate(sample):
            inputs[k] = self._input(about, v[None], states[k][None], k)[0]
            states[k + 1] = advance(self._dynamics, states[k], inputs[k], self._charges.dt, 4)
        return inputs, states

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

    def costs(self, about: About, samples: Array) -> Array:
        """Return what samples (n, N, 1) cost, (n,)."""
        return _costs(self._constants, self._charges, about, samples)

    def trace(self, about: About, sample: Array) -> tuple[Array, Array]:
        """Return inputs (N, 1) and states (N + 1, 4) of one sample (N, 1)."""
        inputs, states = np.empty_like(sample), np.empty_like(about.states)
        _follow(self._constants, self._charges, about, sample, inputs, states)
        return inputs, states


def rollouts_for(dynamics: AbstractDynamics) -> dict[str, Any]:
    """Return the table of the fastest rollouts of a model in this process."""
    kind = CompiledRollouts if isinstance(dynamics, CartPoleModel) else BatchedRollouts
    return {"kind": f"{kind.__module__}:{kind.__name__}"}


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
def _costs(p: Array, charges: Charges, about: About, samples: Array) -> Array:
    """Return what samples (n, N, 1) cost, (n,)."""
    count, horizon = samples.shape[0], samples.shape[1]
    found, inputs, states = np.empty(count), np.empty((horizon, 1)), np.empty((horizon + 1, 4))
    for n in range(count):
        found[n] = _follow(p, charges, about, samples[n], inputs, states)
    return found
