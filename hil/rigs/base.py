"""The contracts of a rig: its life, and what each of the kinds can be asked.

    unconfigured ──configure()──▶ inactive ──activate()──▶ active
         ▲                          ▲  ▲                     │  │
         └────────close()───────────┘  └────deactivate()─────┘  │ stop(), or a failure
                                    └────clear()──── fault ◀────┘

Inactive is readable, active is powered and writable, fault is latched: outputs are safe
and only an explicit `clear()` leads out of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

import numpy as np

from hil.errors import FaultError, StateError
from hil.types import Array


class RigState(StrEnum):
    """Where a rig is in its life."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    ACTIVE = "active"
    FAULT = "fault"


@dataclass(frozen=True)
class Token:
    """Proof that the controlling process is alive; minted there and nowhere else.

    sequence: grows with every command; valid_until_us: device time in microseconds at
    which the outputs become safe unless a newer token has arrived.
    """

    sequence: int
    valid_until_us: int


class AbstractTokens(ABC):
    """Where a rig takes the token of its next powered command from."""

    @abstractmethod
    def take(self, device_us: int) -> Token:
        """Return the token for one command; `device_us` is the device time now."""


@dataclass(frozen=True)
class MeasuredEquilibrium:
    """What a static rig measured for a batch of load cases."""

    displacement: Array  # (batch, dof), m
    elongation: Array  # (batch, bonds), m
    device_us: int  # device time of the last sample, us
    settled: bool  # every case came to rest inside the time granted
    twin_residual: float | None = None  # measured − predicted elongation, relative rms
    applied: Array | None = None  # (batch, dof), N, where the rig rounds loads; None: as asked


@dataclass(frozen=True)
class RigInfo:
    """What a static rig is, fixed from `configure()` on."""

    name: str
    device_id: str
    dof: int
    bonds: int
    max_cases: int  # load cases that fit under one token and in the device
    case_us: int  # worst time one load case takes, us
    watchdog_us: int  # longest life of a token, us
    stiffness_limits: tuple[float, float]  # N/m
    force_limit: float  # largest magnitude on one degree of freedom, N
    details: dict[str, str] = field(default_factory=dict)  # board, firmware, schema …


@dataclass(frozen=True)
class DynamicSample:
    """What a dynamic rig measured at one time."""

    y: Array  # (ny,), measured, SI
    u: Array  # (nu,), applied from this time on unless a write changes it, SI
    device_us: int  # device time of the sample, us
    sequence: int  # number of the sample, grows by 1
    missed: int  # samples between the one read before and this one
    flags: tuple[str, ...] = ()  # "interlock", "late"


@dataclass(frozen=True)
class DynamicRigInfo:
    """What a dynamic rig is, fixed from `configure()` on."""

    name: str
    device_id: str
    measurements: tuple[str, ...]  # names of y, in order
    inputs: tuple[str, ...]  # names of u, in order
    input_limits: tuple[tuple[float, float], ...]  # lowest and highest of each input, SI
    period_us: int  # between two samples that are sent, us
    tick_us: int  # between two looks of the device at its sensors, us
    watchdog_us: int  # longest life of a token, us
    details: dict[str, str] = field(default_factory=dict)  # board, firmware, schema …


def microseconds(seconds: float) -> int:
    """Return a time in whole microseconds, as devices count it."""
    return round(seconds * 1e6)


