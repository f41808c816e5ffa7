"""Calibration of stiff networks, where a step of the system is no short time."""

from __future__ import annotations

import numpy as np

from hil.mechanics.gyro_geometry import lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.rigs.emulator_calibration import experiment, fit

NETWORK = GyroNetwork(lattice(3, 3, wrap="x"))
DRIVEN = np.array([0, 6])
NOISE = np.array([1e-3, 1e-3, 4e-3, 4e-3])


def test_stiff_springs_are_found_as_well_as_it_says() -> None:
    """Springs of 35 rad/s, measured every 0.05 s; truth by a solver with error control."""
    random = np.random.default_rng(4)
    n, springs = NETWORK.n, NETWORK.spring_count
    applied = np.concatenate((
        random.uniform(0.4, 1.0, n), random.uniform(0.5, 1.5, n),
        random.uniform(1.0, 3.0, n), random.uniform(40.0, 120.0, springs),
    ))  # fmt: skip
    true = np.exp(0.05 * random.standard_normal(len(applied)))
    mass, length, gamma, stiffness = np.split(applied * true, [n, 2 * n, 3 * n])
    p = GyroParameters(mass, length, gamma, stiffness, 9.81, 0.05)
    assert NETWORK.fastest(p) > 25.0
    plan = experiment(n, len(DRIVEN), 1.0, 4.0, 20.0)
    states = NETWORK.adaptive(
        p, plan.inputs.reshape(*plan.inputs.shape[:2], -1, 2), 0.05, inputs=DRIVEN,
        initial=plan.initial.reshape(-1, n, 4), tolerance=1e-7,
    )  # fmt: skip
    noise = NOISE * random.standard_normal(states[:, 1:].shape)
    states[:, 1:] += np.cumsum(noise, axis=1)
    found = fit(NETWORK, applied, plan, states, 0.05, DRIVEN, (9.81, 0.05))
    error = found.effective / (applied * true) - 1.0
    assert np.std(error) < 0.2 * np.std(true)
    assert np.std(error * applied / found.deviation) < 2.0
    speed = np.sqrt((states[:, 1:, :, 2:] ** 2).mean())
    assert found.residual * speed < 1.5 * NOISE[2] * np.sqrt(1.5)
