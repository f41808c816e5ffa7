"""Two gyroscopes joined by a spring, linearised, on a LUCIDAC: eight integrators.

    ẋ = A x + b    x = (q_x, q_y, v_x, v_y) of each gyroscope

A follows from mass, length, γ and stiffness (`GyroNetwork.linearise`; drag is of second
order), b from nudges. On the machine x is scaled to ±1, time by τ, and A/(τ k₀) are the
coefficients of its lanes: 24 for A, up to 4 for b, of 32. A coefficient reaches ±10.

A nudge is held by the constant giver for a whole case: nothing feeds a LUCIDAC meanwhile.
"""

from __future__ import annotations

import threading
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta
from scipy.interpolate import CubicSpline

from hil.config import Settings
from hil.errors import ConfigError, FaultError, LimitError, LinkError, StateError
from hil.links.lucidac import RATES, LucidacLink
from hil.mechanics.gyro_network import GRAVITY
from hil.rigs.base import Lifecycle, RigState, microseconds
from hil.rigs.device_clock import DeviceClock
from hil.rigs.emulator_base import (
    AbstractEmulatorRig,
    Calibration,
    CoefficientGroup,
    EmulatorInfo,
    EmulatorMode,
    EmulatorStatus,
    Traces,
    check_batch,
    check_coefficients,
)
from hil.rigs.lucidac_pair import STATES, LinearPair
from hil.types import Array, ClockKind

Range = tuple[float, float]
K0 = {"fast": 1e4, "slow": 1e2}  # 1/s
WEIGHT_MAX = 10.0  # of a lane with up-scaling
OP_TIME_MAX = 1.0  # s of the machine, of its firmware
SAMPLES_PER_STEP = 4  # at least: what lies between is a cubic spline
READ_BACK = 1e-4  # largest difference of a coefficient from what was sent
CALIBRATION = (40, 0.5)  # steps of each case; part of full scale
GROUPS = (("mass", "kg", 2), ("length", "m", 2), ("gamma", "kg/s", 2), ("stiffness", "N/m", 1))


class LucidacRigSettings(Settings, frozen=True, kw_only=True):
    """The rig table of a LUCIDAC."""

    name: Annotated[str, Meta(pattern=r"^[\w.-]+$", description="its mirror is found under")]
    port: Annotated[str, Meta(min_length=1, description="endpoint, tcp://host:5732 or emu:/")]
    serial_number: Annotated[str, Meta(description="its MAC address; empty: any")] = ""
    timeout: Annotated[float, Meta(gt=0, le=60, description="for an answer, s")] = 2.0
    offset: Annotated[
        tuple[float, float], Meta(description="from the first gyroscope to the second, m")
    ] = (1.0, 0.0)
    rest_length: Annotated[
        float, Meta(ge=0, description="of the spring, m; 0: as long as at rest")
    ] = 0.0
    gravity: Annotated[float, Meta(ge=0, description="m/s²")] = GRAVITY
    step: Annotated[float, Meta(gt=0, description="between two samples at least, s")] = 0.05
    time_scale: Annotated[float, Meta(gt=0, description="s of the machine per s")] = 1e-3
    speed: Annotated[Literal["fast", "slow"], Meta(description="k₀ = 10⁴/s or 10²/s")] = "fast"
    ic_time: Annotated[float, Meta(gt=0, le=1, description="for each case, s")] = 1e-4
    position_max: Annotated[float, Meta(gt=0, description="one machine unit, m")] = 0.5
    velocity_max: Annotated[float, Meta(gt=0, description="one machine unit, m/s")] = 2.0
    force_max: Annotated[float, Meta(gt=0, description="largest nudge, N")] = 2.0
    mass: Annotated[Range, Meta(description="[lowest, highest], kg")] = (0.25, 4.0)
    length: Annotated[Range, Meta(description="[lowest, highest], m")] = (0.25, 4.0)
    gamma: Annotated[Range, Meta(description="[lowest, highest], kg/s")] = (-8.0, 8.0)
    stiffness: Annotated[Range, Meta(description="[lowest, highest], N/m")] = (0.0, 60.0)
    halt_on_overload: Annotated[bool, Meta(description="and latch a fault")] = True


