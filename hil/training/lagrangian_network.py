"""A learned Lagrangian in training: how the momenta of poses depend on the weights, by hand.

Three poses and the mean inputs between them leave ρ = p⁺(q₀, q₁) − p⁻(q₁, q₂) of the discrete
Euler–Lagrange equations. Along a direction μ, μ·ρ is a sum over both segments of

    s = ½ h (∂ℓ/∂m + F)·μ ± ∂ℓ/∂v·μ,

which asks of the network its answers and their slope along μ at the midpoint: one tangent
forwards, one pass back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hil.models.fnode import Domain
from hil.models.lagrangian_forms import factors, features, logistic, sources, terms, triangle
from hil.models.lagrangian_weights import LagrangianSettings, LagrangianWeights, outputs, width
from hil.models.symo import CLOSE, Layers, Root, momenta, next_pose
from hil.types import Array

SOFTPLUS_ONE = float(np.log(np.e - 1.0))  # softplus of it is 1
CORRECTION = 1e4  # what order 4 adds is of order h²: its weights are small
START_DAMPING = -2.0  # softplus of it is 0.13: K on the diagonal


@dataclass(frozen=True)
class Triples:
    """Three poses in a row and the mean inputs between them."""

    first: Array  # (n, nq)
    second: Array  # (n, nq)
    third: Array  # (n, nq)
    u_first: Array  # (n, nu), from the first to the second
    u_second: Array  # (n, nu)

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.first)

    def some(self, which: Any) -> Triples:
        """Return some of the samples."""
        return Triples(
            self.first[which], self.second[which], self.third[which],
            self.u_first[which], self.u_second[which],
        )  # fmt: skip


class Sensitivity(NamedTuple):
    """What each layer was given and what s asks of it, per sample; value and tangent of both."""

    given: list[Array]  # per layer (2, n, before)
    asked: list[Array]  # per layer (2, n, units)


class LagrangianNetwork:
    """The weights in training, one flat vector, and the residuals of poses."""

    def __init__(self, settings: LagrangianSettings, flat: Array, scaling: tuple[Array, ...]):
        self.settings, self.flat, self.scaling = settings, flat, scaling
        self.weights = self._views(Domain(*(np.zeros(0),) * 3))
        self.trained = np.ones(len(flat), dtype=bool)
        self.stiffness = np.ones(len(flat))  # of the ridge, per weight
        self._last(self.stiffness)[outputs(settings).terms][1:] = CORRECTION
        if settings.damping == "constant":  # answers that no position changes
            self._last(self.trained)[outputs(settings).damping] = False

    def _last(self, flat: Any) -> Any:
        """Return the last layer's part of a flat vector, (outputs, units)."""
        shape, constant = self.weights.last.shape, outputs(self.settings).total
        return flat[-shape[0] * shape[1] - constant : -constant].reshape(shape)

    @classmethod
    def start(
        cls, settings: LagrangianSettings, data: Triples, period: float,
        random: np.random.Generator, first_layer: float | None = None,
    ) -> LagrangianNetwork:  # fmt: skip
        """Return a network of unit inertia without potential, with Xavier weights below.

        first_layer: standard deviation of the weights of the first layer instead, with biases
        of spread 1. Positions that are no angles, speeds and inputs are scaled to the data.
        """
        at = outputs(settings)
        parts: list[Array] = []
        for number, (before, units) in enumerate(pairwise([width(settings), *settings.hidden])):
            limit = np.sqrt(6 / (before + units))
            if number == 0 and first_layer is not None:
                limit = first_layer * np.sqrt(3)
            parts.append(random.uniform(-limit, limit, units * before))
            own = number == 0 and first_layer is not None
            parts.append(random.uniform(-1, 1, units) if own else np.zeros(units))
        units = settings.hidden[-1]
        limit = 0.1 * np.sqrt(6 / (units + at.total))
        last = random.uniform(-limit, limit, (at.total, units))
        last[at.terms][1:] = 0.0  # what order 4 adds is small
        constant = np.zeros(at.total)
        diagonal = np.flatnonzero(np.equal(*triangle(settings)))
        constant[at.factor][diagonal] = SOFTPLUS_ONE
        if settings.damping != "none":
            constant[at.damping][diagonal] = START_DAMPING
            last[at.damping] = 0.0
        parts += [last.ravel(), constant]
        q = np.concatenate([data.first, data.third])
        mean, scale = q.mean(axis=0), _spread(q)
        turning = list(settings.angles)
        mean[turning], scale[turning] = 0.0, 1.0
        motion = np.concatenate([(data.second - data.first) / period, data.u_first], axis=1)
        motion_scale = np.sqrt((motion**2).mean(axis=0))
        motion_scale = np.where(motion_scale > 0, motion_scale, 1.0)
        scaling = (np.asarray(period), mean, scale, motion_scale)
        return cls(settings, np.concatenate(parts), scaling)

    def _views(self, domain: Domain) -> LagrangianWeights:
        """Return weights that look into the flat vector."""
        settings, at = self.settings, 0

        def take(*shape: int) -> Array:
            nonlocal at
            size = int(np.prod(shape))
            view = self.flat[at : at + size].reshape(shape)
            at += size
            return view

        before, hidden = width(settings), []
        for units in settings.hidden:
            hidden.append((take(units, before), take(units)))
            before = units
        count = outputs(settings).total
        last, constant = take(count, before), take(count)
        period, mean, scale, motion_scale = self.scaling
        return LagrangianWeights(
            period, mean, scale, motion_scale, tuple(hidden), last, constant, domain
        )

    def with_flat(self, flat: Array) -> LagrangianNetwork:
        """Return a network with other weights."""
        return LagrangianNetwork(self.settings, flat, self.scaling)

    def finished(self, domain: Domain) -> LagrangianWeights:
        """Return the weights of a model, which no later training changes."""
        return LagrangianNetwork(self.settings, self.flat.copy(), self.scaling)._views(domain)

    def residual(self, data: Triples) -> Array:
        """Return ρ, (n, nq), N·s or N·m·s: how far the momenta at the second pose disagree."""
        settings, weights = self.settings, self.weights
        n = len(data)
        begin = np.concatenate([data.first, data.second])
        end = np.concatenate([data.second, data.third])
        u = np.concatenate([data.u_first, data.u_second])
        p = momenta(settings, weights, begin, end, u, curved=False)
        return p.after[:n] - p.before[n:]

    def prediction(self, data: Triples, start: Array | None = None, close: float = CLOSE) -> Root:
        """Return the third pose the model finds, and ∂p⁻/∂q₂ there: its inverse is ∂q₂/∂ρ."""
        return next_pose(
            self.settings, self.weights, data.first, data.second, data.u_first, data.u_second,
            start, close,
        )  # fmt: skip

    def gradient(
        self, data: Triples, direction: Array, layers: tuple[Layers, Layers] | None = None
    ) -> Array:
        """Return ∂(Σ μ·ρ)/∂flat for directions μ (n, nq), with the poses held.

        layers: of `Root`, where the network was asked at these poses before.
        """
        found = self._sensitivity(data, direction, layers)
        parts: list[Array] = []
        for given, asked in zip(found.given, found.asked, strict=True):
            flat_given, flat_asked = (a.reshape(-1, a.shape[-1]) for a in (given, asked))
            parts += [(flat_asked.T @ flat_given).ravel(), asked[0].sum(axis=0)]
        gradient = np.concatenate(parts)
        if not self.trained.all():
            gradient[~self.trained] = 0.0
        return gradient

    def rows(self, data: Triples, directions: Array) -> Array:
        """Return ∂(μ·ρ)/∂flat for each of the directions μ (n, c, nq) of a sample: (n c, p)."""
        n, c, _ = directions.shape
        many = data.some(np.repeat(np.arange(n), c))
        found = self._sensitivity(many, directions.reshape(n * c, -1))
        parts = []
        for given, asked in zip(found.given, found.asked, strict=True):
            # value and tangent of both segments add up: a product over four
            x, a = (_by_sample(part, n * c) for part in (given, asked))
            parts.append((a.swapaxes(1, 2) @ x).reshape(n * c, -1))
            parts.append(asked[0, : n * c] + asked[0, n * c :])
        rows = np.concatenate(parts, axis=1)
        rows[:, ~self.trained] = 0.0
        return rows

    def _sensitivity(
        self, data: Triples, direction: Array, layers: tuple[Layers, Layers] | None = None
    ) -> Sensitivity:
        """Return what s of both segments, the first ones before, asks of each layer."""
        settings, weights, at = self.settings, self.weights, outputs(self.settings)
        h = float(weights.period)
        begin = np.concatenate([data.first, data.second])
        end = np.concatenate([data.second, data.third])
        u = np.concatenate([data.u_first, data.u_second])
        mu = np.concatenate([direction, direction])
        sign = np.repeat([1.0, -1.0], len(data))[:, None]
        v = (end - begin) / h
        phi, source = features(settings, weights, 0.5 * (begin + end)), sources(settings)
        x = np.stack([phi[0], phi[1] * mu[:, source]])  # value and tangent
        given = [x]
        slopes: list[Array] = []
        for number, (weight, bias) in enumerate(weights.hidden):
            if layers is None:
                x = (x.reshape(-1, x.shape[2]) @ weight.T).reshape(2, len(mu), -1)
                x[0] += bias
                y = np.tanh(x[0], out=x[0])
                slopes.append(1.0 - y * y)
                x[1] *= slopes[-1]
            else:  # a slope along μ is the sum of those by each position
                n, x = len(data), np.empty((2, len(mu), len(bias)))
                for half, part in enumerate(layers):
                    y, *by_position = part[number]
                    rows = slice(half * n, (half + 1) * n)
                    x[0, rows] = y
                    np.multiply(by_position[0], direction[:, :1], out=x[1, rows])
                    for i in range(1, settings.nq):
                        x[1, rows] += by_position[i] * direction[:, i : i + 1]
                slopes.append(1.0 - x[0] * x[0])
            given.append(x)
        o = (x.reshape(-1, x.shape[2]) @ weights.last.T).reshape(2, len(mu), -1)
        o[0] += weights.constant
        asked = [self._seed(o[0], o[1], at, v, u, mu, sign, h)]
        back, above = asked[0], weights.last
        for number in range(len(slopes) - 1, -1, -1):
            back = (back.reshape(-1, back.shape[2]) @ above).reshape(2, len(mu), -1)
            y, tangent = given[number + 1]
            # tangent = slope · (W t), so that slope' (W t) = −2 y tangent
            back[0] *= slopes[number]
            bend = y * tangent
            bend *= back[1]
            bend *= 2.0
            back[0] -= bend
            back[1] *= slopes[number]
            asked.insert(0, back)
            above = weights.hidden[number][0]
        return Sensitivity(given, asked)

    def _seed(
        self, o: Array, o_mu: Array, at: Any, v: Array, u: Array, mu: Array, sign: Array, h: float
    ) -> Array:
        """Return the slopes of s by the outputs and by their tangents, (2, n, outputs)."""
        settings = self.settings
        i, j = triangle(settings)
        on = i == j
        seed = np.zeros((2, *o.shape))
        factor, o_factor = factors(settings, o[:, at.factor]), o_mu[:, at.factor]
        slope = np.where(on, logistic(o[:, at.factor]), 1.0)
        tangent = np.zeros_like(factor)
        tangent[:, i, j] = slope * o_factor
        w, w_mu = (np.einsum("nba,nb->na", f, v) for f in (factor, tangent))
        turned = np.einsum("nba,nb->na", factor, mu)
        by_factor = 0.5 * h * v[:, i] * w_mu[:, j]
        by_factor += sign * (mu[:, i] * w[:, j] + v[:, i] * turned[:, j])
        by_tangent = 0.5 * h * v[:, i] * w[:, j]
        bend = np.where(on, slope * (1.0 - slope), 0.0)
        seed[0][:, at.factor] = slope * by_factor + bend * o_factor * by_tangent
        seed[1][:, at.factor] = slope * by_tangent
        tau, tau_v, _ = terms(settings, self.weights, v, u)
        seed[0][:, at.terms] = sign * np.einsum("ntb,nb->nt", tau_v, mu)
        seed[1][:, at.terms] = 0.5 * h * tau
        if settings.damping != "none":
            k = factors(settings, o[:, at.damping])
            slope = np.where(on, logistic(o[:, at.damping]), 1.0)
            kv, kmu = (np.einsum("nba,nb->na", k, d) for d in (v, mu))
            by_k = -0.5 * h * (v[:, i] * kmu[:, j] + mu[:, i] * kv[:, j])
            seed[0][:, at.damping] = slope * by_k
        return seed


def _by_sample(part: Array, n: int) -> Array:
    """Return (2, 2n, units) of both segments as (n, 4, units)."""
    return part.reshape(4, n, part.shape[2]).swapaxes(0, 1)


def _spread(values: Array) -> Array:
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-12 * (1 + np.abs(values).max(axis=0)), deviation, 1.0)
