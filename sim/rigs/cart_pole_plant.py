"""Mechanics, motor and encoders of a simulated cart-pole."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings, check
from hil.errors import ConfigError, FaultError
from hil.mechanics.cart_pole import CartPoleParameters
from hil.mechanics.cart_pole_motion import CartPoleMotion, CartPoleState
from hil.messages.wire import Target
from hil.types import Array
from sim.faults import Pose, SensorFault, faulty
from sim.imperfections import TimeNoise

STEP_US = 1000  # longest step of the integration
EVENTS_KEPT = 65536
Time = Annotated[float, Meta(ge=0, le=1)]


class Impulse(Settings, frozen=True, kw_only=True):
    """A blow from outside, of no duration."""

    time: Annotated[float, Meta(ge=0, description="device time, s")]
    cart: Annotated[float, Meta(description="on the cart, N·s")] = 0.0
    tip: Annotated[float, Meta(description="on the mass, horizontally, N·s")] = 0.0


class Change(Settings, frozen=True, kw_only=True):
    """Another mass from some time on; what is added or lost moves as the part it was on."""

    time: Annotated[float, Meta(ge=0, description="device time, s")]
    cart_mass: Annotated[float, Meta(gt=0, description="M from then on, kg")] | None = None
    pole_mass: Annotated[float, Meta(gt=0, description="m from then on, kg")] | None = None


class CartPolePlantSettings(Settings, frozen=True, kw_only=True):
    """The plant table of a simulated cart-pole; every default is ideal."""

    parameters: CartPoleParameters = CartPoleParameters()
    start: Annotated[
        tuple[float, float, float, float], Meta(description="θ, x, θ̇, ẋ in rad, m, rad/s, m/s")
    ] = (0.0, 0.0, 0.0, 0.0)
    held: Annotated[bool, Meta(description="by a hand, until the first force")] = True
    motor_lag: Annotated[Time, Meta(description="time constant of the force, s")] = 0.0
    delay: Annotated[Time, Meta(description="from the command to the motor, s")] = 0.0
    angle_counts: Annotated[int, Meta(ge=0, description="encoder, per turn; 0: ideal")] = 0
    position_step: Annotated[float, Meta(ge=0, le=0.1, description="encoder, m; 0: ideal")] = 0.0
    angle_noise: Annotated[float, Meta(ge=0, le=1, description="standard deviation, rad")] = 0.0
    position_noise: Annotated[float, Meta(ge=0, le=1, description="standard deviation, m")] = 0.0
    impulses: tuple[Impulse, ...] = ()
    changes: Annotated[tuple[Change, ...], Meta(description="of a mass, as time goes on")] = ()
    push: Annotated[float, Meta(description="on the cart from outside, for ever, N")] = 0.0
    faults: tuple[SensorFault, ...] = ()


class CartPoleRigTable(Settings, frozen=True, kw_only=True):
    """What the plant needs to know of the rig it plays."""

    force_max: Annotated[float, Meta(gt=0, description="on the cart, N")]


@dataclass(frozen=True)
class CartPoleEvent:
    """One change of the commanded force, and where the plant was."""

    time_us: int
    force: float  # N
    state: CartPoleState
    before_us: int  # when it was looked at or written to before

    def line(self) -> dict[str, Any]:
        """Return the event as a line of the plant's own record."""
        return {
            "time_us": self.time_us,
            "target": "force",
            "max": abs(self.force),
            "offset": 0,
            "values": [self.force],
            "state": list(self.state),
            "before_us": self.before_us,
        }


class _Mechanism(NamedTuple):
    """What moves between two changes."""

    until_us: float  # device time at which the next change comes; inf: none
    motion: CartPoleMotion


class _Moment(NamedTuple):
    """Everything the plant is at one time: going back is taking an older one."""

    time_us: int
    state: CartPoleState
    force: float  # of the motor, N
    command: float  # the motor follows, N
    coming: tuple[tuple[int, float], ...]  # commands on their way: when they arrive, N
    struck: int  # impulses that have been
    changed: int  # changes that have been
    held: bool  # by a hand
    shown: Pose | None  # at the look before, by failing encoders


