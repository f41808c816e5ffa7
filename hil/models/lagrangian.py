"""A Lagrangian learned by a tanh network of the positions; angles enter as (cos, sin).

    ℓ(q, v, u) = ½ vᵀ H(q) v + Σ_t c_t(q) τ_t(v, u),   H = L Lᵀ + ε,   V = −c_0 (τ_0 = 1)

The network answers with the entries of L (softplus on its diagonal), with c, and, where there is
friction, with the factor K of a Rayleigh damping D = K Kᵀ, which gives the force −D v. H and V
alone are those of Santos, Ekal & Ventura, "Symplectic Momentum Neural Networks" (L4DC 2022) and
of deep Lagrangian networks (Lutter et al., ICLR 2019). `order = 4` adds what the exact discrete
Lagrangian of one period has beyond its midpoint rule (Marsden & West, Acta Numerica 2001, §2.3):
terms in v⁴, v²u, u² and u, by backward analysis of the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from math import sqrt
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.fnode import Domain
from hil.types import Array, IntArray

Index = Annotated[int, msgspec.Meta(ge=0)]


class LagrangianSettings(Settings, frozen=True, kw_only=True):
    """Architecture of a learned Lagrangian; positions are counted from 0, as in q."""

    nq: Annotated[int, msgspec.Meta(ge=1, le=16, description="positions")]
    driven: tuple[Index, ...] = ()  # per input: the position it acts on, as a force or torque
    angles: tuple[Index, ...] = ()  # enter as (cos, sin)
    left_out: tuple[Index, ...] = ()  # do not enter at all
    hidden: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=4096)], ...],
        msgspec.Meta(min_length=1, description="units of each hidden layer"),
    ] = (32, 32)
    floor: Annotated[float, msgspec.Meta(gt=0, description="ε, least inertia, kg or kg·m²")] = 1e-3
    order: Literal[2, 4] = 2  # of the discrete Lagrangian in the period
    damping: Literal["none", "constant", "positions"] = "none"

    def __post_init__(self) -> None:
        """Refuse positions that are not there."""
        for name in ("driven", "angles", "left_out"):
            wrong = [index for index in getattr(self, name) if index >= self.nq]
            if wrong:
                raise ValueError(
                    f"`{name}` names position {wrong[0]} of a model with {self.nq} positions"
                )

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return len(self.driven)


class Outputs(NamedTuple):
    """Where the outputs of the network stand."""

    factor: slice  # entries of L, row by row of its lower triangle
    terms: slice  # c
    damping: slice  # entries of K, as those of L
    total: int


def outputs(settings: LagrangianSettings) -> Outputs:
    """Return where the outputs of the network stand."""
    triangle = settings.nq * (settings.nq + 1) // 2
    last = triangle + len(exponents(settings))
    count = last + (triangle if settings.damping != "none" else 0)
    return Outputs(slice(0, triangle), slice(triangle, last), slice(last, count), count)


@lru_cache(maxsize=64)
def exponents(settings: LagrangianSettings) -> IntArray:
    """Return the powers of v and u in each term τ, (T, nq + nu); the first is τ = 1."""
    nq, nu = settings.nq, settings.nu
    rows = [(0,) * (nq + nu)]
    if settings.order == 4:
        wanted = {(4, 0), (2, 1), (0, 2), (0, 1)}
        found = product(*[range(5)] * nq, *[range(3)] * nu)
        rows += [row for row in found if (sum(row[:nq]), sum(row[nq:])) in wanted]
    return np.array(rows, dtype=np.int64)


def width(settings: LagrangianSettings) -> int:
    """Return the number of inputs of the network."""
    return sum(1 + (i in settings.angles) for i in range(settings.nq) if i not in settings.left_out)


@dataclass(frozen=True)
class LagrangianWeights:
    """What training finds."""

    period: Array  # (), s, of the poses it was learned from
    position_mean: Array  # (nq,), of positions that are no angles; else 0
    position_scale: Array  # (nq,), else 1
    motion_scale: Array  # (nq + nu,), v and u in the terms τ are over this
    hidden: tuple[tuple[Array, Array], ...]  # per layer: (units, before), (units,)
    last: Array  # (outputs, units), SI
    constant: Array  # (outputs,), SI
    domain: Domain = field(repr=False)  # of (network's inputs, v, u)

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        plain = ("period", "position_mean", "position_scale", "motion_scale", "last", "constant")
        named = {name: np.asarray(getattr(self, name)) for name in plain}
        for number, (weight, bias) in enumerate(self.hidden, 1):
            named[f"hidden.{number}.weight"] = weight
            named[f"hidden.{number}.bias"] = bias
        for name in ("mean", "factor", "edge"):
            named[f"domain.{name}"] = np.asarray(getattr(self.domain, name))
        return named

    @classmethod
    def from_arrays(
        cls, settings: LagrangianSettings, arrays: Mapping[str, Array]
    ) -> LagrangianWeights:
        """Return weights of named arrays.

        Raises ConfigError for an array that is missing, too many or of another shape.
        """
        nq, count, all_inputs = settings.nq, outputs(settings).total, settings.nq + settings.nu
        near = width(settings) + all_inputs
        shapes: dict[str, tuple[int, ...]] = {
            "period": (), "position_mean": (nq,), "position_scale": (nq,),
            "motion_scale": (all_inputs,), "last": (count, settings.hidden[-1]),
            "constant": (count,), "domain.mean": (near,), "domain.factor": (near, near),
            "domain.edge": (),
        }  # fmt: skip
        before = width(settings)
        for number, units in enumerate(settings.hidden, 1):
            shapes[f"hidden.{number}.weight"] = (units, before)
            shapes[f"hidden.{number}.bias"] = (units,)
            before = units
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if found != {name: (shape, np.dtype(np.float64)) for name, shape in shapes.items()}:
            raise ConfigError(f"weights of a Lagrangian: expected {shapes}, found {found}")
        hidden = tuple(
            (arrays[f"hidden.{number}.weight"], arrays[f"hidden.{number}.bias"])
            for number in range(1, len(settings.hidden) + 1)
        )
        plain = ("period", "position_mean", "position_scale", "motion_scale")
        domain = Domain(*(arrays[f"domain.{name}"] for name in ("mean", "factor", "edge")))
        own = {name: arrays[name] for name in (*plain, "last", "constant")}
        return cls(hidden=hidden, domain=domain, **own)


class Jet(NamedTuple):
    """The network's answers and their slopes by position."""

    value: Array  # (n, outputs)
    first: Array  # (n, nq, outputs)
    second: Array  # (n, nq, nq, outputs)


