"""Reads a recording while another process writes it: whole chunks, as they come to be on disk.

The writer closes a chunk at least every half second of message time; what it has not closed yet
is not there. Nothing is locked and the writer knows nothing of its readers.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Chunk, Message
from mcap.stream_reader import MAGIC_SIZE, StreamReader, breakup_chunk

from hil.errors import InputError, RunError
from hil.recording.reader import DAMAGE

HEAD = struct.Struct("<BQ")  # of a record: opcode, length of what follows


class Follower:
    """The messages of a recording that grows, each once; for one thread.

    Raises InputError where the recording cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = MAGIC_SIZE  # up to where the file has been read
        self._topics: dict[int, str] = {}

    def fresh(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time in nanoseconds and JSON text of what has come since the last call.

        Raises RunError for a chunk that is not what was written.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._at)
                content = file.read()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from None
        whole = _whole(content)
        try:
            yield from self._messages(content[:whole])
        except DAMAGE as error:
            raise RunError(f"{self.path}: damaged after {self._at} bytes: {error}") from None
        self._at += whole

    def _messages(self, content: bytes) -> Iterator[tuple[str, int, bytes]]:
        reader = StreamReader(BytesIO(content), skip_magic=True, emit_chunks=True)
        with contextlib.suppress(EndOfFile):  # the end of what there is, between two records
            for record in reader.records:
                if isinstance(record, Channel):
                    self._topics[record.id] = record.topic
                elif isinstance(record, Chunk):
                    for inner in breakup_chunk(record, validate_crc=True):
                        if isinstance(inner, Channel):
                            self._topics[inner.id] = inner.topic
                        elif isinstance(inner, Message):
                            yield self._topics[inner.channel_id], inner.log_time, inner.data


def _whole(content: bytes) -> int:
    """Return how many bytes the records at the beginning have that are there to their ends."""
    at = 0
    while at + HEAD.size <= len(content):
        _, length = HEAD.unpack_from(content, at)
        if at + HEAD.size + length > len(content):
            break
        at += HEAD.size + length
    return at
