"""What an emulator's coefficients really are, from motions that were meant to be known.

Random initial states are let go for a few steps, with random nudges on the gyroscopes that
can be nudged, and every gyroscope is recorded. Sought are the factors on the coefficients
that explain what was measured: least squares over positions and velocities after every step,
each in units of its own noise. The slope of that sum is exact (adjoint of the model), its
curvature in the quasi-Newton search starts from the accelerations along the motion,
∂v/∂θ ≈ ∫ ∂a/∂θ dt, which holds for slow springs only and need not hold for more. Factors are
expected around one (a prior of PRIOR): mass, spin and springs of a gyroscope that nobody
nudges can grow together without anybody seeing it, and then nobody needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from hil.errors import FaultError
from hil.mechanics.gyro_adjoint import GyroAdjoint, Tape
from hil.mechanics.gyro_network import CLAMP, GyroNetwork, GyroParameters
from hil.rigs.emulator_base import Calibration
from hil.types import Array, IntArray

CASES, STEPS = 400, 2
SHARE = 0.25  # of the machine's range that the motions start within
PRIOR = 0.05  # standard deviation of a factor before anything was measured
ROUNDS = 2  # in which the noise is estimated anew
SUBSTEPS = 4
SEARCH = 60  # quasi-Newton steps, at most


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
    cases = len(plan.inputs)
    if not cases:
        raise FaultError("calibrate: every motion overloaded the machine; widen its ranges")
    search = _Search(network, applied, plan, measured, step, driven, constants)
    factors = np.zeros(len(applied))  # logarithms
    for _ in range(ROUNDS):
        factors = search.better(factors)
    noise = search.noise(factors)
    spread = np.sqrt(np.diag(np.linalg.inv(search.curvature(factors, noise))))
    effective = applied * np.exp(factors)
    speed = float(np.sqrt((measured[:, 1:, :, 2:] ** 2).mean()))
    return Calibration(
        effective=effective,
        applied=applied,
        deviation=np.abs(effective) * spread,
        residual=float(noise[1]) / speed,
    )


class _Search:
    """The sum of squares that is made small, and what its search needs."""

    def __init__(
        self, network: GyroNetwork, applied: Array, plan: Experiment, measured: Array,
        step: float, driven: IntArray, constants: tuple[float, float],
    ) -> None:  # fmt: skip
        cases, self._steps = plan.inputs.shape[:2]
        self._network, self._applied, self._constants = network, applied, constants
        self._measured, self._driven, self._step = measured, driven, step
        self._nudges = plan.inputs.reshape(cases, self._steps, -1, 2)
        self._initial = plan.initial.reshape(cases, network.n, 4)
        self._columns = _columns(network)
        self._runner = GyroAdjoint(network, step / SUBSTEPS, inputs=driven, dtype=np.float64)

    def better(self, factors: Array) -> Array:
        """Return the factors that explain most, with the noise that `factors` leave."""
        noise = self.noise(factors)
        # In z = Lᵀ factors, L Lᵀ = curvature, the sum of squares is round to first order.
        lower = np.linalg.cholesky(self.curvature(factors, noise))

        def cost(z: Array) -> tuple[float, Array]:
            value, slope = self.cost(solve_triangular(lower.T, z), noise)
            return value, np.asarray(solve_triangular(lower, slope, lower=True))

        found = minimize(
            cost, lower.T @ factors, jac=True, method="L-BFGS-B", options={"maxiter": SEARCH}
        )
        return np.asarray(solve_triangular(lower.T, found.x))

    def noise(self, factors: Array) -> Array:
        """Return the standard deviation of what is left of position and velocity, (2,), SI."""
        left = np.stack([self._left(factors, k)[1] for k in range(1, self._steps + 1)])
        parts = np.sqrt((left.reshape(*left.shape[:-1], 2, 2) ** 2).mean(axis=(0, 1, 2, 4)))
        return np.asarray(np.maximum(parts, 1e-12))

    def cost(self, factors: Array, noise: Array) -> tuple[float, Array]:
        """Return half the weighted sum of squares with the prior, and its slope (size,)."""
        value, slope = 0.5 * float(factors @ factors) / PRIOR**2, factors / PRIOR**2
        values = self._applied * np.exp(factors)
        for k in range(1, self._steps + 1):
            tape, left = self._left(factors, k)
            weighted = left / np.repeat(noise, 2) ** 2
            value += 0.5 * float((weighted * left).sum())
            g = self._runner.backward(tape, -weighted)
            slope = slope + values * np.concatenate((g.mass, g.length, g.gamma, g.stiffness))
        return value, slope

    def curvature(self, factors: Array, noise: Array) -> Array:
        """Return about what `cost` curves by, (size, size)."""
        network, columns, size = self._network, self._columns, len(self._applied)
        parameters = _parameters(network, self._applied * np.exp(factors), self._constants)
        ends = [self._initial, *(self._left(factors, k + 1)[0].at(-1) for k in range(self._steps))]
        matrix = np.eye(size + 1) / PRIOR**2
        force = np.zeros((len(self._nudges), network.n, 2))
        slope = np.zeros((len(self._nudges), network.n, 2, columns.shape[1]))
        for k in range(self._steps):
            force[:, self._driven] = self._nudges[:, k]
            both = (_slopes(network, parameters, ends[j], force, columns) for j in (k, k + 1))
            slope += 0.5 * self._step * sum(both)
            blocks = np.einsum("cnai,cnaj->nij", slope, slope, optimize=True) / noise[1] ** 2
            np.add.at(matrix, (columns[:, :, None], columns[:, None, :]), blocks)
        return matrix[:size, :size]

    def _left(self, factors: Array, steps: int) -> tuple[Tape, Array]:
        """Return the model's run over some steps, and measured less model at its end."""
        parameters = _parameters(self._network, self._applied * np.exp(factors), self._constants)
        held = np.repeat(self._nudges[:, :steps], SUBSTEPS, axis=1)
        tape = self._runner.forward(parameters, held, self._initial)
        return tape, self._measured[:, steps] - tape.at(-1)


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
