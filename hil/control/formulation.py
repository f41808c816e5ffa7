"""The problem every predictive controller here solves, stated once for all of them.

    min Σ_{k<N} (x_k − r)ᵀQ(x_k − r) + u_kᵀR u_k + e(x_N)
    s.t. the model over N periods,  x_0 as estimated,  lo ≤ u_k ≤ hi,  lo ≤ x_k ≤ hi (k ≥ 1)

A state limit may be soft: exceeding it by s costs ρs², and no state is without a plan.

The end is pinned, x_N = r (the FNODE paper's X_N = 0, arXiv 2509.00183), or costs
(x_N − r)ᵀP(x_N − r) with P of the linear-quadratic regulator at the origin. The model enters
linearised in one of three grades: at the origin once, at the present state every period, or
along the last plan (a real-time iteration of sequential quadratic programming; Diehl et al.,
SIAM J. Control Optim. 43, 2005).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from scipy.linalg import solve_discrete_are

from hil.config import Settings
from hil.control.active_set import Bounds
from hil.control.discretise import linearised, step_slopes
from hil.control.riccati import Cost, Stages
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.types import Array

ORDER = {"euler": 1, "rk4": 4}
Interval = tuple[float, float]
Weight = Annotated[float, Meta(ge=0, le=1e9)]


class MpcSettings(Settings, frozen=True, kw_only=True):
    """What is minimised, over which horizon, within which limits, with which model."""

    input_limits: Annotated[
        tuple[Interval, ...], Meta(description="[lowest, highest] of every input, its unit")
    ]
    state_limits: Annotated[
        tuple[Interval, ...],
        Meta(description="[lowest, highest] of every state, its unit; inf: none; empty: none"),
    ] = ()
    state_penalties: Annotated[
        tuple[Annotated[float, Meta(gt=0, description="may be inf")], ...],
        Meta(
            description="ρ of every state, 1 over the unit squared: exceeding its limit by s "
            "costs ρs²; inf: it must not be; empty: none may be"
        ),
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
    terminal: Annotated[
        Literal["pinned", "lqr"],
        Meta(description="end of a plan: at the reference exactly, or charged as LQR would"),
    ] = "pinned"
    linearise: Annotated[
        Literal["origin", "state", "horizon"],
        Meta(description="once at the origin, at every state, or along the last plan"),
    ] = "origin"
    discretise: Annotated[
        Literal["euler", "rk4"], Meta(description="how a period is integrated")
    ] = "euler"
    iterations: Annotated[
        int, Meta(ge=1, le=100, description="linearisations along the horizon per solve, 1")
    ] = 1
    tolerance: Annotated[
        float,
        Meta(ge=0, description="sum over a plan of what the model departs from it, at which "
             "these end early, units of the states"),
    ] = 0.0  # fmt: skip
    cold_iterations: Annotated[
        int, Meta(ge=1, le=1000, description="the same where there is no last plan, per guess, 1")
    ] = 20
    waves: Annotated[
        int,
        Meta(ge=0, le=20, description="guesses from cold besides standing still and going "
             "straight: sines of the input with up to this many halves, to and fro, 1"),
    ] = 0  # fmt: skip
    angles: Annotated[
        tuple[Annotated[int, Meta(ge=0)], ...],
        Meta(description="states, from 0, of which 2π more is the same"),
    ] = ()


class Formulation:
    """The problem of one model under one set of settings; knows no solver."""

    def __init__(self, settings: MpcSettings, dynamics: AbstractDynamics) -> None:
        nx, nu = dynamics.nx, dynamics.nu
        self.settings, self.dynamics = settings, dynamics
        self.order = ORDER[settings.discretise]
        inputs = _intervals("input_limits", settings.input_limits, nu)
        states = _intervals("state_limits", settings.state_limits or ((-np.inf, np.inf),) * nx, nx)
        q = np.diag(_weights("state_weights", settings.state_weights, nx))
        r = np.diag(_weights("input_weights", settings.input_weights, nu))
        if any(angle >= nx for angle in settings.angles):
            raise ConfigError(
                f"controller.angles: {list(settings.angles)}: states are 0 to {nx - 1}"
            )
        self.origin = Stages(*self._at(np.zeros(nx), np.zeros(nu)))
        if settings.linearise == "horizon":  # compiles here, not in the first period of a loop
            self.along(np.zeros((settings.horizon, nx)), np.zeros((settings.horizon, nu)))
        end = _regulator(self.origin.a[0], self.origin.b[0], q, r)
        self.cost = Cost(q, r, end, settings.terminal == "pinned")
        penalties = settings.state_penalties or (np.inf,) * nx
        if len(penalties) != nx:
            raise ConfigError(
                f"controller.state_penalties: the model has {nx}, found {len(penalties)}"
            )
        self._bounds = Bounds(
            inputs[0], inputs[1], states[0], states[1], _scale(inputs), _scale(states),
            1.0 / np.array(penalties, dtype=float),
        )  # fmt: skip

    def bounds(self, disturbance: Array | None = None) -> Bounds:
        """Return the limits; those of the inputs shifted to what the plant feels, u + d."""
        if disturbance is None:
            return self._bounds
        known = self._bounds
        return known._replace(
            input_low=known.input_low + disturbance, input_high=known.input_high + disturbance
        )

    def at(self, x: Array, u: Array) -> Stages:
        """Return the model linearised at one state (nx,) and input (nu,), for all periods."""
        return Stages(*self._at(x, u))

    def along(self, states: Array, inputs: Array) -> Stages:
        """Return the model linearised along a plan: states (≥ N, nx), inputs (N, nu)."""
        count = len(inputs)
        return Stages(
            *step_slopes(self.dynamics, states[:count], inputs, self.settings.dt, self.order)
        )

    def _at(self, x: Array, u: Array) -> tuple[Array, Array, Array]:
        return linearised(self.dynamics, x, u, self.settings.dt, self.order)


def _regulator(a: Array, b: Array, q: Array, r: Array) -> Array:
    """Return P (nx, nx) of the linear-quadratic regulator; raises ConfigError."""
    try:
        p: Array = solve_discrete_are(a, b, q, r)
        closed = a - b @ np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        if np.abs(np.linalg.eigvals(closed)).max() < 1:
            return p
        said = "what it leaves unstable, no input moves"
    except (np.linalg.LinAlgError, ValueError) as error:
        said = str(error)
    raise ConfigError(
        "controller: the model linearised at the origin has no stabilising regulator with "
        f"these weights ({said}); check the model and state_weights"
    )


def _intervals(key: str, given: tuple[Interval, ...], count: int) -> Array:
    """Return limits as (2, count); raises ConfigError."""
    if len(given) != count:
        raise ConfigError(
            f"controller.{key}: the model has {count}, found {len(given)} [lowest, highest]"
        )
    found = np.array(given, dtype=float).T.copy()
    if not np.all(found[0] < found[1]):  # NaN fails too
        raise ConfigError(f"controller.{key}: a lowest must be below its highest, found {given}")
    return found


def _weights(key: str, given: tuple[float, ...], count: int) -> Array:
    """Return the diagonal of a weight, (count,); raises ConfigError."""
    if given and len(given) != count:
        raise ConfigError(f"controller.{key}: the model has {count}, found {len(given)}")
    return np.array(given or (1.0,) * count, dtype=float)


def _scale(limits: Array) -> Array:
    """Return what a violation is measured in: half the interval, or 1 where it is open."""
    half = (limits[1] - limits[0]) / 2
    return np.where(np.isfinite(half), half, 1.0)
