"""What an emulator's coefficients really are, from motions that were meant to be known.

Random initial states are let go for a few steps, with random nudges on the gyroscopes that
can be nudged, and every gyroscope is recorded. The factors on the coefficients that explain
what was measured are found by Gauss-Newton: residuals from the full model, slopes from the
accelerations along it, ∂v/∂θ ≈ ∫ ∂a/∂θ dt, which is what the first steps are made of. Factors are
expected around one (a prior of PRIOR): mass, spin and springs of a gyroscope that nobody
nudges can grow together without anybody seeing it, and then nobody needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.errors import FaultError
from hil.mechanics.gyro_network import CLAMP, GyroNetwork, GyroParameters
from hil.rigs.emulator_base import Calibration
from hil.types import Array, IntArray

CASES, STEPS = 400, 2
SHARE = 0.25  # of the machine's range that the motions start within
PRIOR = 0.05  # standard deviation of a factor before anything was measured
ROUNDS = 4


@dataclass(frozen=True)
class Experiment:
    """Motions to be run."""

    inputs: Array  # (cases, steps, 2 driven), N
    initial: Array  # (cases, 4 n), m and m/s


def experiment(
    nodes: int, driven: int, position: float, velocity: float, force: float
) -> Experiment:
    """Return random motions inside a share of the ranges, the same ones every time."""
    random = np.random.default_rng(0)
    unit = np.array([position, position, velocity, velocity])
    initial = SHARE * unit * random.uniform(-1.0, 1.0, (CASES, nodes, 4))
    inputs = SHARE * force * random.uniform(-1.0, 1.0, (CASES, STEPS, 2 * driven))
    return Experiment(inputs, initial.reshape(CASES, -1))


def fit(
    network: GyroNetwork,
    applied: Array,
    plan: Experiment,
    measured: Array,
    step: float,
    driven: IntArray,
    constants: tuple[float, float],
) -> Calibration:
    """Return the coefficients that explain what was measured.

    applied: (size,), what the machine was told; measured: (cases, samples, n, 4), SI;
    constants: gravity in m/s² and drag in kg/m. Raises FaultError without a case to go by.
    """
    cases, steps = plan.inputs.shape[:2]
    if not cases:
        raise FaultError("calibrate: every motion overloaded the machine; widen its ranges")
    nudges = plan.inputs.reshape(cases, steps, -1, 2)
    initial = plan.initial.reshape(cases, network.n, 4)
    size, columns = len(applied), _columns(network)
    factors = np.zeros(size)  # logarithms
    for _ in range(ROUNDS):
        parameters = _parameters(network, applied * np.exp(factors), constants)
        model = network.rollout(
            parameters, nudges, step, inputs=driven, initial=initial, substeps=4
        )
        residual = (measured - model)[:, 1:, :, 2:]  # velocities: (cases, steps, n, 2)
        noise = float(residual.var()) or 1e-30
        matrix, right = np.eye(size + 1) / PRIOR**2, np.append(-factors, 0.0) / PRIOR**2
        force = np.zeros((cases, network.n, 2))
        slope = np.zeros((cases, network.n, 2, columns.shape[1]))
        for k in range(steps):
            force[:, driven] = nudges[:, k]
            ends = (_slopes(network, parameters, model[:, j], force, columns) for j in (k, k + 1))
            slope += 0.5 * step * sum(ends)
            blocks = np.einsum("cnai,cnaj->nij", slope, slope, optimize=True) / noise
            np.add.at(matrix, (columns[:, :, None], columns[:, None, :]), blocks)
            np.add.at(
                right,
                columns,
                np.einsum("cnai,cna->ni", slope, residual[:, k], optimize=True) / noise,
            )
        matrix, right = matrix[:size, :size], right[:size]
        factors = factors + np.linalg.solve(matrix, right)
    spread = np.sqrt(np.diag(np.linalg.inv(matrix)))
    effective = applied * np.exp(factors)
    speed = float(np.sqrt((measured[:, 1:, :, 2:] ** 2).mean()))
    return Calibration(
        effective=effective,
        applied=applied,
        deviation=np.abs(effective) * spread,
        residual=float(np.sqrt(noise)) / speed,
    )


def _parameters(
    network: GyroNetwork, values: Array, constants: tuple[float, float]
) -> GyroParameters:
    n = network.n
    mass, length, gamma, stiffness = np.split(values, [n, 2 * n, 3 * n])
    return GyroParameters(mass, length, gamma, stiffness, *constants)


def _columns(network: GyroNetwork) -> IntArray:
    """Return which coefficients act on a gyroscope by themselves, (n, 3 + most springs).

    Mass, length, gamma, then its springs; where there are fewer, an entry past the last one.
    """
    n, springs = network.n, network.spring_count
    of_node: list[list[int]] = [[i, n + i, 2 * n + i] for i in range(n)]
    for spring, ends in enumerate(network.geometry.springs.tolist()):
        for node in ends:
            of_node[node].append(3 * n + spring)
    width = max(map(len, of_node))
    none = 3 * n + springs
    return np.array([row + [none] * (width - len(row)) for row in of_node], dtype=np.int64)


def _slopes(
    network: GyroNetwork, p: GyroParameters, state: Array, force: Array, columns: IntArray
) -> Array:
    """Return ∂a/∂ln θ, (cases, n, 2, columns), at states (cases, n, 4)."""
    n = network.n
    q, v = state[..., :2], state[..., 2:]
    mass = np.asarray(p.mass)[:, None]
    turned = np.asarray(p.gamma)[:, None] / mass * np.stack((-v[..., 1], v[..., 0]), axis=-1)
    drag = p.drag * np.sqrt((v * v).sum(-1, keepdims=True)) * v
    pushed = (force - drag + network.spring_force(p, q)) / mass
    squared = np.asarray(p.length)[:, None] ** 2
    height = np.sqrt(np.maximum(squared - (q * q).sum(-1, keepdims=True), CLAMP**2 * squared))
    rod = p.gravity * q * squared / height**3
    geometry = network.geometry
    near, far = geometry.springs.T
    between = geometry.between + q[:, far] - q[:, near]
    distance = np.sqrt((between**2).sum(-1, keepdims=True))
    slack = np.asarray(geometry.lengths)[:, None] / distance
    pull = np.asarray(p.stiffness)[:, None] * (1.0 - slack) * between  # (cases, springs, 2)
    pull = np.concatenate((pull, np.zeros_like(pull[:, :1])), axis=1)  # of no spring
    mine = columns[:, 3:] - 3 * n
    sign = np.where(np.append(near, -1)[mine] == np.arange(n)[:, None], 1.0, -1.0)
    springs = sign[..., None] * pull[:, mine] / mass[:, None]  # (cases, n, width, 2)
    alone = np.stack((-turned - pushed, rod, turned), axis=-1)
    return np.concatenate((alone, np.moveaxis(springs, 2, 3)), axis=-1)
