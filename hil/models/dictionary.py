"""A Lagrangian from a dictionary of terms: an FNODE that conserves what is known to be kept.

    L = Σ c_t F(q) v_i v_j − Σ c_t G(q),    d/dt ∂L/∂v − ∂L/∂q = Bu − Dv

F are products of sines and cosines of the angles (1, cos k·q, sin k·q), G the same and the
positions that are no angles, up to their squares. The equations are linear in the coefficients
c, so that training is one linear problem (`hil.training.fit_dictionary`); without D the motion
keeps its energy for ever, whatever was learned. Without an input the size of c is free: energy
is then in a unit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.fnode import Domain
from hil.types import AnyArray, Array

Index = Annotated[int, msgspec.Meta(ge=0)]


class DictionarySettings(Settings, frozen=True, kw_only=True):
    """Which terms there are; positions are counted from 0, as in q."""

    nq: Annotated[int, msgspec.Meta(ge=1, le=8, description="positions")]
    angles: tuple[Index, ...] = ()
    driven: tuple[Index, ...] = ()  # per input: the position it acts on, as a force or torque
    order: Annotated[int, msgspec.Meta(ge=1, le=4, description="Σ|k| at most")] = 2
    damping: bool = False  # D, symmetric and constant

    def __post_init__(self) -> None:
        """Refuse positions that are not there."""
        for name in ("angles", "driven"):
            wrong = [index for index in getattr(self, name) if index >= self.nq]
            if wrong:
                raise ValueError(f"`{name}` names position {wrong[0]} of {self.nq}")


class Terms(NamedTuple):
    """What each coefficient weighs."""

    waves: Array  # (W, nq), k; each gives a cosine and a sine
    pairs: tuple[tuple[int, int], ...]  # (i, j), i ≤ j, of velocities
    plain: tuple[int, ...]  # positions that are no angles
    squares: tuple[tuple[int, int], ...]  # pairs of them
    kinetic: int  # coefficients of pairs, pair by pair
    potential: int
    damping: int


def terms(settings: DictionarySettings) -> Terms:
    """Return the terms of a dictionary."""
    waves = []
    for k in product((-1, 0, 1), repeat=len(settings.angles)):
        first = next((entry for entry in k if entry), 0)
        if first > 0 and sum(map(abs, k)) <= settings.order:
            row = np.zeros(settings.nq)
            row[list(settings.angles)] = k
            waves.append(row)
    pairs = tuple((i, j) for i in range(settings.nq) for j in range(i, settings.nq))
    plain = tuple(i for i in range(settings.nq) if i not in settings.angles)
    squares = tuple((i, j) for i in plain for j in plain if i <= j)
    count = 2 * len(waves)
    return Terms(
        np.array(waves).reshape(-1, settings.nq), pairs, plain, squares,
        len(pairs) * (1 + count), count + len(plain) + len(squares),
        len(pairs) if settings.damping else 0,
    )  # fmt: skip


def _waves(at: Terms, q: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return F, (n, 1 + 2W), and its slopes by q, (n, 1 + 2W, nq)."""
    phase = q @ at.waves.T
    sine, cosine = np.sin(phase), np.cos(phase)
    value = np.concatenate([np.ones((len(q), 1)), cosine, sine], axis=1)
    slope = np.concatenate(
        [
            np.zeros((len(q), 1, q.shape[1])),
            -sine[..., None] * at.waves,
            cosine[..., None] * at.waves,
        ],
        axis=1,
    )
    return value, slope


