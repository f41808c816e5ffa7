"""Nonlinear plans by sequential quadratic programming along the horizon.

A guess, states x_0 … x_N and inputs u_0 … u_{N−1}, need not follow the model: its gaps
x_{k+1} − f(x_k, u_k) close as the iterations go on (multiple shooting; Bock & Plitt, IFAC
1984). Each iteration solves the programme linearised along the guess (Gauss-Newton: the cost
is quadratic as it stands) and goes as far towards its solution as the merit function

    φ = cost + μ·(gaps and violations of hard limits, summed)

falls as foretold (Armijo; μ by Nocedal & Wright, Numerical Optimization, eq. 18.36). In a
loop the guess is the last plan, one period on, and one iteration is enough as a rule
(real-time iteration; Diehl et al., SIAM J. Control Optim. 43, 2005). From cold, several
guesses are followed to their ends and the cheapest plan wins: a swing-up has one local
optimum for every number of swings. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from hil.control.active_set import Bounds
from hil.control.base import SolutionStatus
from hil.control.discretise import advance
from hil.control.formulation import Formulation
from hil.control.riccati import Stages
from hil.types import Array

SETTLED = 1e-9  # change of the inputs, in their own scale, at which iterating ends
DESCENT = 1e-4  # share of the foretold descent a step must bring
SHORTEST = 2.0**-10  # step towards the solution of a programme
ROUNDING = 1e-9  # of the merit: a smaller foretold descent is none
NEAR = 2.0  # a plan that costs no more than this many times the regulator's is not bettered
ARRIVED = 0.01  # share of a plan's cost that its end may be charged
CLOSED = 1e-3  # sum of gaps up to which a plan from cold counts as one that follows the model


class Outcome(NamedTuple):
    """What a solver makes of one quadratic programme; arrays matter when it is optimal."""

    status: SolutionStatus
    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)
    detail: str


SolveStages = Callable[[Stages, Array, Array, Bounds], Outcome]
"""Stages, start (nx,), target (nx,), bounds → the plan."""


class Guess(NamedTuple):
    """Where to linearise."""

    states: Array  # (N + 1, nx)
    inputs: Array  # (N, nu)


class Refined(NamedTuple):
    """A guess after some iterations."""

    outcome: Outcome
    cost: float
    gap: float  # gaps and violations of hard limits, summed


class Sequential:
    """Refines guesses of one formulation with one solver of quadratic programmes."""

    def __init__(self, formulation: Formulation, solve_stages: SolveStages) -> None:
        self._formulation, self._solve_stages = formulation, solve_stages
        self._horizon = formulation.settings.horizon

    def shifted(self, last: Guess) -> Guess:
        """Return a plan one period on; its last input is held for one more."""
        inputs = np.concatenate([last.inputs[1:], last.inputs[-1:]])
        end = self._step(last.states[-1:], last.inputs[-1:])
        return Guess(np.concatenate([last.states[1:], end]), inputs)

    def follow(
        self, guess: Guess, start: Array, target: Array, bounds: Bounds, rounds: int
    ) -> Refined:
        """Iterate from a guess, at most `rounds` times; what fails ends it."""
        states, inputs = guess.states.copy(), guess.inputs
        states[0] = start
        tolerance, price = self._formulation.settings.tolerance, 0.0
        for _ in range(rounds):
            stages = self._formulation.along(states, inputs)
            found = self._solve_stages(stages, start, target, bounds)
            if found.status is not SolutionStatus.OPTIMAL:
                return Refined(found, np.inf, np.inf)
            ends = np.einsum("kij,kj->ki", stages.a, states[:-1])
            ends += np.einsum("kij,kj->ki", stages.b, inputs) + stages.c
            cost, gap = self._merit(states, inputs, ends, target, bounds)
            foretold, _ = self._merit(found.states, found.inputs, None, target, bounds)
            if gap > 0.0:
                price = max(price, 2.0 * (foretold - cost) / gap)
            descent = foretold - cost - price * gap
            share, to_states, to_inputs = 1.0, found.states - states, found.inputs - inputs
            while True:
                at = Guess(states + share * to_states, inputs + share * to_inputs)
                ends = self._step(at.states[:-1], at.inputs)
                new_cost, new_gap = self._merit(*at, ends, target, bounds)
                merit, allowed = cost + price * gap, DESCENT * share * descent
                slack = ROUNDING * abs(merit)
                if new_cost + price * new_gap <= merit + allowed + slack or share <= SHORTEST:
                    break
                share *= 0.5
            states, inputs = at
            change = share * np.abs(to_inputs).max()
            if new_gap <= tolerance or change <= SETTLED * (1.0 + np.abs(inputs).max()):
                break
        detail = found.detail if share == 1.0 else f"{found.detail}, step {share:.2g}"
        return Refined(
            found._replace(states=states, inputs=inputs, detail=detail), new_cost, new_gap
        )

    def search(self, starts: list[Array], target: Array, bounds: Bounds) -> tuple[Refined, int]:
        """Return the best plan from cold, and from which of `starts` it begins.

        starts: the same state counted in other turns. The search ends early with a plan
        that costs about what the regulator without limits would pay.
        """
        rounds = self._formulation.settings.cold_iterations
        best, which = self.follow(self._still(starts[0]), starts[0], target, bounds, rounds), 0
        for turn, guess in self._guesses(starts, target, bounds):
            if self._is_near(best, starts[which], target):
                break
            found = self.follow(guess, starts[turn], target, bounds, rounds)
            if _better(found, best):
                best, which = found, turn
        return best, which

    def _guesses(
        self, starts: list[Array], target: Array, bounds: Bounds
    ) -> Iterator[tuple[int, Guess]]:
        """Yield guesses but for the first, which stands still, and from which of `starts`."""
        for turn, start in enumerate(starts):
            if turn:
                yield turn, self._still(start)
            line = np.linspace(start, target, self._horizon + 1)
            yield turn, self._still(start)._replace(states=line)
        for wave in self._waves(starts[0], bounds):
            moves = [start - starts[0] for start in starts]  # whole turns
            ends = [np.abs(wave.states[-1] + move - target).sum() for move in moves]
            turn = int(np.argmin(ends))
            yield turn, wave._replace(states=wave.states + moves[turn])

    def _still(self, start: Array) -> Guess:
        """Return the guess in which everything stays as it is."""
        inputs = np.zeros((self._horizon, self._formulation.dynamics.nu))
        return Guess(np.repeat(start[None], self._horizon + 1, axis=0), inputs)

    def _is_near(self, found: Refined, start: Array, target: Array) -> bool:
        """Say whether a plan arrives and costs about what the regulator would: it is kept."""
        if found.gap > CLOSED:
            return False
        end = self._formulation.cost.end
        before, after = start - target, found.outcome.states[-1] - target
        arrives = after @ end @ after <= ARRIVED * found.cost
        return bool(arrives and found.cost <= NEAR * before @ end @ before)

    def _waves(self, start: Array, bounds: Bounds) -> list[Guess]:
        """Return what the model does under sines of the input: 1, 2, … halves, to and fro."""
        settings = self._formulation.settings
        middle = (bounds.input_high + bounds.input_low) / 2  # (nu,)
        reach = bounds.input_scale
        sines = np.array([
            sign * np.sin(np.pi * (half + 1) * (np.arange(self._horizon) + 0.5) / self._horizon)
            for half in range(settings.waves)
            for sign in (1.0, -1.0)
        ]).reshape(-1, self._horizon)  # fmt: skip
        middle = np.where(np.isfinite(middle), middle, 0.0)
        inputs = middle + sines[:, :, None] * reach  # (guesses, N, nu)
        states = [np.repeat(start[None], len(inputs), axis=0)]
        for k in range(self._horizon if len(inputs) else 0):
            states.append(self._step(states[-1], inputs[:, k]))
        paths = np.stack(states, axis=1)  # (guesses, N + 1, nx)
        return [
            Guess(path, u) for path, u in zip(paths, inputs, strict=True) if np.isfinite(path).all()
        ]

    def _step(self, states: Array, inputs: Array) -> Array:
        settings = self._formulation.settings
        return advance(
            self._formulation.dynamics, states, inputs, settings.dt, self._formulation.order
        )

    def _merit(
        self, states: Array, inputs: Array, ends: Array | None, target: Array, bounds: Bounds
    ) -> tuple[float, float]:
        """Return cost and gap; ends (N, nx): where the model ends each period; None: no gaps."""
        weigh = self._formulation.cost
        error = states - target
        cost = float(np.vdot(error[:-1] @ weigh.q, error[:-1]) + np.vdot(inputs @ weigh.r, inputs))
        gap = 0.0 if ends is None else float(np.abs(ends - states[1:]).sum())
        inner = states[1:]
        if weigh.pinned:
            gap += float(np.abs(error[-1]).sum())
            inner = states[1:-1]
        else:
            cost += float(error[-1] @ weigh.end @ error[-1])
        beyond = np.maximum(inner - bounds.state_high, bounds.state_low - inner)
        over = np.maximum(beyond, 0.0)  # (N, nx)
        soft = bounds.state_give > 0.0
        cost += float((over[:, soft] ** 2 / bounds.state_give[soft]).sum())
        return cost, gap + float(over[:, ~soft].sum())


def _better(found: Refined, best: Refined) -> bool:
    """Say whether a plan is to be preferred: one that follows the model, then the cheaper."""
    return (found.gap > CLOSED, found.cost) < (best.gap > CLOSED, best.cost)
