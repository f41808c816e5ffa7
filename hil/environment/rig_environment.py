"""A dynamic rig as a Gymnasium environment: reset, step, and how an episode ends.

    action → u = rig.write() → y = rig.read() → x̂ = estimator(y, u) → observation

The rig sets the pace, as in `hil.loop`. Whoever answers late meets the deadman, as there.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Annotated, Any

import gymnasium
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike

from hil.config import Settings
from hil.control.base import AbstractEstimator
from hil.environment.episodes import AbstractEpisodes, Begun
from hil.errors import ConfigError, DeadmanError, FaultError, LimitError, LinkError, StateError
from hil.rigs.base import DynamicSample, RigState
from hil.tasks.base import AbstractDynamicTask
from hil.types import Array

SEEDS = 2**31  # of simulated rigs


class EnvironmentSettings(Settings, frozen=True, kw_only=True):
    """Where an episode begins, where and when it ends, and what a period earns."""

    start: Annotated[tuple[float, ...], Meta(description="state to begin at, SI")]
    region: Annotated[
        tuple[tuple[float, float], ...],
        Meta(description="[lowest, highest] of every state; outside, the episode has failed"),
    ]
    spread: Annotated[
        tuple[Annotated[float, Meta(ge=0)], ...],
        Meta(description="half-widths about the start, drawn from the seed; empty: none"),
    ] = ()
    duration: Annotated[float, Meta(gt=0, le=86400, description="s; then it is truncated")] = 10.0
    cost_scale: Annotated[
        float, Meta(gt=0, description="cost of a period in which nothing is earned")
    ] = 1.0
    double: Annotated[
        str, Meta(description="class that plays the rig in process: its table and the plant's")
    ] = ""
    tolerance: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...],
        Meta(description="how near to the start a real rig has to be, per measurement"),
    ] = ()
    wait: Annotated[float, Meta(gt=0, le=3600, description="for that, s")] = 30.0

    def checked(self, nx: int) -> EnvironmentSettings:
        """Return these settings; raises ConfigError where they do not fit nx states."""
        for key in ("start", "region", "spread"):
            found = len(getattr(self, key))
            if found != nx and not (key == "spread" and found == 0):
                raise ConfigError(f"environment.{key}: the model has {nx} states, found {found}")
        for i, ((low, high), start) in enumerate(zip(self.region, self.start, strict=True)):
            spread = self.spread[i] if self.spread else 0.0
            if not (low < start - spread and start + spread < high < np.inf and low > -np.inf):
                raise ConfigError(
                    f"environment.region: state {i}: [{low}, {high}]: finite bounds around the "
                    f"start, {start} ± {spread}, are needed"
                )
        return self


class RigEnvironment(gymnasium.Env[Array, Array]):
    """Drives a dynamic rig by reset and step.

    Observation: the estimated state x̂ (nx,), SI, angles not wrapped. The box is twice as
    wide as `region`; what would lie outside even that is cut off (`info["state"]` is not).
    Action: (nu,), −1 to 1, the share of each input's limits, 0 the middle; what is outside
    is clipped, what is no number is refused with LimitError before it comes near the rig.
    Reward: 1 − cost / cost_scale, cost being the task's for the state acted in and the input
    that was applied. With a scale above every cost inside the region, to fail never pays.
    Terminated: a state outside the region, or the rig in fault. Truncated: the duration is
    over. `info["ended"]` says which, and the outputs are safe from then on until `reset`.
    Info: time, state, input (applied, SI), y, sequence, missed, flags, cost, ended.

    reset: a seed decides the start and the noise of a simulated rig. A real one has no seed:
    it waits, unpowered, for its start. options: {"start": state (nx,)}, simulated only;
    {"clear": True}, real only: clear a latched fault, which otherwise stays.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own)

    def __init__(
        self,
        episodes: AbstractEpisodes,
        task: AbstractDynamicTask,
        estimator: AbstractEstimator,
        settings: EnvironmentSettings,
        *,
        nu: int,
        period_s: float,
    ) -> None:
        self.settings = settings.checked(len(settings.start))
        self._episodes, self._task, self._estimator = episodes, task, estimator
        self._period_s = period_s
        self._periods = round(settings.duration / period_s)
        low, high = np.array(settings.region, dtype=float).T
        margin = (high - low) / 2
        self._low, self._high = low, high
        self._box = (low - margin, high + margin)
        self.observation_space = gymnasium.spaces.Box(*self._box, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (nu,), dtype=np.float64)
        self._begun: Begun | None = None  # None: no episode is running
        self._limits = np.zeros((nu, 2))
        self._state = np.array(settings.start)
        self._first_us = 0
        self._past = 0  # periods of this episode
        # Who forgets to close, or ends in an exception, must not leave a rig powered or a
        # mirror running: this acts at the latest when the interpreter ends.
        weakref.finalize(self, episodes.close)

    @property
    def input_limits(self) -> Array:
        """Lowest and highest of every input, (nu, 2), SI; known from the first reset on."""
        return self._limits.copy()

    def action(self, u: ArrayLike) -> Array:
        """Return the action (nu,) that commands an input (nu,), SI; not clipped."""
        low, high = self._limits.T
        if not (low < high).all():
            raise StateError("action: the limits of the rig are not known; call reset() first")
        return np.asarray((2 * np.asarray(u, dtype=float) - low - high) / (high - low))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode: make the rig safe, bring it to its start, activate it.

        Raises ConfigError for a start that cannot be, RunError for a rig that is not at its
        start in time, and what the rig raises.
        """
        super().reset(seed=seed)
        self._end()
        options = options or {}
        start = self._start(options)
        begun = self._episodes.begin(
            int(self.np_random.integers(SEEDS)), start, clear=options.get("clear") is True
        )
        if begun.info.period_us != round(self._period_s * 1e6):
            raise ConfigError(
                f"rig.period: {self._period_s} s, the rig has {begun.info.period_us / 1e6} s"
            )
        limits = np.array(begun.info.input_limits)
        if limits.shape != self._limits.shape:
            raise ConfigError(
                f"rig {begun.info.name}: {len(limits)} inputs, the model has {len(self._limits)}"
            )
        self._limits = limits
        begun.rig.activate()
        self._begun = begun
        sample = begun.rig.read()
        self._past, self._first_us = 0, sample.device_us
        self._estimator.reset(sample.y - begun.zero)
        self._state = self._estimator.update(sample.y - begun.zero, sample.u)
        return self._observation(), self._info(sample, sample.u, 0.0, "")

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Command the rig, wait for its next sample; return what Gymnasium's step returns.

        Raises LimitError for an action that is no number or has the wrong shape, StateError
        without an episode.
        """
        begun = self._begun
        if begun is None:
            raise StateError("step: no episode is running; call reset() first")
        wanted, applied = self._input(action), np.zeros(len(self._limits))
        x = self._state
        sample: DynamicSample | None = None
        try:
            applied = begun.rig.write(wanted)
            sample = begun.rig.read()
            self._state = self._estimator.update(sample.y - begun.zero, applied, 1 + sample.missed)
            self._past += sample.missed
            why = self._left(begun)
        except (FaultError, DeadmanError, LinkError) as error:
            why = f"fault: {begun.rig.fault or error}"
        self._past += 1
        terminated = bool(why)
        truncated = not terminated and self._past >= self._periods
        cost = float(self._task.cost(x[None], applied[None]))
        info = self._info(sample, applied, cost, "duration" if truncated else why)
        if not np.isfinite(self._state).all():
            self._state = x
        if terminated or truncated:
            self._end()
        return (
            self._observation(),
            1.0 - cost / self.settings.cost_scale,
            terminated,
            truncated,
            info,
        )

    def close(self) -> None:
        """Make the rig safe and let go of it; may be called twice."""
        self._end()
        self._episodes.close()

    def _start(self, options: dict[str, Any]) -> Array:
        """Return the state to begin at: (nx,)."""
        known = {"start"} if self._episodes.places else {"clear"}
        if unknown := set(options) - known:
            raise ConfigError(
                f"reset: options {sorted(unknown)}: "
                + (
                    "only start is known"
                    if self._episodes.places
                    else "only clear is known; this rig is put somewhere by hand"
                )
            )
        if "start" not in options:
            start = np.array(self.settings.start, dtype=float)
            if self._episodes.places and self.settings.spread:
                start += np.array(self.settings.spread) * self.np_random.uniform(-1, 1, len(start))
            return start
        start = np.array(options["start"], dtype=float)
        if start.shape != self._low.shape or not ((self._low < start) & (start < self._high)).all():
            raise ConfigError(f"reset: start {options['start']}: a state in the region is needed")
        return start

    def _input(self, action: Array) -> Array:
        """Return the input (nu,), SI, of an action."""
        share = np.asarray(action, dtype=float)
        if share.shape != self.action_space.shape or not np.isfinite(share).all():
            raise LimitError(
                f"step: expected an action of shape {self.action_space.shape} of numbers, found "
                f"{share}; nothing was applied"
            )
        low, high = self._limits.T
        return np.asarray((low + high + np.clip(share, -1.0, 1.0) * (high - low)) / 2)

    def _left(self, begun: Begun) -> str:
        """Return which state has left the region, "" where none has."""
        outside = ~((self._state >= self._low) & (self._state <= self._high))  # NaN: true
        if not outside.any():
            return ""
        names = begun.info.measurements
        names = (*names, *(f"rate of {name}" for name in names))
        i = int(np.argmax(outside))
        name = names[i] if len(names) == len(self._state) else f"state {i}"
        return f"outside: {name} {self._state[i]:g}"

    def _observation(self) -> Array:
        return np.asarray(np.clip(self._state, *self._box))

    def _info(
        self, sample: DynamicSample | None, applied: Array, cost: float, ended: str
    ) -> dict[str, Any]:
        """Return what there is to say; without a sample (a fault) what it would have said lacks."""
        info: dict[str, Any] = {
            "state": self._state.copy(),
            "input": applied.copy(),
            "cost": cost,
            "ended": ended,
        }
        if sample is not None:
            info |= {
                "time": (sample.device_us - self._first_us) / 1e6,
                "y": sample.y.copy(),
                "sequence": sample.sequence,
                "missed": sample.missed,
                "flags": sample.flags,
            }
        return info

    def _end(self) -> None:
        """Make the outputs safe; a fault, or a rig that cannot be reached, has done so."""
        begun, self._begun = self._begun, None
        if begun is not None and begun.rig.state is RigState.ACTIVE:
            with suppress(FaultError, DeadmanError, LinkError):
                begun.rig.deactivate()
