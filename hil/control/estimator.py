"""States from poses: a Kalman filter that knows delay and a constant force it was not told of.

There is one more state per input: a disturbance d that the plant adds to it, ḋ = noise. The
prediction is the model itself, so that the filter also follows it far from the origin. The
gain is that of the steady state, from the model linearised at the origin, or moves with the
model along the estimate (an extended Kalman filter): a push to the right turns an upright
pole left and a hanging one right, so that far from the origin the steady gain would blame
d for the opposite of what it did. An input takes effect a
whole number of periods after it is commanded; what comes out is the state at the time at
which the input computed from it will act, found by running the model over the inputs on
their way. A pose that is late by as many periods is the same to it.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Literal, NamedTuple

import numpy as np
from msgspec import Meta
from scipy.linalg import solve_discrete_are

from hil.config import Settings
from hil.control.base import AbstractEstimator
from hil.control.discretise import advance, linearised, step_slopes
from hil.control.formulation import ORDER
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.types import Array

Positive = Annotated[float, Meta(gt=0, le=1e6)]


class EstimatorSettings(Settings, frozen=True, kw_only=True):
    """What is believed of sensor, model and disturbance."""

    pose_noise: Annotated[
        tuple[Positive, ...], Meta(description="standard deviation of every pose, its unit")
    ]
    acceleration_noise: Annotated[
        tuple[Positive, ...],
        Meta(description="standard deviation per period of what the model misses, unit/s²"),
    ]
    disturbance_noise: Annotated[
        tuple[Positive, ...],
        Meta(description="how far d may move in a period, unit of the input; empty: no d"),
    ] = ()
    gain: Annotated[
        Literal["steady", "moving"],
        Meta(description="of the filter: of the model at the origin, or along the estimate"),
    ] = "steady"
    blow: Annotated[
        float,
        Meta(ge=0, description="surprise of a pose, in its standard deviations, that is taken "
             "for a blow: the velocities are found anew, d has no part in it; with a moving "
             "gain; 0: none is"),
    ] = 0.0  # fmt: skip
    dt: Annotated[float, Meta(gt=0, le=10, description="length of a period, s")] = 0.05
    delay: Annotated[
        int, Meta(ge=0, le=100, description="periods from a command to its effect, 1")
    ] = 0


class PoseEstimator(AbstractEstimator):
    """Estimates x = (q, v) and d from q; y is q, (nq,), angles unwrapped.

    Raises ConfigError for settings that do not fit the model.
    """

    Settings = EstimatorSettings

    def __init__(self, settings: EstimatorSettings, *, dynamics: AbstractDynamics) -> None:
        self._settings, self._dynamics = settings, dynamics
        self._filter = _steady(settings, dynamics)
        self.reset(np.zeros(dynamics.nq))
        if settings.gain == "moving":  # compiles here, not in the first period of a loop
            self._spread_after(np.zeros(dynamics.nu))

    @property
    def disturbance(self) -> Array:
        """What the plant adds to every input, estimated, (nu,); zeros when not asked for."""
        return self._disturbance.copy()

    @property
    def present(self) -> Array:
        """The state (nx,) at the last measurement; `update` returns it `delay` periods on."""
        return self._state.copy()

    def reset(self, y: Array) -> None:
        """Begin again at rest at y (nq,), no disturbance, no input on its way."""
        self._state = np.concatenate([np.asarray(y, dtype=float), np.zeros(self._dynamics.nq)])
        self._disturbance = np.zeros(self._dynamics.nu)
        self._on_the_way = deque(np.zeros((self._settings.delay, self._dynamics.nu)))
        self._spread = self._filter.spread
        self._prepared: tuple[Array, Array, Array, Array] | None = None
        self._begun = False

    def go_on_from(self, before: AbstractEstimator) -> None:
        """Take over state, disturbance, spread and the inputs on their way.

        Raises StateError for another kind of estimator, or other settings.
        """
        if not isinstance(before, PoseEstimator) or before._settings != self._settings:
            super().go_on_from(before)
            return
        self._state, self._disturbance = before._state, before._disturbance
        self._on_the_way, self._spread = before._on_the_way.copy(), before._spread
        self._begun, self._prepared = before._begun, None

    def update(self, y: Array, u: Array, periods: int = 1) -> Array:
        """Return x̂ (nx,), `delay` periods ahead.

        y: the poses now (nq,). u: the input commanded one period ago (nu,); the first call
        after a reset has none and leaves it out of account. periods: since the measurement
        before, u being commanded in all of them. A pose that is not finite makes the answer
        NaN until the next reset: a controller refuses it.
        """
        nx = self._dynamics.nx
        for _ in range(periods if self._begun else 0):
            known = self._prepared
            if known is None or known[0] is not self._state or known[1].tobytes() != u.tobytes():
                known = self._predicted(u)
            self._on_the_way.append(known[1])
            self._on_the_way.popleft()
            self._state, self._spread = known[2:]
        self._begun = True
        surprise = np.asarray(y, dtype=float) - self._state[: self._dynamics.nq]
        gain = self._filter.gain
        if self._settings.gain == "moving":
            gain = _gain(self._spread, self._filter.measured)
            if self._struck(surprise):
                gain = _gain(self._spread, self._filter.measured)
            self._spread = _corrected(self._spread, gain, self._filter.measured)
        correction = gain @ surprise
        self._state = self._state + correction[:nx]
        if len(correction) > nx:
            self._disturbance = self._disturbance + correction[nx:]
        ahead = self._state
        for waiting in self._on_the_way:
            ahead = self._after(ahead, waiting)
        return ahead.copy()

    def prepare(self, u: Array) -> None:
        """Predict a period under u (nu,) before its measurement comes."""
        if self._begun:
            self._prepared = self._predicted(u)

    def _predicted(self, u: Array) -> tuple[Array, Array, Array, Array]:
        """Return the state now and u, which a prediction holds for; state and spread after."""
        u = np.array(u, dtype=float)
        acted = self._on_the_way[0] if self._on_the_way else u
        spread = self._spread
        if self._settings.gain == "moving":
            spread = self._spread_after(acted)
        return self._state, u, self._after(self._state, acted), spread

    def _struck(self, surprise: Array) -> bool:
        """Say whether a surprise (nq,) is a blow's; allow then for velocities it explains."""
        nq, nx, dt = len(surprise), self._dynamics.nx, self._settings.dt
        expected = np.diag(self._spread)[:nq] + np.diag(self._filter.measured)
        blow = self._settings.blow
        if not (blow and np.any(surprise**2 > blow**2 * expected)):
            return False
        by_velocity = np.zeros((len(self._spread), nq))  # of a period ago: q moved by dt times it
        by_velocity[:nq], by_velocity[nq:nx] = dt * np.eye(nq), np.eye(nq)
        size = (surprise @ surprise) / dt**2
        self._spread = self._spread + by_velocity @ by_velocity.T * size
        return True

    def _after(self, x: Array, u: Array) -> Array:
        felt = u + self._disturbance
        return advance(self._dynamics, x, felt, self._settings.dt, ORDER["rk4"])

    def _spread_after(self, u: Array) -> Array:
        """Return the covariance one period on, by the model's slopes at the estimate."""
        nx, felt = len(self._state), u + self._disturbance
        slopes = step_slopes(
            self._dynamics, self._state[None], felt[None], self._settings.dt, ORDER["rk4"]
        )
        extra = len(self._spread) - nx
        a = np.eye(nx + extra)
        a[:nx, :nx], a[:nx, nx:] = slopes[0][0], slopes[1][0][:, :extra]
        return a @ self._spread @ a.T + self._filter.noise


