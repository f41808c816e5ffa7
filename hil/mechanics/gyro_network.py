"""Gyroscopes on rods, joined by springs: equations of motion, energy, frequencies.

A gyroscope is a mass m at the end of a rod of length L, seen from above. With q its
displacement from rest, v its velocity and r = rest + q its position in the plane,

    v̇ = −g q/√(L² − |q|²) + (γ/m) J v
        + (1/m) (f − c |v| v + Σ_j K_ij (d_ij − ℓ_ij) (r_j − r_i)/d_ij)

with J v = (−v_y, v_x), nudges f, drag c and d_ij = |r_j − r_i| ("Machine Learning with
Dynamics", 2026). The spin γ does no work. L² − |q|² is held at (0.2 L)² from there on, so
that numbers stay finite when a gyroscope leaves its rod; that is no barrier (see `reach`).

Arrays of any leading dimensions, real or complex; the compiled twin is `gyro_adjoint`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import coo_array

from hil.errors import MechanicsError
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.types import AnyArray, Array, IntArray

GRAVITY = 9.8  # m/s²
DRAG = 0.05  # kg/m
CLAMP = 0.2  # of L: the height above the pivot below which the rod pulls no harder
RK4_REACH = 2.5  # |ω| dt that RK4 is trusted with; it is unstable from 2.83 on


@dataclass(frozen=True)
class GyroParameters:
    """What a network is made of, SI; a number stands for every gyroscope or spring.

    Leading dimensions, where there are any, are those of the states (one set per sample).
    """

    mass: Any = 1.0  # (…, n), m, kg
    length: Any = 1.0  # (…, n), L, m
    gamma: Any = 0.0  # (…, n), γ, kg/s
    stiffness: Any = 5.0  # (…, springs), K, N/m
    gravity: float = GRAVITY  # m/s²
    drag: float = DRAG  # c, kg/m

    def broadcast(self, nodes: int, springs: int) -> GyroParameters:
        """Return the same with arrays for n gyroscopes and their springs.

        Raises MechanicsError for a shape that does not fit and for what is not finite.
        """
        arrays: dict[str, Any] = {}
        for name, count in (("mass", nodes), ("length", nodes), ("gamma", nodes),
                            ("stiffness", springs)):  # fmt: skip
            value = np.asarray(getattr(self, name))
            if not value.ndim:
                value = np.full(count, value)
            if value.shape[-1] != count:
                raise MechanicsError(f"{name}: expected (…, {count}), found shape {value.shape}")
            if not np.isfinite(value).all():
                raise MechanicsError(f"{name}: not finite; give every entry a number")
            arrays[name] = value
        for name in ("mass", "length"):
            if (arrays[name] == 0).any():
                raise MechanicsError(f"{name}: 0 at a gyroscope; nothing moves such a thing")
        return replace(self, **arrays)

    def check_physical(self) -> None:
        """Raise MechanicsError for what no workshop makes: a mass, length or spring below 0."""
        for name, floor in (("mass", "above 0"), ("length", "above 0"), ("stiffness", "from 0 on")):
            value = np.real(np.asarray(getattr(self, name)))
            if (value < 0).any() or (floor == "above 0" and (value == 0).any()):
                raise MechanicsError(
                    f"{name}: {value.min():.3g} is not physical, expected {floor}; "
                    "set `free` where that is meant"
                )


class GyroNetwork:
    """Gyroscopes and springs; positions and springs are those of a `GyroGeometry`.

    q, v: (…, n, 2), displacement from rest in m and velocity in m/s. State: (…, n, 4) =
    (q_x, q_y, v_x, v_y). Nothing is kept between calls; a network may be shared by threads.
    """

    def __init__(self, geometry: GyroGeometry) -> None:
        self.geometry = geometry
        self.n = len(geometry.nodes)
        self.spring_count = len(geometry.springs)
        self._from, self._to = geometry.springs.T

    @cached_property
    def _incidence(self) -> Any:
        """(n, springs): +1 where a spring begins, whose pull it gets, −1 where it ends."""
        s = np.arange(self.spring_count)
        ones = np.ones(self.spring_count)
        entries = np.concatenate((ones, -ones))
        where = (np.concatenate((self._from, self._to)), np.concatenate((s, s)))
        return coo_array((entries, where), shape=(self.n, self.spring_count)).tocsr()

    def acceleration(
        self, parameters: GyroParameters, q: AnyArray, v: AnyArray, force: AnyArray | float = 0.0
    ) -> AnyArray:
        """Return v̇, (…, n, 2), under nudges `force`, (…, n, 2), N."""
        return self._acceleration(parameters.broadcast(self.n, self.spring_count), q, v, force)

    def _acceleration(
        self, p: GyroParameters, q: AnyArray, v: AnyArray, force: AnyArray | float
    ) -> AnyArray:
        m, gamma = _column(p.mass), _column(p.gamma)
        height = np.sqrt(self._height_squared(p, q))[..., None]
        speed = np.sqrt((v * v).sum(-1, keepdims=True))
        turned = np.stack((-v[..., 1], v[..., 0]), axis=-1)
        push = force - p.drag * speed * v + self.spring_force(p, q)
        found: AnyArray = -p.gravity * q / height + gamma / m * turned + push / m
        return found

    def spring_force(self, parameters: GyroParameters, q: AnyArray) -> AnyArray:
        """Return what the springs pull each gyroscope with, (…, n, 2), N."""
        if not self.spring_count:
            return np.zeros_like(q)
        between, distance = self._stretched(q)
        k = np.asarray(parameters.stiffness)
        pull = (k * (1.0 - self.geometry.lengths / distance))[..., None] * between
        flat = np.moveaxis(pull, -2, 0)
        force = self._incidence @ flat.reshape(self.spring_count, -1)
        return np.moveaxis(force.reshape(self.n, *flat.shape[1:]), 0, -2)

    def energy(self, parameters: GyroParameters, state: AnyArray) -> AnyArray:
        """Return kinetic energy plus that of rods and springs, (…,), J; 0 at rest.

        Without drag and nudges it stays what it is.
        """
        p = parameters.broadcast(self.n, self.spring_count)
        q, v = state[..., :2], state[..., 2:]
        squared = (q * q).sum(-1)
        length = np.asarray(p.length)
        height = np.sqrt(self._height_squared(p, q))
        # Below the clamp the rod pulls like a spring of constant g/(0.2 L).
        beyond = np.maximum((squared - (1.0 - CLAMP**2) * length**2).real, 0.0)
        rods = p.gravity * (np.abs(length) - height + beyond / (2.0 * CLAMP * np.abs(length)))
        found = (np.asarray(p.mass) * (0.5 * (v * v).sum(-1) + rods)).sum(-1)
        if self.spring_count:
            _, distance = self._stretched(q)
            stretch = distance - self.geometry.lengths
            found = found + 0.5 * (np.asarray(p.stiffness) * stretch**2).sum(-1)
        return np.asarray(found - self._energy_at_rest(p))

    def reach(self, parameters: GyroParameters, states: Array) -> Array:
        """Return |q|/L, (…, n); from √(1 − 0.2²) = 0.98 on the rod is no longer a rod."""
        q = states[..., :2]
        return np.asarray(np.sqrt((q * q).sum(-1)) / np.abs(np.asarray(parameters.length)))

    def stiffness_matrix(self, parameters: GyroParameters) -> Array:
        """Return −∂(force)/∂q of rods and springs at rest, (2n, 2n), N/m; x then y per node."""
        p = self._single(parameters)
        matrix = np.zeros((self.n, 2, self.n, 2))
        nodes = np.arange(self.n)
        matrix[nodes, :, nodes, :] += (p.mass * p.gravity / np.abs(p.length))[
            :, None, None
        ] * np.eye(2)
        between, distance = self._stretched(np.zeros((self.n, 2)))
        along = between / distance[:, None]
        slack = (self.geometry.lengths / distance)[:, None, None]
        blocks = np.asarray(p.stiffness)[:, None, None] * (
            (1.0 - slack) * np.eye(2) + slack * along[:, :, None] * along[:, None, :]
        )
        for a, b, sign in ((self._from, self._from, 1), (self._to, self._to, 1),
                           (self._from, self._to, -1), (self._to, self._from, -1)):  # fmt: skip
            for block, i, j in zip(sign * blocks, a, b, strict=True):
                matrix[i, :, j, :] += block
        return matrix.reshape(2 * self.n, 2 * self.n)

    def linearise(self, parameters: GyroParameters) -> Array:
        """Return A, (4n, 4n), of d(q, v)/dt = A (q, v) at rest; q = (x, y) per node."""
        p = self._single(parameters)
        size = 2 * self.n
        matrix = np.zeros((2 * size, 2 * size))
        matrix[:size, size:] = np.eye(size)
        matrix[size:, :size] = -self.stiffness_matrix(p) / np.repeat(p.mass, 2)[:, None]
        turn = p.gamma / p.mass
        x = size + 2 * np.arange(self.n)
        matrix[x, x + 1] = -turn
        matrix[x + 1, x] = turn
        return matrix

    def frequencies(self, parameters: GyroParameters) -> Array:
        """Return the frequencies of small motions about rest, (2n,), rad/s, ascending.

        Raises MechanicsError where rest is not stable: a negative mass or spring.
        """
        values = np.linalg.eigvals(self.linearise(parameters))
        if (values.real > 1e-6 * np.abs(values).max()).any():
            raise MechanicsError(
                f"gyro network: rest is unstable (grows at {values.real.max():.3g}/s); "
                "frequencies exist with positive masses and springs only"
            )
        return np.sort(np.abs(values.imag))[::2]

    def fastest(self, parameters: GyroParameters) -> float:
        """Return a bound on |ω| of small motions, rad/s, and what bounds no motion less.

        Row by row (Gershgorin): ω² ≤ ω |γ|/m + g/L + 2 Σ K/m. Holds for every graph and for
        springs as long as at rest; uneven sets of parameters count with their worst.
        """
        p = parameters.broadcast(self.n, self.spring_count)
        mass = np.abs(p.mass)
        half = np.abs(p.gamma) / mass / 2.0
        square = p.gravity / np.abs(p.length) + 2.0 * self._around(p) / mass
        return float((half + np.sqrt(half**2 + square)).max())

    def lightest(self, parameters: GyroParameters, dt: float) -> Array:
        """Return the least masses, (…, n), kg, that keep `fastest` · dt at 2.5, all else as it is.

        Raises MechanicsError for a rod too short for dt whatever its mass.
        """
        p = parameters.broadcast(self.n, self.spring_count)
        most = RK4_REACH / dt
        left = most**2 - p.gravity / np.abs(p.length)
        if (left <= 0).any():
            raise MechanicsError(
                f"length: {np.abs(p.length).min():.3g} m swings too fast for dt = {dt} s; "
                f"take {p.gravity / most**2:.2g} m or more"
            )
        return np.asarray((most * np.abs(p.gamma) + 2.0 * self._around(p)) / left)

    def _around(self, p: GyroParameters) -> Array:
        """Return the springs at each gyroscope together, (…, n), N/m."""
        if not self.spring_count:
            return np.zeros(self.n)
        pulled = np.abs(np.asarray(p.stiffness)) * self._strain
        flat = abs(self._incidence) @ pulled.reshape(-1, self.spring_count).T
        return np.asarray(flat.T.reshape(*pulled.shape[:-1], self.n))

    def check_step(self, parameters: GyroParameters, dt: float) -> None:
        """Raise MechanicsError where RK4 with steps of dt s would not be stable.

        Refuses |ω| dt > 2.5. A bound decides; where it does not suffice, the eigenvalues.
        """
        if not (np.isfinite(dt) and dt > 0):
            raise MechanicsError(f"dt: {dt} s; expected a time above 0")
        fastest = self.fastest(parameters)
        if fastest * dt <= RK4_REACH:
            return
        if np.ndim(parameters.mass) < 2 and np.ndim(parameters.stiffness) < 2:
            fastest = float(np.abs(np.linalg.eigvals(self.linearise(parameters))).max())
        if fastest * dt > RK4_REACH:
            raise MechanicsError(
                f"dt: {dt} s is too long for motions of {fastest:.3g} rad/s; "
                f"take {RK4_REACH / fastest:.2g} s or less, or softer springs, or less spin"
            )

    def rollout(
        self,
        parameters: GyroParameters,
        nudges: AnyArray,
        dt: float,
        *,
        inputs: IntArray | None = None,
        initial: AnyArray | None = None,
        substeps: int = 1,
    ) -> AnyArray:
        """Return the states (batch, steps + 1, n, 4) under nudges, each held for dt s; RK4.

        nudges: (batch, steps, k, 2), N, on the gyroscopes `inputs` (k,), default all.
        initial: (batch, n, 4), default at rest. substeps: RK4 steps in one dt.
        Raises MechanicsError for a dt that is too long and shapes that do not fit.
        """
        nudges, where, state = self._start(nudges, inputs, initial)
        h = dt / substeps
        p = parameters.broadcast(self.n, self.spring_count)
        self.check_step(p, h)
        kind = np.result_type(nudges, state, *(np.asarray(a) for a in (
            p.mass, p.length, p.gamma, p.stiffness)))  # fmt: skip
        states = np.empty((len(nudges), nudges.shape[1] + 1, self.n, 4), dtype=kind)
        states[:, 0] = state
        force = np.zeros((len(nudges), self.n, 2), dtype=kind)
        for step in range(nudges.shape[1]):
            force[:, where] = nudges[:, step]
            q, v = states[:, step, :, :2], states[:, step, :, 2:]
            for _ in range(substeps):
                q, v = self._rk4(p, q, v, force, h)
            states[:, step + 1, :, :2], states[:, step + 1, :, 2:] = q, v
        return states

    def adaptive(
        self,
        parameters: GyroParameters,
        nudges: Array,
        dt: float,
        *,
        inputs: IntArray | None = None,
        initial: Array | None = None,
        tolerance: float = 1e-9,
    ) -> Array:
        """Return what `rollout` returns by DOP853 with error control: the reference.

        tolerance: relative, and absolute in SI. The method restarts where a nudge jumps.
        Raises MechanicsError where the motion cannot be followed.
        """
        nudges, where, state = self._start(nudges, inputs, initial)
        p = parameters.broadcast(self.n, self.spring_count)
        states = np.empty((len(nudges), nudges.shape[1] + 1, self.n, 4))
        states[:, 0] = state
        for sample, step in np.ndindex(*nudges.shape[:2]):
            force = np.zeros((self.n, 2))
            force[where] = nudges[sample, step]
            states[sample, step + 1] = self._follow(
                p, states[sample, step], force, dt, tolerance, sample
            )
        return states

    def _follow(
        self, p: GyroParameters, state: Array, force: Array, dt: float, tolerance: float,
        sample: int,
    ) -> Array:  # fmt: skip
        mine = _of_sample(p, sample)

        def slope(_: float, flat: Array) -> Array:
            now = flat.reshape(self.n, 4)
            acceleration = self._acceleration(mine, now[:, :2], now[:, 2:], force)
            return np.concatenate((now[:, 2:], acceleration), axis=1).ravel()

        found = solve_ivp(
            slope, (0.0, dt), state.ravel(), method="DOP853", rtol=tolerance, atol=tolerance
        )
        if not found.success:
            raise MechanicsError(f"gyro network: cannot be followed: {found.message}")
        return np.asarray(found.y[:, -1].reshape(self.n, 4))

    def _rk4(
        self, p: GyroParameters, q: AnyArray, v: AnyArray, force: AnyArray, h: float
    ) -> tuple[AnyArray, AnyArray]:
        a1 = self._acceleration(p, q, v, force)
        v2 = v + h / 2 * a1
        a2 = self._acceleration(p, q + h / 2 * v, v2, force)
        v3 = v + h / 2 * a2
        a3 = self._acceleration(p, q + h / 2 * v2, v3, force)
        v4 = v + h * a3
        a4 = self._acceleration(p, q + h * v3, v4, force)
        return q + h / 6 * (v + 2 * v2 + 2 * v3 + v4), v + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)

    def _start(
        self, nudges: AnyArray, inputs: IntArray | None, initial: AnyArray | None
    ) -> tuple[AnyArray, IntArray, AnyArray]:
        """Return checked nudges, where they act, and the first state."""
        where = np.arange(self.n) if inputs is None else np.asarray(inputs, dtype=np.int64)
        nudges = np.asarray(nudges)
        if nudges.ndim != 4 or nudges.shape[2:] != (len(where), 2):
            raise MechanicsError(
                f"nudges: expected (batch, steps, {len(where)}, 2), found {nudges.shape}"
            )
        if len(set(where.tolist())) < len(where) or not ((where >= 0) & (where < self.n)).all():
            raise MechanicsError(f"inputs: expected different gyroscopes from 0 to {self.n - 1}")
        state = np.zeros((len(nudges), self.n, 4)) if initial is None else np.asarray(initial)
        if state.shape != (len(nudges), self.n, 4):
            raise MechanicsError(
                f"initial: expected ({len(nudges)}, {self.n}, 4), found {state.shape}"
            )
        return nudges, where, state

    def _single(self, parameters: GyroParameters) -> GyroParameters:
        p = parameters.broadcast(self.n, self.spring_count)
        if max(np.ndim(a) for a in (p.mass, p.length, p.gamma, p.stiffness)) > 1:
            raise MechanicsError("gyro network: one set of parameters at a time is linearised")
        return p

    def _stretched(self, q: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Return r_j − r_i, (…, springs, 2), and its length, (…, springs), m."""
        between = self.geometry.between + q[..., self._to, :] - q[..., self._from, :]
        return between, np.sqrt((between * between).sum(-1))

    @cached_property
    def _strain(self) -> Array:
        """Return the largest slope of each spring's pull at rest over K, (springs,)."""
        distance = np.sqrt((self.geometry.between**2).sum(-1))
        return np.asarray(np.maximum(1.0, np.abs(1.0 - self.geometry.lengths / distance)))

    def _height_squared(self, p: GyroParameters, q: AnyArray) -> AnyArray:
        """Return L² − |q|², held at (0.2 L)², (…, n); complex stays complex for its slope."""
        squared = np.asarray(p.length) ** 2
        left = squared - (q * q).sum(-1)
        return np.where(left.real > (CLAMP**2 * squared).real, left, CLAMP**2 * squared)

    def _energy_at_rest(self, p: GyroParameters) -> Any:
        if not self.spring_count:
            return 0.0
        distance = np.sqrt((self.geometry.between**2).sum(-1))
        return 0.5 * (np.asarray(p.stiffness) * (distance - self.geometry.lengths) ** 2).sum(-1)


def _column(values: Any) -> AnyArray:
    return np.asarray(values)[..., None]


def _of_sample(p: GyroParameters, sample: int) -> GyroParameters:
    """Return the parameters of one sample, where samples have their own."""
    names = ("mass", "length", "gamma", "stiffness")
    own: dict[str, Any] = {n: np.asarray(getattr(p, n)) for n in names}
    return replace(p, **{n: a[sample] if a.ndim > 1 else a for n, a in own.items()})
