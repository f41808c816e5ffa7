"""A cart-pole in process: the rig's contract on the plant's equations."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import build
from hil.errors import DeadmanError
from hil.mechanics.cart_pole_motion import CartPoleState
from hil.messages.wire import Target
from hil.rigs.base import (
    AbstractDynamicRig,
    AbstractTokens,
    DynamicRigInfo,
    DynamicSample,
    Lifecycle,
    RigState,
    microseconds,
)
from hil.rigs.settings import DynamicRigSettings
from hil.types import Array, ClockKind
from sim.rigs.cart_pole_plant import CartPolePlant

__all__ = ["CartPolePlant", "SimCartPole"]  # both are named in configurations


class SimCartPoleSettings(DynamicRigSettings, frozen=True, kw_only=True):
    """The rig table of a cart-pole in process: the hardware's keys, and a plant."""

    plant: Annotated[dict[str, Any], Meta(description="table of the plant, a part of its own")]
    port: Annotated[str, Meta(description="not used: there is no link")] = ""
    baud: Annotated[int, Meta(gt=0, description="not used")] = 921600
    serial_number: Annotated[str, Meta(description="not used")] = ""


class _Stillness:
    """What has acted since a reading last changed, as the firmware counts it."""

    def __init__(self) -> None:
        self.begin(0.0, 0.0)

    def begin(self, reading: float, force: float) -> None:
        """Note a reading and the force, N, that was on when it changed."""
        self._reading, self._force, self._impulse = reading, force, 0.0

    def after(self, reading: float, force: float, elapsed_us: int) -> float:
        """Return how much change of force has acted on the reading, N·us."""
        if reading != self._reading:
            self.begin(reading, force)
        else:
            self._impulse += abs(force - self._force) * elapsed_us
        return self._impulse


