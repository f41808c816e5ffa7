"""Messages between processes: what is refused, and that arrays arrive as they left."""

from __future__ import annotations

import pickle

import msgspec
import numpy as np
import pytest

from hil.errors import LinkError
from hil.messages import bus

COMMANDS = msgspec.msgpack.Decoder(bus.Command)


def settle(loads: np.ndarray) -> list[bytes]:
    request = bus.Settle(
        seq=1, t_ns=2, deadline_ns=3, lease="x", token=4, valid_until_us=5,
        loads=bus.ArrayRef.of(loads),
    )  # fmt: skip
    return [bytes(frame) for frame in bus.pack(request, loads)]


def test_arrays_arrive_as_they_left() -> None:
    loads = np.random.default_rng(0).normal(size=(16, 24))
    message, (array,) = bus.unpack(COMMANDS, settle(loads))
    assert isinstance(message, bus.Settle)
    np.testing.assert_array_equal(array, loads)
    assert array.dtype == np.float64


def run_batch(*arrays: np.ndarray) -> list[bytes]:
    inputs, initial = map(bus.ArrayRef.of, arrays)
    request = bus.RunBatch(
        seq=1, t_ns=2, deadline_ns=3, lease="x", every=1, inputs=inputs, initial=initial
    )  # fmt: skip
    return [bytes(frame) for frame in bus.pack(request, *arrays)]


def test_small_arrays_ride_in_the_message_and_large_ones_in_frames() -> None:
    random = np.random.default_rng(1)
    for steps, frames in ((3, 1), (2000, 2)):
        sent = random.normal(size=(1, steps, 1)).astype("f4"), random.normal(size=(2, 4))[:, ::-1]
        packed = run_batch(*sent)
        assert len(packed) == frames
        _, found = bus.unpack(COMMANDS, packed)
        for array, was in zip(found, sent, strict=True):
            np.testing.assert_array_equal(array, was)
            assert array.dtype == was.dtype
            assert array.flags.aligned
    (head,) = run_batch(np.zeros((1, 3, 1)), np.zeros((2, 4)))
    claim = msgspec.msgpack.decode(head)
    for size in (0, 56, 72):
        claim["initial"]["data"] = bytes(size)
        with pytest.raises(LinkError, match=f"needs 64 bytes, {size} sent"):
            bus.unpack(COMMANDS, [msgspec.msgpack.encode(claim)])


@pytest.mark.parametrize("at_rest", [True, False])
def test_an_array_that_may_be_absent_is_counted_when_it_is_there(at_rest: bool) -> None:
    inputs, initial = np.ones((2, 3, 1)), np.zeros((2, 8))
    request = bus.RunBatch(
        seq=1, t_ns=2, deadline_ns=3, lease="x", every=1, inputs=bus.ArrayRef.of(inputs),
        initial=None if at_rest else bus.ArrayRef.of(initial),
    )  # fmt: skip
    sent = (inputs,) if at_rest else (inputs, initial)
    _, found = bus.unpack(COMMANDS, [bytes(frame) for frame in bus.pack(request, *sent)])
    assert len(found) == len(sent)
    for array, was in zip(found, sent, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc1"],
        [b"\x80"],
        [msgspec.msgpack.encode({"type": "launch"})],
        [msgspec.msgpack.encode({"type": "hello", "seq": 1, "t_ns": 0, "deadline_ns": 0, "x": 1})],
        [msgspec.msgpack.encode({"type": "hello", "seq": "1", "t_ns": 0, "deadline_ns": 0})],
        [pickle.dumps({"type": "hello"})],
        [b"\x91" * 5000],
        settle(np.zeros((200, 30)))[:1],
        [*settle(np.zeros((2, 3))), b"more"],
        [settle(np.zeros((200, 30)))[0], b"short"],
    ],
)
def test_what_is_not_a_message_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(LinkError, match="bus"):
        bus.unpack(COMMANDS, frames)


@pytest.mark.parametrize("shape", [(1 << 27,), (-1, 4), (1, 1, 1, 1, 1), (1 << 62, 1 << 62)])
def test_a_size_is_checked_before_it_is_believed(shape: tuple[int, ...]) -> None:
    header = {
        "type": "set_stiffness", "seq": 1, "t_ns": 0, "deadline_ns": 0, "lease": "x",
        "stiffness": {"type": "array", "dtype": "<f8", "shape": shape},
    }  # fmt: skip
    with pytest.raises(LinkError):
        bus.unpack(COMMANDS, [msgspec.msgpack.encode(header), b"\0" * 8])


def test_object_arrays_cannot_be_described() -> None:
    with pytest.raises(msgspec.ValidationError):
        bus.ArrayRef.of(np.array([object()]))


def test_telemetry_is_what_plotjuggler_reads() -> None:
    topic, body, stamp = bus.telemetry("rig/state", {"seq": 1, "t_ns": 5}, 1_500_000_000)
    assert topic == b"rig/state"
    assert msgspec.msgpack.decode(body) == {"seq": 1, "t_ns": 5}
    assert float(stamp) == 1.5
