"""Rigs and parts for the tests of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hil.config import Config, build, load
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import AbstractStaticRig, MeasuredEquilibrium, RigInfo, RigState
from hil.tasks.iris import Iris
from hil.training.insitu import InSituTraining
from hil.types import Array
from sim.rigs.spring_network import SimSpringNetwork

CONFIG = Path(__file__).parents[3] / "configs" / "iris.toml"


@dataclass(frozen=True)
class Parts:
    """What `configs/iris.toml` describes, with a seed."""

    config: Config
    network: SpringNetwork
    task: Iris
    training: InSituTraining

    def rig(self, *, ideal: bool = False, start_us: int = 0) -> SimSpringNetwork:
        """Return the in-process double of the shipped rig, powered."""
        assert self.config.board is not None
        table = self.config.rig | {
            "kind": "sim.rigs.spring_network:SimSpringNetwork",
            "plant": self.config.board["plant"],
        }
        rig: SimSpringNetwork = build(
            table, "rig", seed=self.config.seed, ideal=ideal, start_us=start_us
        )
        rig.configure()
        rig.activate()
        return rig

    def start_us(self, device_us: int) -> int:
        """Return when a rig is ready again whose newest sample was at `device_us`."""
        return device_us + round(self.config.rig["settle"] * 1e6) if device_us else 0


def parts(seed: int = 0, preset: str = "wide", **over: Any) -> Parts:
    """Return the parts of the shipped configuration; `__` in a name stands for a dot."""
    overrides = {"seed": seed, "preset": preset}
    overrides |= {name.replace("__", "."): value for name, value in over.items()}
    config = load(CONFIG, sim=True, overrides=overrides)
    geometry = make_geometry(msgspec.convert(config.rig["geometry"], GeometrySettings))
    network = SpringNetwork.from_geometry(geometry)
    assert config.task is not None
    assert config.training is not None
    return Parts(
        config,
        network,
        build(config.task, "task", geometry=geometry, seed=seed),
        build(config.training, "training", network=network, seed=seed),
    )


class ExactRig(AbstractStaticRig):
    """A rig that is its own model: no device, no time, no imperfection.

    limits: it clips to, N/m. level: it rounds stiffness to multiples of this, N/m.
    """

    def __init__(
        self,
        network: SpringNetwork,
        limits: tuple[float, float] = (0.0, np.inf),
        level: float = 0.0,
    ) -> None:
        self.network = network
        self.limits, self.level = limits, level
        self.stiffness = np.full(network.bond_count, 130.0)
        self.settled = 0  # load cases

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        self.settled += len(loads)
        found = self.network.settle(self.stiffness, loads)
        return MeasuredEquilibrium(found.displacement, found.elongation, 0, settled=True)

    def set_stiffness(self, stiffness: Array) -> Array:
        self.stiffness = np.clip(stiffness, *self.limits)
        if self.level:
            self.stiffness = np.round(self.stiffness / self.level) * self.level
        return self.stiffness.copy()

    def read_stiffness(self) -> Array:
        return self.stiffness.copy()

    @property
    def state(self) -> RigState:
        return RigState.ACTIVE

    @property
    def fault(self) -> str:
        return ""

    def configure(self) -> RigInfo:
        raise NotImplementedError  # training is given a rig that is active

    def activate(self) -> None:
        raise NotImplementedError

    deactivate = clear = close = activate

    def stop(self, reason: str = "") -> None:
        raise NotImplementedError

    def poll(self) -> None:
        raise NotImplementedError
