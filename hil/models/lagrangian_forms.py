"""A learned Lagrangian and its slopes, of many points at once, forwards (see `lagrangian`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hil.models.lagrangian_weights import (
    LagrangianSettings,
    LagrangianWeights,
    exponents,
    outputs,
    width,
)
from hil.types import Array, IntArray


class Jet(NamedTuple):
    """The network's answers and their slopes by position."""

    value: Array  # (n, outputs)
    first: Array  # (n, nq, outputs)
    second: Array  # (n, nq, nq, outputs)
    layers: tuple[Array, ...]  # what each hidden layer gave and its slopes, (1 + nq, n, units)


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
    layers: tuple[Array, ...]  # those of `Jet`


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
    layers = []
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
        layers.append(stack[: 1 + nq])
    stack = (stack.reshape(-1, stack.shape[2]) @ weights.last.T).reshape(len(stack), n, -1)
    stack[0] += weights.constant
    full = np.zeros((n, nq, nq, stack.shape[2]))
    full[:, i, j] = full[:, j, i] = stack[1 + nq :].transpose(1, 0, 2)
    return Jet(stack[0], stack[1 : 1 + nq].transpose(1, 0, 2), full, tuple(layers))


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
        friction, friction_q, friction_v, o.layers,
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