class Forms(NamedTuple):
    """ℓ, its slopes, and the friction F = −D v, at n points; energy in J."""

    value: Array  # (n,)
    by_q: Array  # (n, nq), ∂ℓ/∂q
    by_v: Array  # (n, nq), ∂ℓ/∂v
    by_qq: Array  # (n, nq, nq)
    by_qv: Array  # (n, nq of q, nq of v)
    by_vv: Array  # (n, nq, nq)
    friction: Array  # (n, nq), F
    friction_by_q: Array  # (n, nq of F, nq of q)
    friction_by_v: Array  # (n, nq of F, nq of v)


def features(settings: LagrangianSettings, weights: LagrangianWeights, q: Array) -> Array:
    """Return the inputs of the network, (3, n, width): value, slope, curvature by its position.

    q: (n, nq). Every input depends on one position only, that of `sources`.
    """
    mean, scale = weights.position_mean, weights.position_scale
    found = np.zeros((3, len(q), width(settings)))
    column = 0
    for index in range(settings.nq):
        if index in settings.left_out:
            continue
        if index in settings.angles:
            cosine, sine = np.cos(q[:, index]), np.sin(q[:, index])
            found[:, :, column] = cosine, -sine, -cosine
            found[:, :, column + 1] = sine, cosine, -sine
            column += 2
        else:
            found[0, :, column] = (q[:, index] - mean[index]) / scale[index]
            found[1, :, column] = 1.0 / scale[index]
            column += 1
    return found


