"""Fits a Hamiltonian (HNN) or a Lagrangian (LNN) network to states and accelerations.

Both by the second-order steps of `hil.training.function_space`, their slopes by the weights in
full: the networks are small (two layers of 64: 4 400 weights).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hil.models.hnn import HnnModel
from hil.models.lnn import LnnModel
from hil.models.scalar_network import ScalarNetwork
from hil.training.function_space import Descent, descend
from hil.training.network import spread
from hil.types import Array

HIDDEN = (64, 64)
STEP = 1e-30


@dataclass
class EnergyProblem:
    """A residual and its slopes by the weights of a scalar network."""

    network: ScalarNetwork
    miss: Callable[[], Array]  # (m,)
    rows: Callable[[], Array]  # (m, p), of what is found, not of the residual
    held: Array | None = None  # rows where the kernel was asked last

    @property
    def flat(self) -> Array:
        """Return the weights."""
        return self.network.flat

    def residual(self) -> Array:
        """Return targets less what is found, (m,)."""
        return self.miss()

    def kernel(self) -> Array:
        """Return J Jᵀ, (m, m)."""
        self.held = self.rows()
        return np.asarray(self.held @ self.held.T)

    def back(self, dual: Array) -> Array:
        """Return Jᵀ dual, (p,), with the slopes of the last kernel."""
        assert self.held is not None, "the kernel comes first"
        return np.asarray(dual @ self.held)

    def along(self, change: Array) -> Array:
        """Return J change, (m,)."""
        return np.asarray(self.rows() @ change)


def hnn_problem(model: HnnModel, q: Array, v: Array, a: Array) -> EnergyProblem:
    """Return the misfit of Hamilton's equations, of forces first, then of velocities."""
    nq, network = model.nq, model.network
    z = np.concatenate([q, v], axis=1) / model.scale
    sizes = np.concatenate([spread(a), spread(v)])
    gain = np.concatenate([-1 / model.masses, 1 / model.masses]) / model.scale / sizes
    goal = np.concatenate([a, v], axis=1) / sizes

    def miss() -> Array:
        return np.asarray((goal - gain * network.gradient(z)).T.ravel())

    def rows() -> Array:
        one = np.eye(2 * nq)
        parts = [
            gain[i] * network.weight_slopes(z, np.broadcast_to(one[i], z.shape))
            for i in range(2 * nq)
        ]
        return np.concatenate(parts)

    return EnergyProblem(network, miss, rows)


def lnn_problem(model: LnnModel, q: Array, v: Array, a: Array) -> EnergyProblem:
    """Return the misfit of the acceleration.

    With f and M as in the model, δ(M⁻¹ f) = M⁻¹ (δf − δM M⁻¹ f), and what stands in brackets is
    the slope of ∂S/∂q less that of ∂S/∂v along the motion: one complex step gives it.
    """
    nq, network = model.nq, model.network
    place, speed = model.scale[:nq], model.scale[nq:]
    z = np.concatenate([q, v], axis=1) / model.scale
    size, none = spread(a), np.zeros((len(q), 0))

    def miss() -> Array:
        return np.asarray(((a - model.acceleration(q, v, none)) / size).T.ravel())

    def rows() -> Array:
        one = np.eye(2 * nq)
        along = np.concatenate([v / place, model.acceleration(q, v, none) / speed], axis=1)
        inverse = np.linalg.inv(model.parts(z)[2])  # (n, nq, nq)
        moved, parts = z + 1j * STEP * along, []
        for k in range(nq):
            by_q = network.weight_slopes(z, np.broadcast_to(one[k], z.shape))
            by_v = network.weight_slopes(moved, np.broadcast_to(one[nq + k], z.shape)).imag / STEP
            parts.append(speed[k] / place[k] * by_q - by_v)
        table = np.stack(parts, axis=1)  # (n, nq, p)
        found = (inverse @ table) * (speed / size)[:, None]
        return np.asarray(np.swapaxes(found, 0, 1).reshape(-1, found.shape[-1]))

    return EnergyProblem(network, miss, rows)


def fit_hnn(
    q: Array, v: Array, a: Array, masses: Array, *, seed: int, iterations: int = 50
) -> tuple[HnnModel, Descent]:
    """Return a Hamiltonian of states q, v and accelerations a (n, nq), its masses given."""
    random, nq = np.random.default_rng(seed), q.shape[1]
    scale = spread(np.concatenate([q, v], axis=1))
    model = HnnModel(ScalarNetwork.start(2 * nq, HIDDEN, random), scale, masses)
    return model, descend(hnn_problem(model, q, v, a), iterations=iterations)


def fit_lnn(
    q: Array, v: Array, a: Array, *, seed: int, iterations: int = 50
) -> tuple[LnnModel, Descent]:
    """Return a Lagrangian of states q, v and accelerations a (n, nq)."""
    random, nq = np.random.default_rng(seed), q.shape[1]
    scale = spread(np.concatenate([q, v], axis=1))
    model = LnnModel(ScalarNetwork.start(2 * nq, HIDDEN, random), scale)
    return model, descend(lnn_problem(model, q, v, a), iterations=iterations)
