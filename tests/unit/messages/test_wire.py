"""One declaration, two languages: layouts, the C header, frames on a bad line."""

from __future__ import annotations

import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.messages import layout, wire
from hil.messages.frame import FRAME_MAX, FrameParser, encode
from hil.messages.layout import F32, U8, U16, U32, U64, Message, message, schema_crc

ROOT = Path(__file__).parents[3]


def sample(kind: type[Message]) -> Message:
    """Return a message with a different value in every field."""
    values: list[object] = []
    for number, field in enumerate(kind.LAYOUT, start=1):
        length = field.kind.length
        values.append(tuple(range(number, number + length)) if length else number)
    return kind(*values)


@pytest.mark.parametrize("kind", wire.MESSAGES, ids=lambda k: k.__name__)
def test_every_message_survives_a_frame(kind: type[Message]) -> None:
    said = sample(kind)
    (frame,) = FrameParser().feed(encode(said, seq=513))
    assert frame.message == said
    assert frame.seq == 513


def test_types_and_payloads_are_unambiguous() -> None:
    assert len({kind.TYPE for kind in wire.MESSAGES}) == len(wire.MESSAGES)
    largest = max(kind.STRUCT.size for kind in wire.MESSAGES)
    assert largest + 12 < FRAME_MAX


def test_c_lays_messages_out_as_python_does(tmp_path: Path) -> None:
    """Offsets and sizes as gcc sees them, against the declaration."""
    lines, expected = [], []
    for kind in wire.MESSAGES:
        name = f"wire_{layout.snake(kind.__name__)}_t"
        lines.append(f'printf("%zu\\n", sizeof({name}));')
        expected.append(kind.STRUCT.size)
        for field in kind.LAYOUT:
            lines.append(f'printf("%zu\\n", offsetof({name}, {field.name}));')
            expected.append(field.offset)
    source = tmp_path / "layout.c"
    source.write_text(
        f'#include <stdio.h>\n#include "{ROOT}/firmware/generated/wire.h"\n'
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    program = tmp_path / "layout"
    subprocess.run(["cc", "-std=c11", "-Werror", "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert [int(line) for line in output.split()] == expected


def test_the_committed_header_is_fresh() -> None:
    assert (ROOT / "firmware/generated/wire.h").read_text() == wire.header()


def test_a_layout_that_c_would_pad_is_refused() -> None:
    @dataclass(frozen=True)
    class Gap(Message):
        """Four bytes missing before the u64."""

        small: Annotated[int, U32, "-"]
        large: Annotated[int, U64, "-"]

    @dataclass(frozen=True)
    class Tail(Message):
        """Three bytes missing at the end."""

        large: Annotated[int, U32, "-"]
        small: Annotated[int, U8, "-"]

    with pytest.raises(TypeError, match=r"Gap\.large: offset 4"):
        message(0x30)(Gap)
    with pytest.raises(TypeError, match="Tail: 5 bytes"):
        message(0x30)(Tail)


def test_the_schema_crc_sees_every_change() -> None:
    @dataclass(frozen=True)
    class One(Message):
        """First version."""

        value: Annotated[int, U16, "V"]

    @dataclass(frozen=True)
    class Renamed(Message):
        """Another name."""

        level: Annotated[int, U16, "V"]

    @dataclass(frozen=True)
    class Longer(Message):
        """Another length."""

        value: Annotated[tuple[float, ...], F32[2], "V"]

    kinds = [message(0x30)(One), message(0x31)(One), message(0x30)(Renamed), message(0x30)(Longer)]
    crcs = set()
    for type_id, kind in zip((0x30, 0x31, 0x30, 0x30), kinds, strict=True):
        kind.TYPE = type_id
        crcs.add(schema_crc([kind]))
    assert len(crcs) == 4


def test_the_frame_is_what_the_page_says() -> None:
    """Header, payload, zlib CRC-32, COBS: taken apart by hand."""
    data = encode(wire.TimeRequest(0x0102030405060708), seq=0x0A0B)
    assert data[-1] == 0
    assert 0 not in data[:-1]
    body, at = b"", 0
    while at < len(data) - 1:  # COBS, from its definition
        code = data[at]
        body += data[at + 1 : at + code]
        at += code
        if code != 255 and at < len(data) - 1:
            body += b"\0"
    assert body[:4] == struct.pack("<BBH", 0x02, 0, 0x0A0B)
    assert body[4:12] == struct.pack("<Q", 0x0102030405060708)
    assert body[12:] == struct.pack("<I", zlib.crc32(body[:12]))


@given(st.binary(max_size=3000), st.integers(1, 64))
def test_garbage_is_dropped_and_the_next_frame_is_heard(garbage: bytes, piece: int) -> None:
    parser = FrameParser()
    stream = garbage + b"\0" + encode(wire.Apply(28), seq=9)
    heard = [f for at in range(0, len(stream), piece) for f in parser.feed(stream[at : at + piece])]
    assert heard[-1].message == wire.Apply(28)


def test_a_million_bad_bytes_never_crash_and_are_counted() -> None:
    """Random bytes, truncated, bit-flipped, reordered and duplicated frames."""
    rng = np.random.default_rng(7)
    parser = FrameParser()
    heard = sum(1 for _ in parser.feed(rng.bytes(1_000_000)))
    assert heard == 0
    assert parser.counters.bad_frames > 1000
    good = encode(wire.State(1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 2, 16), seq=77)
    before = parser.counters.bad_frames
    list(parser.feed(b"\0"))
    damaged = 0
    for _ in range(5000):
        frame = bytearray(good)
        if rng.random() < 0.5:
            frame = frame[: rng.integers(1, len(good) - 1)] + b"\0"
        else:
            bit = int(rng.integers(0, 8 * (len(good) - 1)))
            frame[bit // 8] ^= 1 << bit % 8
        damaged += 1
        assert not list(parser.feed(bytes(frame)))
    assert parser.counters.bad_frames >= before + damaged
    twice = list(parser.feed(good + good))
    assert [f.seq for f in twice] == [77, 77]


def test_a_good_frame_of_unknown_type_or_size_is_counted_apart() -> None:
    parser = FrameParser()
    from cobs import cobs

    for body in (struct.pack("<BBH", 0x7E, 0, 1), struct.pack("<BBH", 0x02, 0, 1) + b"\1"):
        data = cobs.encode(body + zlib.crc32(body).to_bytes(4, "little")) + b"\0"
        assert list(parser.feed(data)) == []
    assert parser.counters.unknown == 2
    assert parser.counters.bad_frames == 0
