"""Model predictive path integral control: plans by sampling, no slope of the model needed.

Samples of the input lie about the last plan, one period on; each is followed with the model and
charged; their mean, weighted by exp(−cost / λ), is the next plan (Williams et al., "Information
theoretic MPC", ICRA 2017). What is added here: noise is correlated in time and comes in pairs ±ε;
samples are followed as policies around the plan (`hil.models.rollouts`); λ follows the spread of
the costs; and of the mean, the best sample and the plan as it was, the cheapest is taken, so that
a solve never makes a plan worse. Samples are drawn in blocks, each about the plan the block before
left: where time is short, there are fewer of them.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from msgspec import Meta

from hil.config import Settings, build
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.formulation import Formulation, Interval, MpcSettings, Weight
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.models.rollouts import TURN, About, AbstractRollouts, Charges, rollouts_for
from hil.types import Array

STREAM_MPPI = 401  # of the random numbers of a seed


class MppiSettings(Settings, frozen=True, kw_only=True):
    """What is minimised, over which horizon, and how it is searched."""

    input_limits: Annotated[
        tuple[Interval, ...], Meta(description="[lowest, highest] of every input, its unit")
    ]
    soft_limits: Annotated[
        tuple[Interval, ...],
        Meta(description="[lowest, highest] of every state, its unit; empty: none"),
    ] = ()
    penalties: Annotated[
        tuple[Weight, ...],
        Meta(description="ρ of every state: exceeding its limit by s costs ρs²; empty: zeros"),
    ] = ()
    horizon: Annotated[int, Meta(ge=1, le=1000, description="periods in a plan, 1")] = 50
    dt: Annotated[float, Meta(gt=0, le=10, description="length of a period, s")] = 0.05
    state_weights: Annotated[
        tuple[Weight, ...], Meta(description="diagonal of Q, 1 over the unit squared; empty: ones")
    ] = ()
    input_weights: Annotated[
        tuple[Annotated[float, Meta(gt=0, le=1e9)], ...],
        Meta(description="diagonal of R, 1 over the unit squared; empty: ones"),
    ] = ()
    angles: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        Meta(description="states, from 0, of which 2π more is the same"),
    ] = ()
    samples: Annotated[int, Meta(ge=4, le=1_000_000, description="rollouts per solve, 1")] = 512
    block: Annotated[
        int, Meta(ge=4, le=1_000_000, description="of them about the same plan, 1")
    ] = 128
    budget: Annotated[
        float,
        Meta(ge=0, le=10, description="wall time in which another block may begin, s; 0: any"),
    ] = 0.0
    noise: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...],
        Meta(description="standard deviation of every input; empty: a tenth of its interval"),
    ] = ()
    correlation: Annotated[
        float, Meta(ge=0, le=10, description="time constant of the noise, s; 0: white")
    ] = 0.1
    temperature: Annotated[
        float, Meta(gt=0, le=10, description="λ over mean less least cost of a block, 1")
    ] = 0.1
    feedback: Annotated[
        bool,
        Meta(description="follow samples with the regulator of the origin; false: open loop"),
    ] = True
    rollouts: Annotated[
        dict[str, Any] | None, Meta(description="who computes them, a part; none: this process")
    ] = None
    seed: Annotated[int, Meta(ge=0, description="of the noise")] = 0


class _Plan(NamedTuple):
    """A plan as the plant feels it, and what it costs."""

    inputs: Array  # (N, nu)
    states: Array  # (N + 1, nx)
    cost: float


class Mppi(AbstractController):
    """Plans by sampling; equal seed, states and number of solves give equal plans.

    The status of a plan is SAMPLED: nothing shows how far it is from the best one. budget: with
    one, how many samples there are depends on the machine. Raises ConfigError for settings that
    do not fit the model.
    """

    Settings: ClassVar[type[MppiSettings]] = MppiSettings

    def __init__(self, settings: MppiSettings, *, dynamics: AbstractDynamics) -> None:
        self.settings = settings
        problem = Formulation(
            MpcSettings(
                input_limits=settings.input_limits, state_limits=settings.soft_limits,
                horizon=settings.horizon, dt=settings.dt, angles=settings.angles,
                state_weights=settings.state_weights, input_weights=settings.input_weights,
                terminal="lqr", discretise="rk4",
            ),
            dynamics,
        )  # fmt: skip
        self._limits, cost = problem.bounds(), problem.cost
        nx, nu = dynamics.nx, dynamics.nu
        for key, count in (("penalties", nx), ("noise", nu)):
            found = len(getattr(settings, key))
            if found not in (0, count):
                raise ConfigError(f"control.{key}: the model has {count}, found {found}")
        turn = np.zeros(nx)
        turn[list(settings.angles)] = TURN
        a, b = problem.origin.a[0], problem.origin.b[0]
        regulator = np.linalg.solve(cost.r + b.T @ cost.end @ b, b.T @ cost.end @ a)
        self._gain: Array = regulator if settings.feedback else np.zeros((nu, nx))
        self._sigma = np.array(
            settings.noise or 0.1 * (self._limits.input_high - self._limits.input_low)
        )
        if not np.isfinite(self._sigma).all():
            raise ConfigError("control.noise: an input without limits needs one")
        charges = Charges(
            np.diag(cost.q).copy(), np.diag(cost.r).copy(), np.ascontiguousarray(cost.end),
            self._limits.state_low.copy(), self._limits.state_high.copy(),
            np.array(settings.penalties or (0.0,) * nx), turn, settings.dt,
        )  # fmt: skip
        self._rollouts: AbstractRollouts = (
            build(settings.rollouts, "control.rollouts", dynamics=dynamics, charges=charges)
            if settings.rollouts
            else rollouts_for(dynamics, charges)
        )
        self._nx, self._nu = nx, nu
        self.reset()
        self.solve(np.zeros(nx), np.zeros(nx))  # compiles here, not in the first period of a loop
        self.reset()

    @property
    def horizon(self) -> int:
        """Number of periods in a plan."""
        return self.settings.horizon

    def reset(self) -> None:
        """Forget the last plan; the noise begins anew."""
        self._last: _Plan | None = None
        self._solved = 0

    def prepare(self, x: Array, r: Array) -> None:
        """Search from about x (nx,) to r (nx,), for the next solve to begin with."""
        self.solve(x, r)

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return a plan from x (nx,) to r (nx,); a disturbance d (nu,) acts as u + d."""
        begin = time.perf_counter()
        d = np.zeros(self._nu) if disturbance is None else np.asarray(disturbance, dtype=float)
        start, target = np.array(x, dtype=float), np.array(r, dtype=float)
        if not np.isfinite(np.concatenate([start, target, d])).all():
            return self._failed(begin, "state, reference or disturbance is not finite")
        low, high = self._limits.input_low + d, self._limits.input_high + d
        about = About(start, target, self._gain, self._nominal(start, target), low, high)
        plan = self._followed(about, self._shifted(target))
        drawn, effective = 0, 0.0
        for block in range(-(-self.settings.samples // self.settings.block)):
            spent = time.perf_counter() - begin
            budget = self.settings.budget
            if budget and block and spent * (block + 1) / block > budget:
                break  # another one would take as long as those before
            if plan is None:
                break
            if not np.isfinite(plan.states).all():  # nothing to lie about: open loop from there
                about = about._replace(states=np.tile(start, (self.horizon + 1, 1)))
                about = about._replace(gain=np.zeros_like(self._gain))
            else:
                about = about._replace(states=plan.states)
            improved = self._improved(about, plan, block)
            if improved is None:
                break
            plan, effective = improved
            drawn += self.settings.block
        self._solved += 1
        if plan is None or not drawn:
            return self._failed(begin, "no rollout was followed in time")
        if not (np.isfinite(plan.cost) and np.isfinite(plan.states).all()):
            return self._failed(begin, f"no rollout of {drawn} stays finite")
        self._last = plan
        took = (time.perf_counter() - begin) * 1e6
        inputs = np.clip(plan.inputs - d, self._limits.input_low, self._limits.input_high)
        detail = f"{drawn} rollouts, {effective:.0f} count, cost {plan.cost:.4g}"
        return Solution(inputs, plan.states, SolutionStatus.SAMPLED, took, detail)

    def _improved(self, about: About, plan: _Plan, block: int) -> tuple[_Plan, float] | None:
        """Return the cheapest of a plan, a block of samples about it, and their mean.

        And how many samples the mean counts, 1 / Σ w². None: the block was not followed in time.
        """
        samples = plan.inputs + self._drawn(block)
        followed = self._rollouts.follow(about, samples)
        if followed is None:
            return None
        costs = np.where(np.isfinite(followed.costs), followed.costs, np.inf)
        best = float(costs.min())
        if not np.isfinite(best):
            return plan, 0.0
        spread = float(np.mean(costs[np.isfinite(costs)]) - best)
        weights = np.exp(-(costs - best) / (self.settings.temperature * spread + 1e-300))
        weights /= weights.sum()
        mean = self._followed(about, np.tensordot(weights, samples, axes=1))
        tried = [plan, _Plan(followed.inputs, followed.states, best)]
        tried += [mean] if mean is not None else []
        found = min(tried, key=lambda p: p.cost if np.isfinite(p.cost) else np.inf)
        return found, float(1.0 / (weights @ weights))

    def _drawn(self, block: int) -> Array:
        """Return the noise of a block, (block, N, nu): pairs, correlated in time."""
        s = self.settings
        bits = np.random.Philox(key=[s.seed, STREAM_MPPI], counter=[0, 0, block, self._solved])
        half = (s.block + 1) // 2
        white = np.random.Generator(bits).standard_normal((s.horizon, half, self._nu))
        keep = np.exp(-s.dt / s.correlation) if s.correlation else 0.0
        for k in range(1, s.horizon):
            white[k] = keep * white[k - 1] + np.sqrt(1.0 - keep * keep) * white[k]
        noise = np.moveaxis(white * self._sigma, 0, 1)
        return np.ascontiguousarray(np.concatenate([noise, -noise])[: s.block])

    def _followed(self, about: About, sample: Array) -> _Plan | None:
        """Return a sample (N, nu) as a plan; None: it was not followed in time."""
        found = self._rollouts.follow(about, sample[None])
        return found and _Plan(found.inputs, found.states, float(found.costs[0]))

    def _shifted(self, target: Array) -> Array:
        """Return the inputs of the last plan, one period on; from cold there are none.

        At its end it goes on as the regulator would.
        """
        if self._last is None:
            return np.zeros((self.horizon, self._nu))
        after = -self._gain @ (self._last.states[-1] - target)
        return np.concatenate([self._last.inputs[1:], after[None]])

    def _nominal(self, start: Array, target: Array) -> Array:
        """Return the states that feedback leads to: the last plan's, or the reference."""
        if self._last is None:
            turns = np.zeros(self._nx)
            for i in self.settings.angles:
                turns[i] = TURN * np.rint((start[i] - target[i]) / TURN)
            return np.tile(target + turns, (self.horizon + 1, 1))
        states = self._last.states
        return np.concatenate([states[1:], states[-1:]])

    def _failed(self, begin: float, detail: str) -> Solution:
        self._last = None
        took = (time.perf_counter() - begin) * 1e6
        nothing = np.empty((0, self._nu)), np.empty((0, self._nx))
        return Solution(*nothing, SolutionStatus.FAILED, took, detail)