class Lifecycle:
    """The state of one rig, and the refusal of calls that come out of order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = RigState.UNCONFIGURED
        self.fault = ""

    def require(self, call: str, *allowed: RigState) -> None:
        """Raise unless the rig is in one of the `allowed` states.

        Raises FaultError in fault, StateError otherwise, naming the call that is needed.
        """
        if self.state in allowed:
            return
        if self.state is RigState.FAULT:
            raise FaultError(
                f"rig {self.name}: {call}() refused, the rig is in fault ({self.fault}); "
                "remove the cause, then call clear()"
            )
        ways = {
            RigState.UNCONFIGURED: "configure()",
            RigState.INACTIVE: "activate()",
            RigState.ACTIVE: "deactivate()",
        }
        raise StateError(
            f"rig {self.name}: {call}() needs the state {' or '.join(allowed)}, "
            f"the rig is {self.state}; call {ways[self.state]} first"
        )

    def latch(self, why: str) -> None:
        """Enter fault, keeping the first reason."""
        if self.state is not RigState.FAULT:
            self.state, self.fault = RigState.FAULT, why

    def cleared(self) -> None:
        """Leave fault for inactive."""
        self.state, self.fault = RigState.INACTIVE, ""


class AbstractRig(ABC):
    """Life of every rig. Constructors do no I/O; use it as a context manager."""

    @property
    @abstractmethod
    def state(self) -> RigState:
        """Where the rig is in its life."""

    @property
    @abstractmethod
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""

    @abstractmethod
    def configure(self) -> object:
        """Connect, check that the device is the right one, set limits; then inactive.

        Returns what the rig is; each kind of rig says it in a class of its own.
        """

    @abstractmethod
    def activate(self) -> None:
        """Power the outputs: inactive → active."""

    @abstractmethod
    def deactivate(self) -> None:
        """Make the outputs safe: active → inactive."""

    @abstractmethod
    def stop(self, reason: str = "stopped by hand") -> None:
        """Make the outputs safe now, from any state and thread, and latch a fault."""

    @abstractmethod
    def clear(self) -> None:
        """Leave fault for inactive, after reading the device's state back."""

    @abstractmethod
    def close(self) -> None:
        """Make the outputs safe and let go of the device; may be called twice."""

    @abstractmethod
    def poll(self) -> None:
        """Act on a stop, notice a lost device; its owner calls it while nothing is asked."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AbstractStaticRig(AbstractRig):
    """A rig that is loaded, comes to rest, and is measured."""

    @abstractmethod
    def configure(self) -> RigInfo:
        """Connect, check that the device is the right one, set limits; then inactive."""

    @abstractmethod
    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Apply each load case, wait for rest, measure, unload.

        loads: (batch, dof), N. Raises LimitError when a force is outside the limits,
        DeadmanError when the token ran out, FaultError when the rig failed.
        """

    def sample_after(self, loads: Array, wait_us: int) -> MeasuredEquilibrium:
        """As `settle`, for one load case, but look `wait_us` after the force, at rest or not.

        Two samples are taken, `wait_us` and `wait_us` + max(1, `wait_us` // 8) after the
        force, and averaged. Raises StateError for a rig that cannot.
        """
        raise StateError(f"{type(self).__name__}: only measures at rest")

    @abstractmethod
    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond and return what was applied after limits and quantisation.

        stiffness: (bonds,), N/m.
        """

    @abstractmethod
    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m; inactive or active."""


class AbstractDynamicRig(AbstractRig):
    """A rig that moves by itself: it sends samples, and is driven meanwhile.

    The rig sets the pace. Under the wall clock it goes on whether it is answered or not;
    under the virtual clock it stands still after each sample until a `write`, or until the
    next `read`, which says that there is none.
    """

    @abstractmethod
    def configure(self) -> DynamicRigInfo:
        """Connect, check that the device is the right one, set limits; then inactive."""

    @abstractmethod
    def read(self) -> DynamicSample:
        """Return the newest sample that was not returned before, waiting for one if need be.

        Inactive or active. Raises DeadmanError when a token ran out, FaultError when the
        rig failed or was stopped.
        """

    @abstractmethod
    def write(self, u: Array) -> Array:
        """Set the inputs, (nu,), until the next write; return what was applied, (nu,).

        Each write carries a token; when it runs out the inputs become safe and a fault
        latches. Raises LimitError, with nothing changed, for what is outside the limits or
        no number.
        """


def in_parts(loads: Array, max_cases: int) -> list[Array]:
    """Split a batch of load cases so that each part fits under one token."""
    return [loads[i : i + max_cases] for i in range(0, len(loads), max_cases)]


def join(parts: list[MeasuredEquilibrium]) -> MeasuredEquilibrium:
    """Put the equilibria of the parts of a batch together again."""
    applied = [p.applied for p in parts if p.applied is not None]
    return MeasuredEquilibrium(
        displacement=np.concatenate([p.displacement for p in parts]),
        elongation=np.concatenate([p.elongation for p in parts]),
        device_us=parts[-1].device_us,
        settled=all(p.settled for p in parts),
        twin_residual=parts[-1].twin_residual,
        applied=None if not applied else np.concatenate(applied),
    )


class AbstractBoard(ABC):
    """What plays the far end of the wire when a rig is simulated."""

    @abstractmethod
    def open(self) -> str:
        """Start the board and return the pyserial URL its device answers on."""

    @abstractmethod
    def close(self) -> None:
        """Let the outputs become safe, then end the board; may be called twice."""

    def __enter__(self) -> str:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()
