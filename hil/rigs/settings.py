"""What every rig of a kind is told, real or simulated: its table, and what follows from it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError, LimitError
from hil.mechanics.finite_springs import Regime
from hil.mechanics.geometry import GeometrySettings
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import DynamicRigInfo, microseconds
from hil.types import Array, IntArray

Positive = Annotated[float, Meta(gt=0)]
TOKEN_SHARE = 0.8  # of a token's life that a batch may need; the rest is for the way there


class StaticRigSettings(Settings, frozen=True, kw_only=True):
    """What every spring network rig is told, real or simulated."""

    name: Annotated[str, Meta(pattern=r"^[\w.-]+$", description="its mirror is found under")]
    geometry: GeometrySettings
    force_max: Annotated[float, Meta(gt=0, description="on one degree of freedom, N")]
    stiffness: Annotated[
        tuple[Positive, Positive], Meta(description="[lowest, highest] of a bond, N/m")
    ]
    watchdog: Annotated[float, Meta(gt=0, le=60, description="longest life of a token, s")]
    settle: Annotated[float, Meta(gt=0, le=60, description="wait before the first sample, s")]
    sample_period: Annotated[float, Meta(gt=0, le=1, description="between samples, s")]
    samples: Annotated[int, Meta(ge=2, le=1024, description="averaged per load case")]
    settle_timeout: Annotated[float, Meta(ge=0, le=60, description="more wait granted, s")] = 0.0
    drift_max: Annotated[float, Meta(ge=0, description="over the window, m; 0: any")] = 0.0
    calibration: Annotated[
        str,
        Meta(min_length=1, description='"none", "auto" (the newest of this device), or a path'),
    ] = "none"
    regime: Annotated[
        Regime, Meta(description="equations of the model beside the rig, linear or exact")
    ] = "linear"
    pruned: Annotated[
        tuple[Annotated[int, Meta(ge=1)], ...],
        Meta(description="bonds that are cut, from 1; their stiffness is 0 whatever is asked"),
    ] = ()

    def pruned_bonds(self, network: SpringNetwork) -> IntArray:
        """Return the bonds that are cut, from 0.

        Raises ConfigError for a bond that is not there, MechanicsError where what is left of
        the network has a zero mode: looked at by rank, before anything is loaded.
        """
        return pruned_bonds(self.pruned, network)

    @property
    def case_us(self) -> int:
        """Longest time one load case takes, us."""
        window = self.samples * microseconds(self.sample_period)
        return microseconds(self.settle) + microseconds(self.settle_timeout) + window

    def max_cases(self, capacity: int) -> int:
        """Return how many load cases fit under one token, at most `capacity`.

        Raises ConfigError where not even one does, or the stiffness bounds are swapped.
        """
        low, high = self.stiffness
        if low >= high:
            raise ConfigError(f"rig.stiffness: [{low}, {high}] N/m: lowest must be below highest")
        unload = microseconds(self.settle)
        cases = int((microseconds(self.watchdog) * TOKEN_SHARE - unload) // self.case_us)
        if cases < 1:
            raise ConfigError(
                f"rig.watchdog: {self.watchdog} s is too short: one load case takes up to "
                f"{self.case_us / 1e6:.3f} s and {self.settle} s to unload; at least "
                f"{(self.case_us + unload) / 1e6 / TOKEN_SHARE:.3f} s are needed"
            )
        return min(capacity, cases)


def pruned_bonds(pruned: tuple[int, ...], network: SpringNetwork) -> IntArray:
    """Return bonds counted from 1 as indices from 0, once the network is known to bear the loss.

    Raises ConfigError for a bond that is not there, MechanicsError for a zero mode.
    """
    for bond in pruned:
        if bond > network.bond_count:
            raise ConfigError(
                f"rig.pruned: no bond {bond}; the network has bonds 1 to {network.bond_count}"
            )
    found = np.array(pruned, dtype=np.int64) - 1
    left = np.ones(network.bond_count)
    left[found] = 0.0
    network.check(left)
    return found


class DynamicRigSettings(Settings, frozen=True, kw_only=True):
    """What every cart-pole rig is told, real or simulated."""

    name: Annotated[str, Meta(pattern=r"^[\w.-]+$", description="its mirror is found under")]
    force_max: Annotated[float, Meta(gt=0, description="on the cart, N")]
    travel: Annotated[
        float, Meta(gt=0, description="of the cart; beyond, forces act inward only, m")
    ]
    travel_hard: Annotated[float, Meta(gt=0, description="of the cart; beyond, a fault, m")]
    watchdog: Annotated[float, Meta(gt=0, le=60, description="longest life of a token, s")]
    period: Annotated[float, Meta(gt=0, le=10, description="between two samples sent, s")]
    tick: Annotated[float, Meta(gt=0, le=1, description="between two looks at sensors, s")] = 0.001
    stuck_impulse: Annotated[
        float,
        Meta(ge=0, description="change of force × time on a still reading, N·s; 0: any"),
    ] = 0.0

    @property
    def stream_every(self) -> int:
        """Ticks between two samples that are sent.

        Raises ConfigError for settings that do not fit each other.
        """
        period_us, tick_us = microseconds(self.period), microseconds(self.tick)
        if not tick_us or period_us % tick_us:
            raise ConfigError(
                f"rig.period: {self.period} s is not a multiple of rig.tick, {self.tick} s"
            )
        if self.travel >= self.travel_hard:
            raise ConfigError(
                f"rig.travel: {self.travel} m: must be below rig.travel_hard, {self.travel_hard} m"
            )
        if self.watchdog * TOKEN_SHARE < self.period:
            raise ConfigError(
                f"rig.watchdog: {self.watchdog} s is too short to command every {self.period} s; "
                f"at least {self.period / TOKEN_SHARE:.4g} s are needed"
            )
        return period_us // tick_us

    def info(self, device_id: str, details: dict[str, str]) -> DynamicRigInfo:
        """Return what a cart-pole with these settings is."""
        return DynamicRigInfo(
            name=self.name,
            device_id=device_id,
            measurements=("angle", "position"),
            inputs=("force",),
            input_limits=((-self.force_max, self.force_max),),
            period_us=microseconds(self.period),
            tick_us=microseconds(self.tick),
            watchdog_us=microseconds(self.watchdog),
            details=details,
        )

    def checked_force(self, u: Array) -> float:
        """Return the force of an input (1,), N; raises LimitError for one that cannot be."""
        if u.shape != (1,):
            raise LimitError(f"write: expected an input of shape (1,), found {u.shape}")
        force = float(u[0])
        if not abs(force) <= self.force_max:  # true for NaN as well
            raise LimitError(
                f"write: force {force:g} N is outside ±{self.force_max:g} N; nothing was changed"
            )
        return force
