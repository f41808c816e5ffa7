"""A spring network as its equations alone: the rig's contract, no time, no flaw.

What a design study with thousands of trainings needs; whoever wants sensors, converters and
plant time takes `sim.rigs.spring_network`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from hil.mechanics.factorisation import AbstractFactorisation
from hil.mechanics.geometry import make_geometry
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import (
    AbstractStaticRig,
    AbstractTokens,
    Lifecycle,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
)
from hil.types import Array, ClockKind
from sim.rigs.spring_network import SimSpringNetworkSettings

CASES = 1024  # load cases in one batch; any number would do


class ExactSpringNetwork(AbstractStaticRig):
    """Settles a whole batch with one factorisation per stiffness, in float64.

    Takes the tables of the other double, so that one configuration makes either; everything
    that has to do with sensors, tokens or the seed is accepted and not used.
    """

    Settings: ClassVar[type[SimSpringNetworkSettings]] = SimSpringNetworkSettings

    def __init__(
        self,
        settings: SimSpringNetworkSettings,
        *,
        tokens: AbstractTokens | None = None,
        clock: ClockKind = "virtual",
        port: str = "",
        seed: int = 0,
        ideal: bool = True,
        start_us: int = 0,
    ) -> None:
        self.settings = settings
        self.network = SpringNetwork.from_geometry(make_geometry(settings.geometry, Path.cwd()))
        self._pruned = settings.pruned_bonds(self.network)
        self._life = Lifecycle(settings.name)
        self._stiffness = np.full(self.network.bond_count, sum(settings.stiffness) / 2)
        self._stiffness[self._pruned] = 0.0
        self._factorisation: AbstractFactorisation | None = None  # None: stiffness has changed
        self._now_us = start_us  # grows by 1 a load case, so that measurements have an order

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    def configure(self) -> RigInfo:
        """Say what the rig is."""
        self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        self._life.cleared()
        return RigInfo(
            name=self._life.name,
            device_id="exact",
            dof=self.network.dof,
            bonds=self.network.bond_count,
            max_cases=CASES,
            case_us=1,
            watchdog_us=0,
            stiffness_limits=self.settings.stiffness,
            force_limit=self.settings.force_max,
            details={"board": "none, equations"},
        )

    def activate(self) -> None:
        """Let loads be applied."""
        self._life.require("activate", RigState.INACTIVE)
        self._life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Let no load be applied."""
        self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Latch a fault."""
        if self.state in (RigState.INACTIVE, RigState.ACTIVE):
            self._life.latch(reason)

    def clear(self) -> None:
        """Leave fault for inactive."""
        self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
        self._life.cleared()

    def close(self) -> None:
        """Keep the stiffness, as a device would."""
        self._life.state = RigState.UNCONFIGURED

    def poll(self) -> None:
        """Do nothing: nothing is pending and there is no device to lose."""

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Return the exact equilibria of load cases (batch, dof), N."""
        self._life.require("settle", RigState.ACTIVE)
        if self._factorisation is None:
            self._factorisation = self.network.factorise(self._stiffness)
        found = self.network.settle(self._factorisation, loads)
        self._now_us += len(loads)
        return MeasuredEquilibrium(found.displacement, found.elongation, self._now_us, settled=True)

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond inside the limits; a pruned one stays 0; return what was applied."""
        self._life.require("set_stiffness", RigState.ACTIVE)
        self._stiffness = np.clip(stiffness, *self.settings.stiffness)
        self._stiffness[self._pruned] = 0.0
        self._factorisation = None
        return self._stiffness.copy()

    def read_stiffness(self) -> Array:
        """Return what every bond is set to: (bonds,), N/m."""
        self._life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
        return self._stiffness.copy()
