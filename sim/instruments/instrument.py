"""The instrument: its registers, its commands, and how a run goes on; docs/instrument.md.

It owns no socket and no thread: whoever does hands it messages and calls `advance` as often
as there is something to compute. Cases of a batch are one after the other on the machine,
each IC, OP, HALT; that several are computed side by side here is nobody's business outside.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from hil.errors import MechanicsError
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroParameters
from hil.messages.instrument import (
    GROUP_NAMES,
    GROUPS,
    MODEL,
    OVERLOADED,
    POWER_ON,
    SPRING,
    STATES,
    record,
)
from hil.messages.scpi import BLOCK_BYTES_MAX, INTEGER, REAL, ErrorCode, block, reals
from hil.types import Array, ClockKind, IntArray
from sim.imperfections import quantise
from sim.instruments.machine import AbstractMachine, Batch, MachineError
from sim.instruments.registers import InstrumentSettings, Registers, Run
from sim.instruments.scpi import Call, CommandTable, ErrorQueue, Handler, ScpiError

FIRMWARE = "1.0"
SCALE_NAMES = ("POSition", "VELocity", "FORCe", "TIME")
TRIM_S = 0.1  # machine time of an offset trim


class Instrument:
    """Answers messages and plays runs.

    clock: "virtual" moves device time by what a run takes and waits for nothing; "wall"
    lets a run take as long as it says.
    """

    def __init__(
        self, settings: InstrumentSettings, machine: AbstractMachine, clock: ClockKind = "wall"
    ) -> None:
        self.settings = settings
        self.machine = machine
        self.errors = ErrorQueue()
        self._clock = clock
        self._born = time.monotonic_ns()
        self._virtual_us = 0
        self._event = POWER_ON
        self._registers = Registers()
        self._run: Run | None = None
        self._runs = self._sequence = 0
        self._mode = "IC"
        self._overload = np.zeros(0, dtype=bool)
        self._table = CommandTable(self._commands())

    # -- messages -----------------------------------------------------------------------

    def answer(self, message: list[Call] | ScpiError) -> bytes:
        """Carry out a message; return what it is answered with, b"" for nothing."""
        answers: list[bytes] = []
        if isinstance(message, ScpiError):
            self._note(message)
            return b""
        for call in message:
            try:
                found = self._table.handler(call)(call)
            except ScpiError as error:
                self._note(error)
                break  # what follows in the message was meant for after this
            if found is not None:
                answers.append(found.encode("ascii") if isinstance(found, str) else found)
        return b";".join(answers) + b"\n" if answers else b""

    def _note(self, error: ScpiError) -> None:
        self.errors.put(error.code, error.detail)
        for limit, bit in ((-100, 8), (-200, 32), (-300, 16), (-400, 8)):
            if error.code > limit:
                self._event |= bit
                return
        self._event |= 4

    @property
    def device_us(self) -> int:
        """Time since power-on, us."""
        if self._clock == "virtual":
            return self._virtual_us
        return (time.monotonic_ns() - self._born) // 1000

    # -- what is done between messages --------------------------------------------------

    def wait(self) -> float | None:
        """Return how long nothing is to be computed, s; None: until somebody asks."""
        run = self._run
        if run is None or run.state != "OP":
            return None
        if run.done < len(run.records):
            return 0.0
        return max(0.0, (run.started_us + run.done * run.case_us - self.device_us) / 1e6)

    def advance(self) -> None:
        """Compute one step of the run, or end it when its time is over."""
        run = self._run
        if run is None or run.state != "OP":
            return
        try:
            if run.done < len(run.records):
                self._operate(run)
            elif self.wait() == 0.0:
                run.state, self._mode = "DONE", "HALT"
                run.took_us = self.device_us - run.started_us
        except MachineError as error:
            run.state, self._mode = "IDLE", "IC"
            self._note(
                ScpiError(ErrorCode.BACKEND_LOST if error.lost else ErrorCode.EXECUTION, str(error))
            )

    def _operate(self, run: Run) -> None:
        registers = self._registers
        _, steps, every = registers.shape
        if run.chunk != run.done:
            self._begin(run)
        states = self.machine.advance()  # (cases, n, 4)
        run.step += 1
        records = run.records[run.chunk : run.chunk + len(states)]
        beyond = np.asarray((np.abs(states) > 1.0).any(axis=2))  # (cases, n)
        self._beyond |= beyond
        if run.step % every == 0:
            self._sample(records, run.step // every, states)
        if run.step < steps:
            return
        over = self._beyond.any(axis=1)
        records["flags"] = np.where(over, OVERLOADED, 0)
        ended = len(states)
        if registers.halt_on_overload and over.any():
            ended = int(np.argmax(over)) + 1
        self._overload |= self._beyond[:ended].any(axis=0)
        run.done += ended
        if self._clock == "virtual":
            self._virtual_us = run.started_us + run.done * run.case_us
        if registers.halt_on_overload and over.any():
            run.state, self._mode = "HALT", "HALT"
            run.took_us = run.done * run.case_us
            element = int(np.argmax(self._beyond[ended - 1]))
            detail = f"case {run.done - 1}, element {element}"
            self._note(ScpiError(ErrorCode.OVERLOAD, detail))

    def _begin(self, run: Run) -> None:
        r = self._registers
        assert r.inputs is not None
        last = min(run.done + self.machine.side_by_side, len(run.records))
        part = slice(run.done, last)
        n = self._nodes()
        initial = np.zeros((last - run.done, n, STATES)) if r.initial is None else r.initial[part]
        started = run.started_us + run.done * run.case_us
        self.machine.begin(
            Batch(
                run.parameters, r.scales, r.driven, r.inputs[part], initial, r.step,
                run.number, run.done, started,
            )
        )  # fmt: skip
        run.chunk, run.step = run.done, 0
        self._beyond = np.asarray((np.abs(initial) > 1.0).any(axis=2))
        self._sample(run.records[part], 0, initial)

    def _sample(
        self, records: np.ndarray[tuple[int], np.dtype[np.void]], index: int, states: Array
    ) -> None:
        """Convert what the DAQ listens to: full scale is twice the machine unit."""
        values = quantise(states[:, self._registers.recorded], -2.0, 2.0, self.settings.adc_bits)
        records["states"][:, index] = values

    # -- commands -----------------------------------------------------------------------

    def _commands(self) -> dict[str, Handler]:
        return {
            "*IDN?": lambda _: f"hil,{MODEL},{self.settings.serial},{FIRMWARE}",
            "*CLS": self._clear_status,
            "*RST": self._reset,
            "*ESR?": self._event_status,
            "*OPC?": lambda _: "1",
            "*TST?": lambda _: "0",
            "SYSTem:ERRor[:NEXT]?": lambda _: self.errors.take(),
            "SYSTem:VERSion?": lambda _: "1999.0",
            "SYSTem:TIME?": lambda _: str(self.device_us),
            "SYSTem:CAPability?": self._capability,
            "FORMat[:DATA]?": lambda _: "REAL,32",
            "FORMat:BORDer?": lambda _: "SWAP",
            "OUTPut[:STATe]": self._output,
            "OUTPut[:STATe]?": lambda _: str(int(self._registers.powered)),
            "NETWork:DEFine": self._define,
            "NETWork:DEFine?": lambda _: f"{self._nodes()},{self._springs()}",
            "NETWork:CONStants": self._constants,
            "NETWork:CONStants?": lambda _: "{:.9g},{:.9g}".format(*self._registers.constants),
            "COEFficient:RANGe": self._range,
            "COEFficient:RANGe?": self._read_range,
            "COEFficient:DATA": self._set_values,
            "COEFficient:DATA?": self._read_values,
            "COEFficient:BITS?": lambda _: str(self.settings.coefficient_bits),
            **{f"SCALe:{name}": self._scale(name) for name in SCALE_NAMES},
            **{f"SCALe:{name}?": self._read_scale(name) for name in SCALE_NAMES},
            "INPut:NODes": self._drive,
            "DAQ:NODes": self._record,
            "RUN:STEP": self._set_step,
            "RUN:STEP?": lambda _: f"{self._registers.step:.9g}",
            "RUN:ICTime": self._set_ic_time,
            "RUN:ICTime?": lambda _: f"{self._registers.ic_time:.9g}",
            "RUN:OVERload": self._on_overload,
            "RUN:OVERload?": lambda _: "HALT" if self._registers.halt_on_overload else "CONTINUE",
            "RUN:BATCh": self._batch,
            "RUN:BATCh?": lambda _: "{},{},{}".format(*self._registers.shape),
            "RUN:TIME?": lambda _: f"{self._case_us() * self._registers.shape[0] / 1e6:.9g}",
            "RUN:STATe?": self._run_state,
            "INPut:DATA": self._set_inputs,
            "INITial:DATA": self._set_initial,
            "INITiate[:IMMediate]": self._initiate,
            "MODE": self._set_mode,
            "MODE?": lambda _: self._mode,
            "FETCh:TRACes?": self._fetch,
            "STATus:OVERload?": lambda _: block(self._overload.astype(np.uint8).tobytes()),
            "STATus:OVERload:CLEar": self._clear_overload,
            "CALibration:ZERO?": self._zero,
        }

    def _nodes(self) -> int:
        geometry = self._registers.geometry
        return 0 if geometry is None else len(geometry.nodes)

    def _springs(self) -> int:
        geometry = self._registers.geometry
        return 0 if geometry is None else len(geometry.springs)

    def _size(self, group: str) -> int:
        return self._springs() if group == "STIFFNESS" else self._nodes()

    def _require_idle(self) -> None:
        """Refuse while a run is under way; one that is held is given up: its settings change."""
        if self._run is not None and self._run.state == "OP":
            raise ScpiError(ErrorCode.SETTINGS_CONFLICT, "a run is under way; MODE IC ends it")
        self._abandon()

    def _case_us(self) -> int:
        r = self._registers
        return round(1e6 * (r.ic_time + r.shape[1] * r.step * r.scales.time))

    def _clear_status(self, _: Call) -> None:
        self.errors.clear()
        self._event = 0

    def _event_status(self, _: Call) -> str:
        found, self._event = self._event, 0
        return str(found)

    def _reset(self, _: Call) -> None:
        self._registers, self._run, self._mode = Registers(), None, "IC"
        self._overload = np.zeros(0, dtype=bool)

    def _capability(self, _: Call) -> str:
        s = self.settings
        return f"{s.nodes},{s.springs},{s.cases},{s.steps}"

    def _output(self, call: Call) -> None:
        call.count(1)
        on = call.parameters[0] in ("1", "0") and call.parameters[0] == "1"
        if call.parameters[0] not in ("1", "0"):
            on = call.word(0, "ON", "OFF") == "ON"
        if not on:
            self._abandon()
        self._registers.powered = on

    def _define(self, call: Call) -> None:
        call.count(2)
        self._require_idle()
        nodes = call.integer(0, 1, self.settings.nodes)
        data = call.parameters[1]
        count = len(data) // SPRING.itemsize
        if count > self.settings.springs:
            raise ScpiError(
                ErrorCode.TOO_MUCH_DATA, f"{count} springs, there are {self.settings.springs}"
            )
        springs = np.frombuffer(call.block(1, count * SPRING.itemsize), dtype=SPRING)
        try:
            geometry = GyroGeometry(
                np.zeros((nodes, 2)),
                np.stack([springs["from"], springs["to"]], axis=1),
                np.stack([springs["dx"], springs["dy"]], axis=1),
                springs["length"],
            )
            self.machine.wire(geometry)
        except (MechanicsError, MachineError) as error:
            raise ScpiError(ErrorCode.OUT_OF_RANGE, str(error)) from None
        self._registers = replace(
            self._registers, geometry=geometry, values={}, inputs=None, initial=None
        )
        self._overload = np.zeros(nodes, dtype=bool)

    def _constants(self, call: Call) -> None:
        call.count(2)
        self._require_idle()
        self._registers.constants = call.number(0, 0, 1e3), call.number(1, 0, 1e3)

    def _range(self, call: Call) -> None:
        call.count(3)
        self._require_idle()
        group, low, high = call.word(0, *GROUPS), call.number(1), call.number(2)
        if not low < high:
            raise ScpiError(ErrorCode.OUT_OF_RANGE, f"{low:g} is not below {high:g}")
        self._registers.ranges[group] = low, high
        self._registers.values.pop(group, None)

    def _read_range(self, call: Call) -> str:
        group = call.word(0, *GROUPS)
        return "{:.9g},{:.9g}".format(*self._registers.ranges.get(group, (0.0, 0.0)))

    def _set_values(self, call: Call) -> None:
        call.count(2)
        self._require_idle()
        group = call.word(0, *GROUPS)
        data = call.block(1, self._size(group) * REAL.itemsize)
        values = np.frombuffer(data, dtype=REAL).astype(np.float64)
        if group not in self._registers.ranges:
            raise ScpiError(ErrorCode.SETTINGS_CONFLICT, f"{group}: set its range first")
        low, high = self._registers.ranges[group]
        margin = 1e-6 * max(abs(low), abs(high))  # what four bytes do to a bound
        outside = ~((values >= low - margin) & (values <= high + margin))
        if outside.any():
            where = int(np.argmax(outside))
            raise ScpiError(
                ErrorCode.OUT_OF_RANGE,
                f"{group} {where}: {values[where]:g} not in {low:g}..{high:g}",
            )
        bits = self.settings.coefficient_bits
        self._registers.values[group] = quantise(values, low, high, bits)

    def _read_values(self, call: Call) -> bytes:
        group = call.word(0, *GROUPS)
        if group not in self._registers.values:
            raise ScpiError(ErrorCode.SETTINGS_CONFLICT, f"{group}: was never set")
        return block(reals(self._registers.values[group]))

    def _scale(self, name: str) -> Handler:
        def set_scale(call: Call) -> None:
            call.count(1)
            self._require_idle()
            value = call.number(0, 1e-9, 1e9)
            self._registers.scales = replace(self._registers.scales, **{name.lower(): value})

        return set_scale

    def _read_scale(self, name: str) -> Handler:
        return lambda _: f"{getattr(self._registers.scales, name.lower()):.9g}"

    def _numbers_of_nodes(self, call: Call) -> IntArray:
        call.count(1)
        self._require_idle()
        data = call.parameters[0]
        found = np.frombuffer(
            call.block(0, len(data) // INTEGER.itemsize * INTEGER.itemsize), dtype=INTEGER
        ).astype(np.int64)
        if (
            len(set(found.tolist())) < len(found)
            or not ((found >= 0) & (found < self._nodes())).all()
        ):
            raise ScpiError(ErrorCode.OUT_OF_RANGE, f"different gyroscopes below {self._nodes()}")
        return found

    def _drive(self, call: Call) -> None:
        self._registers.driven = self._numbers_of_nodes(call)
        self._registers.inputs = None

    def _record(self, call: Call) -> None:
        self._registers.recorded = self._numbers_of_nodes(call)

    def _set_step(self, call: Call) -> None:
        call.count(1)
        self._require_idle()
        self._registers.step = call.number(0, 1e-6, 1e3)

    def _set_ic_time(self, call: Call) -> None:
        call.count(1)
        self._require_idle()
        self._registers.ic_time = call.number(0, 0, 1e3)

    def _on_overload(self, call: Call) -> None:
        call.count(1)
        self._registers.halt_on_overload = call.word(0, "HALT", "CONTinue") == "HALT"

    def _batch(self, call: Call) -> None:
        call.count(3)
        self._require_idle()
        cases = call.integer(0, 1, self.settings.cases)
        steps = call.integer(1, 1, self.settings.steps)
        every = call.integer(2, 1, steps)
        if steps % every:
            raise ScpiError(ErrorCode.OUT_OF_RANGE, f"{every} does not divide {steps} steps")
        size = cases * record(steps // every + 1, len(self._registers.recorded)).itemsize
        if size > BLOCK_BYTES_MAX:
            raise ScpiError(ErrorCode.TOO_MUCH_DATA, f"{size} bytes of traces")
        self._registers.shape = cases, steps, every
        self._registers.inputs = self._registers.initial = None

    def _set_inputs(self, call: Call) -> None:
        call.count(1)
        self._require_idle()
        cases, steps, _ = self._registers.shape
        shape = (cases, steps, len(self._registers.driven), 2)
        values = np.frombuffer(call.block(0, int(np.prod(shape)) * REAL.itemsize), dtype=REAL)
        if not (np.abs(values) <= 1.0 + 1e-6).all():  # false for NaN
            raise ScpiError(ErrorCode.OUT_OF_RANGE, "inputs are -1..1")
        self._registers.inputs = quantise(
            values.astype(np.float64), -1.0, 1.0, self.settings.dac_bits
        ).reshape(shape)

    def _set_initial(self, call: Call) -> None:
        call.count(1)
        self._require_idle()
        shape = (self._registers.shape[0], self._nodes(), STATES)
        values = np.frombuffer(call.block(0, int(np.prod(shape)) * REAL.itemsize), dtype=REAL)
        if not np.isfinite(values).all():
            raise ScpiError(ErrorCode.OUT_OF_RANGE, "initial states are finite")
        self._registers.initial = values.astype(np.float64).reshape(shape)

    def _initiate(self, call: Call) -> None:
        call.count(0)
        self._require_idle()
        r = self._registers
        missing = [name for name in (g.upper() for g in GROUPS) if name not in r.values]
        for wrong, what in (
            (not r.powered, "the output is off"),
            (bool(missing) and r.geometry is not None, f"never set: {', '.join(missing)}"),
            (r.inputs is None, "no inputs for this batch"),
            (bool(self._overload.any()) and r.halt_on_overload, "overload latches are set"),
        ):
            if wrong:
                raise ScpiError(ErrorCode.SETTINGS_CONFLICT, what)
        cases, steps, every = r.shape
        samples = steps // every + 1
        records = np.zeros(cases, dtype=record(samples, len(r.recorded)))
        self._runs += 1
        records["run"], records["samples"] = self._runs, samples
        records["sequence"] = self._sequence + np.arange(cases)
        self._sequence += cases
        values = {
            name: r.values[group.upper()] for name, group in zip(GROUP_NAMES, GROUPS, strict=True)
        }
        parameters = GyroParameters(gravity=r.constants[0], drag=r.constants[1], **values)
        self._run = Run(self._runs, parameters, samples, records, self._case_us(), self.device_us)
        self._mode = "OP"

    def _run_state(self, _: Call) -> str:
        run = self._run
        if run is None:
            return f"0,IDLE,0,0,{self.device_us},0"
        done = run.done
        if run.state == "OP" and self._clock == "wall" and run.case_us:
            done = min(done, (self.device_us - run.started_us) // run.case_us)
        computed = run.done * self._registers.shape[1] + (run.step if run.chunk == run.done else 0)
        return f"{run.number},{run.state},{done},{computed},{self.device_us},{run.took_us}"

    def _set_mode(self, call: Call) -> None:
        call.count(1)
        mode = call.word(0, "IC", "OP", "HALT")
        run = self._run
        if mode == "IC":
            self._abandon()
            self._mode = "IC"
        elif mode == "HALT":
            if run is not None and run.state == "OP":
                run.state, run.held_us = "HALT", self.device_us
            self._mode = "HALT"
        elif run is None or run.state != "HALT" or self._overload.any():
            raise ScpiError(ErrorCode.SETTINGS_CONFLICT, "no run is held; INITiate starts one")
        else:
            run.state, self._mode = "OP", "OP"
            run.started_us += self.device_us - run.held_us

    def _abandon(self) -> None:
        if self._run is not None and self._run.state in ("OP", "HALT"):
            self._run.state = "IDLE"

    def _fetch(self, call: Call) -> bytes:
        call.count(2)
        run = self._run
        if run is None or run.state == "OP":
            raise ScpiError(ErrorCode.SETTINGS_CONFLICT, "no run has ended")
        first = call.integer(0, 0, len(run.records))
        count = call.integer(1, 1, len(run.records))
        if first + count > run.done:
            raise ScpiError(ErrorCode.OUT_OF_RANGE, f"{run.done} cases were run")
        return block(run.records[first : first + count].tobytes())

    def _clear_overload(self, _: Call) -> None:
        self._overload[:] = False

    def _zero(self, _: Call) -> str:
        self._require_idle()
        self.machine.trim()
        if self._clock == "virtual":
            self._virtual_us += round(1e6 * TRIM_S)
        return "0"