class _Filter(NamedTuple):
    """The filter of the steady state at the origin; x and d together are n states."""

    gain: Array  # (n, nq)
    spread: Array  # (n, n), covariance before a measurement
    noise: Array  # (n, n), what a period adds to it
    measured: Array  # (nq, nq), covariance of the poses


def _gain(spread: Array, measured: Array) -> Array:
    """Return the Kalman gain (n, nq) for a covariance (n, n) before a measurement."""
    seen = spread[: len(measured)]  # the poses are the first states
    return np.asarray(np.linalg.solve(seen[:, : len(measured)] + measured, seen).T, dtype=float)


def _corrected(spread: Array, gain: Array, measured: Array) -> Array:
    """Return the covariance after a measurement, symmetric and positive (Joseph's form)."""
    left: Array = np.eye(len(spread))
    left[:, : len(measured)] -= gain
    return left @ spread @ left.T + gain @ measured @ gain.T


def _steady(settings: EstimatorSettings, dynamics: AbstractDynamics) -> _Filter:
    """Return the steady filter; raises ConfigError."""
    nx, nq, nu = dynamics.nx, dynamics.nq, dynamics.nu
    for key, count in (("pose_noise", nq), ("acceleration_noise", nq), ("disturbance_noise", nu)):
        found = len(getattr(settings, key))
        if found != count and not (key == "disturbance_noise" and found == 0):
            raise ConfigError(f"estimator.{key}: the model has {count}, found {found}")
    extra = len(settings.disturbance_noise)
    dt = settings.dt
    stage = linearised(dynamics, np.zeros(nx), np.zeros(nu), dt, ORDER["rk4"])
    a, c = np.eye(nx + extra), np.eye(nq, nx + extra)
    a[:nx, :nx] = stage[0][0]
    a[:nx, nx:] = stage[1][0][:, :extra]
    noise = np.zeros((nx + extra, nx + extra))
    for i, sigma in enumerate(settings.acceleration_noise):
        # White within a period. Were it held, the filter would have a pole near −1 where
        # poses are precise: its velocity rings for a second.
        noise[i, i], noise[nq + i, nq + i] = sigma**2 * dt**4 / 3, sigma**2 * dt**2
        noise[i, nq + i] = noise[nq + i, i] = sigma**2 * dt**3 / 2
    noise[nx:, nx:] = np.diag(np.square(settings.disturbance_noise))
    measured = np.diag(np.square(settings.pose_noise))
    try:
        spread = solve_discrete_are(a.T, c.T, noise, measured)
        gain = _gain(spread, measured)
        if np.abs(np.linalg.eigvals(a - a @ gain @ c)).max() < 1 - 1e-9:
            return _Filter(gain, spread, noise, measured)
        said = "its error would not die out"
    except (np.linalg.LinAlgError, ValueError) as error:
        said = str(error)
    raise ConfigError(
        f"estimator: no steady filter for this model and these noises ({said}); "
        "with a disturbance, the poses must show what every input does"
    )