class LucidacRig(AbstractEmulatorRig):
    """Drives a LUCIDAC; coefficients are mass, length, gamma of two gyroscopes, stiffness.

    clock: a LUCIDAC keeps the wall's; port: replaces the configured one. Everything but
    `stop` is for one thread.
    """

    Settings: ClassVar[type[LucidacRigSettings]] = LucidacRigSettings

    def __init__(
        self, settings: LucidacRigSettings, *, clock: ClockKind = "wall", port: str = ""
    ) -> None:
        self.settings = settings
        self.link = LucidacLink(port or settings.port, settings.timeout)
        self.clock = DeviceClock(clock)
        distance = float(np.hypot(*settings.offset))
        self.pair = LinearPair(settings.offset, settings.rest_length or distance, settings.gravity)
        self._life = Lifecycle(settings.name)
        self._stop = threading.Event()
        self._stop_reason = ""
        self._info: EmulatorInfo | None = None
        self._applied: Array | None = None
        self._runs = self._sequence = 0
        self._mode = EmulatorMode.IC
        self._overload: tuple[str, ...] = ()
        s = settings
        self._unit = np.tile([s.position_max, s.position_max, s.velocity_max, s.velocity_max], 2)
        self._rate_unit = s.time_scale * K0[s.speed]  # 1/s of the system that a weight of 1 is
        wanted = SAMPLES_PER_STEP / (s.step * s.time_scale)
        if wanted > RATES[-1]:
            raise ConfigError(
                f"rig.time_scale: {s.time_scale:g} needs {wanted:.3g} samples/s, a LUCIDAC takes "
                f"{RATES[-1]}; take {SAMPLES_PER_STEP / (s.step * RATES[-1]):.2g} or more"
            )
        self._sampling = next(rate for rate in RATES if rate >= wanted)
        for group, _, _ in GROUPS:
            low, high = getattr(settings, group)
            if not low < high:
                raise ConfigError(f"rig.{group}: [{low}, {high}]: lowest must be below highest")

    @property
    def state(self) -> RigState:
        """Where the rig is in its life."""
        return self._life.state

    @property
    def fault(self) -> str:
        """Why the rig is in fault, "" when it is not."""
        return self._life.fault

    @property
    def info(self) -> EmulatorInfo:
        """What the emulator is; raises StateError before it is configured."""
        if self._info is None:
            raise StateError(f"rig {self._life.name}: call configure() first")
        return self._info

    # -- life ---------------------------------------------------------------------------

    def configure(self) -> EmulatorInfo:
        """Connect and check who answers; raises PortError, LinkError, ConfigError."""
        self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        self._info = self._describe(self._connect())
        self.clock.restart(0)  # a LUCIDAC tells no time: that of the host since now
        self._life.cleared()
        return self._info

    def activate(self) -> None:
        """Allow runs; the machine itself knows no such state."""
        self._life.require("activate", RigState.INACTIVE)
        self._life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Refuse runs from now on."""
        self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Ask the owner thread to stop before the next case; from any thread."""
        self._stop_reason = reason
        self._stop.set()

    def clear(self) -> None:
        """Connect again if need be, forget overloads, write the coefficients again."""
        self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
        if not self.link.is_open:
            self._connect()
            self.link.counters.reconnects += 1
        self._overload = ()
        if self._applied is not None:
            self._write(self._applied)
        self._stop.clear()
        self._life.cleared()

    def poll(self) -> None:
        """Act on a stop."""
        if self._stop.is_set() and self.state is not RigState.UNCONFIGURED:
            self._life.latch(self._stop_reason)

    def close(self) -> None:
        """Let go of the machine, which halts by itself after a run."""
        self.link.close()
        self._life.state = RigState.UNCONFIGURED

    # -- work ---------------------------------------------------------------------------

    def set_coefficients(self, values: Array) -> Array:
        """Set every coefficient; raises LimitError for what no lane can hold."""
        self._allow("set_coefficients", RigState.INACTIVE, RigState.ACTIVE)
        applied = check_coefficients(self.info, values)
        self._write(applied)
        self._applied = applied
        return applied.copy()

    def read_coefficients(self) -> Array:
        """Read the circuit back, and return the coefficients it stands for."""
        self._allow("read_coefficients", RigState.INACTIVE, RigState.ACTIVE)
        applied = self._need_coefficients("read_coefficients")
        self._compare(self._weights(applied)[0])
        return applied.copy()

    def run(self, inputs: Array, initial: Array | None = None, every: int = 1) -> Traces:
        """Run cases one after the other; inputs must not change within a case."""
        self._allow("run", RigState.ACTIVE)
        info, applied = self.info, self._need_coefficients("run")
        check_batch(info, inputs, initial, every)
        moving = (inputs != inputs[:, :1]).any(axis=(1, 2))
        if moving.any():
            raise LimitError(
                f"run: case {int(np.argmax(moving))}: a LUCIDAC holds one nudge for a whole case"
            )
        start = np.zeros((len(inputs), info.state)) if initial is None else initial
        if (np.abs(start) > self._unit).any():
            raise LimitError("run: an initial state is beyond one machine unit; nothing was run")
        self._runs += 1
        first, self._sequence = self._sequence, self._sequence + len(inputs)
        parts = [
            self._case(case, applied, inputs[case, 0], start[case], inputs.shape[1])
            for case in range(len(inputs))
        ]
        states = np.stack([states for states, _ in parts])
        over = (np.abs(states) > self._unit).any(axis=(1, 2))
        took = sum(seconds for _, seconds in parts)
        if self.clock.kind == "virtual":
            self.clock.observe(self.clock.now_us() + microseconds(took))
        return Traces(
            states=states[:, ::every], overloaded=np.asarray(over, dtype=np.float64),
            overload=self._overload if over.any() else (), run=self._runs, sequence=first,
            predicted=info.run_time(*inputs.shape[:2]), took=took, device_us=self.clock.now_us(),
        )  # fmt: skip

    def status(self) -> EmulatorStatus:
        """Return mode, run and the overloads seen since the last clear."""
        self._allow("status", RigState.INACTIVE, RigState.ACTIVE)
        return EmulatorStatus(self._mode, self._runs, self._overload, self.clock.now_us())

    def calibrate(self) -> Calibration:
        """Run known motions and fit the coefficients that explain them.

        Each state alone, then each nudge alone; the model is the exact solution.
        """
        self._allow("calibrate", RigState.ACTIVE)
        info, settings = self.info, self.settings
        applied = self._need_coefficients("calibrate")
        steps, part = CALIBRATION
        cases = info.state + len(info.inputs)
        initial, inputs = np.zeros((cases, STATES)), np.zeros((cases, steps, len(info.inputs)))
        initial[: info.state] = part * np.diag(self._unit)
        inputs[info.state :] = (part * settings.force_max * np.eye(len(info.inputs)))[:, None]
        measured = self.run(inputs, initial).states

        return self.pair.fit(applied, measured, inputs[:, 0], initial, settings.step, self._unit)

    # -- parts of it --------------------------------------------------------------------

    def _case(
        self, case: int, applied: Array, nudge: Array, start: Array, steps: int
    ) -> tuple[Array, float]:
        """Return the states (steps + 1, 8), SI, of one case, and the time it took, s."""
        self._allow("run", RigState.ACTIVE)
        settings = self.settings
        weights, forced = self._weights(applied)
        step = settings.step * settings.time_scale
        # One step longer: the last sample wanted must not be the last one taken.
        with self._latching():
            self.link.set_circuit(
                weights, forced @ nudge, np.asarray(start / self._unit), settings.speed == "fast"
            )
            when, samples = self.link.run(
                (steps + 1) * step, settings.ic_time, self._sampling, settings.halt_on_overload
            )
        self._mode = EmulatorMode.HALT
        whole = len(when) > 3 and when[-1] >= steps * step * (1 - 1e-9)
        seen = samples[when <= steps * step]
        beyond = np.flatnonzero((np.abs(seen) > 1.0).any(axis=0)) if len(seen) else np.zeros(0)
        self._overload = tuple(
            dict.fromkeys((*self._overload, *(f"integrator {int(i) + 1}" for i in beyond)))
        )
        if not whole or (len(beyond) and settings.halt_on_overload):
            names = ", ".join(self._overload) or "an element that is not recorded"
            self._life.latch(f"overload of {names}" if len(beyond) else "a run was cut short")
            raise FaultError(
                f"rig {self._life.name}: case {case} overloaded {names}; use smaller inputs or "
                "larger rig.position_max and rig.velocity_max, then clear()"
            )
        states = CubicSpline(when, samples)(np.arange(steps + 1) * step) * self._unit
        return states, settings.ic_time + float(when[-1])

    def _weights(self, values: Array) -> tuple[Array, Array]:
        """Return the weights of the lanes: (8, 8), and (8, 4) per N of the nudges."""
        a, b = self.pair.system(values)
        scaled = a * self._unit / self._unit[:, None]
        return scaled / self._rate_unit, b / self._unit[:, None] / self._rate_unit

    def _write(self, values: Array) -> None:
        weights, forced = self._weights(values)
        largest = max(np.abs(weights).max(), np.abs(forced).max() * self.settings.force_max)
        if largest > WEIGHT_MAX:
            raise LimitError(
                f"set_coefficients: a lane would need {largest:.3g}, it reaches {WEIGHT_MAX:g}; "
                f"a rig.time_scale {largest / WEIGHT_MAX:.2g} times as long would do"
            )
        with self._latching():
            self.link.set_circuit(weights, np.zeros(8), np.zeros(8), self.settings.speed == "fast")
        self._compare(weights)

    def _compare(self, weights: Array) -> None:
        """Latch a fault where the machine holds another circuit."""
        with self._latching():
            held, _ = self.link.read_circuit(8)
        if np.abs(held - weights).max() > READ_BACK:
            self._life.latch("it holds another circuit")
            raise FaultError(
                f"rig {self._life.name}: the LUCIDAC holds another circuit than was sent; "
                "clear() writes it again"
            )

    def _latching(self) -> _Latching:
        return _Latching(self._life)

    def _allow(self, call: str, *allowed: RigState) -> None:
        self.poll()
        self._life.require(call, *allowed)

    def _need_coefficients(self, call: str) -> Array:
        if self._applied is None:
            raise StateError(
                f"rig {self._life.name}: {call}() needs coefficients; call set_coefficients() first"
            )
        return self._applied

    def _connect(self) -> str:
        found, wanted = self.link.open(), self.settings.serial_number
        if wanted and found.lower() != wanted.lower():
            self.link.close()
            raise ConfigError(
                f"LUCIDAC {self.link.url}: is {found}, rig.serial_number says {wanted}; connect "
                "the right one or correct the address"
            )
        return found

    def _describe(self, mac: str) -> EmulatorInfo:
        s = self.settings
        step = s.step * s.time_scale

        def ends(name: str) -> Range:
            found: Range = getattr(s, name)
            return found

        each = [f"{part} {node}" for node in (1, 2) for part in ("x", "y", "v_x", "v_y")]
        return EmulatorInfo(
            name=s.name,
            device_id=mac,
            coefficients=tuple(
                CoefficientGroup(name, unit, count, *ends(name), step=0.0)
                for name, unit, count in GROUPS
            ),
            inputs=tuple(f"force_{axis} {node}" for node in (1, 2) for axis in "xy"),
            input_limit=s.force_max,
            channels=tuple(each),
            elements=tuple(f"integrator {i + 1}" for i in range(8)),
            state=8,
            step=s.step,
            time_scale=s.time_scale,
            ic_time=s.ic_time + step,  # one more step is run than is asked for
            max_cases=4096,
            max_steps=int(OP_TIME_MAX / step) - 1,
            halts_on_overload=s.halt_on_overload,
            details={"model": "LUCIDAC", "k0": f"{K0[s.speed]:g}", "inputs": "held per case"},
        )


class _Latching:
    """Latches a lost link."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, LinkError):
            self._life.latch(str(error))
