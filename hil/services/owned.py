"""What a mirror owns: a rig behind its guard, and how the commands of its kind are carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from hil.config import Config, settings_of
from hil.errors import ConfigError, StateError
from hil.messages import bus
from hil.rigs.base import AbstractBoard, AbstractRig, MeasuredEquilibrium, Token
from hil.rigs.bench import AbstractBench
from hil.rigs.calibrated import Calibrated
from hil.rigs.cart_pole import CartPoleRig
from hil.rigs.device import Device
from hil.rigs.device_clock import DeviceClock
from hil.rigs.emulator import EmulatorRig
from hil.rigs.lucidac import LucidacRig
from hil.rigs.manual import ManualRig
from hil.rigs.spring_network import SpringNetworkRig
from hil.rigs.twin import SpringNetworkTwin
from hil.safety.deadman import Forwarded
from hil.safety.limits import Limited, LimitedDynamic, LimitedEmulator
from hil.types import AnyArray, Array


@dataclass(frozen=True)
class Carried:
    """What a command came to: the reply, its arrays, and what is to be published."""

    kind: type[bus.Reply]
    fields: dict[str, Any]
    arrays: list[AnyArray] = field(default_factory=list)
    published: tuple[str, dict[str, Any]] | None = None
    then: Callable[[], Carried] | None = None  # to be done in the same answer


class AbstractOwned(ABC):
    """A rig of one kind, as its mirror sees it."""

    @property
    @abstractmethod
    def rig(self) -> AbstractRig:
        """The rig behind its guard: the only way to it."""

    @property
    @abstractmethod
    def clock(self) -> DeviceClock:
        """What time it is on the device."""

    @property
    @abstractmethod
    def port(self) -> str:
        """Where the device answers."""

    @abstractmethod
    def counters(self) -> bus.Counters:
        """Return what happened on the way to the device."""

    @property
    @abstractmethod
    def measurements(self) -> int:
        """How many measurements were handed out."""

    @property
    @abstractmethod
    def twin_residual(self) -> float | None:
        """Newest distance between measured and predicted, relative; None without a twin."""

    @property
    def recalibrate(self) -> str:
        """Why the rig asks for a new calibration, "" when it does not."""
        return ""

    @abstractmethod
    def configure(self) -> dict[str, Any]:
        """Configure the rig; return what it is, for whoever says hello."""

    @abstractmethod
    def read_back(self) -> dict[str, Any]:
        """Read the device's state back after a fault; return what it is."""

    def interrupt(self) -> None:  # noqa: B027 - most rigs ask nobody anything
        """Have whatever a person is being asked end; called from any thread."""

    @abstractmethod
    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Carry out a command of this kind of rig; raises StateError for another kind's."""