class CartPolePlant:
    """A cart-pole with a motor that follows and encoders that round.

    rig: table with `force_max`, where the motor saturates; other keys are not looked at.
    ideal: no rounding, noise, lag or delay; friction stays, being mechanics.
    watch: called with every event, as it happens.

    Whoever looks ahead of time is shown what will be if nothing is written; a write at an
    earlier time takes the rest back. The same writes at the same times give the same bits,
    however far was looked in between: the grid of the integration is that of the looks.
    """

    Settings: ClassVar[type[CartPolePlantSettings]] = CartPolePlantSettings

    def __init__(
        self,
        settings: CartPolePlantSettings,
        *,
        rig: Mapping[str, Any],
        seed: int = 0,
        ideal: bool = False,
        watch: Callable[[CartPoleEvent], None] | None = None,
    ) -> None:
        known = {key: rig[key] for key in CartPoleRigTable.__struct_fields__ if key in rig}
        self._force_max = check(known, CartPoleRigTable, "rig").force_max
        if seed < 0:
            raise ConfigError(f"seed: {seed}: expected 0 or more")
        lo, hi = settings.parameters.stops or (-math.inf, math.inf)
        if not lo <= settings.start[1] <= hi:
            raise ConfigError(
                f"board.plant.start: the cart at {settings.start[1]} m is beyond its stops, "
                f"{lo} and {hi} m"
            )
        self.settings = settings
        self._mechanisms = _mechanisms(settings)
        self._mechanisms[0].motion.prepare()  # before time begins
        self.events: deque[CartPoleEvent] = deque(maxlen=EVENTS_KEPT)
        self._watch = watch
        self._lag_us = 0.0 if ideal else settings.motor_lag * 1e6
        self._delay_us = 0 if ideal else round(settings.delay * 1e6)
        self._turn = 0.0 if ideal or not settings.angle_counts else math.tau / settings.angle_counts
        self._pace = 0.0 if ideal else settings.position_step
        noisy = not ideal and (settings.angle_noise > 0 or settings.position_noise > 0)
        self._noise = TimeNoise(seed, 2) if noisy else None
        self._noise_std = np.array([settings.angle_noise, settings.position_noise])
        self._blows = sorted((round(i.time * 1e6), i.cart, i.tip) for i in settings.impulses)
        self._commanded = 0.0
        # Where it was at the newest write or look asked for, and at every one ahead of it.
        self._moments = [
            _Moment(0, CartPoleState(*settings.start), 0.0, 0.0, (), 0, 0, settings.held, None)
        ]
        self._untouched = True

    @property
    def unloaded(self) -> bool:
        """Whether the commanded force is zero."""
        return self._commanded == 0

    def release(self, time_us: int) -> None:
        """Make the force zero: nothing drives the motor any more."""
        self.write(time_us, Target.FORCE, 0, [0.0])

    def write(
        self, time_us: int, target: int, offset: int, values: Sequence[float] | Array
    ) -> Array:
        """Command the force; return what the motor can do of it: (1,), N.

        Raises FaultError for an actuator that is not there or a value that is no number.
        """
        if target != Target.FORCE or offset != 0 or len(values) != 1:
            raise FaultError(
                f"plant: target {target}, {len(values)} values from {offset} on: a cart-pole has "
                "one force"
            )
        wanted = float(values[0])
        if not math.isfinite(wanted):
            raise FaultError("plant: force: not a finite number")
        force = min(max(wanted, -self._force_max), self._force_max)
        before = self._newest(time_us)
        now = self._advance(before, time_us)
        if self._delay_us:
            now = now._replace(coming=(*now.coming, (time_us + self._delay_us, force)))
        else:
            now = now._replace(command=force)
        if force != 0:
            now = now._replace(held=False)
        self._moments = [now]
        self._commanded = force
        event = CartPoleEvent(time_us, force, now.state, before.time_us)
        self.events.append(event)
        if self._watch is not None:
            self._watch(event)
        return np.array([force])

    def look(self, time_us: int, period_us: int, count: int) -> list[tuple[float, float]]:
        """Return angle, rad, and position, m, at `count` times from `time_us` on."""
        before = self._newest(time_us)
        moments = [self._advance(before, time_us)]
        while (left := count - len(moments)) > 0:
            now = moments[-1]
            moments += self._glide(now, period_us, left) or [
                self._advance(now, now.time_us + period_us)
            ]
        seen = self._readings(moments)
        if self.settings.faults:
            shown = moments[0].shown
            for i, moment in enumerate(moments):
                shown = faulty(self.settings.faults, moment.time_us, seen[i], shown)
                seen[i], moments[i] = shown, moment._replace(shown=shown)
        # A look may be asked for ahead of time, and a write come before it.
        self._moments = moments if before.time_us == time_us else [before, *moments]
        return seen

    def state(self, time_us: int) -> CartPoleState:
        """Return where it truly is."""
        return self._at(time_us).state

    def place(self, time_us: int, state: CartPoleState) -> None:
        """Put it somewhere, by hand, and hold it there until the next force."""
        now = self._at(time_us)
        self._moments = [now._replace(state=state, held=self.settings.held)]

    def _at(self, time_us: int) -> _Moment:
        """Return what is at a time, which may lie before what was looked at."""
        return self._advance(self._newest(time_us), time_us)

    def _newest(self, time_us: int) -> _Moment:
        """Return the newest moment that is known at a time."""
        if self._untouched:  # time begins when the device does
            self._untouched = False
            self._moments = [self._moments[0]._replace(time_us=time_us)]
        for moment in reversed(self._moments):
            if moment.time_us <= time_us:
                return moment
        raise FaultError(
            f"plant: time runs backwards, from {self._moments[0].time_us} us to {time_us} us"
        )

    def _advance(self, moment: _Moment, to_us: int) -> _Moment:
        time_us, state, force, command, coming, struck, changed, held, shown = moment
        blows = self._blows
        mechanism = self._mechanisms[changed]
        while True:
            while mechanism.until_us <= time_us:
                changed += 1
                mechanism = self._mechanisms[changed]
            while coming and coming[0][0] <= time_us:
                command, coming = coming[0][1], coming[1:]
            while struck < len(blows) and blows[struck][0] <= time_us:
                _, cart, tip = blows[struck]
                state = mechanism.motion.strike(state, cart=cart, tip=tip)
                struck, held = struck + 1, False
            if time_us >= to_us:
                return _Moment(time_us, state, force, command, coming, struck, changed, held, shown)
            until = min(to_us, time_us + STEP_US)
            if mechanism.until_us < until:
                until = round(mechanism.until_us)
            if coming:
                until = min(until, coming[0][0])
            if struck < len(blows):
                until = min(until, blows[struck][0])
            span = until - time_us
            # Within a step the motor gives the mean of its exponential: it is exact in the
            # momentum, and second order in the step in everything else.
            mean, force = self._follow(force, command, span)
            if not held:
                state = mechanism.motion.step(state, mean + self.settings.push, span * 1e-6)
            time_us = until

    def _glide(self, now: _Moment, period_us: int, count: int) -> list[_Moment]:
        """Return what `_advance` would, period by period, in one go.

        Fewer, or none, where something else happens than that the motor's force acts.
        """
        time_us, state, force, command, coming, struck, changed, held, shown = now
        mechanism = self._mechanisms[changed]
        end_us = time_us + period_us * count
        if held or coming or period_us > STEP_US:
            return []
        if struck < len(self._blows) and self._blows[struck][0] <= end_us:
            return []
        if mechanism.until_us <= end_us:
            return []
        means, forces = self._following(force, command, period_us, count)
        states = mechanism.motion.glide(state, np.array(means), period_us * 1e-6).tolist()
        times = range(time_us + period_us, end_us + 1, period_us)
        return [
            _Moment(at, CartPoleState._make(row), force, command, (), struck, changed, held, shown)
            for at, row, force in zip(times, states, forces, strict=False)
        ]

    def _follow(self, force: float, command: float, span_us: int) -> tuple[float, float]:
        """Return mean and end of the motor's force over a span, N."""
        if not self._lag_us:
            return command, command
        share = span_us / self._lag_us
        left = math.exp(-share)
        gap = force - command
        return command + gap * (1.0 - left) / share, command + gap * left

    def _following(
        self, force: float, command: float, span_us: int, count: int
    ) -> tuple[list[float], list[float]]:
        """Return what `_follow` gives span by span, with the push from outside on the means."""
        push = self.settings.push
        if not self._lag_us:
            return [command + push] * count, [command] * count
        share = span_us / self._lag_us
        left = math.exp(-share)
        means, forces = [], []
        for _ in range(count):
            gap = force - command
            force = command + gap * left
            means.append(command + gap * (1.0 - left) / share + push)
            forces.append(force)
        return means, forces

    def _readings(self, moments: Sequence[_Moment]) -> list[Pose]:
        """Return what the encoders say."""
        poses = np.array([moment.state[:2] for moment in moments])
        if self._noise is not None:
            poses += self._noise_std * self._noise.each(moment.time_us for moment in moments)
        angle, position = poses.T
        if self._turn:
            angle = self._turn * np.rint(angle / self._turn) + 0.0  # no minus zero
        if self._pace:
            position = self._pace * np.rint(position / self._pace) + 0.0
        return list(zip(angle.tolist(), position.tolist(), strict=True))


def _mechanisms(settings: CartPolePlantSettings) -> list[_Mechanism]:
    """Return the mechanism at the start and after every change; raises ConfigError."""
    parameters, found = settings.parameters, []
    changes = sorted(settings.changes, key=lambda change: change.time)
    for change in changes:
        masses = {
            name: mass
            for name in ("cart_mass", "pole_mass")
            if (mass := getattr(change, name)) is not None
        }
        if not masses:
            raise ConfigError(
                f"board.plant.changes: nothing changes at {change.time} s; "
                "give cart_mass or pole_mass"
            )
        found.append(_Mechanism(round(change.time * 1e6), CartPoleMotion(parameters)))
        parameters = msgspec.structs.replace(parameters, **masses)
    return [*found, _Mechanism(math.inf, CartPoleMotion(parameters))]
