"""The contract of an emulator: a machine that is set up like the system it stands for, and run.

Coefficients, inputs and traces are those of the emulated system, in SI. The machine has a
time of its own: one second of the system takes `time_scale` seconds on it. A batch of cases
is the unit: each is prepared (IC), operated (OP) and halted (HALT), one after the other.

No token is asked for: a run ends by itself after the time that was predicted for it, and a
machine without a run is safe. The lease decides who commands.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from hil.errors import LimitError
from hil.rigs.base import AbstractRig
from hil.types import Array

MESSAGE_BYTES = 32 * 1024 * 1024  # of one array in one command: half of what the bus takes


class EmulatorMode(StrEnum):
    """What the integrators do."""

    IC = "IC"  # they follow their initial conditions
    OP = "OP"  # they integrate
    HALT = "HALT"  # they hold


@dataclass(frozen=True)
class CoefficientGroup:
    """Coefficients of one kind: where they stand in the vector follows from the order."""

    name: str
    unit: str
    count: int
    low: float  # in `unit`
    high: float
    step: float  # between two neighbouring values, in `unit`; 0: any value


@dataclass(frozen=True)
class EmulatorInfo:
    """What an emulator is, fixed from `configure()` on."""

    name: str
    device_id: str
    coefficients: tuple[CoefficientGroup, ...]  # in the order of the vector
    inputs: tuple[str, ...]  # names, "force_x 12"
    input_limit: float  # largest magnitude of an input, N
    channels: tuple[str, ...]  # names of what is recorded, "x 12"
    elements: tuple[str, ...]  # that have an overload latch
    state: int  # numbers in an initial state
    step: float  # between two inputs, s of the system
    time_scale: float  # s of the machine per s of the system
    ic_time: float  # for each case, s of the machine
    max_cases: int  # in one batch
    max_steps: int
    halts_on_overload: bool
    details: dict[str, str] = field(default_factory=dict)  # model, firmware …

    @property
    def size(self) -> int:
        """How many coefficients there are."""
        return sum(group.count for group in self.coefficients)

    def run_time(self, cases: int, steps: int) -> float:
        """Return how long a run will take on the machine, s: known before it starts."""
        return cases * (self.ic_time + steps * self.step * self.time_scale)

    def cases_at_once(self, steps: int, every: int) -> int:
        """Return how many cases of that many steps one message may hold."""
        samples = steps // every + 1
        numbers = max(steps * len(self.inputs), samples * len(self.channels), self.state)
        return max(1, min(self.max_cases, MESSAGE_BYTES // (8 * numbers)))

    def slices(self) -> dict[str, slice]:
        """Return where each group stands in the vector."""
        ends = np.cumsum([group.count for group in self.coefficients]).tolist()
        return {
            group.name: slice(end - group.count, end)
            for group, end in zip(self.coefficients, ends, strict=True)
        }

    def bounds(self) -> tuple[Array, Array]:
        """Return the lowest and the highest value of every coefficient, each (size,)."""
        counts = [group.count for group in self.coefficients]
        low, high = ([getattr(g, end) for g in self.coefficients] for end in ("low", "high"))
        return np.repeat(low, counts), np.repeat(high, counts)


@dataclass(frozen=True)
class EmulatorStatus:
    """How the machine is, without disturbing it."""

    mode: EmulatorMode
    run: int  # number of the newest run since power-on
    overload: tuple[str, ...]  # elements whose latch is set
    device_us: int


@dataclass(frozen=True)
class Traces:
    """What an emulator recorded of a batch."""

    states: Array  # (cases, samples, channels), SI; the first sample is the initial state
    overloaded: Array  # (cases,), 1.0 where the case left the machine's range: not to be trusted
    overload: tuple[str, ...]  # elements whose latch was set when the run ended
    run: int  # number of the run since power-on
    sequence: int  # number of the first case since power-on; they grow by 1
    predicted: float  # time of the run as it was known before, s of the machine
    took: float  # time of the run by the machine's own clock, s
    device_us: int  # device time at the end of the run, us


@dataclass(frozen=True)
class Calibration:
    """What the coefficients are, measured, and how far the measurement can be trusted."""

    effective: Array  # (size,), what acts where `applied` was set
    applied: Array  # (size,)
    deviation: Array  # (size,), standard deviation of `effective`
    residual: float  # measured − fitted, root mean square over that of the measurement


class AbstractEmulatorRig(AbstractRig):
    """A rig that computes: coefficients and inputs in, trajectories out."""

    @abstractmethod
    def configure(self) -> EmulatorInfo:
        """Connect, check that the device is the right one, set it up; then inactive."""

    @abstractmethod
    def set_coefficients(self, values: Array) -> Array:
        """Set every coefficient and return what was applied after limits and quantisation.

        values: (size,), in the order and the units of `EmulatorInfo.coefficients`.
        Inactive or active.
        """

    @abstractmethod
    def read_coefficients(self) -> Array:
        """Read back what the coefficients are set to: (size,); inactive or active."""

    @abstractmethod
    def run(self, inputs: Array, initial: Array | None = None, every: int = 1) -> Traces:
        """Run a batch of cases and return what was recorded.

        inputs: (cases, steps, inputs), N, each held for `EmulatorInfo.step`. initial:
        (cases, state), default at rest. every: a sample is taken each so many steps, which
        must divide the number of steps.
        Raises LimitError with nothing run, FaultError when the run halted on an overload or
        was stopped, LinkError, StateError while coefficients were never set.
        """

    @abstractmethod
    def status(self) -> EmulatorStatus:
        """Return mode, run and overload latches; inactive or active."""

    @abstractmethod
    def calibrate(self) -> Calibration:
        """Measure what the coefficients that are set really are; active."""


def check_batch(info: EmulatorInfo, inputs: Array, initial: Array | None, every: int) -> None:
    """Raise LimitError, naming the entry, for a batch that an emulator must not be given."""
    wanted = len(info.inputs)
    if inputs.ndim != 3 or inputs.shape[2] != wanted or not inputs.size:
        raise LimitError(f"run: expected inputs (cases, steps, {wanted}), found {inputs.shape}")
    cases, steps, _ = inputs.shape
    if steps > info.max_steps:
        raise LimitError(f"run: {steps} steps, the emulator takes {info.max_steps} at most")
    if every < 1 or steps % every:
        raise LimitError(f"run: a sample every {every} steps does not divide {steps} steps")
    outside = ~(np.abs(inputs) <= info.input_limit)  # true for NaN as well
    if outside.any():
        case, step, channel = (int(i) for i in np.argwhere(outside)[0])
        raise LimitError(
            f"run: case {case}, step {step}, {info.inputs[channel]}: "
            f"{inputs[case, step, channel]:g} N is outside ±{info.input_limit:g} N; nothing was run"
        )
    if initial is not None:
        if initial.shape != (cases, info.state):
            raise LimitError(
                f"run: expected an initial state ({cases}, {info.state}), found {initial.shape}"
            )
        if not np.isfinite(initial).all():
            raise LimitError("run: the initial state is not finite; nothing was run")


def check_coefficients(info: EmulatorInfo, values: Array) -> Array:
    """Return coefficients clipped into the limits; raises LimitError for what is no number."""
    if values.shape != (info.size,):
        raise LimitError(
            f"set_coefficients: expected an array of shape ({info.size},), found {values.shape}"
        )
    if not np.isfinite(values).all():
        where = int(np.argmin(np.isfinite(values)))
        raise LimitError(f"set_coefficients: entry {where} is not a number; nothing was applied")
    low, high = info.bounds()
    return np.asarray(np.clip(values, low, high))


def in_batches(
    inputs: Array, initial: Array | None, cases: int
) -> Iterator[tuple[Array, Array | None]]:
    """Split a batch into parts of at most `cases`."""
    for start in range(0, len(inputs), cases):
        part = slice(start, start + cases)
        yield inputs[part], None if initial is None else initial[part]


def joined(parts: list[Traces]) -> Traces:
    """Put the traces of the parts of a batch together again."""
    return Traces(
        states=np.concatenate([part.states for part in parts]),
        overloaded=np.concatenate([part.overloaded for part in parts]),
        overload=tuple(dict.fromkeys(name for part in parts for name in part.overload)),
        run=parts[-1].run,
        sequence=parts[0].sequence,
        predicted=sum(part.predicted for part in parts),
        took=sum(part.took for part in parts),
        device_us=parts[-1].device_us,
    )