class AbstractOwnedDevice(AbstractOwned):
    """A rig behind a microcontroller."""

    @property
    @abstractmethod
    def device(self) -> Device:
        """The microcontroller."""

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the microcontroller."""
        return self.device.clock

    @property
    def port(self) -> str:
        """The pyserial URL it answers on."""
        return self.device.link.url

    def counters(self) -> bus.Counters:
        """Return what its link and its firmware count."""
        link, state = self.device.link, self.device.state
        return bus.Counters(
            requests=link.counters.requests,
            retransmits=link.counters.retransmits,
            timeouts=link.counters.timeouts,
            reconnects=link.counters.reconnects,
            bad_frames_host=link.parser.counters.bad_frames,
            bad_frames_device=state.bad_frames if state else 0,
            unknown_host=link.parser.counters.unknown,
            unknown_device=state.unknown if state else 0,
            refused_device=state.refused if state else 0,
            tokens_expired=state.expired if state else 0,
        )


class OwnedSpringNetwork(AbstractOwnedDevice):
    """A spring network, its limits and its twin."""

    def __init__(self, rig: SpringNetworkRig, tokens: Forwarded) -> None:
        self._device_rig = rig
        self._calibrated = Calibrated(rig, rig.network, rig.settings.calibration)
        self._rig = Limited(self._calibrated)
        self._tokens = tokens
        self._twin = SpringNetworkTwin(rig.statics)
        self._applied: Array | None = None
        self._info: dict[str, Any] = {}
        self._measurements = 0
        self._residual: float | None = None

    @property
    def rig(self) -> Limited:
        """The rig behind its limits."""
        return self._rig

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device_rig.device

    @property
    def measurements(self) -> int:
        """Load cases measured."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """Measured minus predicted elongation of the newest batch, relative rms."""
        return self._residual

    @property
    def recalibrate(self) -> str:
        """What the twin says of a drift."""
        return self._twin.recalibrate

    def configure(self) -> dict[str, Any]:
        """Configure the rig, put its calibration between, and read its stiffness."""
        self._info = msgspec.to_builtins(self.rig.configure())
        rig = self._device_rig
        self._twin = SpringNetworkTwin(
            rig.statics, self._calibrated.calibration, rig.settings.samples
        )
        return self.read_back()

    def read_back(self) -> dict[str, Any]:
        """Read the stiffness the actuators are set to."""
        self._applied = self.rig.read_stiffness()
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Settle, set or read the stiffness."""
        match request:
            case bus.Settle():
                self._tokens.put(Token(request.token, request.valid_until_us))
                loads = np.asarray(arrays[0], dtype=np.float64)
                if request.wait_us is None:
                    return self._settle(loads)
                hasty = self.rig.sample_after(loads, request.wait_us)
                return carried_equilibria(hasty, loads, self._residual, self.recalibrate)
            case bus.SetStiffness():
                self._applied = self.rig.set_stiffness(np.asarray(arrays[0], dtype=np.float64))
            case bus.ReadStiffness():
                self._applied = self.rig.read_stiffness()
            case _:
                raise wrong_kind(request, "a spring network")
        return Carried(bus.Applied, {"stiffness": bus.ArrayRef.of(self._applied)}, [self._applied])

    def _settle(self, loads: Array) -> Carried:
        measured = self.rig.settle(loads)
        self._measurements += len(loads)
        if self._applied is not None and (self._applied > 0).any():
            self._residual = self._twin.residual(
                self._applied, loads, measured.elongation, measured.displacement
            )
        return carried_equilibria(measured, loads, self._residual, self.recalibrate)


class OwnedManual(AbstractOwned):
    """A spring network that a person loads and a camera sees, its limits and its twin."""

    def __init__(self, rig: ManualRig, tokens: Forwarded) -> None:
        self._inner = rig
        self._rig = Limited(rig)
        self._tokens = tokens
        self._twin = SpringNetworkTwin(rig.statics)
        self._info: dict[str, Any] = {}
        self._measurements = 0
        self._residual: float | None = None

    @property
    def rig(self) -> Limited:
        """The rig behind its limits."""
        return self._rig

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the bench."""
        return self._inner.clock

    @property
    def port(self) -> str:
        """The camera."""
        return self._inner.bench.camera

    @property
    def measurements(self) -> int:
        """Load cases measured."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """Measured minus predicted elongation of the newest load case, relative rms."""
        return self._residual

    def interrupt(self) -> None:
        """Stop: nobody waits any more for what the person is asked."""
        self._inner.stop("ended while a person was asked")

    def counters(self) -> bus.Counters:
        """Return nothing: there is no line to count on."""
        return bus.Counters()

    def configure(self) -> dict[str, Any]:
        """Open the camera."""
        self._info = msgspec.to_builtins(self.rig.configure())
        return self._info

    def read_back(self) -> dict[str, Any]:
        """Return what the rig is; what is mounted is on the bench."""
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Have a load case hung, struts mounted, or say what is mounted."""
        match request:
            case bus.Settle():
                self._tokens.put(Token(request.token, request.valid_until_us))
                measured = self.rig.settle(np.asarray(arrays[0], dtype=np.float64))
                assert measured.applied is not None
                stiffness, loads = self.rig.read_stiffness(), measured.applied
                self._measurements += len(loads)
                self._residual = self._twin.residual(stiffness, loads, measured.elongation)
                return carried_equilibria(measured, loads, self._residual)
            case bus.SetStiffness():
                applied = self.rig.set_stiffness(np.asarray(arrays[0], dtype=np.float64))
            case bus.ReadStiffness():
                applied = self.rig.read_stiffness()
            case _:
                raise wrong_kind(request, "a spring network loaded by hand")
        return Carried(bus.Applied, {"stiffness": bus.ArrayRef.of(applied)}, [applied])


