"""FNODE: a tanh network that answers with accelerations.

q̈ = net(features(q, v, u)), after Wang, Wang & Negrut, "FNODE: Flow-Matching for data-driven
simulation of constrained multibody systems" (arXiv 2509.00183). Three things are added. Angles
enter as (sin, cos), so that a turn changes nothing; an optional linear path from the inputs
to the last layer (`skip`) carries most of the dynamics near a point; and where time may run
backwards, as in a conservative mechanism, velocities enter by their products v_i v_k.
Parameters of a system (μ) are inputs that are held.

A network is trusted only near its data: `domain` says how far away a point is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import cos, sin, sqrt
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractLearnedDynamics, Linearisation, Weights
from hil.models.network_slopes import COSINE, PLAIN, PRODUCT, SINE, value_and_slopes
from hil.types import AnyArray, Array


class FnodeSettings(Settings, frozen=True, kw_only=True):
    """Architecture of an FNODE; positions are counted from 0, as in q."""

    nq: Annotated[int, msgspec.Meta(ge=1, le=64, description="positions")]
    nu: Annotated[int, msgspec.Meta(ge=0, le=64, description="inputs")]
    angles: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()  # enter as (sin, cos)
    left_out: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()  # do not enter at all
    hidden: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=4096)], ...],
        msgspec.Meta(min_length=1, description="units of each hidden layer"),
    ] = (256, 256)
    skip: bool = True  # a linear path from the inputs to the last layer
    # even: as v_i v_k, i ≤ k, so that f(q, −v, u) = f(q, v, u); none: f(q, u), which is separable
    velocities: Literal["plain", "even", "none"] = "plain"


class Layout(NamedTuple):
    """Where each input of the network comes from."""

    sines: tuple[int, ...]  # per angle: column of its sine; its cosine is the next one
    angles: tuple[int, ...]  # which position that is
    plain: tuple[int, ...]  # columns of positions that enter as they are
    positions: tuple[int, ...]  # which positions those are
    velocities: int  # first column of v, or of its products
    inputs: int  # first column of u
    width: int


def layout(settings: FnodeSettings) -> Layout:
    """Return where the inputs of the network come from.

    Raises ConfigError when `angles` or `left_out` name a position that is not there.
    """
    for name in ("angles", "left_out"):
        for index in getattr(settings, name):
            if index >= settings.nq:
                raise ConfigError(
                    f"{name}: position {index} of a model with {settings.nq} positions; "
                    f"allowed: 0 to {settings.nq - 1}"
                )
    sines, angles, plain, positions = [], [], [], []
    column = 0
    for index in range(settings.nq):
        if index in settings.left_out:
            continue
        if index in settings.angles:
            sines.append(column)
            angles.append(index)
            column += 2
        else:
            plain.append(column)
            positions.append(index)
            column += 1
    count = {"plain": settings.nq, "even": settings.nq * (settings.nq + 1) // 2, "none": 0}
    inputs = column + count[settings.velocities]
    return Layout(
        tuple(sines), tuple(angles), tuple(plain), tuple(positions),
        column, inputs, inputs + settings.nu,
    )  # fmt: skip


def features(settings: FnodeSettings, q: Array, v: Array, u: Array) -> Array:
    """Return the inputs of the network before scaling, (batch, width).

    q, v: (batch, nq). u: (batch, nu). SI.
    """
    at = layout(settings)
    z = np.empty((len(q), at.width))
    for column, index in zip(at.sines, at.angles, strict=True):
        z[:, column] = np.sin(q[:, index])
        z[:, column + 1] = np.cos(q[:, index])
    for column, index in zip(at.plain, at.positions, strict=True):
        z[:, column] = q[:, index]
    if settings.velocities != "none":
        z[:, at.velocities : at.inputs] = products(v) if settings.velocities == "even" else v
    z[:, at.inputs :] = u
    return z


def products(v: Array) -> Array:
    """Return v_i v_k, i ≤ k, of v (…, nq): (…, nq (nq + 1) / 2)."""
    first, second = np.triu_indices(v.shape[-1])
    found: Array = v[..., first] * v[..., second]
    return found


@dataclass(frozen=True)
class Domain:
    """Where the data were: an ellipsoid in the scaled inputs of the network.

    distance = |factor (z − mean)| / edge; `edge` holds 99.9 % of the training points.
    """

    mean: Array  # (width,)
    factor: Array  # (width, width), factorᵀ factor is the inverse covariance
    edge: Array  # ()

    QUANTILE = 0.999
    FLOOR = 1e-3  # smallest spread that is told from none, in standard deviations

    @classmethod
    def around(cls, z: Array, slack: Array | None = None) -> Domain:
        """Return the domain of scaled inputs z (points, width): Mahalanobis distance.

        slack: (width, width), added to the covariance (see `turning_slack`).
        """
        mean = z.mean(axis=0)
        centred = z - mean
        covariance = centred.T @ centred / len(z)
        values, vectors = np.linalg.eigh(covariance if slack is None else covariance + slack)
        factor = vectors.T / np.sqrt(np.maximum(values, cls.FLOOR**2))[:, None]
        distance = np.sqrt(((centred @ factor.T) ** 2).sum(axis=1))
        return cls(mean, factor, np.asarray(max(np.quantile(distance, cls.QUANTILE), 1e-12)))


def turning_slack(settings: FnodeSettings, mean: Array, scale: Array) -> Array:
    """Return what to add to the covariance of scaled inputs for angles, (width, width).

    mean, scale: (width,), of the inputs. Data on a short arc hardly spread along its radius:
    there (cos θ near upright) the distance would follow θ² and its long tail would widen the
    edge for every other input. The slack is half the spread along the arc, in the direction
    of the mean, whose length is 1 for a short arc and 0 for a full circle.
    """
    slack = np.zeros((len(mean), len(mean)))
    for column in layout(settings).sines:
        pair = slice(column, column + 2)
        radius = 0.5 * np.sqrt((scale[pair] ** 2).sum()) * mean[pair] / scale[pair]
        slack[pair, pair] = np.outer(radius, radius)
    return slack


@dataclass(frozen=True)
class FnodeWeights:
    """What training finds: scaled inputs z, hidden layers, one linear layer at the end."""

    input_mean: Array  # (width,)
    input_scale: Array  # (width,)
    hidden: tuple[tuple[Array, Array], ...]  # per layer: (units, before), (units,)
    last: Array  # (nq, units), of scaled accelerations
    skip: Array  # (nq, width), zeros without a linear path
    offset: Array  # (nq,)
    output_mean: Array  # (nq,), acceleration
    output_scale: Array  # (nq,)
    domain: Domain = field(repr=False)

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        for number, (weight, bias) in enumerate(named.pop("hidden"), 1):
            named[f"hidden.{number}.weight"] = weight
            named[f"hidden.{number}.bias"] = bias
        domain: Domain = named.pop("domain")
        for name in ("mean", "factor", "edge"):
            named[f"domain.{name}"] = getattr(domain, name)
        return named

    @classmethod
    def from_arrays(cls, settings: FnodeSettings, arrays: Mapping[str, Array]) -> FnodeWeights:
        """Return weights of named arrays.

        Raises ConfigError for an array that is missing, too many or of another shape.
        """
        width, nq = layout(settings).width, settings.nq
        shapes: dict[str, tuple[int, ...]] = {
            "input_mean": (width,), "input_scale": (width,),
            "last": (nq, settings.hidden[-1]), "skip": (nq, width), "offset": (nq,),
            "output_mean": (nq,), "output_scale": (nq,),
            "domain.mean": (width,), "domain.factor": (width, width), "domain.edge": (),
        }  # fmt: skip
        before = width
        for number, units in enumerate(settings.hidden, 1):
            shapes[f"hidden.{number}.weight"] = (units, before)
            shapes[f"hidden.{number}.bias"] = (units,)
            before = units
        if shapes.keys() != arrays.keys():
            odd = ", ".join(sorted(shapes.keys() ^ arrays.keys()))
            raise ConfigError(f"weights of an FNODE: arrays missing or unknown: {odd}")
        for name, shape in shapes.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.float64:
                raise ConfigError(
                    f"weights of an FNODE: {name}: expected float64 {shape}, "
                    f"found {arrays[name].dtype} {arrays[name].shape}"
                )
        plain = {name: arrays[name] for name in shapes if "." not in name}
        hidden = tuple(
            (arrays[f"hidden.{number}.weight"], arrays[f"hidden.{number}.bias"])
            for number in range(1, len(settings.hidden) + 1)
        )
        domain = Domain(*(arrays[f"domain.{name}"] for name in ("mean", "factor", "edge")))
        return cls(hidden=hidden, domain=domain, **plain)


class AbstractNetwork(AbstractLearnedDynamics):
    """A network that is linear in its last layer: q̈ = answers(z) + columns(z) @ change.

    z (n, width): the inputs of the network before scaling, as `features` gives them.
    """

    @property
    @abstractmethod
    def settings(self) -> FnodeSettings:
        """The architecture."""

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """What training found."""

    @abstractmethod
    def answers(self, z: Array) -> Array:
        """Return q̈ at z (n, width), (n, nq), SI."""

    @abstractmethod
    def columns(self, z: Array) -> Array:
        """Return what the last layer weighs at z (n, width), of size about 1: (n, columns)."""

    @abstractmethod
    def moved(self, change: Array) -> AbstractNetwork:
        """Return the network with its last layer moved by `change` (columns, nq), SI."""


class FnodeModel(AbstractNetwork):
    """A trained network as dynamics: NumPy, float64, equal arguments give equal bits."""

    Settings = FnodeSettings

    def __init__(self, settings: FnodeSettings, weights: FnodeWeights) -> None:
        self._settings, self._weights = settings, weights
        self._at = layout(settings)
        self._angles = tuple(zip(self._at.sines, self._at.angles, strict=True))
        self._plain = tuple(zip(self._at.plain, self._at.positions, strict=True))
        # Scaling is folded into the first and the last layer: it costs nothing later.
        scale = weights.input_scale
        (first, bias), *others = weights.hidden
        self._hidden = [(first / scale, bias - first @ (weights.input_mean / scale)), *others]
        self._hidden = [(np.ascontiguousarray(w), b) for w, b in self._hidden]
        gain = weights.output_scale[:, None]
        self._last = np.ascontiguousarray(gain * weights.last)
        self._skip = np.ascontiguousarray(gain * weights.skip / scale)
        self._offset = (
            weights.output_mean
            + weights.output_scale * weights.offset
            - self._skip @ weights.input_mean
        )
        self._layers = tuple((np.array(weight), np.array(bias)) for weight, bias in self._hidden)
        self._source = self._sources()
        domain = weights.domain
        self._near = np.ascontiguousarray(domain.factor / (scale * float(domain.edge)))
        self._centre = self._near @ (weights.input_mean + scale * domain.mean)

    @classmethod
    def from_arrays(cls, settings: FnodeSettings, arrays: Mapping[str, Array]) -> FnodeModel:
        """Return a model of stored arrays; raises ConfigError as its weights do."""
        return cls(settings, FnodeWeights.from_arrays(settings, arrays))

    @property
    def settings(self) -> FnodeSettings:
        """The architecture."""
        return self._settings

    @property
    def weights(self) -> FnodeWeights:
        """What training found."""
        return self._weights

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self.settings.nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self.settings.nu

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq), for q, v (batch, nq) and u (batch, nu), SI."""
        return self.answers(features(self.settings, q, v, u))

    def answers(self, z: Array) -> Array:
        """Return q̈ at z (n, width), (n, nq), SI."""
        found: Array = self._last_hidden(z) @ self._last.T + z @ self._skip.T + self._offset
        return found

    def columns(self, z: Array) -> Array:
        """Return the last hidden layer, the scaled inputs where they skip, and ones."""
        parts = [self._last_hidden(z), np.ones((len(z), 1))]
        if self.settings.skip:
            parts.insert(1, (z - self.weights.input_mean) / self.weights.input_scale)
        return np.concatenate(parts, axis=1)

    def moved(self, change: Array) -> FnodeModel:
        """Return the network with its last layer moved by `change` (columns, nq), SI."""
        w, units = self.weights, self.settings.hidden[-1]
        scaled = change.T / w.output_scale[:, None]
        skip = w.skip + scaled[:, units:-1] if self.settings.skip else w.skip
        moved = replace(
            w, last=w.last + scaled[:, :units], skip=skip, offset=w.offset + scaled[:, -1]
        )
        return FnodeModel(self.settings, moved)

    def _last_hidden(self, z: Array) -> Array:
        h = z
        for weight, bias in self._hidden:
            h = h @ weight.T
            h += bias
            np.tanh(h, out=h)
        return h

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its exact slopes at one state (nx,) and input (nu,).

        One pass forward, one back from all nq outputs. Several points at once, x (n, nx) and
        u (n, nu), give arrays with a leading n.
        """
        if x.ndim == 2:
            return self._linearise_many(x, u)
        x, u = np.array(x, dtype=float), np.array(u, dtype=float)  # one layout: compiled once
        return Linearisation(
            *value_and_slopes(
                x, u, self._source, self._layers, self._last, self._skip, self._offset
            )
        )

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of state x (nx,) and input u (nu,) from the training data.

        1.0 is the edge: 99.9 % of the training points lie inside. A state or input that is
        not a number is infinitely far away. Mahalanobis distance in the network's inputs:
        one ellipsoid, which does not see holes in the data.
        """
        z, _ = self._inputs(x, u)
        away = self._near @ z
        away -= self._centre
        squared = float(away @ away)
        return sqrt(squared) if squared < np.inf else np.inf

    def domains(self, q: Array, v: Array, u: Array) -> Array:
        """Return `domain` of many points, (batch,); q, v: (batch, nq), u: (batch, nu)."""
        away = features(self.settings, q, v, u) @ self._near.T - self._centre
        distance: Array = np.sqrt((away * away).sum(axis=1))
        return np.where(np.isfinite(distance), distance, np.inf)

    def _sources(self) -> AnyArray:
        """Return for every input of the network its place in (x, u), and how it enters."""
        at, nq = self._at, self.settings.nq
        source = np.full((3, at.width), PLAIN, dtype=np.int64)
        for column, index in self._angles:
            source[:2, column], source[:2, column + 1] = (index, SINE), (index, COSINE)
        for column, index in self._plain:
            source[0, column] = index
        if self.settings.velocities == "even":
            first, second = np.triu_indices(nq)
            source[0, at.velocities : at.inputs] = nq + first
            source[1, at.velocities : at.inputs] = PRODUCT
            source[2, at.velocities : at.inputs] = nq + second
        elif self.settings.velocities == "plain":
            source[0, at.velocities : at.inputs] = np.arange(nq, 2 * nq)
        source[0, at.inputs :] = np.arange(2 * nq, 2 * nq + self.settings.nu)
        return source

    def _linearise_many(self, x: Array, u: Array) -> Linearisation:
        nq, at = self.settings.nq, self._at
        z = features(self.settings, x[:, :nq], x[:, nq:], u)
        h, tape = z, []
        for weight, bias in self._hidden:
            h = np.tanh(h @ weight.T + bias)
            tape.append((weight, h))
        value = h @ self._last.T + z @ self._skip.T + self._offset
        back = np.broadcast_to(self._last, (len(x), *self._last.shape))
        for weight, h in reversed(tape):
            inner = (back * (1.0 - h * h)[:, None, :]).reshape(-1, len(weight))
            back = (inner @ weight).reshape(len(x), nq, -1)
        back = back + self._skip
        by_state = np.zeros((len(x), nq, 2 * nq))
        for column, index in self._angles:  # the next column holds the cosine
            sine, cosine = z[:, column, None], z[:, column + 1, None]
            by_state[..., index] = cosine * back[..., column] - sine * back[..., column + 1]
        for column, index in self._plain:
            by_state[..., index] = back[..., column]
        moving = back[..., at.velocities : at.inputs]
        if self.settings.velocities == "even":
            v = x[:, None, nq:]
            for term, (i, k) in enumerate(zip(*np.triu_indices(nq), strict=True)):
                by_state[..., nq + i] += moving[..., term] * v[..., k]
                by_state[..., nq + k] += moving[..., term] * v[..., i]
        elif self.settings.velocities == "plain":
            by_state[..., nq:] = moving
        return Linearisation(value, by_state, back[..., at.inputs :])

    def _inputs(self, x: Array, u: Array) -> tuple[Array, list[tuple[float, float]]]:
        """Return unscaled inputs of the network, (width,), and (sin, cos) of the angles."""
        at, nq = self._at, self.settings.nq
        z, turns = np.empty(at.width), []
        for column, index in self._angles:
            angle = float(x[index])
            turn = (sin(angle), cos(angle)) if abs(angle) < np.inf else (np.nan, np.nan)
            turns.append(turn)
            z[column], z[column + 1] = turn
        for column, index in self._plain:
            z[column] = x[index]
        if self.settings.velocities == "even":
            z[at.velocities : at.inputs] = products(x[nq:])
        elif self.settings.velocities == "plain":
            z[at.velocities : at.inputs] = x[nq:]
        z[at.inputs :] = u
        return z, turns
