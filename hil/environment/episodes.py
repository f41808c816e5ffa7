"""Where episodes take their rig from: made anew, or one that has to come to its start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import numpy as np

from hil.errors import FaultError, InputError, RunError
from hil.rigs.base import AbstractDynamicRig, DynamicRigInfo, RigState
from hil.safety.limits import LimitedDynamic
from hil.types import Array

Make = Callable[[int, Array], AbstractContextManager[AbstractDynamicRig]]
Open = Callable[[], AbstractContextManager[AbstractDynamicRig]]


class Begun(NamedTuple):
    """A rig at the start of an episode."""

    rig: AbstractDynamicRig  # behind its limits, configured and inactive
    info: DynamicRigInfo
    zero: Array  # (ny,), to be taken from every measurement: whole turns of an angle


class AbstractEpisodes(ABC):
    """Gives every episode its rig, behind the guard of its limits."""

    @property
    @abstractmethod
    def places(self) -> bool:
        """Whether an episode can begin at any state that is asked for."""

    @abstractmethod
    def begin(self, seed: int, start: Array, *, clear: bool = False) -> Begun:
        """Return a rig at its start.

        seed: of what is random in the rig; start: state (nx,) to begin at, SI; clear: a
        latched fault may be cleared. Raises what the rig raises, FaultError where one is
        latched, and RunError where the rig is not at its start in time.
        """

    @abstractmethod
    def close(self) -> None:
        """Make the rig safe and let go of it; may be called twice."""


class Rebuilt(AbstractEpisodes):
    """Every episode has a simulated rig of its own: same seed and start, same samples.

    make: a context manager with the rig for a seed and a start (nx,); leaving it closes the rig.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._stack = ExitStack()

    @property
    def places(self) -> bool:
        """Yes: the plant is made there."""
        return True

    def begin(self, seed: int, start: Array, *, clear: bool = False) -> Begun:
        """Close the rig of the episode before and make the next."""
        self.close()
        rig = LimitedDynamic(self._stack.enter_context(self._make(seed, start)))
        info = rig.configure()
        return Begun(rig, info, np.zeros(len(info.measurements)))

    def close(self) -> None:
        """Close the rig."""
        self._stack.close()


class Waited(AbstractEpisodes):
    """One rig for all episodes, which somebody, or gravity, brings back to its start.

    Nothing is powered meanwhile. A fault stays until somebody clears it: a program that asks
    for the next episode has not seen why a hand was on the button. The rig is at its start
    when for `still` s every measurement was within `tolerance` of it; an angle that came
    round is counted from there.

    open_rig: a context manager with the rig; tolerance: (ny,), SI; wait: device time granted,
    s; turns: names of measurements that are angles; say: told what is waited for.
    """

    def __init__(
        self,
        open_rig: Open,
        *,
        tolerance: Array,
        wait: float,
        still: float = 0.5,
        turns: tuple[str, ...] = ("angle",),
        say: Callable[[str], None] = lambda said: None,
    ) -> None:
        self._open = open_rig
        self._tolerance = tolerance
        self._wait_us, self._still_us = round(wait * 1e6), round(still * 1e6)
        self._turns = turns
        self._say = say
        self._stack = ExitStack()
        self._rig: LimitedDynamic | None = None
        self._info: DynamicRigInfo | None = None

    @property
    def places(self) -> bool:
        """No: nothing but a hand can put it somewhere."""
        return False

    def begin(self, seed: int, start: Array, *, clear: bool = False) -> Begun:
        """Take the power off and wait until the rig is at its start; the seed has no part."""
        if self._rig is None or self._info is None:
            rig = LimitedDynamic(self._stack.enter_context(self._open()))
            self._info = rig.configure()
            self._rig = rig
        if self._rig.state is RigState.FAULT:
            if not clear:
                raise FaultError(
                    f"rig {self._info.name}: in fault: {self._rig.fault}; look at it, then "
                    "`hil clear`, or reset(options={'clear': True})"
                )
            self._rig.clear()
        elif self._rig.state is RigState.ACTIVE:
            self._rig.deactivate()
        return Begun(self._rig, self._info, self._wait(self._rig, self._info, start))

    def close(self) -> None:
        """Make the rig safe and let go of it."""
        self._rig = None
        self._stack.close()

    def _wait(self, rig: AbstractDynamicRig, info: DynamicRigInfo, start: Array) -> Array:
        """Return the whole turns (ny,) the rig stands away from its start."""
        wanted = start[: len(info.measurements)]
        if self._tolerance.shape != wanted.shape:
            raise InputError(
                f"rig {info.name}: {len(wanted)} measurements, a tolerance for "
                f"{len(self._tolerance)}"
            )
        names = ", ".join(info.measurements)
        self._say(f"rig {info.name}: waiting for {names} at {wanted}, ± {self._tolerance}")
        away = deque[tuple[int, bool]]()
        began: int | None = None
        while True:
            sample = rig.read()
            began = sample.device_us if began is None else began
            turned = self._turned(sample.y - wanted, info)
            off = sample.y - wanted - turned
            away.append((sample.device_us, bool((np.abs(off) > self._tolerance).any())))
            while sample.device_us - away[0][0] > self._still_us:
                away.popleft()
            watched = sample.device_us - began >= self._still_us
            if watched and not any(outside for _, outside in away):
                return turned
            if sample.device_us - began > self._wait_us:
                raise RunError(
                    f"rig {info.name}: not at its start within {self._wait_us / 1e6:g} s: {names} "
                    f"at {sample.y}, wanted {wanted} ± {self._tolerance}; put it there and hold it"
                )

    def _turned(self, off: Array, info: DynamicRigInfo) -> Array:
        """Return the whole turns in a deviation (ny,)."""
        turning = np.array([name in self._turns for name in info.measurements])
        return np.where(turning, 2 * np.pi * np.rint(off / (2 * np.pi)), 0.0)
