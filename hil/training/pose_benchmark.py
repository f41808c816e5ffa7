"""Trajectories of known systems, and one measure of every model learned from their poses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings, Table
from hil.mechanics.integrate import Stepper, held_inputs
from hil.mechanics.multibody.base import AbstractMultibody
from hil.models.lagrangian import LagrangianModel
from hil.models.lagrangian_weights import LagrangianSettings
from hil.models.symo import SymoModel
from hil.training.fit import Motion
from hil.training.fit_symo import triples
from hil.types import Array

SUBSTEPS = 20  # of Runge-Kutta in a period: the truth is good to 1e-10


class CaseSettings(Settings, frozen=True, kw_only=True):
    """A system, how its trajectories begin, and what learns it."""

    name: Annotated[str, Meta(min_length=1)]
    system: Table  # kind = "hil.mechanics.multibody.…:…" and its parameters
    network: LagrangianSettings
    period: Annotated[float, Meta(gt=0, description="h, s")]
    positions: Annotated[tuple[float, ...], Meta(description="± of the first pose, SI")]
    speeds: Annotated[tuple[float, ...], Meta(description="± of the first speeds, SI")]
    centre: tuple[float, ...] = ()  # of the first pose; none: zero
    rollout_centre: tuple[float, ...] = ()  # of rollouts; none: that of the others
    input: Annotated[float, Meta(gt=0, description="±, constant in a trajectory, N or N·m")] = 2.0
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128)  # trajectories to learn from
    rollout_steps: Annotated[int, Meta(ge=3)] = 500
    damping: tuple[float, ...] = ()  # the true diagonal of D, where there is friction


class Trajectories(NamedTuple):
    """Motions of a system under constant inputs; the speeds are for measuring only."""

    q: Array  # (n, steps, nq)
    v: Array  # (n, steps, nq)
    u: Array  # (n, nu)

    def motions(self, period: float) -> list[Motion]:
        """Return the poses and inputs."""
        steps = self.q.shape[1]
        return [
            Motion(period, q, np.broadcast_to(u, (steps, len(u))))
            for q, u in zip(self.q, self.u, strict=True)
        ]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model is: squares are means over poses and coordinates, in SI."""

    test: float  # of the next pose
    test_full: float  # of the next pose and its speed, which is H⁻¹ p⁺
    unsolved: int  # test samples without an answer
    integration: list[float]  # per rollout without input, of all its poses
    energy: list[float]  # per rollout: rms of E − mean E, by discrete momenta, J
    inertia: float  # of the entries of H, along true trajectories
    damping: list[float]  # diagonal of D, mean along true trajectories; empty without


def draw(
    system: AbstractMultibody, case: CaseSettings, count: int, steps: int,
    random: np.random.Generator, *, driven: bool = True,
) -> Trajectories:  # fmt: skip
    """Return trajectories whose first state and input are uniform within the case's ranges."""
    nq = system.nq
    centre = case.centre if driven or not case.rollout_centre else case.rollout_centre
    spread = np.array([*case.positions, *case.speeds])
    x = random.uniform(-1.0, 1.0, (count, 2 * nq)) * spread
    x[:, :nq] += np.array(centre or (0.0,) * nq)
    u = random.uniform(-1.0, 1.0, (count, system.nu)) * (case.input if driven else 0.0)
    held = np.broadcast_to(u, (steps - 1, *u.shape))
    states = held_inputs(system.acceleration, x, held, case.period, SUBSTEPS).swapaxes(0, 1)
    return Trajectories(states[..., :nq], states[..., nq:], u)


def measure(
    model: SymoModel, system: AbstractMultibody, test: Trajectories, rollouts: Trajectories
) -> Measure:
    """Return how good a model is on trajectories it has not seen."""
    samples = triples(test.motions(model.period))
    found = model.step(samples.first, samples.second, samples.u_first, samples.u_second)
    miss = found.q - samples.third
    speed = model.speed(samples.second, found.q, samples.u_second)
    off = speed - test.v[:, 2:].reshape(-1, system.nq)
    path, energy = roll(model, rollouts.q[:, 0], rollouts.q[:, 1], rollouts.q.shape[1])
    poses = test.q.reshape(-1, system.nq)
    inertia = model.lagrangian.inertia(poses) - system.mass_matrix(poses)
    damping = np.einsum("nii->ni", model.lagrangian.damping(poses)).mean(axis=0)
    return Measure(
        test=float((miss**2).mean()),
        test_full=float(0.5 * ((miss**2).mean() + (off**2).mean())),
        unsolved=int((~found.solved).sum()),
        integration=((path - rollouts.q) ** 2).mean(axis=(1, 2)).tolist(),
        energy=energy.std(axis=1).tolist(),
        inertia=float((inertia**2).mean()),
        damping=[] if model.settings.damping == "none" else damping.tolist(),
    )


def measure_states(
    model: LagrangianModel, system: AbstractMultibody, period: float, step: Stepper,
    test: Trajectories, rollouts: Trajectories,
) -> Measure:  # fmt: skip
    """Return how good a model is that steps from states, and is given them.

    The same figures as `measure`: the next pose of the same samples, and the motion from the
    true first state. Energy is that of the model at its states.
    """
    x = np.concatenate([test.q, test.v], axis=2)[:, 1:-1].reshape(-1, 2 * system.nq)
    u = np.repeat(test.u, test.q.shape[1] - 2, axis=0)
    ahead = step(model.acceleration, x, u, period)
    truth = np.concatenate([test.q, test.v], axis=2)[:, 2:].reshape(ahead.shape)
    miss, nq = (ahead - truth) ** 2, system.nq
    first = np.concatenate([rollouts.q[:, 0], rollouts.v[:, 0]], axis=1)
    still = np.zeros((rollouts.q.shape[1] - 1, len(first), system.nu))
    with np.errstate(all="ignore"):
        path = held_inputs(model.acceleration, first, still, period, 1, step).swapaxes(0, 1)
        q, v = path[..., :nq], path[..., nq:]
        inertia = model.inertia(q.reshape(-1, nq)).reshape(*q.shape, nq)
        energy = 0.5 * np.einsum("ski,skij,skj->sk", v, inertia, v)
        energy += model.potential(q.reshape(-1, nq)).reshape(energy.shape)
        off = ((q - rollouts.q) ** 2).mean(axis=(1, 2))
    poses = test.q.reshape(-1, nq)
    return Measure(
        test=float(miss[:, :nq].mean()),
        test_full=float(miss.mean()),
        unsolved=int((~np.isfinite(miss)).any(axis=1).sum()),
        integration=np.where(np.isfinite(off), off, 1e300).tolist(),
        energy=np.nan_to_num(energy.std(axis=1), nan=1e300, posinf=1e300).tolist(),
        inertia=float(((model.inertia(poses) - system.mass_matrix(poses)) ** 2).mean()),
        damping=[],
    )


def roll(model: SymoModel, first: Array, second: Array, steps: int) -> tuple[Array, Array]:
    """Return poses (n, steps, nq) from two on, without input, and energies (n, steps − 1), J."""
    still = np.zeros((len(first), model.nu))
    poses, energies = [first, second], [model.energy(first, second, still)]
    while len(poses) < steps:
        found = model.step(poses[-2], poses[-1], still, still)
        poses.append(found.q)
        energies.append(model.energy(poses[-2], poses[-1], still))
    return np.stack(poses, axis=1), np.stack(energies, axis=1)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile."""
    lower, middle, upper = np.quantile(np.asarray(values), [0.25, 0.5, 0.75])
    return float(middle), float(lower), float(upper)
