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
from math import sqrt

import msgspec
import numpy as np

from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.lagrangian_forms import (
    Forms,
    along_motion,
    answers,
    factors,
    features,
    forms,
    inertia,
    push,
)
from hil.models.lagrangian_weights import LagrangianSettings, LagrangianWeights, outputs
from hil.types import Array


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
