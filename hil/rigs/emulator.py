"""An analog emulator of a gyro network behind an instrument that speaks SCPI."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np

from hil.errors import ConfigError, FaultError, LimitError, LinkError, StateError
from hil.links.visa import VisaLink
from hil.mechanics.gyro_geometry import make_geometry
from hil.mechanics.gyro_network import GyroNetwork
from hil.messages.instrument import (
    GROUP_NAMES,
    GROUP_UNITS,
    GROUPS,
    MODEL,
    OVERLOADED,
    SPRING,
    STATES,
    record,
)
from hil.messages.scpi import integers, reals, to_reals
from hil.rigs.base import Lifecycle, RigState
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
    in_batches,
    joined,
)
from hil.rigs.emulator_calibration import Experiment, experiment, fit
from hil.rigs.emulator_settings import EmulatorRigSettings
from hil.rigs.instrument import Instrument
from hil.types import Array, ClockKind, IntArray

FETCH_BYTES = 4 * 1024 * 1024  # of traces asked for at once
LOOK_S = 0.02  # longest time between two looks at a run
STALL_S = 10.0  # without a step forward, after which a run is given up


class EmulatorRig(AbstractEmulatorRig):
    """Drives an emulator through PyVISA; coefficients are mass, length, gamma, stiffness.

    clock: whose time the instrument keeps; port: replaces the configured one (a simulated
    instrument names its own). Everything but `stop` is for one thread.
    """

    Settings: ClassVar[type[EmulatorRigSettings]] = EmulatorRigSettings

    def __init__(
        self, settings: EmulatorRigSettings, *, clock: ClockKind = "wall", port: str = ""
    ) -> None:
        self.settings = settings
        self.network = GyroNetwork(make_geometry(settings.geometry))
        self.link = VisaLink(port or settings.port, settings.timeout)
        self.driven, self.recorded = settings.nodes(self.network.n)
        self._life = Lifecycle(settings.name)
        self.instrument = Instrument(self.link, clock, self._life)
        self._info: EmulatorInfo | None = None
        self._applied: Array | None = None
        self._unit = np.repeat([settings.position_max, settings.velocity_max], 2)  # SI
        for group in GROUP_NAMES:
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
    def clock(self) -> DeviceClock:
        """What time it is on the instrument."""
        return self.instrument.clock

    @property
    def info(self) -> EmulatorInfo:
        """What the emulator is; raises StateError before it is configured."""
        if self._info is None:
            raise StateError(f"rig {self._life.name}: call configure() first")
        return self._info

    # -- life ---------------------------------------------------------------------------

    def configure(self) -> EmulatorInfo:
        """Connect, check who answers, send network, ranges, scales and timing.

        Raises PortError, LinkError, SchemaError, ConfigError.
        """
        self._life.require("configure", RigState.UNCONFIGURED, RigState.INACTIVE)
        try:
            self._info = self._set_up()
        except Exception:
            self.link.close()
            raise
        self._life.cleared()
        return self._info

    def activate(self) -> None:
        """Switch the machine's output on."""
        self._life.require("activate", RigState.INACTIVE)
        self.instrument.command("OUTP ON")
        self._life.state = RigState.ACTIVE

    def deactivate(self) -> None:
        """Switch the output off; the coefficients stay."""
        self._life.require("deactivate", RigState.ACTIVE, RigState.INACTIVE)
        self.instrument.command("OUTP OFF")
        self._life.state = RigState.INACTIVE

    def stop(self, reason: str = "stopped by hand") -> None:
        """Ask the owner thread to end the run and switch the output off; from any thread."""
        self.instrument.ask_stop(reason)

    def clear(self) -> None:
        """Connect again if need be, reset the overload latches, read the coefficients back.

        An instrument that was restarted is set up anew; its coefficients are gone and must
        be set before the next run.
        """
        self._life.require("clear", RigState.FAULT, RigState.INACTIVE)
        if not self.link.is_open:
            self.link.reopen()
        self.instrument.identify(MODEL, self.settings.serial_number)
        instrument = self.instrument
        size = (self.network.n, self.network.spring_count)
        if instrument.ask("NETW:DEF?") != "{},{}".format(*size):
            self._info = self._set_up()
        else:
            for command in ("OUTP OFF", "MODE IC", "STAT:OVER:CLE"):
                instrument.command(command)
            if self._applied is not None:
                self._applied = self._read_coefficients()
        instrument.cleared()

    def poll(self) -> None:
        """Act on a stop and notice a lost or restarted instrument."""
        self.instrument.poll()

    def close(self) -> None:
        """Switch the output off and let go of the instrument."""
        self.instrument.close()

    # -- work ---------------------------------------------------------------------------

    def set_coefficients(self, values: Array) -> Array:
        """Set every coefficient; return what the registers hold: (size,)."""
        self._look_for_stop("set_coefficients", RigState.INACTIVE, RigState.ACTIVE)
        info = self.info
        if values.shape != (info.size,):
            raise LimitError(
                f"set_coefficients: expected an array of shape ({info.size},), found {values.shape}"
            )
        for name, group in zip(GROUP_NAMES, GROUPS, strict=True):
            self.instrument.command(
                f"COEF:DATA {group.upper()}", reals(values[info.slices()[name]])
            )
        self._applied = self._read_coefficients()
        return self._applied

    def read_coefficients(self) -> Array:
        """Read the registers back: (size,)."""
        self._look_for_stop("read_coefficients", RigState.INACTIVE, RigState.ACTIVE)
        self._need_coefficients("read_coefficients")
        return self._read_coefficients()

    def run(self, inputs: Array, initial: Array | None = None, every: int = 1) -> Traces:
        """Run cases, in as many batches as the instrument needs, and fetch their traces."""
        self._look_for_stop("run", RigState.ACTIVE)
        info = self.info
        check_batch(info, inputs, initial, every)
        self._need_coefficients("run")
        parts = in_batches(inputs, initial, info.cases_at_once(inputs.shape[1], every))
        return joined([self._run_part(*part, every) for part in parts])

    def status(self) -> EmulatorStatus:
        """Return mode, run and overload latches."""
        self._look_for_stop("status", RigState.INACTIVE, RigState.ACTIVE)
        mode = EmulatorMode(self.instrument.ask("MODE?"))
        run = self._look()[0]
        self.instrument.look()
        return EmulatorStatus(mode, run, self._overloaded(), self.instrument.clock.now_us())

    def calibrate(self) -> Calibration:
        """Trim offsets, run known motions on every gyroscope, fit what acted on them.

        The coefficients stay as they are set.
        """
        self._look_for_stop("calibrate", RigState.ACTIVE)
        info = self.info
        self._need_coefficients("calibrate")
        assert self._applied is not None
        if self.instrument.ask("CAL:ZERO?") != "0":
            raise FaultError(f"rig {self._life.name}: the offsets could not be trimmed")
        settings = self.settings
        plan = experiment(self.network.n, len(self.driven), settings.position_max,
                          settings.velocity_max, settings.force_max)  # fmt: skip
        everyone = np.arange(self.network.n)
        self.instrument.command("DAQ:NOD", integers(everyone))
        self.instrument.command("RUN:OVER CONT")  # such a case is left out, that is all
        try:
            found = [
                self._run_part(*part, 1, everyone)
                for part in in_batches(plan.inputs, plan.initial, info.max_cases)
            ]
        finally:
            if self.link.is_open:
                self.instrument.command("DAQ:NOD", integers(self.recorded))
                self.instrument.command("STAT:OVER:CLE")
                self._set_overload()
        measured = joined(found)
        good = measured.overloaded == 0.0
        states = measured.states.reshape(*measured.states.shape[:2], self.network.n, STATES)
        kept = Experiment(plan.inputs[good], plan.initial[good])
        return fit(
            self.network, self._applied, kept, states[good], settings.step, self.driven,
            (settings.gravity, settings.drag),
        )  # fmt: skip

    # -- parts of it --------------------------------------------------------------------

    def _run_part(
        self, inputs: Array, initial: Array | None, every: int, recorded: IntArray | None = None
    ) -> Traces:
        info, instrument = self.info, self.instrument
        cases, steps, _ = inputs.shape
        nodes = len(self.recorded if recorded is None else recorded)
        predicted = info.run_time(cases, steps)
        instrument.command(f"RUN:BATC {cases},{steps},{every}")
        instrument.command("INP:DATA", reals(inputs / self.settings.force_max))
        if initial is not None:
            states = initial.reshape(cases, self.network.n, STATES) / self._unit
            instrument.command("INIT:DATA", reals(states))
        run, took = self._wait(self._initiate(), predicted)
        kind = record(steps // every + 1, nodes)
        records = self._fetch(run, cases, kind)
        states = (records["states"].astype(np.float64) * self._unit).reshape(
            cases, steps // every + 1, -1
        )
        return Traces(
            states=states,
            overloaded=(records["flags"] & OVERLOADED).astype(np.float64),
            overload=self._overloaded() if (records["flags"] & OVERLOADED).any() else (),
            run=run,
            sequence=int(records["sequence"][0]),
            predicted=predicted,
            took=took,
            device_us=instrument.clock.now_us(),
        )

    def _initiate(self) -> int:
        """Start a run; return its number. Its errors are its own, not those of its start."""
        before = self._look()[0]
        self.instrument.tell("INIT")
        run = self._look()[0]
        if run == before:
            self.instrument.check("INIT")
            raise LinkError(f"instrument {self.link.url}: INIT started no run")
        return run

    def _look(self) -> tuple[int, str, int, str, float]:
        """Return number, state, cases done, steps computed and time taken, s, of the newest run."""
        answer = self.instrument.ask("RUN:STAT?")
        try:
            run, state, done, computed, device_us, took_us = answer.split(",")
            self.instrument.clock.observe(int(device_us))
            return int(run), state, int(done), computed, int(took_us) / 1e6
        except ValueError:
            raise LinkError(f"instrument {self.link.url}: a run is {answer!r:.60}") from None

    def _wait(self, run: int, predicted: float) -> tuple[int, float]:
        """Wait for the end of a run; return its number and the time it took, s."""
        instrument = self.instrument
        started = moved = time.monotonic()
        before = (-1, "")
        while True:
            newest, state, done, computed, took = self._look()
            if newest != run or state not in ("OP", "DONE"):
                self._ended(state if newest == run else "another run", done)
            if state == "DONE":
                return run, took
            now = time.monotonic()
            if (done, computed) != before:
                before, moved = (done, computed), now
            elif now - moved > STALL_S + predicted:
                self._life.latch("the run stands still")
                raise FaultError(
                    f"instrument {self.link.url}: run {run} stands still at case {done}; "
                    "look at the instrument, then clear()"
                )
            instrument.wait_stop(min(LOOK_S, max(1e-3, started + predicted - now)))
            self._look_for_stop("run", RigState.ACTIVE)

    def _ended(self, state: str, done: int) -> None:
        """Raise why a run ended before its time."""
        overloaded = self._overloaded()
        self.instrument.link.errors() if overloaded else self.instrument.check("INIT")
        if overloaded:
            names = ", ".join(overloaded[:5]) + (" and more" if len(overloaded) > 5 else "")
            self._life.latch(f"overload of {names}")
            raise FaultError(
                f"rig {self._life.name}: case {done - 1} overloaded {names}; the run is halted, "
                "use smaller inputs or larger rig.position_max and rig.velocity_max, then clear()"
            )
        if self.instrument.look():
            self.instrument.restarted()
        self._life.latch(f"the run ended in {state}")
        raise FaultError(
            f"rig {self._life.name}: somebody at the instrument ended the run ({state}); clear()"
        )

    def _fetch(
        self, run: int, cases: int, kind: np.dtype[np.void]
    ) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """Return the records of a run, checked for number and order."""
        at_once = max(1, FETCH_BYTES // kind.itemsize)
        found = []
        for first in range(0, cases, at_once):
            count = min(at_once, cases - first)
            data = self.instrument.ask_block(f"FETC:TRAC? {first},{count}")
            if len(data) != count * kind.itemsize:
                self.instrument.link.close()
                self._life.latch("traces of the wrong length")
                raise LinkError(
                    f"instrument {self.link.url}: traces of {len(data)} bytes, expected "
                    f"{count * kind.itemsize}; clear() connects anew"
                )
            found.append(np.frombuffer(data, dtype=kind))
        records = np.concatenate(found)
        wrong = (records["run"] != run) | (
            np.diff(records["sequence"], prepend=records["sequence"][:1] - 1) != 1
        )
        if wrong.any():
            raise LinkError(
                f"instrument {self.link.url}: case {int(np.argmax(wrong))} is not of run {run}, "
                "or one is missing"
            )
        return records

    def _overloaded(self) -> tuple[str, ...]:
        latches = np.frombuffer(self.instrument.ask_block("STAT:OVER?"), dtype=np.uint8)
        return tuple(_gyroscope(i) for i in np.flatnonzero(latches))

    def _read_coefficients(self) -> Array:
        info = self.info
        return np.concatenate([
            to_reals(self.instrument.ask_block(f"COEF:DATA? {name.upper()}"), group.count)
            for name, group in zip(GROUPS, info.coefficients, strict=True)
        ])  # fmt: skip

    def _need_coefficients(self, call: str) -> None:
        if self._applied is None:
            raise StateError(
                f"rig {self._life.name}: {call}() needs coefficients; call set_coefficients() first"
            )

    def _look_for_stop(self, call: str, *allowed: RigState) -> None:
        if self.instrument.stopping and self.state is not RigState.FAULT:
            self.instrument.stop_now()
        self._life.require(call, *allowed)

    def _set_up(self) -> EmulatorInfo:
        """Send everything but the coefficients; return what the emulator is then."""
        settings, instrument, network = self.settings, self.instrument, self.network
        serial, firmware = instrument.identify(MODEL, settings.serial_number)
        self._applied = None
        geometry = network.geometry
        springs = np.zeros(network.spring_count, dtype=SPRING)
        springs["from"], springs["to"] = geometry.springs.T
        springs["dx"], springs["dy"] = geometry.between.T
        springs["length"] = geometry.lengths
        instrument.command("*RST")
        instrument.command(f"NETW:DEF {network.n}", springs.tobytes())
        instrument.command(f"NETW:CONS {settings.gravity:.9g},{settings.drag:.9g}")
        for name, group in zip(GROUP_NAMES, GROUPS, strict=True):
            low, high = getattr(settings, name)
            instrument.command(f"COEF:RANG {group.upper()},{low:.9g},{high:.9g}")
        for unit, value in (
            ("POS", settings.position_max), ("VEL", settings.velocity_max),
            ("FORC", settings.force_max), ("TIME", settings.time_scale),
        ):  # fmt: skip
            instrument.command(f"SCAL:{unit} {value:.9g}")
        instrument.command("INP:NOD", integers(self.driven))
        instrument.command("DAQ:NOD", integers(self.recorded))
        instrument.command(f"RUN:STEP {settings.step:.9g}")
        instrument.command(f"RUN:ICT {settings.ic_time:.9g}")
        self._set_overload()
        return self._describe(serial, firmware)

    def _set_overload(self) -> None:
        self.instrument.command(f"RUN:OVER {'HALT' if self.settings.halt_on_overload else 'CONT'}")

    def _describe(self, serial: str, firmware: str) -> EmulatorInfo:
        settings, network, ask = self.settings, self.network, self.instrument.ask
        _, _, cases, steps = (int(word) for word in ask("SYST:CAP?").split(","))
        bits = int(ask("COEF:BITS?"))
        counts = (network.n, network.n, network.n, network.spring_count)
        groups = []
        for name, unit, count in zip(GROUP_NAMES, GROUP_UNITS, counts, strict=True):
            low, high = getattr(settings, name)
            levels = 2**bits - 1 - (low == -high)  # symmetric: zero is one of them
            step = (high - low) / levels if bits else 0.0
            groups.append(CoefficientGroup(name, unit, count, low, high, step))
        return EmulatorInfo(
            name=settings.name,
            device_id=serial,
            coefficients=tuple(groups),
            inputs=tuple(f"force_{axis} {i + 1}" for i in self.driven for axis in "xy"),
            input_limit=settings.force_max,
            channels=tuple(
                f"{part} {i + 1}" for i in self.recorded for part in ("x", "y", "v_x", "v_y")
            ),
            elements=tuple(_gyroscope(i) for i in range(network.n)),
            state=STATES * network.n,
            step=float(ask("RUN:STEP?")),
            time_scale=float(ask("SCAL:TIME?")),
            ic_time=float(ask("RUN:ICT?")),
            max_cases=cases,
            max_steps=steps,
            halts_on_overload=settings.halt_on_overload,
            details={"model": MODEL, "firmware": firmware, "coefficient_bits": str(bits)},
        )


def _gyroscope(index: int | np.intp) -> str:
    return f"gyroscope {int(index) + 1}"
