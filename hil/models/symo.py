"""SyMo: a learned discrete Lagrangian that steps from poses alone.

A segment of one period h between two poses has, at its midpoint m and with its speed v,

    L_d = h ℓ(m, v, ū),   p⁺ = D₂ L_d + ½ h (B ū + F),   p⁻ = −D₁ L_d − ½ h (B ū + F)

and the forced discrete Euler–Lagrange equations say that the momenta of two segments agree at
the pose they share, p⁺(q₀, q₁) = p⁻(q₁, q₂) (Marsden & West, Acta Numerica 2001, §3.2; Santos,
Ekal & Ventura, L4DC 2022, for whom ū is the mean of the inputs at both ends). Without input and
friction the map is symplectic and keeps every momentum that belongs to a symmetry of ℓ,
whatever the network has learned. SyMo and E2E-SyMo are this one model; they differ in what
training minimises (`hil.training.fit_symo`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from hil.models.base import AbstractLearnedDynamics, AbstractPoseDynamics, Linearisation, PoseStep
from hil.models.lagrangian import LagrangianModel
from hil.models.lagrangian_forms import forms, push
from hil.models.lagrangian_weights import LagrangianSettings, LagrangianWeights
from hil.types import Array, BoolArray

CLOSE = 1e-8  # change of a pose, over 1 + its size: Newton's next would be its square
ITERATIONS = 30
HALVINGS = 12  # of a Newton step that does not bring the momenta closer


Layers = tuple[Array, ...]


class Momenta(NamedTuple):
    """Momenta of a segment at its two ends, and the slope of the first by the pose at its end."""

    before: Array  # (n, nq), p⁻
    after: Array  # (n, nq), p⁺
    before_by_end: Array  # (n, nq of p⁻, nq), ∂p⁻/∂q₂
    layers: Layers  # of the network at the midpoints, see `Jet`


class Root(NamedTuple):
    """Next poses, and the slopes they were found with."""

    q: Array  # (n, nq)
    solved: BoolArray  # (n,)
    iterations: int
    slope: Array  # (n, nq, nq), ∂p⁻/∂q₂; the unit matrix where not solved
    at: Array  # (n, nq), the poses it was taken at, a last step of Newton's away from q
    layers: tuple[Layers, Layers] | None  # of the network there: first segments, then second ones;
    # None where no iteration took all samples with it


class SymoModel(AbstractLearnedDynamics, AbstractPoseDynamics):
    """A learned discrete Lagrangian: poses to the next pose, and dynamics for a controller."""

    Settings = LagrangianSettings

    def __init__(self, settings: LagrangianSettings, weights: LagrangianWeights) -> None:
        self.settings, self.weights = settings, weights
        self.lagrangian = LagrangianModel(settings, weights)

    @classmethod
    def from_arrays(cls, settings: LagrangianSettings, arrays: Mapping[str, Array]) -> SymoModel:
        """Return a model of stored arrays; raises ConfigError as its weights do."""
        return cls(settings, LagrangianWeights.from_arrays(settings, arrays))

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self.settings.nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self.settings.nu

    @property
    def period(self) -> float:
        """Time between two poses, s."""
        return float(self.weights.period)

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq), of the learned H, V and D in continuous time."""
        return self.lagrangian.acceleration(q, v, u)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its exact slopes at one state and input, or many."""
        return self.lagrangian.linearise(x, u)

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of state x (nx,) and input u (nu,) from the data; 1 is the edge."""
        return self.lagrangian.domain(x, u)

    def step(self, before: Array, now: Array, u_before: Array, u_now: Array) -> PoseStep:
        """Return the poses after `now`, (batch, nq), by Newton's method in every sample."""
        found = next_pose(self.settings, self.weights, before, now, u_before, u_now)
        return PoseStep(found.q, found.solved, found.iterations)

    def momentum(self, before: Array, after: Array, u: Array) -> Array:
        """Return the discrete momentum p⁺, (batch, nq), at the end of a segment."""
        return momenta(self.settings, self.weights, before, after, u, curved=False).after

    def speed(self, before: Array, after: Array, u: Array) -> Array:
        """Return H⁻¹ p⁺, (batch, nq), at the end of a segment: v from poses, off by O(h²).

        A speed by differences, which belongs to the middle of the segment, is off by O(h).
        """
        p, inertia = self.momentum(before, after, u), self.lagrangian.inertia(after)
        return np.asarray(np.linalg.solve(inertia, p[..., None])[..., 0])

    def energy(self, before: Array, after: Array, u: Array) -> Array:
        """Return ½ vᵀ H v + V, (batch,), J, at the end of a segment, v as `speed` has it."""
        p, v = self.momentum(before, after, u), self.speed(before, after, u)
        return np.asarray(0.5 * (p * v).sum(axis=1) + self.lagrangian.potential(after))