class SimCartPole(AbstractDynamicRig):
    """A cart-pole in this process: no link, the plant's equations and its time.

    It takes the steps the firmware takes in lock-step, at the same plant times, and rounds
    to float32 where the wire does, so that it gives the samples the board gives.
    tokens: where each write takes its token from; None: no deadman. clock and port are
    accepted because the hardware rig takes them; time here is the plant's.
    """

    Settings: ClassVar[type[SimCartPoleSettings]] = SimCartPoleSettings

    def __init__(
        self,
        settings: SimCartPoleSettings,
        *,
        tokens: AbstractTokens | None = None,
        clock: ClockKind = "virtual",
        port: str = "",
        seed: int = 0,
        ideal: bool = False,
        start_us: int = 0,
    ) -> None:
        self.settings = settings
        self.plant: CartPolePlant | None = None
        self._tokens = tokens
        self._seed, self._ideal = seed, ideal
        self._life = Lifecycle(settings.name)
        self._lock = threading.RLock()  # held by whoever moves the plant
        self._now_us = start_us
        self._until_us: int | None = None  # when the newest token runs out
        self._token = 0
        self._tick_us = microseconds(settings.tick)
        self._watchdog_us = microseconds(settings.watchdog)
        self._every = settings.stream_every
        self._travel = float(np.float32(settings.travel))
        self._travel_hard = float(np.float32(settings.travel_hard))
        self._stuck = float(np.float32(settings.stuck_impulse)) * 1e6  # N·us
        self._pose = (0.0, 0.0)
        self._still = [_Stillness(), _Stillness()]
        self._asked = self._applied = 0.0
        self._interlock = False
        self._sample: DynamicSample | None = None  # the newest
        self._sequence = 0  # of it
        self._returned = 0  # of the one read() returned last
        self._answered = False  # the newest sample: time passes before anything else is done
        self._expired = False  # the fault came of a token

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    def configure(self) -> DynamicRigInfo:
        """Make the plant and take the first sample; raises ConfigError, MechanicsError."""
        with self._lock:
            self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
            if self.plant is None:
                rig = msgspec.to_builtins(self.settings)
                self.plant = build(
                    self.settings.plant, "rig.plant", rig=rig, seed=self._seed, ideal=self._ideal
                )
                self._release()
            self._set_up()
            return self.settings.info(f"sim-{self._seed}", {"board": "none, in process"})

    def activate(self) -> None:
        """Let the output be powered."""
        with self._lock:
            self._life.require("activate", RigState.INACTIVE)
            self._catch_up()
            self._token = 0
            for still, reading in zip(self._still, self._pose, strict=True):
                still.begin(reading, self._applied)
            self._life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Make the force zero."""
        with self._lock:
            self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
            self._catch_up()
            self._require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
            self._release()
            self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Make the force zero and latch a fault."""
        with self._lock:
            if self.state in (RigState.INACTIVE, RigState.ACTIVE):
                self._catch_up()
                self._fail(reason)

    def clear(self) -> None:
        """Leave fault for inactive."""
        with self._lock:
            self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
            self._release()
            self._set_up()

    def close(self) -> None:
        """Make the force zero; the plant stays where it is."""
        with self._lock:
            if self.plant is not None:
                self._release()
            self._life.state = RigState.UNCONFIGURED

    def poll(self) -> None:
        """Do nothing: a stop has acted already, and there is no device to lose."""

    def place(self, state: CartPoleState) -> None:
        """Put the cart-pole somewhere by hand, while the output is not powered."""
        with self._lock:
            self._life.require("place", RigState.INACTIVE)
            self._plant().place(self._now_us, state)
            self._set_up()

    def read(self) -> DynamicSample:
        """Return the newest sample not returned before, letting time pass to it if need be."""
        with self._lock:
            self._life.require("read", RigState.INACTIVE, RigState.ACTIVE)
            self._answered = self._answered or self._returned == self._sequence
            self._catch_up()
            self._require("read", RigState.INACTIVE, RigState.ACTIVE)
            assert self._sample is not None  # taken by configure()
            missed = self._sequence - self._returned - 1
            self._returned = self._sequence
            return replace(self._sample, missed=missed)

    def write(self, u: Array) -> Array:
        """Command the force from the newest sample on; return what was applied."""
        with self._lock:
            self._life.require("write", RigState.ACTIVE)
            force = self.settings.checked_force(u)
            self._catch_up()
            self._require("write", RigState.ACTIVE)
            self._take_token()
            self._asked = float(np.float32(force))
            self._drive()
            self._answered = True
            return np.array([self._applied])

    def _plant(self) -> CartPolePlant:
        assert self.plant is not None  # made by configure(), which every state needs
        return self.plant

    def _set_up(self) -> None:
        """Begin with a sample at once, as the device does when it is set up."""
        self._life.cleared()
        self._answered = self._expired = False
        self._look()
        self._returned = self._sequence
        self._stream()

    def _catch_up(self) -> None:
        """Let time pass to the next sample if this one was answered."""
        if not self._answered:
            return
        for _ in range(self._every):
            due = self._now_us + self._tick_us
            if self._until_us is not None and self._until_us <= due:
                self._now_us = max(self._now_us, self._until_us)
                self._expired = True
                self._fail("deadman: the token expired before the next command")
            self._now_us = due
            self._look()
        self._answered = False
        self._stream()

    def _stream(self) -> None:
        self._sequence += 1
        self._sample = DynamicSample(
            y=np.array(self._pose),
            u=np.array([self._applied]),
            device_us=self._now_us,
            sequence=self._sequence,
            missed=0,
            flags=("interlock",) if self._interlock else (),
        )

    def _require(self, call: str, *allowed: RigState) -> None:
        """Raise for a fault that time has brought."""
        if self.state is RigState.FAULT and self._expired:
            raise DeadmanError(
                f"rig {self._life.name}: token {self._token} expired before another command came, "
                f"seen at device time {self._now_us} us; the force is zero; clear() first, then "
                "answer faster or let tokens live longer"
            )
        self._life.require(call, *allowed)

    def _look(self) -> None:
        ((angle, position),) = self._plant().look(self._now_us, self._tick_us, 1)
        self._pose = (float(np.float32(angle)), float(np.float32(position)))
        if self.state is not RigState.ACTIVE:
            return
        if abs(self._pose[1]) > self._travel_hard:
            self._fail("device fault TRAVEL")
        elif self._is_stuck():
            self._fail("device fault STUCK")
        else:
            self._drive()

    def _is_stuck(self) -> bool:
        if not self._stuck:
            return False
        acted = [
            still.after(reading, self._applied, self._tick_us)
            for still, reading in zip(self._still, self._pose, strict=True)
        ]
        return max(acted) > self._stuck

    def _drive(self) -> None:
        """Set the force to what was asked for, unless it drives the cart out of its travel."""
        position = self._pose[1]
        outward = abs(position) > self._travel and self._asked * position > 0
        self._interlock = outward
        wanted = 0.0 if outward else self._asked
        if wanted != self._applied:
            applied = self._plant().write(self._now_us, Target.FORCE, 0, [wanted])
            self._applied = float(np.float32(applied[0]))

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

    def _fail(self, why: str) -> None:
        self._release()
        self._life.latch(why)

    def _release(self) -> None:
        self._asked = self._applied = 0.0
        self._interlock = False
        self._until_us = None
        self._plant().write(self._now_us, Target.FORCE, 0, [0.0])
