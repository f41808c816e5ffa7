"""Reads recordings: finished ones, and what a killed process or a damaged disk left.

A file is read from its start to the first damage. Chunks carry a checksum, messages
are numbered through the file, and a finished file has checksums over its data and its
index, so damage is found, reported and never passed on as data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import msgspec
import zstandard
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Chunk, DataEnd, Footer, Header, McapRecord, Message, Metadata
from mcap.stream_reader import MAGIC_SIZE, CRCValidationError, StreamReader, breakup_chunk
from mcap.well_known import MessageEncoding
from mcap.writer import MCAP0_MAGIC

from hil.errors import InputError
from hil.recording.writer import LIBRARY

S = TypeVar("S", bound=msgspec.Struct)

# What the parser of a damaged file can raise: its own errors, a checksum, a field that
# is short, a text that is not UTF-8, a chunk that does not decompress, a length that
# cannot be held, a disk that cannot be read. (CRCValidationError and UnicodeDecodeError
# are ValueErrors.)
DAMAGE = (
    McapError,
    ValueError,
    struct.error,
    zstandard.ZstdError,
    OverflowError,
    MemoryError,
    OSError,
)


class Record(NamedTuple):
    """One message of a recording."""

    topic: str
    t_ns: int  # ns
    data: dict[str, Any]


class Recording:
    """One file, read in the order it was written; iterating yields `Record`s.

    After an iteration `damage` says why it ended early, or is empty when the file is
    whole; `messages` counts what was read. Raises InputError when the file is missing
    or was never a recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = "not read to the end"
        self.messages = 0

    @property
    def complete(self) -> bool:
        """Whether the last iteration reached the end of a whole, closed file."""
        return not self.damage

    def __iter__(self) -> Iterator[Record]:
        for topic, t_ns, data in self.raw():
            yield Record(topic, t_ns, msgspec.json.decode(data))

    def raw(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time in nanoseconds and JSON text of every message."""
        self.damage, self.messages = "not read to the end", 0
        channels: dict[int, str] = {}
        ours = False
        with _opened(self.path) as file:
            try:
                for record in _records(file):
                    if isinstance(record, Header):
                        ours = record.library == LIBRARY
                    elif isinstance(record, Channel):
                        if record.message_encoding != MessageEncoding.JSON:
                            raise InputError(
                                f"{self.path}: topic {record.topic!r} is encoded as "
                                f"{record.message_encoding!r}; only 'json' can be read"
                            )
                        channels[record.id] = record.topic
                    elif isinstance(record, Message):
                        if record.channel_id not in channels or (
                            ours and record.sequence != self.messages % 2**32
                        ):
                            raise McapError(f"a chunk is missing after message {self.messages}")
                        self.messages += 1
                        yield channels[record.channel_id], record.log_time, record.data
                self.damage = ""
            except DAMAGE as error:
                self.damage = _describe(error, file)


def read(path: str | Path) -> Recording:
    """Return the recording at `path`, to be iterated; see `Recording`."""
    return Recording(path)


def read_as(path: str | Path, topic: str, kind: type[S]) -> Iterator[tuple[int, S]]:
    """Yield time in nanoseconds and Struct of each message of one topic.

    Damage ends it early without an error; iterate a `Recording` to learn of it. Raises
    InputError when a message is not what `kind` says.
    """
    decoder = msgspec.json.Decoder(kind)
    for found, t_ns, data in Recording(path).raw():
        if found != topic:
            continue
        try:
            yield t_ns, decoder.decode(data)
        except msgspec.ValidationError as error:
            raise InputError(
                f"{path}: topic {topic!r} at {t_ns} ns is not a {kind.__name__}: {error}"
            ) from None


def read_metadata(path: str | Path) -> dict[str, dict[str, str]]:
    """Return what the recorder wrote before the first message: name → texts.

    Of a file killed before that was whole, what there is. Raises InputError when the
    file is missing or was never a recording.
    """
    found: dict[str, dict[str, str]] = {}
    with _opened(Path(path)) as file:
        try:
            for record in StreamReader(file, emit_chunks=True, record_size_limit=None).records:
                if isinstance(record, Chunk):
                    break
                if isinstance(record, Metadata):
                    found[record.name] = record.metadata
        except DAMAGE:
            pass
    return found


def _opened(path: Path) -> IO[bytes]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    magic = file.read(MAGIC_SIZE)
    if not MCAP0_MAGIC.startswith(magic):
        file.close()
        raise InputError(f"{path}: not a recording (MCAP)")
    file.seek(0)
    return file


def _records(file: IO[bytes]) -> Iterator[McapRecord]:
    """Yield the records of the data section and check every checksum in the file."""
    size = file.seek(0, 2)
    file.seek(0)
    in_data = True
    last: McapRecord | None = None
    # A record longer than the file is damage, found before memory is asked for it.
    for last in StreamReader(
        file, emit_chunks=True, validate_crcs=True, record_size_limit=size
    ).records:
        in_data = in_data and not isinstance(last, DataEnd)
        if in_data and isinstance(last, Chunk):
            yield from breakup_chunk(last, validate_crc=True)
        elif in_data:
            yield last
    if in_data or not isinstance(last, Footer) or file.tell() != size:
        raise McapError("the end of the file is not where it belongs")
    if last.summary_crc == 0:  # written by somebody who does without
        return
    # Summary and footer, up to the footer's own checksum and the closing magic.
    file.seek(last.summary_start)
    if zlib.crc32(file.read(size - MAGIC_SIZE - 4 - last.summary_start)) != last.summary_crc:
        raise McapError("the index does not match its checksum")


def _describe(error: BaseException, file: IO[bytes]) -> str:
    size = file.seek(0, 2)
    if isinstance(error, EndOfFile):
        return f"ends without being closed, after {size} bytes"
    if isinstance(error, CRCValidationError):
        return f"checksum of a {type(error.record).__name__} is wrong"
    return str(error) or type(error).__name__
