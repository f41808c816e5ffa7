"""States from poses: a Kalman filter that knows delay and a constant force it was not told of.

The gain is that of the steady state, from the model linearised at the origin, with one more
state per input: a disturbance d that the plant adds to it, ḋ = noise. The prediction is the
model itself, so that the filter also follows it far from the origin. An input takes effect a
whole number of periods after it is commanded; what comes out is the state at the time at
which the input computed from it will act, found by running the model over the inputs on
their way. A pose that is late by as many periods is the same to it.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import numpy as np
from msgspec import Meta
from scipy.linalg import solve_discrete_are

from hil.config import Settings
from hil.control.base import AbstractEstimator
from hil.control.discretise import advance, linearised
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
        self._gain = _steady_gain(settings, dynamics)
        self.reset(np.zeros(dynamics.nq))

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
        self._begun = False

    def update(self, y: Array, u: Array) -> Array:
        """Return x̂ (nx,), `delay` periods ahead.

        y: the poses now (nq,). u: the input commanded one period ago (nu,); the first call
        after a reset has none and leaves it out of account. A pose that is not finite makes
        the answer NaN until the next reset: a controller refuses it.
        """
        nx = self._dynamics.nx
        if self._begun:
            self._on_the_way.append(np.array(u, dtype=float))
            self._state = self._after(self._state, self._on_the_way.popleft())
        self._begun = True
        surprise = np.asarray(y, dtype=float) - self._state[: self._dynamics.nq]
        correction = self._gain @ surprise
        self._state = self._state + correction[:nx]
        if len(correction) > nx:
            self._disturbance = self._disturbance + correction[nx:]
        ahead = self._state
        for waiting in self._on_the_way:
            ahead = self._after(ahead, waiting)
        return ahead.copy()

    def _after(self, x: Array, u: Array) -> Array:
        felt = u + self._disturbance
        return advance(self._dynamics, x, felt, self._settings.dt, ORDER["rk4"])


def _steady_gain(settings: EstimatorSettings, dynamics: AbstractDynamics) -> Array:
    """Return the Kalman gain (nx + disturbances, nq); raises ConfigError."""
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
        gain: Array = np.linalg.solve(c @ spread @ c.T + measured, c @ spread).T
        if np.abs(np.linalg.eigvals(a - a @ gain @ c)).max() < 1 - 1e-9:
            return gain
        said = "its error would not die out"
    except (np.linalg.LinAlgError, ValueError) as error:
        said = str(error)
    raise ConfigError(
        f"estimator: no steady filter for this model and these noises ({said}); "
        "with a disturbance, the poses must show what every input does"
    )
