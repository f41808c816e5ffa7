"""An FNODE with the form every rigid mechanism has: affine in inputs, quadratic in velocities.

From M(q) q̈ = B(q) u + c(q, q̇), with c of Coriolis and centrifugal terms, gravity, springs and
viscous friction (see Featherstone, Rigid Body Dynamics Algorithms, section 3.1),

    q̈ = Σ_t g_t(q) τ_t(v, u),   τ = 1, u_j, v_i, v_i v_k,

and a tanh network of the positions alone answers with the coefficients g. What is learned at
one input or speed holds at others, which a free network has to see first. Dry friction is not
of that form: it becomes the viscous friction that does most like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt

import numpy as np

from hil.errors import ConfigError
from hil.models.base import Linearisation
from hil.models.fnode import AbstractNetwork, Domain, FnodeSettings, features, layout
from hil.types import Array, IntArray


def term_count(settings: FnodeSettings) -> int:
    """Return T, the number of terms."""
    nq = settings.nq
    return 1 + settings.nu + nq + nq * (nq + 1) // 2


def degrees(settings: FnodeSettings) -> IntArray:
    """Return of every term the number of its factors, (T,): a mirror turns it by (−1)^that."""
    nq = settings.nq
    found: IntArray = np.repeat([0, 1, 2], [1, settings.nu + nq, nq * (nq + 1) // 2])
    return found


def terms(v: Array, u: Array) -> Array:
    """Return 1, u_j, v_i, v_i v_k (i ≤ k) of v (n, nq) and u (n, nu): (n, T)."""
    first, second = np.triu_indices(v.shape[1])
    return np.concatenate([np.ones((len(v), 1)), u, v, v[:, first] * v[:, second]], axis=1)


@dataclass(frozen=True)
class MechanicalWeights:
    """What training finds; coefficients are for velocities and inputs over their scale."""

    input_mean: Array  # (width,), of all features; used of positions only
    input_scale: Array  # (width,)
    hidden: tuple[tuple[Array, Array], ...]  # per layer: (units, before), (units,)
    last: Array  # (nq, T, units), SI
    constant: Array  # (nq, T), SI, the part that is the same at all positions
    domain: Domain = field(repr=False)  # of all features, scaled

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        named = {
            "input_mean": self.input_mean, "input_scale": self.input_scale,
            "last": self.last, "constant": self.constant,
        }  # fmt: skip
        for number, (weight, bias) in enumerate(self.hidden, 1):
            named[f"hidden.{number}.weight"] = weight
            named[f"hidden.{number}.bias"] = bias
        for name in ("mean", "factor", "edge"):
            named[f"domain.{name}"] = getattr(self.domain, name)
        return named

    @classmethod
    def from_arrays(cls, settings: FnodeSettings, arrays: Mapping[str, Array]) -> MechanicalWeights:
        """Return weights of named arrays.

        Raises ConfigError for an array that is missing, too many or of another shape.
        """
        at, nq, count = layout(settings), settings.nq, term_count(settings)
        shapes: dict[str, tuple[int, ...]] = {
            "input_mean": (at.width,), "input_scale": (at.width,),
            "last": (nq, count, settings.hidden[-1]), "constant": (nq, count),
            "domain.mean": (at.width,), "domain.factor": (at.width, at.width), "domain.edge": (),
        }  # fmt: skip
        before = at.velocities
        for number, units in enumerate(settings.hidden, 1):
            shapes[f"hidden.{number}.weight"] = (units, before)
            shapes[f"hidden.{number}.bias"] = (units,)
            before = units
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if found != {name: (shape, np.dtype(np.float64)) for name, shape in shapes.items()}:
            raise ConfigError(f"weights of a mechanical FNODE: expected {shapes}, found {found}")
        hidden = tuple(
            (arrays[f"hidden.{number}.weight"], arrays[f"hidden.{number}.bias"])
            for number in range(1, len(settings.hidden) + 1)
        )
        domain = Domain(*(arrays[f"domain.{name}"] for name in ("mean", "factor", "edge")))
        scaling = arrays["input_mean"], arrays["input_scale"]
        return cls(*scaling, hidden, arrays["last"], arrays["constant"], domain)


class MechanicalModel(AbstractNetwork):
    """A trained network of coefficients as dynamics: NumPy, float64."""

    Settings = FnodeSettings

    def __init__(self, settings: FnodeSettings, weights: MechanicalWeights) -> None:
        self._settings, self._weights = settings, weights
        self._at = at = layout(settings)
        positions = slice(0, at.velocities)
        mean, scale = weights.input_mean, weights.input_scale
        (first, bias), *others = weights.hidden
        first = first / scale[positions]
        self._hidden = [(first, bias - first @ mean[positions]), *others]
        of_v, of_u = scale[at.velocities : at.inputs], scale[at.inputs :]
        gain = 1.0 / terms(of_v[None], of_u[None])[0]  # (T,), a product of scales per term
        self._last = weights.last * gain[:, None]  # (nq, T, units)
        self._constant = weights.constant * gain
        domain = weights.domain
        self._near = domain.factor / (scale * float(domain.edge))
        self._centre = self._near @ (mean + scale * domain.mean)

    @classmethod
    def from_arrays(cls, settings: FnodeSettings, arrays: Mapping[str, Array]) -> MechanicalModel:
        """Return a model of stored arrays; raises ConfigError as its weights do."""
        return cls(settings, MechanicalWeights.from_arrays(settings, arrays))

    @property
    def settings(self) -> FnodeSettings:
        """The architecture."""
        return self._settings

    @property
    def weights(self) -> MechanicalWeights:
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
        v, u = z[:, self._at.velocities : self._at.inputs], z[:, self._at.inputs :]
        found: Array = (self._coefficients(self._last_hidden(z)) * terms(v, u)[:, None]).sum(axis=2)
        return found

    def columns(self, z: Array) -> Array:
        """Return for every term, over its scale, the last hidden layer times it and itself."""
        at, scale = self._at, self.weights.input_scale
        v = z[:, at.velocities : at.inputs] / scale[at.velocities : at.inputs]
        t = terms(v, z[:, at.inputs :] / scale[at.inputs :])  # (n, T)
        one = np.concatenate([self._last_hidden(z), np.ones((len(z), 1))], axis=1)
        found: Array = (t[:, :, None] * one[:, None, :]).reshape(len(z), -1)
        return found

    def moved(self, change: Array) -> MechanicalModel:
        """Return the network with its last layer moved by `change` (columns, nq), SI."""
        w = self.weights
        by_term = change.T.reshape(self.nq, term_count(self.settings), -1)
        moved = replace(w, last=w.last + by_term[..., :-1], constant=w.constant + by_term[..., -1])
        return MechanicalModel(self.settings, moved)

    def _last_hidden(self, z: Array) -> Array:
        h = z[:, : self._at.velocities]
        for weight, bias in self._hidden:
            h = np.tanh(h @ weight.T + bias)
        return h

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its exact slopes at x (nx,), u (nu,), or many with a leading n.

        The network is derived forwards, in as many directions as it has positions.
        """
        if x.ndim == 1:
            return Linearisation(*(part[0] for part in self.linearise(x[None], u[None])))
        nq, nu, at = self.nq, self.nu, self._at
        q, v = x[:, :nq], x[:, nq:]
        h = features(self.settings, q, v, u)[:, : at.velocities]
        slope = np.zeros((len(x), nq, at.velocities))  # of the network's inputs by q
        for column, index in zip(at.sines, at.angles, strict=True):
            slope[:, index, column], slope[:, index, column + 1] = h[:, column + 1], -h[:, column]
        for column, index in zip(at.plain, at.positions, strict=True):
            slope[:, index, column] = 1.0
        for weight, bias in self._hidden:
            h = np.tanh(h @ weight.T + bias)
            slope = (slope @ weight.T) * (1.0 - h * h)[:, None, :]
        t, coefficients = terms(v, u), self._coefficients(h)  # (n, nq, T)
        by_state = np.zeros((len(x), nq, 2 * nq))
        by_q = np.tensordot(slope, self._last, axes=(2, 2))  # (n, nq by, nq of, T)
        by_state[:, :, :nq] = np.moveaxis((by_q * t[:, None, None]).sum(axis=3), 1, 2)
        linear = slice(1 + nu, 1 + nu + nq)
        by_state[:, :, nq:] = coefficients[:, :, linear]
        for term, (i, k) in enumerate(zip(*np.triu_indices(nq), strict=True), linear.stop):
            by_state[:, :, nq + i] += coefficients[:, :, term] * v[:, None, k]
            by_state[:, :, nq + k] += coefficients[:, :, term] * v[:, None, i]
        value = (coefficients * t[:, None]).sum(axis=2)
        return Linearisation(value, by_state, coefficients[:, :, 1 : 1 + nu])

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of state x (nx,) and input u (nu,) from the data; 1 is the edge.

        As that of `FnodeModel`, over positions, velocities and inputs, though the form holds
        farther than the data reach.
        """
        z = features(self.settings, x[None, : self.nq], x[None, self.nq :], u[None])[0]
        away = self._near @ z - self._centre
        squared = float(away @ away)
        return sqrt(squared) if squared < np.inf else np.inf

    def _coefficients(self, h: Array) -> Array:
        """Return g of the last hidden layer h (n, units): (n, nq, T)."""
        found: Array = np.tensordot(h, self._last, axes=(1, 2)) + self._constant
        return found
