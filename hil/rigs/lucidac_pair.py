"""Two linearised gyroscopes and a spring as eight integrators: ẋ = A x + B f, and its fit."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm
from scipy.optimize import least_squares

from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.rigs.emulator_base import Calibration
from hil.types import Array

STATES, NUDGES = 8, 4
ORDER = np.array([0, 1, 4, 5, 2, 3, 6, 7])  # of (q, v) in the state, gyroscope by gyroscope


class LinearPair:
    """The model; coefficients are mass, length, γ of both, stiffness: (7,), SI.

    offset: from the first gyroscope to the second, m; length: of the spring, m; gravity: m/s².
    """

    def __init__(self, offset: tuple[float, float], length: float, gravity: float) -> None:
        nodes = np.array([[0.0, 0.0], offset])
        geometry = GyroGeometry(nodes, np.array([[0, 1]]), lengths=np.array([length]))
        self.network = GyroNetwork(geometry)
        self.gravity = gravity

    def system(self, values: Array) -> tuple[Array, Array]:
        """Return A (8, 8) and B (8, 4) for the coefficients, SI."""
        mass, length, gamma, stiffness = np.split(values, [2, 4, 6])
        p = GyroParameters(mass, length, gamma, stiffness, gravity=self.gravity)
        a = self.network.linearise(p)[np.ix_(ORDER, ORDER)]
        b = np.zeros((STATES, NUDGES))
        for node in range(2):
            for axis in range(2):
                b[4 * node + 2 + axis, 2 * node + axis] = 1.0 / mass[node]
        return a, b

    def rollout(
        self, values: Array, nudges: Array, initial: Array, step: float, steps: int
    ) -> Array:
        """Return the exact states (cases, steps + 1, 8) under nudges (cases, 4) that are held."""
        a, b = self.system(values)
        whole = np.zeros((STATES + NUDGES, STATES + NUDGES))
        whole[:STATES, :STATES], whole[:STATES, STATES:] = a, b
        advance = expm(whole * step).T
        now = np.concatenate((initial, nudges), axis=1)
        found = [now]
        for _ in range(steps):
            found.append(found[-1] @ advance)
        return np.stack(found, axis=1)[:, :, :STATES]

    def fit(
        self, applied: Array, measured: Array, nudges: Array, initial: Array, step: float,
        unit: Array,
    ) -> Calibration:  # fmt: skip
        """Return the coefficients that explain measured states (cases, samples, 8).

        unit: (8,), what an error of 1 in each state is.
        """
        scale = np.where(applied == 0.0, 1.0, np.abs(applied))
        steps = measured.shape[1] - 1

        def residual(change: Array) -> Array:
            model = self.rollout(applied + change * scale, nudges, initial, step, steps)
            return np.asarray(((measured - model) / unit)[:, 1:].ravel())

        found = least_squares(residual, np.zeros(len(applied)), method="lm")
        noise = float(found.fun.std())
        spread = noise * np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
        return Calibration(
            effective=applied + found.x * scale,
            applied=applied.copy(),
            deviation=np.asarray(spread * scale),
            residual=noise / float((measured[:, 1:] / unit).std()),
        )
