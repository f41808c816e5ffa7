"""HNN: a Hamiltonian as a network of positions and momenta, p = m v with masses that are given.

    q̇ = ∂H/∂p,   ṗ = −∂H/∂q

After Greydanus, Dzamba & Yosinski, "Hamiltonian Neural Networks" (NeurIPS 2019). The motion
keeps H, whatever was learned. As dynamics of second order, a = −(∂H/∂q) / m: where ∂H/∂p is
not p / m, what was learned contradicts the masses, and training says by how much.
"""

from __future__ import annotations

import numpy as np

from hil.models.base import AbstractDynamics, Linearisation
from hil.models.scalar_network import ScalarNetwork
from hil.types import AnyArray, Array


class HnnModel(AbstractDynamics):
    """A learned Hamiltonian; scale: (2 nq,), of (q, v) as they enter; masses: (nq,), kg."""

    def __init__(self, network: ScalarNetwork, scale: Array, masses: Array) -> None:
        self.network, self.scale, self.masses = network, scale, masses

    @property
    def nq(self) -> int:
        """Number of positions."""
        return len(self.masses)

    @property
    def nu(self) -> int:
        """Number of inputs: none."""
        return 0

    def hamiltonian(self, q: Array, v: Array) -> AnyArray:
        """Return H, (n,), J, up to a constant."""
        return self.network.value(np.concatenate([q, v], axis=1) / self.scale)

    def acceleration(self, q: Array, v: Array, u: Array) -> AnyArray:
        """Return q̈, (n, nq), for q, v (n, nq); u (n, 0). Complex numbers pass."""
        z = np.concatenate([q, v], axis=1) / self.scale
        slope = self.network.gradient(z) / self.scale
        return np.asarray(-slope[:, : self.nq] / self.masses)

    def velocity(self, q: Array, v: Array) -> AnyArray:
        """Return ∂H/∂p, (n, nq), which a learned H should make equal to v."""
        z = np.concatenate([q, v], axis=1) / self.scale
        return np.asarray((self.network.gradient(z) / self.scale)[:, self.nq :] / self.masses)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its slopes at x (nx,), or many."""
        points = np.atleast_2d(x)
        first, second = self.network.slopes(points / self.scale)
        gain = -1 / (self.masses * self.scale[: self.nq])
        value = np.asarray(gain * first[:, : self.nq])
        by_state = np.asarray(gain[:, None] * second[:, : self.nq] / self.scale)
        found = Linearisation(value, by_state, np.zeros((len(points), self.nq, 0)))
        return found if x.ndim == 2 else Linearisation(*(part[0] for part in found))
