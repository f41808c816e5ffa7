"""What processes say to each other: msgspec Structs as msgpack, arrays as extra frames.

A message on the command and status sockets is `[header, array, array, …]`; the header is
one tagged Struct, each `ArrayRef` in it holds a small array itself or describes the next array
frame: frames take time, a few more bytes do not. Telemetry is
`[topic, msgpack map, unix seconds as decimal text]`, which PlotJuggler reads as it is.
Nothing is ever unpickled or evaluated, and a size is checked before it is believed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import numpy as np

from hil.errors import LinkError
from hil.types import AnyArray

ARRAY_BYTES_MAX = 64 * 1024 * 1024
INLINE = 4096  # bytes of an array that rides in its ArrayRef
Role = Literal["observe", "operate", "train", "admin"]
ROLES: tuple[Role, ...] = ("observe", "operate", "train", "admin")


class BusStruct(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"
):
    """Base of everything on the bus."""


class ArrayRef(BusStruct, tag="array", frozen=True, kw_only=True, omit_defaults=True):
    """Type and shape of an array, and its bytes where they are few; others have a frame."""

    dtype: Literal["<f8", "<f4", "<i8"]
    shape: tuple[int, ...]
    data: bytes | None = None

    @classmethod
    def of(cls, array: AnyArray) -> ArrayRef:
        """Return the reference to `array`; raises ValidationError for other types."""
        found = _described(array.dtype.str, array.shape)
        if array.nbytes > INLINE:
            return found
        return cls(dtype=found.dtype, shape=found.shape, data=array.tobytes())


@functools.lru_cache(maxsize=1024)
def _described(dtype: str, shape: tuple[int, ...]) -> ArrayRef:
    return msgspec.convert({"type": "array", "dtype": dtype, "shape": shape}, ArrayRef)


class Request(BusStruct, frozen=True, kw_only=True):
    """Every request: `seq` identifies it for a safe retry, after `deadline_ns` it is void."""

    seq: int
    t_ns: int  # host time at sending, Unix ns
    deadline_ns: int  # host time after which it must not be started, Unix ns


class Hello(Request, tag="hello", frozen=True, kw_only=True):
    """Ask who serves this rig, and what it is."""


class Acquire(Request, tag="acquire", frozen=True, kw_only=True):
    """Ask for the lease: from then on only this client commands."""

    client: str


class Release(Request, tag="release", frozen=True, kw_only=True):
    """Give the lease back; an active rig is deactivated."""

    lease: str


class Configure(Request, tag="configure", frozen=True, kw_only=True):
    """Connect to the device and set its limits."""

    lease: str


class Activate(Request, tag="activate", frozen=True, kw_only=True):
    """Power the outputs."""

    lease: str


class Deactivate(Request, tag="deactivate", frozen=True, kw_only=True):
    """Make the outputs safe."""

    lease: str


class Clear(Request, tag="clear", frozen=True, kw_only=True):
    """Leave fault."""

    lease: str


class Settle(Request, tag="settle", frozen=True, kw_only=True):
    """Measure a batch of load cases."""

    lease: str
    token: int  # sequence, minted by the client
    valid_until_us: int  # device time, us
    loads: ArrayRef  # (batch, dof), N
    wait_us: int | None = None  # one case, looked at so soon after the force; None: at rest


class SetStiffness(Request, tag="set_stiffness", frozen=True, kw_only=True):
    """Set every bond."""

    lease: str
    stiffness: ArrayRef  # (bonds,), N/m


class ReadStiffness(Request, tag="read_stiffness", frozen=True, kw_only=True):
    """Read back what the actuators are set to."""


class ReadSample(Request, tag="read_sample", frozen=True, kw_only=True):
    """Return the newest sample of a dynamic rig, waiting for one."""

    lease: str


class WriteInput(Request, tag="write_input", frozen=True, kw_only=True):
    """Set the inputs of a dynamic rig."""

    lease: str
    token: int  # sequence, minted by the client
    valid_until_us: int  # device time, us
    u: tuple[float, ...]  # (nu,), SI
    then_read: bool = False  # the answer is to bring the next sample, where time waits for it


class SetCoefficients(Request, tag="set_coefficients", frozen=True, kw_only=True):
    """Set every coefficient of an emulator."""

    lease: str
    values: ArrayRef  # (size,), in the order and the units of its info


class ReadCoefficients(Request, tag="read_coefficients", frozen=True, kw_only=True):
    """Read back what the coefficients are set to."""


class RunBatch(Request, tag="run_batch", frozen=True, kw_only=True):
    """Run a batch of cases on an emulator."""

    lease: str
    every: int  # steps from one sample to the next
    inputs: ArrayRef  # (cases, steps, inputs), N
    initial: ArrayRef | None  # (cases, state), SI; None: at rest


class ReadEmulator(Request, tag="read_emulator", frozen=True, kw_only=True):
    """Return the mode of an emulator, its newest run and its overload latches."""


class Calibrate(Request, tag="calibrate", frozen=True, kw_only=True):
    """Measure what the coefficients that are set really are."""

    lease: str


class StatusRequest(Request, tag="status", frozen=True, kw_only=True):
    """Ask how the rig is; answered beside the loop."""


class Stop(Request, tag="stop", frozen=True, kw_only=True):
    """Make the outputs safe now; needs no lease."""

    reason: str


Command = (
    Hello | Acquire | Release | Configure | Activate | Deactivate | Clear
    | Settle | SetStiffness | ReadStiffness | ReadSample | WriteInput
    | SetCoefficients | ReadCoefficients | RunBatch | ReadEmulator | Calibrate
)  # fmt: skip
Enquiry = StatusRequest | Stop


class Reply(BusStruct, frozen=True, kw_only=True):
    """Every reply: the `seq` of its request, host time, device time."""

    seq: int
    t_ns: int
    device_us: int


class Done(Reply, tag="done", frozen=True, kw_only=True):
    """It was done; the state the rig is in now, and why where it is in fault."""

    state: str
    fault: str


class Welcome(Reply, tag="welcome", frozen=True, kw_only=True):
    """Who serves this rig; `info` is empty until the rig is configured."""

    name: str
    clock: Literal["virtual", "wall"]
    state: str
    lease_seconds: float
    info: dict[str, Any]


class Leased(Reply, tag="leased", frozen=True, kw_only=True):
    """The lease; it expires `seconds` after the last command."""

    lease: str
    seconds: float


class Measured(Reply, tag="measured", frozen=True, kw_only=True):
    """The equilibria of a batch."""

    sampled_us: int  # device time of the last sample, us
    displacement: ArrayRef  # (batch, dof), m
    elongation: ArrayRef  # (batch, bonds), m
    settled: bool
    twin_residual: float | None  # measured − predicted elongation, relative rms
    applied: ArrayRef | None = None  # (batch, dof), N, of a rig that rounds loads


class Applied(Reply, tag="applied", frozen=True, kw_only=True):
    """What the actuators are set to."""

    stiffness: ArrayRef  # (bonds,), N/m


class Sampled(Reply, tag="sampled", frozen=True, kw_only=True):
    """One sample of a dynamic rig."""

    y: tuple[float, ...]  # (ny,), measured, SI
    u: tuple[float, ...]  # (nu,), applied from then on, SI
    sampled_us: int  # device time, us
    sample: int  # number of the sample
    missed: int  # samples between the one before and this one
    flags: tuple[str, ...]


class Coefficients(Reply, tag="coefficients", frozen=True, kw_only=True):
    """What the coefficients are set to."""

    values: ArrayRef  # (size,)


class Ran(Reply, tag="ran", frozen=True, kw_only=True):
    """What an emulator recorded of a batch."""

    states: ArrayRef  # (cases, samples, channels), SI
    overloaded: ArrayRef  # (cases,), 1 where a case left the machine's range
    overload: tuple[str, ...]  # elements whose latch is set
    run: int  # number since power-on
    sequence: int  # number of the first case since power-on
    predicted: float  # time of the run, known before it started, s
    took: float  # by the machine's own clock, s
    ended_us: int  # device time at its end, us


class EmulatorState(Reply, tag="emulator_state", frozen=True, kw_only=True):
    """How an emulator is."""

    mode: Literal["IC", "OP", "HALT"]
    run: int
    overload: tuple[str, ...]
    looked_us: int  # device time, us


class Calibrated(Reply, tag="calibrated", frozen=True, kw_only=True):
    """What coefficients really are."""

    effective: ArrayRef  # (size,)
    applied: ArrayRef  # (size,)
    deviation: ArrayRef  # (size,)
    residual: float


class Refused(Reply, tag="refused", frozen=True, kw_only=True):
    """It was not done: the class of error, its reason code, one line."""

    error: str
    code: str
    reason: str


class Driven(Reply, tag="driven", frozen=True, kw_only=True):
    """What the inputs were set to, and what the next sample is or why there is none."""

    u: tuple[float, ...]  # (nu,), SI
    then: Sampled | Refused | None = None  # None: it was not asked for


class Counters(BusStruct, tag="counters", frozen=True, kw_only=True):
    """What happened on the way to the device, host and device apart."""

    requests: int = 0
    retransmits: int = 0
    timeouts: int = 0
    reconnects: int = 0
    bad_frames_host: int = 0
    bad_frames_device: int = 0
    unknown_host: int = 0
    unknown_device: int = 0
    refused_device: int = 0
    tokens_expired: int = 0
    refused_mirror: int = 0


class StatusReport(Reply, tag="status_report", frozen=True, kw_only=True):
    """How the rig is."""

    name: str
    pid: int
    state: str
    fault: str
    clock: Literal["virtual", "wall"]
    simulated: bool  # the far end of the wire is a board that plays a plant
    port: str
    holder: str  # who holds the lease, "" when nobody
    lease_left_s: float
    commands: int
    measurements: int
    clock_offset_us: float | None  # device − host, estimated at the smallest round trip
    round_trip_us: float | None
    twin_residual: float | None
    counters: Counters
    recalibrate: str = ""  # why a new calibration is asked for, "" when it is not
    info: dict[str, Any]


CommandReply = (
    Done | Welcome | Leased | Measured | Applied | Sampled | Driven | Refused
    | Coefficients | Ran | EmulatorState | Calibrated
)  # fmt: skip
EnquiryReply = Done | StatusReport | Refused

_ENCODER = msgspec.msgpack.Encoder()


def pack(message: BusStruct, *arrays: AnyArray) -> list[bytes | memoryview]:
    """Return the frames of a message and its arrays, in the order of its ArrayRefs."""
    large = [np.ascontiguousarray(a).data.cast("B") for a in arrays if a.nbytes > INLINE]
    return [_ENCODER.encode(message), *large]


def unpack(
    decoder: msgspec.msgpack.Decoder[Any], frames: Sequence[bytes]
) -> tuple[Any, list[AnyArray]]:
    """Return the message and its arrays.

    Raises LinkError when the header is not one of the decoder's messages, or a frame's
    size is not what its ArrayRef says.
    """
    if not frames:
        raise LinkError("bus message without a header frame")
    try:
        message = decoder.decode(frames[0])
    except (msgspec.DecodeError, RecursionError) as error:
        raise LinkError(f"bus message refused: {error}") from None
    kind: type[BusStruct] = type(message)
    refs: list[ArrayRef] = []
    for name in _array_fields(kind):
        found = getattr(message, name)
        refs += found if isinstance(found, tuple) else [found] * (found is not None)
    framed = sum(ref.data is None for ref in refs)
    if framed != len(frames) - 1:
        raise LinkError(
            f"bus message {message.__struct_config__.tag}: {framed} array frames declared, "
            f"{len(frames) - 1} sent"
        )
    rest = iter(frames[1:])
    return message, [_array(ref, next(rest) if ref.data is None else ref.data) for ref in refs]


@functools.cache
def _array_fields(kind: type[BusStruct]) -> tuple[str, ...]:
    hints = get_type_hints(kind)
    return tuple(
        name
        for name in kind.__struct_fields__
        if hints[name] is ArrayRef or ArrayRef in get_args(hints[name])  # may be None, or many
    )


def _array(ref: ArrayRef, frame: bytes) -> AnyArray:
    size = _size(ref.dtype, ref.shape)
    if size > ARRAY_BYTES_MAX or size != len(frame):
        raise LinkError(
            f"bus array of shape {ref.shape} needs {size} bytes, {len(frame)} sent, "
            f"{ARRAY_BYTES_MAX} allowed"
        )
    return np.ndarray(ref.shape, ref.dtype, frame)


@functools.lru_cache(maxsize=1024)
def _size(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes an array needs."""
    if len(shape) > 4 or any(n < 0 for n in shape):
        raise LinkError(f"bus array of shape {shape} refused")
    return math.prod(shape) * np.dtype(dtype).itemsize


def telemetry(topic: str, values: dict[str, Any], t_ns: int) -> list[bytes]:
    """Return the three frames of a telemetry message (PlotJuggler's ZeroMQ format)."""
    return [topic.encode(), _ENCODER.encode(values), f"{t_ns / 1e9:.9f}".encode()]
