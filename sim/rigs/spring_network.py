"""A spring network in process: the rig's contract on the plant's equations."""

from __future__ import annotations

import threading
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import build
from hil.errors import DeadmanError
from hil.messages.wire import Target
from hil.rigs.base import (
    AbstractStaticRig,
    AbstractTokens,
    Lifecycle,
    MeasuredEquilibrium,
    RigInfo,
    RigState,
    in_parts,
    join,
    microseconds,
)
from hil.rigs.settings import StaticRigSettings
from hil.types import Array, ClockKind
from sim.rigs.spring_network_plant import SpringNetworkPlant

__all__ = ["SimSpringNetwork", "SpringNetworkPlant"]  # both are named in configurations

CASES = 32  # load cases in one batch, as on the device


class SimSpringNetworkSettings(StaticRigSettings, frozen=True, kw_only=True):
    """The rig table of a spring network in process: the hardware's keys, and a plant."""

    plant: Annotated[dict[str, Any], Meta(description="table of the plant, a part of its own")]
    port: Annotated[str, Meta(description="not used: there is no link")] = ""
    baud: Annotated[int, Meta(gt=0, description="not used")] = 921600
    serial_number: Annotated[str, Meta(description="not used")] = ""


class SimSpringNetwork(AbstractStaticRig):
    """A spring network in this process: no link, the plant's equations and its time.

    It takes the steps the firmware takes (load, settle, sample and average, next; unload
    and settle after the last), at the same plant times, in float64 instead of float32.
    tokens: where each batch takes its token from; None: no deadman. clock and port are
    accepted because the hardware rig takes them; time here is the plant's.
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
        ideal: bool = False,
        start_us: int = 0,
    ) -> None:
        self.settings = settings
        self.plant: SpringNetworkPlant | None = None
        self._tokens = tokens
        self._seed, self._ideal = seed, ideal
        self._life = Lifecycle(settings.name)
        self._lock = threading.RLock()  # held by whoever moves the plant
        self._stop = threading.Event()
        self._stop_reason = ""
        self._now_us = start_us
        self._until_us: int | None = None  # when the token of the running batch runs out
        self._token = 0
        self._settle_us = microseconds(settings.settle)
        self._timeout_us = microseconds(settings.settle_timeout)
        self._period_us = microseconds(settings.sample_period)
        self._watchdog_us = microseconds(settings.watchdog)
        self._max_cases = settings.max_cases(CASES)

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    def configure(self) -> RigInfo:
        """Make the plant; raises ConfigError, MechanicsError."""
        with self._lock:
            self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
            settings = self.settings
            if self.plant is None:
                rig = msgspec.to_builtins(settings)
                self.plant = build(
                    settings.plant, "rig.plant", rig=rig, seed=self._seed, ideal=self._ideal
                )
            self._stop.clear()
            self._life.cleared()
            return RigInfo(
                name=self._life.name,
                device_id=f"sim-{self._seed}",
                dof=self.plant.network.dof,
                bonds=self.plant.network.bond_count,
                max_cases=self._max_cases,
                case_us=settings.case_us,
                watchdog_us=self._watchdog_us,
                stiffness_limits=settings.stiffness,
                force_limit=settings.force_max,
                details={"board": "none, in process"},
            )

    def activate(self) -> None:
        """Let the outputs be powered."""
        with self._lock:
            self._life.require("activate", RigState.INACTIVE)
            self._token = 0
            self._life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Make the forces zero."""
        with self._lock:
            self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
            self._release()
            self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Make the forces zero and latch a fault; a batch in progress sees it at once."""
        self._stop_reason = reason
        self._stop.set()
        with self._lock:
            if self.state in (RigState.INACTIVE, RigState.ACTIVE):
                self._end_batch(reason)

    def clear(self) -> None:
        """Leave fault for inactive."""
        with self._lock:
            self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
            self._release()
            self._stop.clear()
            self._life.cleared()

    def close(self) -> None:
        """Make the forces zero; the plant keeps its stiffness, as a device would."""
        with self._lock:
            self._release()
            self._life.state = RigState.UNCONFIGURED

    def poll(self) -> None:
        """Do nothing: a stop has acted already, and there is no device to lose."""

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Run load cases, in as many batches as fit under one token each."""
        with self._lock:
            self._life.require("settle", RigState.ACTIVE)
            return join([self._batch(part) for part in in_parts(loads, self._max_cases)])

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """Measure one load case soon after the force."""
        with self._lock:
            self._life.require("sample_after", RigState.ACTIVE)
            plant = self._plant()
            self._take_token()
            self._pass(self._now_us)
            plant.write(self._now_us, Target.FORCE, 0, loads[0])
            looks = []
            for after_us in (wait_us, max(1, wait_us // 8)):
                self._pass(self._now_us + after_us)
                looks.append(plant.sample(self._now_us))
            last_us = self._now_us
            self._release()
            self._pass(self._now_us + wait_us)
            mean, dof = np.mean(looks, axis=0)[None], plant.network.dof
            return MeasuredEquilibrium(mean[:, :dof], mean[:, dof:], last_us, False)

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what was applied: (bonds,), N/m.

        The actuators saturate at their ends. Raises FaultError for what is no number.
        """
        with self._lock:
            self._life.require("set_stiffness", RigState.ACTIVE)
            self._plant().write(self._now_us, Target.STIFFNESS, 0, stiffness)
            return self._plant().applied(Target.STIFFNESS)

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m."""
        with self._lock:
            self._life.require("read_stiffness", RigState.INACTIVE, RigState.ACTIVE)
            return self._plant().applied(Target.STIFFNESS)

    def _plant(self) -> SpringNetworkPlant:
        assert self.plant is not None  # made by configure(), which every state needs
        return self.plant

    def _batch(self, loads: Array) -> MeasuredEquilibrium:
        """Do what the firmware does with one Run."""
        plant = self._plant()
        self._take_token()
        means, settled = [], True
        for load in loads:
            self._pass(self._now_us)
            plant.write(self._now_us, Target.FORCE, 0, load)
            mean, at_rest = self._measure()
            means.append(mean)
            settled = settled and at_rest
        last_us = self._now_us
        self._release()
        self._pass(self._now_us + self._settle_us)  # every batch starts from rest
        measured, dof = np.array(means), plant.network.dof
        return MeasuredEquilibrium(measured[:, :dof], measured[:, dof:], last_us, settled)

    def _measure(self) -> tuple[Array, bool]:
        """Return the mean of the first window that drifts little enough, and whether one did."""
        settings, plant = self.settings, self._plant()
        half, granted_us = settings.samples // 2, self._timeout_us
        wait_us = self._settle_us
        while True:
            times = []
            for _ in range(settings.samples):
                self._pass(self._now_us + wait_us)
                times.append(self._now_us)
                wait_us = self._period_us
            window = plant.samples(times)
            settled = True
            if settings.drift_max > 0:
                first, second = window[:half].mean(axis=0), window[half:].mean(axis=0)
                settled = bool(np.abs(second - first).max() <= settings.drift_max)
            granted_us -= settings.samples * self._period_us
            if settled or granted_us < 0:
                return np.asarray(window.mean(axis=0)), settled

    def _take_token(self) -> None:
        if self._tokens is None:
            return
        token = self._tokens.take(self._now_us)
        refused = f"rig {self._life.name}: token {token.sequence} refused: "
        if token.sequence <= self._token:
            raise DeadmanError(refused + f"token {self._token} has been used, it must grow")
        if token.valid_until_us <= self._now_us:
            raise DeadmanError(
                refused + f"it ran out at {token.valid_until_us} us, it is {self._now_us} us"
            )
        self._token = token.sequence
        self._until_us = min(token.valid_until_us, self._now_us + self._watchdog_us)

    def _pass(self, due_us: int) -> None:
        """Let plant time pass; a stop, or a token that runs out on the way, ends the batch."""
        if self._stop.is_set():
            self._end_batch(self._stop_reason)
            self._life.require("settle", RigState.ACTIVE)
        if self._until_us is not None and due_us >= self._until_us:
            self._now_us = max(self._now_us, self._until_us)
            self._end_batch("deadman: the token expired during a batch")
            raise DeadmanError(
                f"rig {self._life.name}: token {self._token} expired at device time "
                f"{self._now_us} us before the batch ended; the forces are zero; send fewer "
                "cases per token or let it live longer, then clear()"
            )
        self._now_us = due_us

    def _end_batch(self, why: str) -> None:
        self._release()
        self._life.latch(why)

    def _release(self) -> None:
        if self.plant is not None:
            self.plant.write(self._now_us, Target.FORCE, 0, np.zeros(self.plant.network.dof))
