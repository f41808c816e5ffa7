"""Levenberg–Marquardt in function space: for few points and many weights.

With residual r (m,) of all points and outputs and J its slopes by the weights (m, p), a step is

    δ = Jᵀ α,   (J Jᵀ + λ I) α = r,

the dual of the usual (JᵀJ + λ I) δ = Jᵀ r (Nocedal & Wright, Numerical Optimization, 2nd ed.,
§10.3): a system of m, not of p. K = J Jᵀ is the tangent kernel of the network (Jacot, Gabriel
& Hongler, NeurIPS 2018). Layer by layer it is a product of two Gram matrices, of what enters
the layer and of what comes back to it, so that J is never held. After a step the linear model
leaves the residual λ α. λ is searched for at each step.

With a ridge, |r|²/m + ρ |w|² is reduced: with c = m ρ and s = c + λ,

    δ = Jᵀ (J Jᵀ + s I)⁻¹ (r + (c/s) J w) − (c/s) w.

With 70 000 weights and a thousand residuals an iteration costs a tenth of a second, and 50 of
them end where tens of thousands of first-order steps do not. The cost grows as m³: above some
thousand residuals batches and Adam (`hil.training.fit`) are the better choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from hil.training.network import Network
from hil.types import Array

LARGEST = 6000  # residuals; K then takes 300 MB
START = 1e-2  # λ over the mean of K's diagonal
LEAST, MOST = 1e-15, 1e6  # the same: below, K is not positive definite in double precision
SEARCH = 4.0  # λ changes by this factor
STEP = 1e-30  # of a complex step


class Descent(NamedTuple):
    """How a minimisation went."""

    updates: int  # steps taken
    loss: float  # mean square of the scaled residual
    cpu_seconds: float


class SquaresProblem(Protocol):
    """A residual r (m,) of few entries that many weights reduce."""

    @property
    def flat(self) -> Array:
        """Return the weights (p,) themselves: a step changes them in place."""

    def residual(self) -> Array:
        """Return r (m,), targets less what is found; not finite where there is no answer."""

    def kernel(self) -> Array:
        """Return J Jᵀ, (m, m), with J the slopes of what is found."""

    def back(self, dual: Array) -> Array:
        """Return Jᵀ dual, (p,), for dual (m,), where the kernel was asked last."""

    def along(self, change: Array) -> Array:
        """Return J change, (m,), for a change (p,) of the weights, where they are."""


@dataclass(frozen=True)
class NetworkProblem:
    """A network that is to answer with targets, ordered by output, then row.

    points: (n, width), scaled. targets: (rows, nq), scaled. answers: what is compared, where it
    is not what the network says at the points but nearly moves as that does. weights: (nq,
    rows, n), what is compared is weights @ answers, output by output; without, rows are points.
    """

    net: Network
    points: Array
    targets: Array
    answers: Callable[[Network], Array] | None = None
    weights: Array | None = None

    @property
    def flat(self) -> Array:
        """Return the weights of the network."""
        return self.net.flat

    def residual(self) -> Array:
        """Return targets less answers, (nq · rows,)."""
        found = self.net.answers(self.points)[0] if self.answers is None else self.answers(self.net)
        if self.weights is not None:
            found = np.einsum("orn,no->ro", self.weights, found)
        return np.asarray((self.targets - found).T.ravel())

    def kernel(self) -> Array:
        """Return J Jᵀ, (nq · rows, nq · rows)."""
        matrix = kernel(self.net, self.points)
        return matrix if self.weights is None else weighted(matrix, self.weights)

    def back(self, dual: Array) -> Array:
        """Return Jᵀ dual."""
        back = dual.reshape(self.targets.T.shape).T
        if self.weights is not None:
            back = np.einsum("orn,ro->no", self.weights, back)
        return self.net.back(self.points, back)

    def along(self, change: Array) -> Array:
        """Return J change, by a complex step."""
        moved = self.net.flat + 1j * STEP * change
        found = self.net.at(moved).answers(self.points)[0].imag / STEP
        if self.weights is not None:
            found = np.einsum("orn,no->ro", self.weights, found)
        return np.asarray(found.T.ravel())


def kernel(net: Network, points: Array) -> Array:
    """Return J Jᵀ, (n·nq, n·nq), ordered by output, then point; points (n, width), scaled."""
    _, activations = net.answers(points)
    nq, n = len(net.last), len(points)
    z = activations[0]
    found = np.zeros((nq, n, nq, n))
    top = activations[-1] @ activations[-1].T + 1.0
    if net.settings.skip:
        top += z @ z.T
    for output in range(nq):
        found[output, :, output] = top
    backs = [np.broadcast_to(row, activations[-1].shape) for row in net.last]
    for (weight, _), before, h in zip(
        reversed(net.hidden), reversed(activations[:-1]), reversed(activations[1:]), strict=True
    ):
        slope = 1.0 - h * h
        backs = [back * slope for back in backs]
        gram = before @ before.T + 1.0
        for a in range(nq):
            for b in range(a + 1):
                part = gram * (backs[a] @ backs[b].T)
                found[a, :, b] += part
                if a != b:
                    found[b, :, a] += part.T
        backs = [back @ weight for back in backs]
    return found.reshape(nq * n, nq * n)


def descend(
    problem: SquaresProblem,
    *,
    iterations: int = 50,
    tolerance: float = 1e-3,
    patience: int = 4,
    enough: float = 0.0,
    ridge: float = 0.0,
    progress: Callable[[int, float], None] | None = None,
) -> Descent:
    """Reduce the residual of a problem, whose weights are changed in place.

    It ends after `iterations` steps, or after `patience` steps that together gained less than
    `tolerance` each, or when no step helps, or at a mean square below `enough`. ridge: ρ, on the
    squares of all weights. progress: called with steps and loss.
    """
    begin = time.process_time()
    flat, rest = problem.flat, problem.residual()

    def value(left: Array) -> float:
        penalty = ridge * float(flat @ flat) if ridge else 0.0
        return float((left**2).mean()) + penalty

    losses = [value(rest)]
    damping, steps = START, 0  # over the mean of K's diagonal
    while steps < iterations and losses[-1] > enough:
        matrix = problem.kernel()
        size, start = float(matrix.diagonal().mean()), flat.copy()
        best, best_loss, best_damping = None, losses[-1], damping
        pull = ridge * len(rest)
        along = problem.along(start) if pull else None
        # Solving again costs little beside K: the damping is searched for, downhill.
        factor = 1.0
        while LEAST <= damping <= MOST:
            total = damping * size + pull
            part = pull / total
            dual = _solve(matrix, total, rest if along is None else rest + part * along)
            loss = np.inf
            if dual is not None:
                flat[:] = start  # where `back` looks
                flat += problem.back(dual) - part * start
                loss = value(problem.residual())
            if loss < best_loss:  # never for what is no number
                best, best_loss, best_damping = flat.copy(), loss, damping
                if factor > 1.0:
                    break
                factor = 1 / SEARCH
            elif best is not None:
                break
            else:
                factor = SEARCH
            damping *= factor
        flat[:] = start if best is None else best
        if best is None:
            break
        damping, steps = min(max(best_damping / SEARCH, LEAST), MOST), steps + 1
        rest = problem.residual()
        losses.append(best_loss)
        if progress is not None:
            progress(steps, best_loss)
        gained = 1 - losses[-1] / losses[-1 - patience] if steps >= patience else 1.0
        if gained < patience * tolerance:
            break
    return Descent(steps, losses[-1], time.process_time() - begin)


def weighted(matrix: Array, weights: Array) -> Array:
    """Return W K Wᵀ, output by output."""
    nq, rows, n = weights.shape
    blocks = matrix.reshape(nq, n, nq, n)
    found = np.empty((nq, rows, nq, rows))
    for a in range(nq):
        for b in range(nq):
            found[a, :, b] = weights[a] @ blocks[a, :, b] @ weights[b].T
    return found.reshape(nq * rows, nq * rows)


def _solve(matrix: Array, damping: float, right: Array) -> Array | None:
    damped = matrix.copy()
    damped.flat[:: len(damped) + 1] += damping
    try:
        factor = cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return None
    return np.asarray(cho_solve(factor, right, check_finite=False))
