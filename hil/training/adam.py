"""Adam (Kingma & Ba, ICLR 2015, algorithm 1) with its state outside, to be saved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.types import Array


@dataclass(frozen=True)
class AdamState:
    """What Adam remembers between two steps."""

    first: Array  # (n,), running mean of the gradient, its unit
    second: Array  # (n,), running mean of its square
    steps: int  # taken so far

    @classmethod
    def start(cls, n: int) -> AdamState:
        """Return the state before the first step on n variables."""
        return cls(np.zeros(n), np.zeros(n), 0)


@dataclass(frozen=True)
class Adam:
    """A step of bounded length against a running mean of the gradient.

    rate: length of a step, unit of the variable. beta1, beta2: how much of the running
    means is kept. epsilon: keeps the division finite, unit of the gradient.
    """

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def step(self, gradient: Array, state: AdamState) -> tuple[Array, AdamState]:
        """Return the change of the variables, (n,), and the state after it.

        gradient: (n,). Neither argument is changed; equal arguments give equal bits.
        """
        steps = state.steps + 1
        first = self.beta1 * state.first + (1.0 - self.beta1) * gradient
        second = self.beta2 * state.second + (1.0 - self.beta2) * (gradient * gradient)
        unbiased = first / (1.0 - self.beta1**steps)
        spread = np.sqrt(second / (1.0 - self.beta2**steps))
        change = -self.rate * unbiased / (spread + self.epsilon)
        return change, AdamState(first, second, steps)
