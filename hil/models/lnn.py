"""LNN: a Lagrangian as a network of positions and velocities, of no form.

    a = (∂²L/∂v²)⁻¹ (∂L/∂q − ∂²L/∂v∂q v)

After Cranmer et al., "Lagrangian Neural Networks" (ICLR workshop 2020). To the network's answer
½ |v|² over its scale is added, a mass of one to begin with: ∂²L/∂v² of a random network is
about nothing, and its inverse anything.
"""

from __future__ import annotations

import numpy as np

from hil.models.base import AbstractDynamics, Linearisation
from hil.models.scalar_network import ScalarNetwork
from hil.types import AnyArray, Array


class LnnModel(AbstractDynamics):
    """A learned Lagrangian; scale: (2 nq,), of (q, v) as they enter the network."""

    def __init__(self, network: ScalarNetwork, scale: Array) -> None:
        self.network, self.scale = network, scale

    @property
    def nq(self) -> int:
        """Number of positions."""
        return len(self.scale) // 2

    @property
    def nu(self) -> int:
        """Number of inputs: none."""
        return 0

    def energy(self, q: Array, v: Array) -> AnyArray:
        """Return v·∂L/∂v − L, (n,), which the motion keeps; in a unit of its own."""
        z = np.concatenate([q, v], axis=1) / self.scale
        speed = z[:, self.nq :]
        moved = (speed * self.network.gradient(z)[:, self.nq :]).sum(1)
        return np.asarray(moved - self.network.value(z) + 0.5 * (speed * speed).sum(1))

    def parts(self, z: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Return ∂L/∂q (n, nq), ∂²L/∂v∂q (n, nq, nq) and ∂²L/∂v² (n, nq, nq), scaled."""
        first, second = self.network.slopes(z)
        nq = self.nq
        return first[:, :nq], second[:, nq:, :nq], second[:, nq:, nq:] + np.eye(nq)

    def acceleration(self, q: Array, v: Array, u: Array) -> AnyArray:
        """Return q̈, (n, nq), for q, v (n, nq); u (n, 0). Complex numbers pass."""
        place, speed = self.scale[: self.nq], self.scale[self.nq :]
        z = np.concatenate([q / place, v / speed], axis=1)
        by_q, mixed, mass = self.parts(z)
        force = by_q / place * speed - (mixed @ (v / place)[..., None])[..., 0]
        solved = np.linalg.solve(mass, force[..., None])[..., 0]
        return np.asarray(solved * speed)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its slopes at x (nx,), or many, by complex steps."""
        points, nq, step = np.atleast_2d(x), self.nq, 1e-30
        moved = (points[:, None] + 1j * step * np.eye(2 * nq)).reshape(-1, 2 * nq)
        none = np.zeros((len(moved), 0))
        slopes = self.acceleration(moved[:, :nq], moved[:, nq:], none).imag / step
        by_state = np.swapaxes(slopes.reshape(len(points), 2 * nq, nq), 1, 2)
        value = np.asarray(self.acceleration(points[:, :nq], points[:, nq:], none[: len(points)]))
        found = Linearisation(value, by_state, np.zeros((len(points), nq, 0)))
        return found if x.ndim == 2 else Linearisation(*(part[0] for part in found))
