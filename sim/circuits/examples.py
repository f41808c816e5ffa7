"""One, two or seven gyroscopes, nudged now and then: what circuits are checked with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import Array, IntArray
from sim.circuits.netlist import CircuitParts, Netlist, netlist
from sim.instruments.gyro_machine import AnalogErrors, GyroMachine
from sim.instruments.machine import Batch, Scales

STEP = 0.05  # s
SCALES = Scales(position=1.0, velocity=4.0, force=10.0, time=1e-3)
UNIT = np.array([1.0, 1.0, 4.0, 4.0])  # SI, of a state
HELD = 20  # steps between two changes of the nudges


@dataclass(frozen=True)
class Case:
    """A network, what it is made of, and one run of it, in machine units."""

    network: GyroNetwork
    parameters: GyroParameters
    nudges: Array  # (steps, n, 2)
    initial: Array  # (n, 4)

    def truth(self) -> Array:
        """Return the states (steps + 1, n, 4) by RK4 with eight steps in one."""
        found = self.network.rollout(
            self.parameters, self.nudges[None] * SCALES.force, STEP,
            initial=(self.initial * UNIT)[None], substeps=8,
        )  # fmt: skip
        return np.asarray(found[0] / UNIT)

    def predicted(self, errors: AnalogErrors) -> Array:
        """Return the states (steps + 1, n, 4) as the fast simulator has them."""
        machine = GyroMachine(errors, 0)
        machine.wire(self.network.geometry)
        machine.begin(self.batch())
        return np.stack([self.initial] + [machine.advance()[0] for _ in self.nudges])

    def circuit(self, parts: CircuitParts, driven: IntArray | None = None) -> Netlist:
        """Return the circuit, with sources on the gyroscopes `driven`, default all."""
        return netlist(
            self.network.geometry, self.parameters, SCALES, parts,
            driven=np.arange(self.network.n) if driven is None else driven, initial=self.initial,
        )  # fmt: skip

    def batch(self) -> Batch:
        """Return the run as an instrument gives it to its machine."""
        return Batch(
            self.parameters, SCALES, np.arange(self.network.n), self.nudges[None],
            self.initial[None], STEP, 1, 0, 0,
        )  # fmt: skip


def case(n: int, steps: int = 100, seed: int = 0) -> Case:
    """Return a gyroscope, two, or one with six around it; nudges change every 20 steps."""
    random = np.random.default_rng(seed)
    angle = np.arange(6) * np.pi / 3
    nodes = np.concatenate((np.zeros((1, 2)), np.stack((np.cos(angle), np.sin(angle)), 1)))[:n]
    springs = [
        (i, j) for i in range(n) for j in range(i) if np.linalg.norm(nodes[i] - nodes[j]) < 1.1
    ]
    geometry = GyroGeometry(nodes, np.array(springs, dtype=np.int64).reshape(-1, 2))
    parameters = GyroParameters(
        mass=np.exp(0.1 * random.standard_normal(n)),
        length=np.exp(0.1 * random.standard_normal(n)),
        gamma=2.0 * random.standard_normal(n),
        stiffness=5.0 * np.exp(0.3 * random.standard_normal(len(springs))),
    )
    nudges = 0.15 * random.standard_normal((-(-steps // HELD), n, 2)).repeat(HELD, axis=0)[:steps]
    initial = np.zeros((n, 4))
    initial[0] = 0.3, -0.2, 0.2, 0.1
    return Case(GyroNetwork(geometry), parameters, nudges, initial)


def distance(a: Array, b: Array, of: Array) -> float:
    """Return a − b over `of`, root mean square of all states and samples."""
    return float(np.sqrt(((a - b) ** 2).mean() / (of**2).mean()))
