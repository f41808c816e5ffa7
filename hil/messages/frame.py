"""Frames on a byte stream: type, flags, seq, payload, CRC-32, COBS, 0x00."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cobs import cobs

from hil.messages.layout import Message
from hil.messages.wire import BY_TYPE

HEADER = struct.Struct("<BBH")
FRAME_MAX = 1024  # bytes between two delimiters beyond which a frame is dropped


@dataclass(frozen=True)
class Frame:
    """One good frame."""

    seq: int
    message: Message
    flags: int = 0


@dataclass
class FrameCounters:
    """What came over a link, good and bad."""

    frames: int = 0
    bad_frames: int = 0  # COBS, length or CRC
    unknown: int = 0  # good CRC, unknown type or wrong payload size


def encode(message: Message, seq: int = 0, flags: int = 0) -> bytes:
    """Return the bytes of one frame, delimiter included."""
    body = HEADER.pack(message.TYPE, flags, seq) + message.pack()
    return bytes(cobs.encode(body + zlib.crc32(body).to_bytes(4, "little"))) + b"\0"


class FrameParser:
    """Cuts a byte stream into frames; bad ones are counted and dropped."""

    def __init__(self) -> None:
        self.counters = FrameCounters()
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the good frames completed by `data`."""
        self._buffer += data
        *complete, rest = self._buffer.split(b"\0")
        self._buffer = rest
        if len(self._buffer) > FRAME_MAX:
            self._buffer.clear()
            self.counters.bad_frames += 1
        for chunk in complete:
            if chunk and (frame := self._decode(bytes(chunk))) is not None:
                yield frame

    def _decode(self, chunk: bytes) -> Frame | None:
        counters = self.counters
        try:
            body = cobs.decode(chunk)
        except cobs.DecodeError:
            body = b""
        if len(body) < 8 or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
            counters.bad_frames += 1
            return None
        kind, flags, seq = HEADER.unpack_from(body)
        cls = BY_TYPE.get(kind)
        if cls is None or cls.STRUCT.size != len(body) - 8:
            counters.unknown += 1
            return None
        counters.frames += 1
        return Frame(seq, cls.unpack(body[4:-4]), flags)
