"""Recordings of a simulated cart-pole as a rig would give them: poses only, quantised."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm, solve_discrete_are

from hil.mechanics.cart_pole import CartPole, CartPoleParameters
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.training.fit import Motion
from hil.types import Array

PERIOD = 0.005  # s
ANGLE_STEP = 2 * np.pi / 4096  # rad, an encoder of 4096 counts
POSITION_STEP = 50e-6  # m


def balanced_runs(
    seed: int,
    *,
    seconds: float = 30.0,
    runs: int = 4,
    force: float = 12.0,
    quantised: bool = True,
    parameters: CartPoleParameters | None = None,
) -> list[Motion]:
    """Return runs of the right equations, shaken about the upright; default M = m = 1, l = 0.5.

    An LQR with an observer on the quantised poses balances; a multisine and a pseudorandom
    binary signal, together about `force` newtons, shake. RK4, the force held for a period.
    """
    random = np.random.default_rng(seed)
    steps = round(seconds / PERIOD)
    gain, observer, a, b = _balance()
    shake = force * (_multisine(random, runs, steps) + 0.5 * _binary(random, runs, steps))
    plant = CartPole(parameters)
    x = np.zeros((runs, 4))
    x[:, :2] = random.normal(0.0, 0.05, (runs, 2))
    poses, inputs = np.empty((steps, runs, 2)), np.empty((steps, runs, 1))
    x_hat = x.copy()
    x_hat[:, 2:] = 0.0
    step = np.array([ANGLE_STEP, POSITION_STEP])
    for i in range(steps):
        y = np.round(x[:, :2] / step) * step if quantised else x[:, :2]
        x_hat = x_hat + (y - x_hat[:, :2]) @ observer.T
        u = -x_hat @ gain.T + shake[i, :, None]
        poses[i], inputs[i] = y, u
        x_hat = x_hat @ a.T + u @ b.T
        x = rk4(plant.acceleration, x, u, PERIOD)
    if not np.abs(poses[..., 0]).max() < 1.2:
        raise AssertionError("the balancing law lost the pole; excite it less")
    return [Motion(PERIOD, poses[:, run], inputs[:, run]) for run in range(runs)]


def _balance() -> tuple[Array, Array, Array, Array]:
    """Return LQR gain (1, 4), observer gain (4, 2), and the sampled linear model A, B."""
    at = CartPoleModel().linearise(np.zeros(4), np.zeros(1))
    big = np.zeros((5, 5))
    big[:2, 2:4] = np.eye(2)
    big[2:4, :4], big[2:4, 4:] = at.by_state, at.by_input
    held = expm(big * PERIOD)
    a, b = held[:4, :4], held[:4, 4:]
    cost = solve_discrete_are(a, b, np.diag([10.0, 20.0, 1.0, 1.0]), np.array([[0.1]]))
    gain = np.linalg.solve(0.1 + b.T @ cost @ b, b.T @ cost @ a)
    c = np.eye(4)[:2]
    noise = np.diag([1e-10, 1e-10, 1e-4, 1e-4])
    sensor = np.diag([ANGLE_STEP**2 / 12, POSITION_STEP**2 / 12])
    spread = solve_discrete_are(a.T, c.T, noise, sensor)
    return gain, spread @ c.T @ np.linalg.inv(c @ spread @ c.T + sensor), a, b


def _multisine(random: np.random.Generator, runs: int, steps: int) -> Array:
    """Return (steps, runs) of unit rms: 24 tones between 0.1 and 12 Hz, random phases."""
    tones = np.geomspace(0.1, 12.0, 24)
    time = np.arange(steps) * PERIOD
    phases = random.uniform(0, 2 * np.pi, (24, runs))
    waves = np.sin(2 * np.pi * tones[:, None, None] * time[None, :, None] + phases[:, None, :])
    total: Array = waves.sum(axis=0) / np.sqrt(12)
    return total


def _binary(random: np.random.Generator, runs: int, steps: int) -> Array:
    """Return (steps, runs) of +1 and −1, held for 100 ms."""
    hold = round(0.1 / PERIOD)
    levels = random.choice([-1.0, 1.0], (steps // hold + 1, runs))
    return np.repeat(levels, hold, axis=0)[:steps]