class OwnedCartPole(AbstractOwnedDevice):
    """A cart-pole and its limits."""

    def __init__(self, rig: CartPoleRig, tokens: Forwarded) -> None:
        self._device_rig = rig
        self._rig = LimitedDynamic(rig)
        self._tokens = tokens
        self._info: dict[str, Any] = {}
        self._measurements = 0

    @property
    def rig(self) -> LimitedDynamic:
        """The rig behind its limits."""
        return self._rig

    @property
    def device(self) -> Device:
        """The microcontroller."""
        return self._device_rig.device

    @property
    def measurements(self) -> int:
        """Samples handed out."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """None: no twin runs beside a cart-pole yet."""
        return None

    def configure(self) -> dict[str, Any]:
        """Configure the rig; its samples begin."""
        self._info = msgspec.to_builtins(self.rig.configure())
        return self._info

    def read_back(self) -> dict[str, Any]:
        """Return what the rig is; its next sample tells where it stands."""
        return self._info

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Read a sample or set the force."""
        match request:
            case bus.ReadSample():
                return self._read()
            case bus.WriteInput():
                self._tokens.put(Token(request.token, request.valid_until_us))
                applied = self.rig.write(np.array(request.u, dtype=np.float64))
                then = self._read if request.then_read else None
                return Carried(bus.Driven, {"u": tuple(applied.tolist())}, then=then)
            case _:
                raise wrong_kind(request, "a cart-pole")

    def _read(self) -> Carried:
        sample = self.rig.read()
        self._measurements += 1
        fields: dict[str, Any] = {
            "y": tuple(sample.y.tolist()),
            "u": tuple(sample.u.tolist()),
            "sampled_us": sample.device_us,
            "sample": sample.sequence,
            "missed": sample.missed,
            "flags": sample.flags,
        }
        values = dict(zip(self._info["measurements"], fields["y"], strict=True))
        values |= dict(zip(self._info["inputs"], fields["u"], strict=True))
        values |= {"device_us": sample.device_us, "missed": sample.missed}
        return Carried(bus.Sampled, fields, published=("sample", values))


class OwnedEmulator(AbstractOwned):
    """An analog emulator behind an instrument, and its limits."""

    def __init__(self, rig: EmulatorRig | LucidacRig) -> None:
        self._inner = rig
        self._rig = LimitedEmulator(rig)
        self._measurements = 0

    @property
    def rig(self) -> LimitedEmulator:
        """The rig behind its limits."""
        return self._rig

    @property
    def clock(self) -> DeviceClock:
        """What time it is on the instrument."""
        return self._inner.clock

    @property
    def port(self) -> str:
        """The VISA resource string, or the endpoint, it answers on."""
        return self._inner.link.url

    @property
    def measurements(self) -> int:
        """Cases run."""
        return self._measurements

    @property
    def twin_residual(self) -> float | None:
        """None: what measured and predicted differ by is what training learns from."""
        return None

    def counters(self) -> bus.Counters:
        """Return what the link counts."""
        link = self._inner.link.counters
        return bus.Counters(
            requests=link.requests, timeouts=link.timeouts, reconnects=link.reconnects
        )

    def configure(self) -> dict[str, Any]:
        """Configure the rig."""
        self.rig.configure()
        return self.read_back()

    def read_back(self) -> dict[str, Any]:
        """Return what the emulator is."""
        found: dict[str, Any] = msgspec.to_builtins(self._inner.info)
        return found

    def carry_out(self, request: bus.Request, arrays: list[AnyArray]) -> Carried:
        """Set or read coefficients, run a batch, look, calibrate."""
        numbers = [np.asarray(array, dtype=np.float64) for array in arrays]
        match request:
            case bus.SetCoefficients():
                return _carried(bus.Coefficients, values=self.rig.set_coefficients(numbers[0]))
            case bus.ReadCoefficients():
                return _carried(bus.Coefficients, values=self.rig.read_coefficients())
            case bus.RunBatch():
                initial = numbers[1] if request.initial is not None else None
                return self._run(numbers[0], initial, request.every)
            case bus.ReadEmulator():
                status = self.rig.status()
                fields = {"mode": status.mode, "run": status.run, "overload": status.overload}
                return Carried(bus.EmulatorState, fields | {"looked_us": status.device_us})
            case bus.Calibrate():
                found = self.rig.calibrate()
                return _carried(
                    bus.Calibrated, effective=found.effective, applied=found.applied,
                    deviation=found.deviation, residual=found.residual,
                )  # fmt: skip
            case _:
                raise wrong_kind(request, "an emulator")

    def _run(self, inputs: Array, initial: Array | None, every: int) -> Carried:
        traces = self.rig.run(inputs, initial, every)
        self._measurements += len(inputs)
        fields: dict[str, Any] = {
            "run": traces.run, "sequence": traces.sequence, "predicted": traces.predicted,
            "took": traces.took, "overload": traces.overload,
        }  # fmt: skip
        channels = self._inner.info.channels
        last = dict(zip(channels, traces.states[-1, -1].tolist(), strict=True))
        published = fields | last | {
            "device_us": traces.device_us, "cases": len(inputs),
            "overloaded": int(traces.overloaded.sum()),
        }  # fmt: skip
        carried = _carried(
            bus.Ran, states=traces.states, overloaded=traces.overloaded,
            ended_us=traces.device_us, **fields,
        )  # fmt: skip
        return replace(carried, published=("run", published))


