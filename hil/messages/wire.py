"""What host, microcontroller and simulated plant say to each other.

Host → device types are below 0x40, firmware → plant 0x40, device → host 0x80 and
plant → firmware 0xC0. Every request is answered by exactly one frame with the same
`seq`, every request may be sent again, and only `RunDone` and `Sample` come unasked.
`make gen` writes `firmware/generated/wire.h` from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from hil.messages.layout import F32, U8, U16, U32, U64, Message, c_header, message, schema_crc

VALUES = 32  # values in one Values frame
CHANNELS = 64  # channels in one PlantSense frame


class Application(IntEnum):
    """Which program a microcontroller runs."""

    SPRING_NETWORK = 1
    CART_POLE = 2


class Mode(IntEnum):
    """Life of a device, and what the host may ask it to become."""

    INACTIVE = 0
    ACTIVE = 1
    FAULT = 2  # asked for by the host: stop now, outputs safe, latched
    CLEAR = 3  # only asked for: leave FAULT for INACTIVE


class Fault(IntEnum):
    """Why a device is in FAULT."""

    NONE = 0
    STOPPED = 1
    TOKEN_EXPIRED = 2
    ACTUATOR = 3
    SENSOR = 4
    TRAVEL = 5  # the cart went beyond the hard limit
    STUCK = 6  # a reading stayed the same although the force changed


class Reason(IntEnum):
    """Why a device refused a request."""

    SCHEMA = 1
    MODE = 2
    RANGE = 3
    LIMIT = 4
    TOKEN_STALE = 5
    TOKEN_EXPIRED = 6
    BUSY = 7
    NOT_SET_UP = 8
    NOT_FINITE = 9


class RunStatus(IntEnum):
    """How a batch ended."""

    NONE = 0
    RUNNING = 1
    DONE = 2
    EXPIRED = 3
    STOPPED = 4
    FAILED = 5


class Target(IntEnum):
    """Which array a Values frame is a piece of."""

    STIFFNESS = 0  # asked for, N/m per bond
    APPLIED_STIFFNESS = 1  # what the actuators were set to, N/m per bond
    FORCE = 2  # per case and degree of freedom, N
    DISPLACEMENT = 3  # per case and degree of freedom, m
    ELONGATION = 4  # per case and bond, m


class CaseFlag(IntEnum):
    """What is to be known about one measured load case."""

    SETTLED = 1


class SampleFlag(IntEnum):
    """What is to be known about one sample of a cart-pole; bits."""

    INTERLOCK = 1  # beyond the travel: a force away from the centre is held back
    LATE = 2  # a tick since the sample before came more than a period late


@message(0x01)
@dataclass(frozen=True)
class InfoRequest(Message):
    """Host asks who the device is."""

    schema: Annotated[int, U32, "CRC-32 of the host's message declaration"]


@message(0x02)
@dataclass(frozen=True)
class TimeRequest(Message):
    """Host asks for the device time."""

    host_ns: Annotated[int, U64, "host time at sending, ns, returned unchanged"]


@message(0x03)
@dataclass(frozen=True)
class ModeRequest(Message):
    """Host asks the device to change its mode; FAULT stops at once and latches."""

    mode: Annotated[int, U32, "Mode"]


@message(0x04)
@dataclass(frozen=True)
class StateRequest(Message):
    """Host asks for state and counters."""

    reserved: Annotated[int, U32, "0"]


@message(0x10)
@dataclass(frozen=True)
class Setup(Message):
    """Limits and timing of the spring network; accepted only while not active."""

    force_max: Annotated[float, F32, "largest force magnitude on one degree of freedom, N"]
    stiffness_low: Annotated[float, F32, "smallest stiffness, N/m"]
    stiffness_high: Annotated[float, F32, "largest stiffness, N/m"]
    drift_max: Annotated[float, F32, "largest change over the averaging window, m; 0: any"]
    watchdog_us: Annotated[int, U32, "longest life of a token, us"]
    settle_us: Annotated[int, U32, "wait between force and first sample, us"]
    settle_timeout_us: Annotated[int, U32, "extra wait granted while drift is too large, us"]
    sample_period_us: Annotated[int, U32, "time between two samples, us"]
    samples: Annotated[int, U32, "samples averaged per case, at least 2"]


@message(0x11)
@dataclass(frozen=True)
class Write(Message):
    """Host writes a piece of STIFFNESS (active, applied by Apply) or of FORCE."""

    target: Annotated[int, U16, "Target: STIFFNESS or FORCE"]
    load_case: Annotated[int, U16, "load case, 0 for STIFFNESS"]
    offset: Annotated[int, U16, "index of the first value"]
    count: Annotated[int, U16, "values used, at most 32"]
    values: Annotated[tuple[float, ...], F32[VALUES], "N/m or N"]


@message(0x12)
@dataclass(frozen=True)
class Apply(Message):
    """Host asks to set the actuators to STIFFNESS; the answer comes when they are."""

    bonds: Annotated[int, U32, "number of bonds written, must be all"]


@message(0x13)
@dataclass(frozen=True)
class Read(Message):
    """Host asks for a piece of any target; answered by Values."""

    target: Annotated[int, U16, "Target"]
    load_case: Annotated[int, U16, "load case, 0 for stiffness"]
    offset: Annotated[int, U16, "index of the first value"]
    count: Annotated[int, U16, "values wanted, at most 32"]


@message(0x14)
@dataclass(frozen=True)
class Run(Message):
    """Host starts a batch of load cases; asking again for the same batch changes nothing."""

    valid_until_us: Annotated[int, U64, "token: device time at which outputs become safe, us"]
    token: Annotated[int, U32, "token: sequence, must grow while active"]
    batch: Annotated[int, U32, "batch number, chosen by the host, not 0"]
    cases: Annotated[int, U32, "number of load cases"]
    reserved: Annotated[int, U32, "0"]


@message(0x15)
@dataclass(frozen=True)
class CaseRequest(Message):
    """Host asks how one load case was measured."""

    load_case: Annotated[int, U32, "load case"]


@message(0x20)
@dataclass(frozen=True)
class CartPoleSetup(Message):
    """Limits and timing of the cart-pole; accepted only while not active; starts the samples."""

    force_max: Annotated[float, F32, "largest force magnitude, N"]
    travel: Annotated[float, F32, "distance from the centre from which only forces inward act, m"]
    travel_hard: Annotated[float, F32, "distance from the centre at which a fault latches, m"]
    watchdog_us: Annotated[int, U32, "longest life of a token, us"]
    tick_us: Annotated[int, U32, "time between two looks at the sensors, us"]
    stream_every: Annotated[int, U32, "ticks between two Sample messages"]
    stuck_impulse: Annotated[
        float, F32, "change of force times time on a still reading, N·s; 0: any"
    ]


@message(0x21)
@dataclass(frozen=True)
class Drive(Message):
    """Host commands the force and answers the newest sample; answered by Driven."""

    valid_until_us: Annotated[int, U64, "token: device time at which outputs become safe, us"]
    token: Annotated[int, U32, "token: sequence, must grow while active"]
    force: Annotated[float, F32, "on the cart, N"]


@message(0x22)
@dataclass(frozen=True)
class Pass(Message):
    """Host answers a sample without a command: the force stays, and so does the token."""

    sample: Annotated[int, U32, "number of the sample"]


@message(0x23)
@dataclass(frozen=True)
class SampleRequest(Message):
    """Host asks for the newest sample once more; answered by Sample."""

    reserved: Annotated[int, U32, "0"]


@message(0x81)
@dataclass(frozen=True)
class Info(Message):
    """Who the device is."""

    device_us: Annotated[int, U64, "device time, us"]
    device_id: Annotated[int, U64, "serial number of the device"]
    schema: Annotated[int, U32, "CRC-32 of the device's message declaration"]
    application: Annotated[int, U32, "Application"]
    firmware: Annotated[int, U32, "firmware version, major << 16 | minor << 8 | patch"]
    watchdog_max_us: Annotated[int, U32, "longest token life the board allows, us"]
    dof: Annotated[int, U16, "free degrees of freedom (force and displacement channels)"]
    bonds: Annotated[int, U16, "bonds (stiffness and elongation channels)"]
    cases: Annotated[int, U16, "load cases one batch may hold"]
    reserved: Annotated[int, U16, "0"]
    board: Annotated[tuple[int, ...], U8[16], "board name, ASCII, zero-padded"]


@message(0x82)
@dataclass(frozen=True)
class Time(Message):
    """Device time beside the host time of the request."""

    host_ns: Annotated[int, U64, "as sent, ns"]
    device_us: Annotated[int, U64, "device time, us"]


@message(0x83)
@dataclass(frozen=True)
class State(Message):
    """State and counters; also the plain acknowledgement of every other request."""

    device_us: Annotated[int, U64, "device time, us"]
    batch: Annotated[int, U32, "newest batch; cart-pole: number of the newest sample"]
    token: Annotated[int, U32, "newest token sequence"]
    frames: Annotated[int, U32, "good frames received"]
    bad_frames: Annotated[int, U32, "frames dropped for COBS, length or CRC"]
    unknown: Annotated[int, U32, "good frames of unknown type or wrong payload size"]
    refused: Annotated[int, U32, "requests refused"]
    expired: Annotated[int, U32, "tokens that ran out while outputs were on"]
    mode: Annotated[int, U8, "Mode: INACTIVE, ACTIVE or FAULT"]
    fault: Annotated[int, U8, "Fault"]
    run: Annotated[int, U8, "RunStatus of the newest batch"]
    cases_done: Annotated[int, U8, "load cases measured in the newest batch"]


@message(0x8F)
@dataclass(frozen=True)
class Refused(Message):
    """The device refused a request."""

    device_us: Annotated[int, U64, "device time, us"]
    type: Annotated[int, U8, "type of the refused request"]
    reason: Annotated[int, U8, "Reason"]
    mode: Annotated[int, U8, "Mode of the device"]
    fault: Annotated[int, U8, "Fault of the device"]
    detail: Annotated[int, U32, "index of the offending value or case, else 0"]


@message(0x91)
@dataclass(frozen=True)
class Values(Message):
    """A piece of an array."""

    target: Annotated[int, U16, "Target"]
    load_case: Annotated[int, U16, "load case"]
    offset: Annotated[int, U16, "index of the first value"]
    count: Annotated[int, U16, "values used"]
    values: Annotated[tuple[float, ...], F32[VALUES], "N/m, N or m"]


@message(0x94)
@dataclass(frozen=True)
class RunDone(Message):
    """A batch has ended; outputs are safe again. Sent unasked, with seq 0."""

    device_us: Annotated[int, U64, "device time, us"]
    batch: Annotated[int, U32, "batch"]
    cases_done: Annotated[int, U16, "load cases measured"]
    status: Annotated[int, U16, "RunStatus"]


@message(0x95)
@dataclass(frozen=True)
class Case(Message):
    """How one load case was measured."""

    device_us: Annotated[int, U64, "device time of the last sample, us"]
    batch: Annotated[int, U32, "batch it belongs to"]
    flags: Annotated[int, U32, "CaseFlag bits"]
    drift: Annotated[float, F32, "largest change over the averaging window, m"]
    samples: Annotated[int, U32, "samples averaged"]


@message(0xA0)
@dataclass(frozen=True)
class Sample(Message):
    """Where a cart-pole is; sent unasked, with seq 0, every `stream_every` ticks."""

    device_us: Annotated[int, U64, "device time of the sample, us"]
    sample: Annotated[int, U32, "number of the sample, grows by 1, from 1"]
    token: Annotated[int, U32, "newest token sequence"]
    angle: Annotated[float, F32, "of the pole, 0 upright, rad"]
    position: Annotated[float, F32, "of the cart, 0 in the centre, m"]
    force: Annotated[float, F32, "on the cart since the newest change, N"]
    mode: Annotated[int, U8, "Mode"]
    fault: Annotated[int, U8, "Fault"]
    flags: Annotated[int, U16, "SampleFlag bits"]


@message(0xA1)
@dataclass(frozen=True)
class Driven(Message):
    """What became of a Drive; the same again when it is sent again."""

    device_us: Annotated[int, U64, "device time at which it was carried out, us"]
    token: Annotated[int, U32, "token sequence"]
    sample: Annotated[int, U32, "number of the newest sample then"]
    force: Annotated[float, F32, "applied, N"]
    flags: Annotated[int, U32, "SampleFlag bits"]


@message(0x40)
@dataclass(frozen=True)
class PlantWrite(Message):
    """Firmware sets actuators of the plant; answered by PlantApplied."""

    time_us: Annotated[int, U64, "device time of the change, us"]
    target: Annotated[int, U16, "Target: STIFFNESS or FORCE"]
    offset: Annotated[int, U16, "index of the first value"]
    count: Annotated[int, U16, "values used"]
    reserved: Annotated[int, U16, "0"]
    values: Annotated[tuple[float, ...], F32[VALUES], "N/m or N"]


@message(0x41)
@dataclass(frozen=True)
class PlantSample(Message):
    """Firmware samples all sensors of the plant; answered by PlantSense frames."""

    time_us: Annotated[int, U64, "device time of the sample, never before an earlier one, us"]


@message(0x42)
@dataclass(frozen=True)
class PlantLook(Message):
    """Firmware samples a cart-pole; answered by one PlantPose per tick.

    Under the virtual clock the firmware asks for several ticks at once: where the plant
    will be if no force is written before. A write at an earlier time takes the rest back.
    """

    time_us: Annotated[int, U64, "device time of the first sample, us"]
    period_us: Annotated[int, U32, "time between two, us"]
    count: Annotated[int, U32, "how many"]


@message(0xC0)
@dataclass(frozen=True)
class PlantApplied(Message):
    """What the actuators of the plant were set to."""

    target: Annotated[int, U16, "Target: STIFFNESS or FORCE"]
    offset: Annotated[int, U16, "index of the first value"]
    count: Annotated[int, U16, "values used"]
    reserved: Annotated[int, U16, "0"]
    values: Annotated[tuple[float, ...], F32[VALUES], "N/m or N"]


@message(0xC1)
@dataclass(frozen=True)
class PlantSense(Message):
    """Sensors of the plant: displacements, then elongations; one frame per 64 channels."""

    time_us: Annotated[int, U64, "time of the sample, us"]
    offset: Annotated[int, U16, "index of the first channel"]
    count: Annotated[int, U16, "channels used"]
    total: Annotated[int, U16, "channels of the plant"]
    reserved: Annotated[int, U16, "0"]
    values: Annotated[tuple[float, ...], F32[CHANNELS], "m"]


@message(0xC2)
@dataclass(frozen=True)
class PlantPose(Message):
    """Sensors of a cart-pole at one time."""

    time_us: Annotated[int, U64, "time of the sample, us"]
    angle: Annotated[float, F32, "of the pole, rad"]
    position: Annotated[float, F32, "of the cart, m"]


DEVICE_MESSAGES: tuple[type[Message], ...] = (
    InfoRequest, TimeRequest, ModeRequest, StateRequest,
    Setup, Write, Apply, Read, Run, CaseRequest,
    CartPoleSetup, Drive, Pass, SampleRequest,
    Info, Time, State, Refused, Values, RunDone, Case,
    Sample, Driven,
)  # fmt: skip
PLANT_MESSAGES: tuple[type[Message], ...] = (
    PlantWrite, PlantSample, PlantLook, PlantApplied, PlantSense, PlantPose,
)  # fmt: skip
MESSAGES = DEVICE_MESSAGES + PLANT_MESSAGES
BY_TYPE: dict[int, type[Message]] = {cls.TYPE: cls for cls in MESSAGES}
SCHEMA_CRC = schema_crc(MESSAGES)


def header() -> str:
    """Return the C header with every message, enumeration and the schema CRC."""
    constants = {"VALUES_MAX": VALUES, "CHANNELS_MAX": CHANNELS}
    for enum in (Application, Mode, Fault, Reason, RunStatus, Target, CaseFlag, SampleFlag):
        prefix = "".join("_" + c if c.isupper() else c for c in enum.__name__).lstrip("_").upper()
        constants |= {f"{prefix}_{member.name}": member.value for member in enum}
    return c_header(MESSAGES, constants)


if __name__ == "__main__":
    print(header(), end="")
