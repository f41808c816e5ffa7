"""Linear state feedback, optimal for the model linearised at one state at rest."""

from __future__ import annotations

import time
from math import isfinite
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta
from scipy.linalg import solve_discrete_are

from hil.config import Settings
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.discretise import linearised
from hil.control.formulation import ORDER
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.types import Array

Weight = Annotated[float, Meta(ge=0, le=1e9)]


class LqrSettings(Settings, frozen=True, kw_only=True):
    """What is minimised, and how far the input may go."""

    state_weights: Annotated[tuple[Weight, ...], Meta(description="diagonal of Q, 1/unit²")]
    input_weights: Annotated[
        tuple[Annotated[float, Meta(gt=0, le=1e9)], ...], Meta(description="diagonal of R, 1/unit²")
    ]
    input_limits: Annotated[
        tuple[tuple[float, float], ...], Meta(description="[lowest, highest] of every input, unit")
    ]
    about: Annotated[
        tuple[float, ...], Meta(description="state at rest it is computed for; empty: the origin")
    ] = ()
    dt: Annotated[float, Meta(gt=0, le=10, description="length of a period, s")] = 0.05


class Lqr(AbstractController):
    """u = −K (x − about − r), clipped; K from the discrete Riccati equation, input held over dt.

    A plan is one period long. Raises ConfigError for settings that do not fit the model or a
    pair that cannot be stabilised.
    """

    Settings: ClassVar[type[LqrSettings]] = LqrSettings

    def __init__(self, settings: LqrSettings, *, dynamics: AbstractDynamics) -> None:
        nx, nu = dynamics.nx, dynamics.nu
        for key, count in (("state_weights", nx), ("input_weights", nu), ("input_limits", nu)):
            if len(getattr(settings, key)) != count:
                found = len(getattr(settings, key))
                raise ConfigError(f"control.{key}: the model has {count}, found {found}")
        if settings.about and len(settings.about) != nx:
            raise ConfigError(f"control.about: the model has {nx}, found {len(settings.about)}")
        self._about = np.array(settings.about or (0.0,) * nx)
        stage = linearised(dynamics, self._about, np.zeros(nu), settings.dt, ORDER["rk4"])
        a, b = stage[0][0], stage[1][0]
        q, r = np.diag(settings.state_weights), np.diag(settings.input_weights)
        try:
            p = solve_discrete_are(a, b, q, r)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise ConfigError(f"control: the model cannot be stabilised so: {error}") from None
        self.gain: Array = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)  # (nu, nx)
        self._limits = np.array(settings.input_limits)

    @property
    def horizon(self) -> int:
        """One period."""
        return 1

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return the input at state x (nx,) towards r (nx,), less a disturbance (nu,)."""
        begin = time.perf_counter()
        known = np.zeros(len(self.gain)) if disturbance is None else disturbance
        if not isfinite(x @ x + r @ r + known @ known):
            nothing = np.zeros((0, len(known)))
            said = "state, reference or disturbance is not finite"
            return Solution(nothing, nothing, SolutionStatus.FAILED, 0.0, said)
        u = -self.gain @ (x - self._about - r) - known
        clipped = np.clip(u, self._limits[:, 0], self._limits[:, 1])
        took = (time.perf_counter() - begin) * 1e6
        return Solution(clipped[None], x[None], SolutionStatus.OPTIMAL, took)

    def reset(self) -> None:
        """Do nothing: there is no memory."""