def carried_equilibria(
    measured: MeasuredEquilibrium, loads: Array, residual: float | None, recalibrate: str = ""
) -> Carried:
    """Return measured equilibria as a reply, and the last of them as telemetry.

    loads: (batch, dof), N, as applied. residual: of the twin, relative; recalibrate: why it
    asks for a new calibration.
    """
    values = {
        "device_us": measured.device_us,
        "cases": len(loads),
        "settled": measured.settled,
        "twin_residual": residual,
        "recalibrate": recalibrate,
        "force": loads[-1].tolist(),
        "displacement": measured.displacement[-1].tolist(),
        "elongation": measured.elongation[-1].tolist(),
    }
    fields = {
        "sampled_us": measured.device_us,
        "displacement": bus.ArrayRef.of(measured.displacement),
        "elongation": bus.ArrayRef.of(measured.elongation),
        "settled": measured.settled,
        "twin_residual": residual,
    }
    arrays = [measured.displacement, measured.elongation]
    if measured.applied is not None:
        fields["applied"] = bus.ArrayRef.of(measured.applied)
        arrays.append(measured.applied)
    return Carried(bus.Measured, fields, arrays, ("measurement", values))


def _carried(kind: type[bus.Reply], **fields: Any) -> Carried:
    """Return a reply whose arrays ride behind it, in the order in which they are named."""
    arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
    described = {
        name: bus.ArrayRef.of(value) if isinstance(value, np.ndarray) else value
        for name, value in fields.items()
    }
    return Carried(kind, described, arrays)


def own(config: Config, port: str, board: AbstractBoard | None = None) -> AbstractOwned:
    """Make what a mirror owns; no I/O. Raises ConfigError for a rig no mirror can own."""
    kind, settings = settings_of(config.rig, "rig")
    tokens = Forwarded()
    if issubclass(kind, SpringNetworkRig):
        spring = SpringNetworkRig(settings, tokens=tokens, clock=config.clock, port=port)
        return OwnedSpringNetwork(spring, tokens)
    if issubclass(kind, CartPoleRig):
        cart = CartPoleRig(settings, tokens=tokens, clock=config.clock, port=port)
        return OwnedCartPole(cart, tokens)
    if issubclass(kind, EmulatorRig):
        return OwnedEmulator(EmulatorRig(settings, clock=config.clock, port=port))
    if issubclass(kind, LucidacRig):
        return OwnedEmulator(LucidacRig(settings, clock=config.clock, port=port))
    if issubclass(kind, ManualRig):
        bench = board if isinstance(board, AbstractBench) else None
        manual = ManualRig(settings, tokens=tokens, clock=config.clock, bench=bench)
        return OwnedManual(manual, tokens)
    raise ConfigError(
        f"rig.kind: {config.rig['kind']!r} is not a rig a mirror can own; a rig in process "
        "needs none"
    )


def wrong_kind(request: bus.Request, rig: str) -> StateError:
    """Return the error for a command that belongs to another kind of rig."""
    return StateError(f"{request.__struct_config__.tag}: the rig this mirror owns is {rig}")
