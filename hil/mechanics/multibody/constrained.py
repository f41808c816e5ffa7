"""Constrained systems: Lagrange multipliers and coordinate partitioning.

Constraints Φ(z) = 0 on all coordinates z tie them to a few independent ones. With J = ∂Φ/∂z
and γ = −J̇ ż, Newton and the constraints are one system (the augmented form):

    M z̈ + Jᵀ λ = Q,   J z̈ = γ

Partitioning (Wehage & Haug, Journal of Mechanical Design 104, 1982) takes the independent
rows instead: z̈ = B q̈ + c with J B = 0, J c = γ, hence BᵀMB q̈ = Bᵀ(Q − M c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hil.errors import MechanicsError
from hil.types import AnyArray

TOLERANCE = 1e-12  # of constraints, in their own unit
ROUNDS = 30


class Partition(NamedTuple):
    """How all coordinates follow the independent ones: ż = B q̇, z̈ = B q̈ + c."""

    transform: AnyArray  # B, (…, n, nq)
    bias: AnyArray  # c, (…, n)


def augmented(
    mass: AnyArray, jacobian: AnyArray, force: AnyArray, gamma: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """Return accelerations z̈ (…, n) and multipliers λ (…, m) of the augmented form.

    mass: (…, n, n). jacobian: (…, m, n). force: (…, n). gamma: (…, m).
    """
    n, m = mass.shape[-1], jacobian.shape[-2]
    lead = jacobian.shape[:-2]
    matrix = np.zeros((*lead, n + m, n + m), dtype=np.result_type(mass, jacobian, force))
    matrix[..., :n, :n] = mass
    matrix[..., n:, :n] = jacobian
    matrix[..., :n, n:] = np.swapaxes(jacobian, -1, -2)
    right = np.concatenate(
        [np.broadcast_to(force, (*lead, n)), np.broadcast_to(gamma, (*lead, m))], -1
    )
    found = np.linalg.solve(matrix, right[..., None])[..., 0]
    return found[..., :n], found[..., n:]


def partition(jacobian: AnyArray, gamma: AnyArray, independent: Sequence[int]) -> Partition:
    """Return how the dependent coordinates follow, from J (…, m, n) and γ (…, m)."""
    n = jacobian.shape[-1]
    dependent = [i for i in range(n) if i not in independent]
    right = np.concatenate([-jacobian[..., :, list(independent)], gamma[..., None]], -1)
    solved = np.linalg.solve(jacobian[..., :, dependent], right)
    transform = np.zeros((*jacobian.shape[:-2], n, len(independent)), dtype=solved.dtype)
    transform[..., list(independent), np.arange(len(independent))] = 1.0
    transform[..., dependent, :] = solved[..., :-1]
    bias = np.zeros(transform.shape[:-1], dtype=solved.dtype)
    bias[..., dependent] = solved[..., -1]
    return Partition(transform, bias)


def recover(
    constraints: Callable[[AnyArray], AnyArray],
    jacobian: Callable[[AnyArray], AnyArray],
    z: AnyArray,
    independent: Sequence[int],
) -> AnyArray:
    """Return z (…, n) with its dependent coordinates moved to where Φ = 0, by Newton's method.

    Raises MechanicsError when that does not end: the mechanism cannot be put together there,
    or z begins too far from it.
    """
    z = np.array(z)
    dependent = [i for i in range(z.shape[-1]) if i not in independent]
    for _ in range(ROUNDS):
        miss = constraints(z)
        worst = np.abs(miss).max(initial=0.0)
        if worst <= TOLERANCE:
            return z
        if not np.isfinite(worst):
            break
        step = np.linalg.solve(jacobian(z)[..., :, dependent], miss[..., None])[..., 0]
        z[..., dependent] -= step
    raise MechanicsError(
        f"constraints: off by {worst:.1e} after {ROUNDS} Newton steps; the mechanism does not "
        "close at these independent coordinates, or the guess is of another assembly"
    )