def sources(settings: LagrangianSettings) -> IntArray:
    """Return the position behind each input of the network, (width,)."""
    kept = [i for i in range(settings.nq) if i not in settings.left_out]
    found: IntArray = np.repeat(kept, [1 + (i in settings.angles) for i in kept])
    return found


def triangle(settings: LagrangianSettings) -> tuple[IntArray, IntArray]:
    """Return rows and columns of the lower triangle, in the order of the outputs."""
    rows, columns = np.tril_indices(settings.nq)
    return rows, columns


def jet(
    settings: LagrangianSettings, weights: LagrangianWeights, q: Array, curved: bool = True
) -> Jet:
    """Return the network's answers at q (n, nq) and their first and second slopes, forwards.

    curved: False leaves the second slopes out, and half the work.
    """
    n, nq = q.shape
    i, j = triangle(settings) if curved else (np.zeros(0, dtype=np.int64),) * 2
    phi, source = features(settings, weights, q), sources(settings)
    stack = np.zeros((1 + nq + len(i), n, phi.shape[2]))  # value, by q_i, by q_i q_j
    stack[0] = phi[0]
    columns = np.arange(phi.shape[2])
    stack[1 + source, :, columns] = phi[1].T
    if curved:
        diagonal = 1 + nq + np.flatnonzero(i == j)
        stack[diagonal[source], :, columns] = phi[2].T
    for weight, bias in weights.hidden:
        stack = (stack.reshape(-1, stack.shape[2]) @ weight.T).reshape(len(stack), n, -1)
        y = stack[0]
        y += bias
        np.tanh(y, out=y)
        slope = 1.0 - y * y
        first, second = stack[1 : 1 + nq], stack[1 + nq :]
        if curved:
            second *= slope
            bend = y * slope
            bend *= -2.0
            for a in range(nq):
                bent = bend * first[a]
                for b in range(a + 1):
                    second[a * (a + 1) // 2 + b] += bent * first[b]
        first *= slope
    stack = (stack.reshape(-1, stack.shape[2]) @ weights.last.T).reshape(len(stack), n, -1)
    stack[0] += weights.constant
    full = np.zeros((n, nq, nq, stack.shape[2]))
    full[:, i, j] = full[:, j, i] = stack[1 + nq :].transpose(1, 0, 2)
    return Jet(stack[0], stack[1 : 1 + nq].transpose(1, 0, 2), full)


def answers(settings: LagrangianSettings, weights: LagrangianWeights, q: Array) -> Array:
    """Return the network's answers alone, (n, outputs), at q (n, nq)."""
    h = features(settings, weights, q)[0]
    for weight, bias in weights.hidden:
        h = np.tanh(h @ weight.T + bias)
    found: Array = h @ weights.last.T + weights.constant
    return found


def logistic(x: Array) -> Array:
    """Return 1 / (1 + e^−x), the slope of softplus, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def factors(settings: LagrangianSettings, o: Array) -> Array:
    """Return L, (…, nq, nq), of the outputs o (…, nq (nq + 1) / 2): softplus on the diagonal."""
    i, j = triangle(settings)
    found = np.zeros((*o.shape[:-1], settings.nq, settings.nq))
    softplus = np.maximum(o, 0.0) + np.log1p(np.exp(-np.abs(o)))
    found[..., i, j] = np.where(i == j, softplus, o)
    return found


def terms(
    settings: LagrangianSettings, weights: LagrangianWeights, v: Array, u: Array
) -> tuple[Array, Array, Array]:
    """Return τ (n, T) and its slopes by v, (n, T, nq) and (n, T, nq, nq)."""
    powers, nq = exponents(settings), settings.nq
    if len(powers) == 1:
        n = len(v)
        return np.ones((n, 1)), np.zeros((n, 1, nq)), np.zeros((n, 1, nq, nq))
    z = np.concatenate([v, u], axis=1) / weights.motion_scale

    def monomials(power: IntArray) -> Array:
        return np.asarray(np.prod(z[:, None, :] ** np.maximum(power, 0), axis=2))

    scale = weights.motion_scale[:nq]
    first = np.zeros((len(v), len(powers), nq))
    second = np.zeros((len(v), len(powers), nq, nq))
    unit = np.eye(powers.shape[1], dtype=np.int64)
    for a in range(nq):
        first[:, :, a] = powers[:, a] * monomials(powers - unit[a]) / scale[a]
        for b in range(a + 1):
            twice = powers[:, a] * (powers - unit[a])[:, b]
            found = twice * monomials(powers - unit[a] - unit[b]) / (scale[a] * scale[b])
            second[:, :, a, b] = second[:, :, b, a] = found
    return monomials(powers), first, second


def inertia(settings: LagrangianSettings, weights: LagrangianWeights, q: Array) -> Array:
    """Return H, (n, nq, nq), at q (n, nq)."""
    factor = factors(settings, answers(settings, weights, q)[:, outputs(settings).factor])
    return np.asarray(factor @ factor.swapaxes(1, 2) + settings.floor * np.eye(settings.nq))


def forms(
    settings: LagrangianSettings, weights: LagrangianWeights, q: Array, v: Array, u: Array,
    curved: bool = True,
) -> Forms:  # fmt: skip
    """Return the Lagrangian, its slopes and the friction at q, v (n, nq) and u (n, nu).

    curved: False leaves ∂²ℓ/∂q² zero, for half the work.
    """
    at, nq = outputs(settings), settings.nq
    o = jet(settings, weights, q, curved)
    factor, by_i, by_ij = _factor_jet(settings, o, at.factor)
    w = np.einsum("nba,nb->na", factor, v)  # Lᵀ v
    w_i = np.einsum("niba,nb->nia", by_i, v)
    w_ij = np.einsum("nijba,nb->nija", by_ij, v)
    tau, tau_v, tau_vv = terms(settings, weights, v, u)
    c, c_i, c_ij = o.value[:, at.terms], o.first[..., at.terms], o.second[..., at.terms]
    floor = settings.floor
    by_qv = np.einsum("niba,na->nib", by_i, w) + np.einsum("nba,nia->nib", factor, w_i)
    value = 0.5 * (w * w).sum(1) + 0.5 * floor * (v * v).sum(1) + (c * tau).sum(1)
    by_q = np.einsum("na,nia->ni", w, w_i) + np.einsum("nit,nt->ni", c_i, tau)
    by_v = np.einsum("nba,na->nb", factor, w) + floor * v
    by_qq = np.einsum("nia,nja->nij", w_i, w_i) + np.einsum("na,nija->nij", w, w_ij)
    by_qq += np.einsum("nijt,nt->nij", c_ij, tau)
    by_vv = factor @ factor.swapaxes(1, 2) + floor * np.eye(nq)
    if tau.shape[1] > 1:
        by_v += np.einsum("nt,ntb->nb", c, tau_v)
        by_qv += np.einsum("nit,ntb->nib", c_i, tau_v)
        by_vv += np.einsum("nt,ntbd->nbd", c, tau_vv)
    friction, friction_q, friction_v = np.zeros_like(v), np.zeros_like(by_vv), np.zeros_like(by_vv)
    if settings.damping != "none":
        k, k_i, _ = _factor_jet(settings, o, at.damping)
        kv = np.einsum("nba,nb->na", k, v)
        friction = -np.einsum("nba,na->nb", k, kv)
        friction_v = -k @ k.swapaxes(1, 2)
        slope = np.einsum("niba,na->nbi", k_i, kv)
        slope += np.einsum("nba,nica,nc->nbi", k, k_i, v)
        friction_q = -slope
    return Forms(
        value, by_q, by_v, by_qq, by_qv, by_vv,
        friction, friction_q, friction_v,
    )  # fmt: skip


def along_motion(
    settings: LagrangianSettings, weights: LagrangianWeights, q: Array, v: Array, u: Array
) -> tuple[Array, Array]:
    """Return Σ_i v_i ∂/∂q_i of ∂²ℓ/∂q∂v, (n, nq of q, nq of v), and of ∂²ℓ/∂v², (n, nq, nq)."""
    at = outputs(settings)
    o = jet(settings, weights, q)
    factor, by_i, by_ij = _factor_jet(settings, o, at.factor)
    w = np.einsum("nba,nb->na", factor, v)
    w_i = np.einsum("niba,nb->nia", by_i, v)
    w_ij = np.einsum("nijba,nb->nija", by_ij, v)
    along = np.einsum("ni,nijba->njba", v, by_ij)  # Σ_i v_i L_ij
    w_along, along_w = np.einsum("ni,nija->nja", v, w_ij), np.einsum("ni,nia->na", v, w_i)
    forward = np.einsum("ni,niba->nba", v, by_i)
    by_qqv_v = (
        np.einsum("njba,na->njb", along, w)
        + np.einsum("nba,nja->njb", forward, w_i)
        + np.einsum("njba,na->njb", by_i, along_w)
        + np.einsum("nba,nja->njb", factor, w_along)
    )
    turned = forward @ factor.swapaxes(1, 2)
    by_qvv_v = turned + turned.swapaxes(1, 2)
    _, tau_v, tau_vv = terms(settings, weights, v, u)
    if tau_v.shape[1] > 1:
        c_i, c_ij = o.first[..., at.terms], o.second[..., at.terms]
        by_qqv_v += np.einsum("ni,nijt,ntb->njb", v, c_ij, tau_v)
        by_qvv_v += np.einsum("ni,nit,ntbd->nbd", v, c_i, tau_vv)
    return by_qqv_v, by_qvv_v


def _factor_jet(settings: LagrangianSettings, o: Jet, part: slice) -> tuple[Array, Array, Array]:
    """Return L and its slopes, (n, nq, nq), (n, nq, nq, nq), (n, nq, nq, nq, nq)."""
    i, j = triangle(settings)
    nq, n = settings.nq, len(o.value)
    on = np.flatnonzero(i == j)
    first, second = o.first[..., part].copy(), o.second[..., part].copy()
    slope = logistic(o.value[:, part][:, on])
    bend = slope * (1.0 - slope)
    raw = first[..., on]
    second[..., on] = (
        slope[:, None, None] * second[..., on]
        + bend[:, None, None] * raw[:, :, None] * raw[:, None, :]
    )
    first[..., on] = slope[:, None] * raw
    by_i, by_ij = np.zeros((n, nq, nq, nq)), np.zeros((n, nq, nq, nq, nq))
    by_i[..., i, j], by_ij[..., i, j] = first, second
    return factors(settings, o.value[:, part]), by_i, by_ij


def push(settings: LagrangianSettings, u: Array) -> Array:
    """Return the generalised force B u, (n, nq), of inputs (n, nu)."""
    found = np.zeros((len(u), settings.nq))
    for column, index in enumerate(settings.driven):
        found[:, index] += u[:, column]
    return found


class LagrangianModel(AbstractLearnedDynamics):
    """A learned Lagrangian as dynamics: q̈ = ∂²ℓ/∂v²⁻¹ (B u + F + ∂ℓ/∂q − ∂²ℓ/∂v∂q v).

    Only its part H, V and D is used: what `order` adds belongs to one period.
    """

    Settings = LagrangianSettings

    def __init__(self, settings: LagrangianSettings, weights: LagrangianWeights) -> None:
        self.settings, self.weights = settings, weights
        self._plain, self._own = continuous(settings, weights)
        self._input = push(settings, np.eye(settings.nu)).T  # (nq, nu), B

    @classmethod
    def from_arrays(
        cls, settings: LagrangianSettings, arrays: Mapping[str, Array]
    ) -> LagrangianModel:
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

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq), for q, v (batch, nq) and u (batch, nu), SI."""
        f = forms(self._plain, self._own, q, v, u, curved=False)
        return _acceleration(f, v, push(self.settings, u))

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and its exact slopes at x (nx,), u (nu,), or many, leading n."""
        if x.ndim == 1:
            return Linearisation(*(part[0] for part in self.linearise(x[None], u[None])))
        nq = self.nq
        q, v = x[:, :nq], x[:, nq:]
        f = forms(self._plain, self._own, q, v, u)
        a = _acceleration(f, v, push(self.settings, u))
        by_q = _inertia_slope_times(self._plain, self._own, q, a)
        by_qqv_v, by_qvv_v = along_motion(self._plain, self._own, q, v, u)
        by_q = f.friction_by_q + f.by_qq.swapaxes(1, 2) - by_qqv_v.swapaxes(1, 2) - by_q
        # ∂/∂v of ∂ℓ/∂q − (∂²ℓ/∂v∂q) v: the second factor v, and the first by v
        by_v = f.friction_by_v + f.by_qv - f.by_qv.swapaxes(1, 2) - by_qvv_v
        right = np.concatenate(
            [by_q, by_v, np.broadcast_to(self._input, (len(x), nq, self.nu))], axis=2
        )
        slopes = np.linalg.solve(f.by_vv, right)
        return Linearisation(a, slopes[:, :, : 2 * nq], slopes[:, :, 2 * nq :])

    def inertia(self, q: Array) -> Array:
        """Return H, (n, nq, nq), kg·m² (or kg·m, kg), at q (n, nq)."""
        return inertia(self._plain, self._own, q)

    def potential(self, q: Array) -> Array:
        """Return V, (n,), J, at q (n, nq); known but for a constant."""
        return -answers(self._plain, self._own, q)[:, outputs(self._plain).terms.start]

    def damping(self, q: Array) -> Array:
        """Return D, (n, nq, nq), N·m·s/rad (or N·s, N·s/m), at q (n, nq)."""
        if self.settings.damping == "none":
            return np.zeros((len(q), self.nq, self.nq))
        found = answers(self._plain, self._own, q)[:, outputs(self._plain).damping]
        k = factors(self._plain, found)
        return np.asarray(k @ k.swapaxes(1, 2))

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance of state x (nx,) and input u (nu,) from the data; 1 is the edge."""
        domain, nq = self.weights.domain, self.nq
        z = motion_features(self.settings, self.weights, x[None, :nq], x[None, nq:], u[None])[0]
        away = domain.factor @ (z - domain.mean)
        squared = float(away @ away)
        return sqrt(squared) / float(domain.edge) if squared < np.inf else np.inf


def continuous(
    settings: LagrangianSettings, weights: LagrangianWeights
) -> tuple[LagrangianSettings, LagrangianWeights]:
    """Return the part that is no matter of the period: H, V and D."""
    if settings.order == 2:
        return settings, weights
    at, plain = outputs(settings), msgspec.structs.replace(settings, order=2)
    kept = np.r_[at.factor, at.terms.start, at.damping]
    own = LagrangianWeights(
        weights.period, weights.position_mean, weights.position_scale, weights.motion_scale,
        weights.hidden, weights.last[kept], weights.constant[kept], weights.domain,
    )  # fmt: skip
    return plain, own


def motion_features(
    settings: LagrangianSettings, weights: LagrangianWeights, q: Array, v: Array, u: Array
) -> Array:
    """Return what the domain is of, (n, width + nq + nu): network's inputs, v and u, scaled."""
    motion = np.concatenate([v, u], axis=1) / weights.motion_scale
    return np.concatenate([features(settings, weights, q)[0], motion], axis=1)


def _acceleration(f: Forms, v: Array, force: Array) -> Array:
    right = force + f.friction + f.by_q - np.einsum("nib,ni->nb", f.by_qv, v)
    return np.asarray(np.linalg.solve(f.by_vv, right[..., None])[..., 0])


def _inertia_slope_times(
    settings: LagrangianSettings, weights: LagrangianWeights, q: Array, a: Array
) -> Array:
    """Return ∂(H a)/∂q, (n, nq of H a, nq of q), a held."""
    nothing = np.zeros((len(q), settings.nu))
    return forms(settings, weights, q, a, nothing, curved=False).by_qv.swapaxes(1, 2)
