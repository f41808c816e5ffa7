"""Fits a Lagrangian through an explicit integrator to states, not to poses: L-NODE.

What SyMo is compared with (Santos, Ekal & Ventura, L4DC 2022, after Lutter et al., ICLR 2019,
and Zhong et al., ICLR 2020): the same network gives H and V, its accelerations go through a
step of Runge and Kutta, and the velocity the step ends with is compared with the next one. It
is given velocities, which no rig measures. Trained as SyMo is: Levenberg–Marquardt, the ridge
chosen on motions kept back.

The slopes by the weights are those of the acceleration half way, H⁻¹ ∂R/∂θ with R the residual
of the Euler–Lagrange equations there, up to terms of size h²; the residual itself is exact. R is
that of three poses a very small time ε apart (`hil.training.lagrangian_network`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hil.errors import RunError
from hil.mechanics.integrate import STEPPERS
from hil.models.fnode import Domain
from hil.models.lagrangian import LagrangianModel, motion_features
from hil.models.lagrangian_weights import LagrangianSettings
from hil.training.fit_symo import BLOCK, RIDGES
from hil.training.lagrangian_network import LagrangianNetwork, Triples
from hil.training.levenberg import minimise
from hil.types import Array

SHORT = 1e-4  # s, ε


@dataclass(frozen=True)
class Steps:
    """States, what they became one period later, and the input meanwhile."""

    q: Array  # (n, nq)
    v: Array  # (n, nq)
    u: Array  # (n, nu)
    q_next: Array  # (n, nq)
    v_next: Array  # (n, nq)

    @classmethod
    def of(cls, q: Array, v: Array, u: Array) -> Steps:
        """Return the steps of motions q, v (m, steps, nq) with inputs u (m, nu) that are held."""
        _, steps, nq = q.shape
        held = np.repeat(u, steps - 1, axis=0)
        parts = [part.reshape(-1, nq) for part in (q[:, :-1], v[:, :-1], q[:, 1:], v[:, 1:])]
        return cls(parts[0], parts[1], held, parts[2], parts[3])

    def some(self, rows: slice) -> Steps:
        """Return some of the steps."""
        return Steps(self.q[rows], self.v[rows], self.u[rows], self.q_next[rows], self.v_next[rows])


class LNodeResult(NamedTuple):
    """A fitted Lagrangian and how that went."""

    model: LagrangianModel
    ridge: float
    updates: int
    cpu_seconds: float


class StepSquares:
    """½ mean e² + ½ ridge |θ|²: e is the miss of the mean acceleration of a step."""

    def __init__(
        self, net: LagrangianNetwork, data: Steps, period: float, stepper: str, ridge: float
    ) -> None:
        self.net, self.data, self.ridge = net, data, ridge
        self.period, self.step = period, STEPPERS[stepper]

    def _errors(self, net: LagrangianNetwork, data: Steps) -> Array:
        model = LagrangianModel(net.settings, net.weights)
        x = np.concatenate([data.q, data.v], axis=1)
        with np.errstate(all="ignore"):
            ahead = self.step(model.acceleration, x, data.u, self.period)
        return np.asarray((ahead[:, net.settings.nq :] - data.v_next) / self.period)

    def loss(self, theta: Array) -> float:
        """Return the loss; infinite where a step has no answer."""
        try:
            with np.errstate(all="ignore"):
                errors = self._errors(self.net.with_flat(theta), self.data)
        except np.linalg.LinAlgError:
            return np.inf
        if not np.isfinite(errors).all():
            return np.inf
        return 0.5 * float((errors**2).mean()) + 0.5 * self.ridge * float(theta @ theta)

    def normal(self, theta: Array) -> tuple[Array, Array]:
        """Return curvature (p, p) and slope (p,) of the loss."""
        net = self.net.with_flat(theta)
        curvature, slope = np.zeros((len(theta), len(theta))), np.zeros(len(theta))
        for first in range(0, len(self.data.q), BLOCK):
            some = self.data.some(slice(first, first + BLOCK))
            rows = slopes(net, some)
            curvature += rows.T @ rows
            slope += self._errors(net, some).ravel() @ rows
        size = self.data.q.size
        curvature, slope = curvature / size, slope / size + self.ridge * theta
        curvature.flat[:: len(theta) + 1] += self.ridge
        return curvature, slope


def slopes(net: LagrangianNetwork, data: Steps) -> Array:
    """Return ∂q̈/∂θ half way of each step, (n nq, p); net: of period ε."""
    model = LagrangianModel(net.settings, net.weights)
    q, v = 0.5 * (data.q + data.q_next), 0.5 * (data.v + data.v_next)
    a = model.acceleration(q, v, data.u)
    there, bend = SHORT * v, 0.5 * SHORT**2 * a
    poses = Triples(q - there + bend, q, q + there + bend, data.u, data.u)
    along: Array = np.asarray(np.linalg.inv(model.inertia(q)) / SHORT)
    return net.rows(poses, along)


def fit_l_node(
    settings: LagrangianSettings,
    motions: Sequence[tuple[Array, Array]],
    inputs: Array,
    period: float,
    *,
    seed: int,
    stepper: str = "rk4",
    iterations: int = 40,
    held: float = 0.25,
    choosing: int = 32,
) -> LNodeResult:
    """Return the Lagrangian whose steps lead along motions of q and v, each (steps, nq).

    inputs: (motions, nu), held. The rest as for SyMo. Raises RunError where no ridge gives a
    model that steps through the motions kept back.
    """
    begin, random = time.process_time(), np.random.default_rng(seed)
    q, v = (np.stack([m[i] for m in motions]) for i in (0, 1))
    order = random.permutation(len(motions))[:choosing]
    back = min(len(order) - 1, max(1, round(held * len(order))))
    kept, away = np.sort(order[back:]), np.sort(order[:back])
    known, test, everything = (
        Steps.of(q[rows], v[rows], inputs[rows]) for rows in (kept, away, np.arange(len(q)))
    )
    poses = Triples(known.q, known.q + SHORT * known.v, known.q_next, known.u, known.u)
    net = LagrangianNetwork.start(settings, poses, SHORT, random)
    best, theta, updates = (net.flat, RIDGES[0], np.inf), net.flat.copy(), 0
    for ridge in RIDGES:
        problem = StepSquares(net, known, period, stepper, ridge)
        theta, state = minimise(problem, theta, iterations)
        updates += state.iteration
        loss = StepSquares(net, test, period, stepper, 0.0).loss(theta)
        if loss < best[2]:
            best = (theta, ridge, loss)
        elif loss > 10 * best[2]:
            break  # it follows what the other motions do not share
    if not np.isfinite(best[2]):
        raise RunError("fit: no ridge gave a model that steps through the motions kept back")
    problem = StepSquares(net, everything, period, stepper, best[1])
    theta, state = minimise(problem, best[0], iterations)
    net = net.with_flat(theta)
    z = motion_features(settings, net.weights, everything.q, everything.v, everything.u)
    model = LagrangianModel(settings, net.finished(Domain.around(z)))
    return LNodeResult(model, best[1], updates + state.iteration, time.process_time() - begin)