def _lift(at: Terms, q: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Return G, (n, potential), and its slopes by q, (n, potential, nq)."""
    value, slope = _waves(at, q)
    one = np.eye(q.shape[1])
    values, slopes = [value[:, 1:]], [slope[:, 1:]]
    for i in at.plain:
        values.append(q[:, i, None])
        slopes.append(np.broadcast_to(one[i], (len(q), 1, len(one))))
    for i, j in at.squares:
        values.append((q[:, i] * q[:, j])[:, None])
        slopes.append((q[:, i, None] * one[j] + q[:, j, None] * one[i])[:, None])
    return np.concatenate(values, axis=1), np.concatenate(slopes, axis=1)


def equations(settings: DictionarySettings, q: Array, v: Array, a: Array) -> Array:
    """Return what each coefficient adds to d/dt ∂L/∂v − ∂L/∂q + Dv, (n, nq, coefficients)."""
    at = terms(settings)
    value, slope = _waves(at, q)
    rate = (slope @ v[:, :, None])[..., 0]
    columns = []
    for i, j in at.pairs:
        part = -np.swapaxes(slope, 1, 2) * (v[:, i] * v[:, j])[:, None, None]  # (n, nq, F)
        for one, other in ((i, j), (j, i)):
            part[:, one] += rate * v[:, other, None] + value * a[:, other, None]
        columns.append(part)
    columns.append(np.swapaxes(_lift(at, q)[1], 1, 2))
    if settings.damping:
        drag = np.zeros((len(q), settings.nq, len(at.pairs)))
        for column, (i, j) in enumerate(at.pairs):
            drag[:, i, column] = v[:, j]
            drag[:, j, column] = v[:, i]
        columns.append(drag)
    return np.concatenate(columns, axis=2)


@dataclass(frozen=True)
class DictionaryWeights:
    """What training finds."""

    coefficients: Array  # (kinetic + potential + damping,)
    domain: Domain = field(repr=False)  # of (q, v), angles as they are

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        domain = {
            f"domain.{name}": getattr(self.domain, name) for name in ("mean", "factor", "edge")
        }
        return {"coefficients": self.coefficients, **domain}


class DictionaryModel(AbstractLearnedDynamics):
    """A learned Lagrangian as dynamics; q̈ from one small linear system per point."""

    Settings = DictionarySettings

    def __init__(self, settings: DictionarySettings, weights: DictionaryWeights) -> None:
        self.settings = settings
        self.weights = weights
        self._at = at = terms(settings)
        kinetic, potential, damping = np.split(
            weights.coefficients, [at.kinetic, at.kinetic + at.potential]
        )
        self._kinetic = np.zeros((settings.nq, settings.nq, 1 + 2 * len(at.waves)))
        self._damping = np.zeros((settings.nq, settings.nq))
        for row, (i, j) in zip(kinetic.reshape(len(at.pairs), -1), at.pairs, strict=True):
            self._kinetic[i, j] += row
            self._kinetic[j, i] += row
        for entry, (i, j) in zip(damping, at.pairs, strict=False):
            self._damping[i, j] = self._damping[j, i] = entry
        self._potential = potential
        self._drive = np.zeros((settings.nq, self.nu))
        self._drive[list(settings.driven), np.arange(self.nu)] = 1.0

    @classmethod
    def from_arrays(
        cls, settings: DictionarySettings, arrays: Mapping[str, Array]
    ) -> DictionaryModel:
        """Return a model of stored arrays; raises ConfigError for others than it has."""
        at, nx = terms(settings), 2 * settings.nq
        shapes: dict[str, tuple[int, ...]] = {
            "coefficients": (at.kinetic + at.potential + at.damping,),
            "domain.mean": (nx,), "domain.factor": (nx, nx), "domain.edge": (),
        }  # fmt: skip
        if {name: array.shape for name, array in arrays.items()} != shapes:
            raise ConfigError(f"weights of a dictionary: expected {shapes}")
        domain = Domain(*(arrays[f"domain.{name}"] for name in ("mean", "factor", "edge")))
        return cls(settings, DictionaryWeights(arrays["coefficients"], domain))

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self.settings.nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return len(self.settings.driven)

    def mass_matrix(self, q: AnyArray) -> AnyArray:
        """Return M, (n, nq, nq), in the unit of the inputs, or its own without inputs."""
        return np.asarray(np.tensordot(_waves(self._at, q)[0], self._kinetic, axes=(1, 2)))

    def energy(self, q: Array, v: Array) -> Array:
        """Return ½ vᵀMv + V, (n,), in the unit of `mass_matrix`."""
        kinetic = 0.5 * np.einsum("ni,nij,nj->n", v, self.mass_matrix(q), v)
        found: Array = kinetic + _lift(self._at, q)[0] @ self._potential
        return found

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (n, nq), for q, v (n, nq) and u (n, nu), SI; complex numbers pass."""
        value, slope = _waves(self._at, q)
        mass = np.tensordot(value, self._kinetic, axes=(1, 2))
        by_q = np.einsum("nfr,ijf->nijr", slope, self._kinetic)  # ∂M/∂q
        turning = 0.5 * np.einsum("nijr,ni,nj->nr", by_q, v, v)
        turning = turning - np.einsum("nrjs,nj,ns->nr", by_q, v, v)
        lift = np.einsum("ngr,g->nr", _lift(self._at, q)[1], self._potential)
        force = turning - lift - v @ self._damping + u @ self._drive.T
        found: Array = np.linalg.solve(mass, force[..., None])[..., 0]
        return found

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its slopes at x (nx,), u (nu,), or many, by complex steps.

        A complex step has no difference in it: the slopes are exact to rounding.
        """
        points, inputs = np.atleast_2d(x), np.atleast_2d(u)
        n, nx, nq = len(points), self.nx, self.nq
        z = np.concatenate([points, inputs], axis=1)
        step = 1e-30
        moved = z[:, None] + 1j * step * np.eye(nx + self.nu)
        flat = moved.reshape(-1, nx + self.nu)
        slopes = self.acceleration(flat[:, :nq], flat[:, nq:nx], flat[:, nx:]).imag / step
        table = np.swapaxes(slopes.reshape(n, -1, nq), 1, 2)
        value = self.acceleration(points[:, :nq], points[:, nq:], inputs)
        found = Linearisation(value, table[..., :nx], table[..., nx:])
        return found if x.ndim == 2 else Linearisation(*(part[0] for part in found))

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of x (nx,) from the states that were learned from; 1 is the edge."""
        domain = self.weights.domain
        away = domain.factor @ (x - domain.mean)
        distance = float(np.sqrt(away @ away) / domain.edge)
        return distance if np.isfinite(distance) and np.isfinite(u).all() else np.inf