def momenta(
    settings: LagrangianSettings, weights: LagrangianWeights, q0: Array, q1: Array, u: Array,
    curved: bool = True,
) -> Momenta:  # fmt: skip
    """Return the momenta of segments from q0 to q1 (n, nq) with mean inputs u (n, nu).

    curved: False leaves ∂²ℓ/∂q² out of the slope, a part of order h², for half the work.
    """
    h = float(weights.period)
    f = forms(settings, weights, 0.5 * (q0 + q1), (q1 - q0) / h, u, curved)
    half = 0.5 * h * (f.by_q + f.friction + push(settings, u))
    by_v_by_q = f.by_qv.swapaxes(1, 2)
    slope = (
        0.5 * by_v_by_q + f.by_vv / h
        - 0.5 * (0.5 * h * (f.by_qq + f.friction_by_q) + f.by_qv + f.friction_by_v)
    )  # fmt: skip
    return Momenta(f.by_v - half, f.by_v + half, slope, f.layers)


def next_pose(
    settings: LagrangianSettings,
    weights: LagrangianWeights,
    before: Array,
    now: Array,
    u_before: Array,
    u_now: Array,
    start: Array | None = None,
    close: float = CLOSE,
) -> Root:
    """Solve p⁻(now, q) = p⁺(before, now) for q in every sample by itself.

    Newton's method from `start`, or from 2 now − before; a step is halved until the momenta
    come closer. A sample whose momenta are not numbers, or stop coming closer, is not solved.
    close: a step below it, over 1 + the size of the pose, is the last; the pose is then good to
    about its square, the slope to itself.
    """
    q = 2.0 * now - before if start is None else start.copy()
    solved: BoolArray = np.zeros(len(q), dtype=bool)
    slopes = np.broadcast_to(np.eye(q.shape[1]), (*q.shape, q.shape[1])).copy()
    given = np.concatenate([before, now, u_before, u_now, q], axis=1)
    active = np.flatnonzero(np.isfinite(given).all(axis=1))
    iteration = 0
    if not len(active):
        return Root(q, solved, iteration, slopes, q, None)
    wanted, count = np.zeros_like(q), len(active)
    begin = np.concatenate([before[active], now[active]])
    end = np.concatenate([now[active], q[active]])
    u = np.concatenate([u_before[active], u_now[active]])
    both = momenta(settings, weights, begin, end, u, curved=False)  # near enough for a first step
    wanted[active] = both.after[:count]
    left, slope = both.before[count:] - wanted[active], both.before_by_end[count:]
    at, layers = q.copy(), None
    while len(active) and iteration < ITERATIONS:
        iteration += 1
        change, regular = _solve(slope, left)
        moved = q[active] - change
        near = np.abs(change).max(axis=1) <= close * (1.0 + np.abs(moved).max(axis=1))
        done = near & regular & (iteration > 1)  # by an exact slope
        rows = active[done]
        q[rows], solved[rows], slopes[rows] = moved[done], True, slope[done]
        on = regular & ~done
        active, moved, change = active[on], moved[on], change[on]
        best, left, slope = np.linalg.norm(left[on], axis=1), left[on], slope[on]
        waiting, accepted = np.arange(len(active)), np.zeros(len(active), dtype=bool)
        for _ in range(HALVINGS):
            if not len(waiting):
                break
            rows = active[waiting]
            with np.errstate(over="ignore", invalid="ignore"):
                trial = momenta(settings, weights, now[rows], moved[waiting], u_now[rows])
                miss = trial.before - wanted[rows]
                good = (np.linalg.norm(miss, axis=1) < best[waiting]) | near[on][waiting]
            taken = waiting[good]
            left[taken], slope[taken], accepted[taken] = miss[good], trial.before_by_end[good], True
            at[rows[good]] = moved[taken]
            if len(taken) == len(q):
                layers = (tuple(part[:, :count] for part in both.layers), trial.layers)
            elif layers is not None:
                for kept, new in zip(layers[1], trial.layers, strict=True):
                    kept[:, rows[good]] = new[:, good]
            waiting = waiting[~good]
            change[waiting] *= 0.5
            moved[waiting] = q[active[waiting]] - change[waiting]
        active, left, slope = active[accepted], left[accepted], slope[accepted]
        q[active] = moved[accepted]
    return Root(q, solved, iteration, slopes, at, layers)


def _solve(slope: Array, right: Array) -> tuple[Array, BoolArray]:
    """Return slope⁻¹ right, (n, nq), and where there is one; elsewhere zero."""
    finite = np.isfinite(np.concatenate([slope, right[:, :, None]], axis=2)).all(axis=(1, 2))
    with np.errstate(all="ignore"):
        volume = np.linalg.det(np.where(finite[:, None, None], slope, 0.0))
    regular: BoolArray = np.abs(volume) > 0.0
    found = np.zeros_like(right)
    if regular.any():
        found[regular] = np.linalg.solve(slope[regular], right[regular][..., None])[..., 0]
    return found, regular
