"""A gyro network with the derivatives of where it ends: forward, backward, in compiled code.

The gradient is that of the discrete RK4 step (not of the differential equation), so it
agrees with finite differences of `GyroNetwork.rollout` to rounding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from hil.errors import MechanicsError
from hil.mechanics.gyro_kernel import Graph, Scratch, Slopes, Values, backward, forward
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.mechanics.lanes import LANES
from hil.types import AnyArray, Array, IntArray


class Tape(NamedTuple):
    """A forward run, as `backward` needs it: blocks of LANES samples."""

    parameters: GyroParameters
    nudges: AnyArray  # (blocks, steps, 2k, LANES)
    states: AnyArray  # (blocks, steps + 1, 4n, LANES)
    batch: int

    def at(self, step: int) -> Array:
        """Return the states after `step` steps (−1: the last), (batch, n, 4)."""
        return _samples(self.states[:, step], self.batch, 4)

    def trajectory(self) -> Array:
        """Return every state, (batch, steps + 1, n, 4)."""
        return np.stack([self.at(k) for k in range(self.states.shape[1])], axis=1)

    def largest_reach(self) -> float:
        """Return the largest |q|/L of any sample at any step."""
        length = np.abs(np.asarray(self.parameters.length))
        rows = self.states.reshape(*self.states.shape[:2], len(length), 4, LANES)
        squared = (rows[..., :2, :] ** 2).sum(axis=3).max(axis=(0, 1, 3))  # padding rests
        return float(np.sqrt(squared / length**2).max())


class GyroGradient(NamedTuple):
    """Derivatives of a loss."""

    mass: Array  # (n,)
    length: Array  # (n,)
    gamma: Array  # (n,)
    stiffness: Array  # (springs,)
    nudges: Array  # (batch, steps, k, 2)
    initial: Array  # (batch, n, 4)


class GyroAdjoint:
    """Runs a network and takes gradients, LANES samples side by side.

    inputs: (k,), gyroscopes that are nudged, from 0; default all. dtype: float32 for
    training, float64 to compare. threads: blocks of samples computed at the same time; the
    result does not depend on it. barrier: weight of the mean over steps and gyroscopes of
    max(0, |q|²/L² − free_reach)², whose slope `backward` adds to the gradient of the loss.
    One thread of the caller at a time.
    """

    def __init__(
        self,
        network: GyroNetwork,
        dt: float,
        *,
        inputs: IntArray | None = None,
        dtype: type[np.float32] | type[np.float64] = np.float32,
        threads: int = 1,
        barrier: float = 0.0,
        free_reach: float = 0.8,
    ) -> None:
        self.network, self.dt, self.dtype = network, dt, dtype
        self.barrier, self.free_reach = barrier, free_reach
        where = np.arange(network.n) if inputs is None else np.asarray(inputs, dtype=np.int64)
        self.inputs: IntArray = where
        geometry = network.geometry
        near, far = geometry.springs.T
        self._order = np.argsort(near, kind="stable")
        near, far = near[self._order], far[self._order]
        count = np.arange(network.n + 1)
        ending = np.argsort(far, kind="stable")
        self._graph = Graph(
            near, far,
            np.ascontiguousarray(geometry.between[self._order], dtype=dtype),
            np.asarray(geometry.lengths)[self._order].astype(dtype),
            np.searchsorted(near, count), np.searchsorted(far[ending], count), ending, where,
        )  # fmt: skip
        self._rooms = [self._room() for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def close(self) -> None:
        """End the threads, where there are any."""
        if self._pool is not None:
            self._pool.shutdown()

    def forward(
        self, parameters: GyroParameters, nudges: AnyArray, initial: AnyArray | None = None
    ) -> Tape:
        """Return the run under nudges (batch, steps, k, 2), N, each held for dt.

        initial: (batch, n, 4), default at rest. dt is not checked against the parameters:
        `GyroNetwork.check_step` does that, as often as parameters move. Raises
        MechanicsError for shapes that do not fit.
        """
        if nudges.ndim != 4 or nudges.shape[2:] != (len(self.inputs), 2):
            raise MechanicsError(
                f"nudges: expected (batch, steps, {len(self.inputs)}, 2), found {nudges.shape}"
            )
        p = parameters.broadcast(self.network.n, self.network.spring_count)
        batch, steps = nudges.shape[:2]
        blocks = self._blocks(nudges.reshape(batch, steps, -1))
        states = np.empty((len(blocks), steps + 1, 4 * self.network.n, LANES), self.dtype)
        states[:, 0] = 0.0 if initial is None else self._blocks(initial.reshape(batch, -1))
        values = self._values(p, batch, steps)

        def run(block: int, room: Scratch) -> None:
            forward(self._graph, values, blocks[block], states[block], room)

        self._each(run, len(blocks))
        return Tape(p, blocks, states, batch)

    def along(self, tape: Tape, states: AnyArray) -> Tape:
        """Return a tape that holds measured states (batch, steps + 1, n, 4) in place of its own.

        Raises MechanicsError for a shape that does not fit.
        """
        wanted = (tape.batch, tape.states.shape[1], self.network.n, 4)
        if states.shape != wanted:
            raise MechanicsError(f"measured states: expected {wanted}, found {states.shape}")
        return tape._replace(states=self._blocks(states.reshape(*states.shape[:2], -1)))

    def backward(self, tape: Tape, adjoint: AnyArray) -> GyroGradient:
        """Return the gradient of a loss whose slope by the last state is `adjoint`.

        adjoint: (batch, n, 4). The states on the tape need not be the model's own: with what
        was measured in their place (`along`), the gradient is taken along that.
        """
        p, steps = tape.parameters, tape.nudges.shape[1]
        blocks = self._blocks(np.asarray(adjoint).reshape(tape.batch, -1))
        by_nudges = np.empty_like(tape.nudges)
        n, s = self.network.n, self.network.spring_count
        count = len(blocks)
        slopes = Slopes(*(np.zeros((count, k, LANES), self.dtype) for k in (n, n, n, s)))
        values = self._values(p, tape.batch, steps)

        def run(block: int, room: Scratch) -> None:
            backward(
                self._graph, values, tape.nudges[block], tape.states[block], blocks[block],
                by_nudges[block], room, Slopes(*(a[block] for a in slopes)),
            )  # fmt: skip

        self._each(run, count)
        light, turn, squared, stiffness = (a.sum(axis=(0, 2), dtype=np.float64) for a in slopes)
        mass = np.asarray(p.mass)
        by_stiffness = np.empty(s)
        by_stiffness[self._order] = stiffness
        return GyroGradient(
            mass=-(light + turn * p.gamma) / mass**2,
            length=2.0 * squared * p.length,
            gamma=turn / mass,
            stiffness=by_stiffness,
            nudges=_samples(by_nudges, tape.batch, 2),
            initial=_samples(blocks, tape.batch, 4),
        )

    def barrier_cost(self, tape: Tape) -> float:
        """Return what the barrier adds to the loss of a run."""
        if not self.barrier:
            return 0.0
        n, steps = self.network.n, tape.nudges.shape[1]
        rows = tape.states.reshape(*tape.states.shape[:2], n, 4, LANES)
        squared = np.asarray(tape.parameters.length, self.dtype)[:, None] ** 2
        reach = (rows[..., 0, :] ** 2 + rows[..., 1, :] ** 2) / squared
        over = np.maximum(reach[:, 1:] - self.free_reach, 0.0)  # padding rests: costs nothing
        return float(self.barrier * (over**2).sum(dtype=np.float64) / (tape.batch * n * steps))

    def _each(self, run: Any, count: int) -> None:
        if self._pool is None:
            for block in range(count):
                run(block, self._rooms[0])
            return
        share = len(self._rooms)

        def mine(worker: int) -> None:
            for block in range(worker, count, share):
                run(block, self._rooms[worker])

        list(self._pool.map(mine, range(share)))

    def _values(self, p: GyroParameters, batch: int, steps: int) -> Values:
        kind = self.dtype
        mass = np.asarray(p.mass)
        weight = self.barrier / (batch * self.network.n * steps)
        return Values(
            (1.0 / mass).astype(kind), (p.gamma / mass).astype(kind),
            (np.asarray(p.length) ** 2).astype(kind),
            np.asarray(p.stiffness)[self._order].astype(kind),
            kind(p.gravity), kind(p.drag), kind(self.dt), kind(weight), kind(self.free_reach),
        )  # fmt: skip

    def _blocks(self, values: AnyArray) -> AnyArray:
        """Return (batch, …) as (blocks, …, LANES), the last one filled up with zeros."""
        batch = len(values)
        count = -(-batch // LANES)
        padded = np.zeros((count * LANES, *values.shape[1:]), self.dtype)
        padded[:batch] = values
        return np.ascontiguousarray(
            np.moveaxis(padded.reshape(count, LANES, *values.shape[1:]), 1, -1)
        )

    def _room(self) -> Scratch:
        n, s = self.network.n, self.network.spring_count
        rows = (4 * n,) * 3 + (2 * n,) * 5 + (2 * s,) * 2 + (2 * n,) * 6 + (4 * n,)
        return Scratch(*(np.zeros((count, LANES), self.dtype) for count in rows))


def _samples(blocks: AnyArray, batch: int, width: int) -> Array:
    """Return (blocks, …, rows, LANES) as (batch, …, rows / width, width), float64."""
    moved = np.moveaxis(blocks, -1, 1)
    rows = moved.reshape(-1, *blocks.shape[1:-2], blocks.shape[-2] // width, width)
    return np.asarray(rows[:batch], dtype=np.float64)
