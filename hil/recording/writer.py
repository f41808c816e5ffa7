"""Writes one recording: MCAP, zstd chunks of half a second, JSON channels with schemas.

The same messages give the same bytes: nothing here reads a clock, and the file names
`hil` as its library without a version. What a kill of the process can lose is what was
written since the last closed chunk, less than half a second of the messages' own time.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Self

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer

from hil.errors import InputError, RunError, StateError

CHUNK_NS = 500_000_000  # longest span of message time that waits in memory
LIBRARY = "hil"
PACKAGES = ("hil", "numpy", "scipy", "msgspec", "mcap", "zstandard", "pyzmq", "pyserial", "cobs")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def json_schema(kind: type[msgspec.Struct]) -> bytes:
    """Return the JSON Schema of `kind` with `"type": "object"` at its root.

    MCAP readers ask for that form; msgspec gives a reference at the root.
    """
    (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    name = root["$ref"].removeprefix("#/$defs/")
    return msgspec.json.encode({**parts[name], "$defs": parts})


class Recorder:
    """The writer of one file, for one thread; a context manager.

    path: a file that does not exist yet. channels: topic → Struct. metadata: name →
    texts, written first so that a killed file has them. A float that is not finite is
    stored as null.
    """

    def __init__(
        self,
        path: Path,
        channels: Mapping[str, type[msgspec.Struct]],
        metadata: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.path = path
        self.messages = 0
        self._kinds = dict(channels)
        self._metadata = {name: dict(texts) for name, texts in metadata.items()}
        self._encoder = msgspec.json.Encoder()
        self._ids: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._writer: Writer | None = None
        self._since_ns: int | None = None  # message time up to which the file is on disk
        self._closed = False

    def open(self) -> Self:
        """Make the file, with its metadata on disk.

        Raises InputError when the file exists or cannot be made, StateError when the
        recorder was opened before.
        """
        if self._closed or self._writer is not None:
            raise StateError(f"{self.path}: this recorder was opened before; make a new one")
        schemas = {topic: json_schema(kind) for topic, kind in self._kinds.items()}
        try:
            self._file = self.path.open("xb")
        except FileExistsError:
            raise InputError(
                f"{self.path}: exists, and a recording is never written over"
            ) from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be made: {error.strerror}") from None
        # The checksum over the data section lets a reader find damage outside chunks.
        writer = Writer(self._file, compression=CompressionType.ZSTD, enable_data_crcs=True)
        self._writer = writer
        try:
            writer.start(profile="", library=LIBRARY)
            for name, texts in self._metadata.items():
                writer.add_metadata(name, texts)
            for topic, schema in schemas.items():
                number = writer.register_schema(
                    self._kinds[topic].__name__, SchemaEncoding.JSONSchema, schema
                )
                self._ids[topic] = writer.register_channel(topic, MessageEncoding.JSON, number)
            writer.flush()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise self._abandon(error) from None
        return self

    def write(self, topic: str, message: msgspec.Struct, t_ns: int) -> None:
        """Add one message; t_ns: its time in nanoseconds, 0 or later.

        Closes the chunk when it spans half a second. Raises InputError for an undeclared
        topic, another Struct than declared or a negative time, StateError when the
        recorder is not open, RunError when the disk refuses.
        """
        writer = self._opened("write")
        kind = self._kinds.get(topic)
        if kind is None:
            raise InputError(
                f"{self.path}: topic {topic!r} is not declared; declared: {', '.join(self._kinds)}"
            )
        if type(message) is not kind:
            raise InputError(
                f"{self.path}: topic {topic!r} takes {kind.__name__}, got {type(message).__name__}"
            )
        if not 0 <= t_ns < 2**64:
            raise InputError(f"{self.path}: topic {topic!r}: t_ns = {t_ns} is outside 0 … 2^64")
        data = self._encoder.encode(message)
        try:
            # One count over all topics: a gap tells the reader that a chunk is missing.
            writer.add_message(self._ids[topic], t_ns, data, t_ns, self.messages % 2**32)
        except OSError as error:
            raise self._abandon(error) from None
        self.messages += 1
        if self._since_ns is None:
            self._since_ns = t_ns
        self.flush_if_due(t_ns)

    def flush_if_due(self, t_ns: int) -> None:
        """Close the chunk when half a second has passed at time `t_ns`.

        `write` does this by itself; a loop under a wall clock calls it too when it has
        nothing to write, so that the last message never waits long. Under a virtual clock
        leave it to `write`: chunks then depend on the messages alone.
        """
        # A clock that was set back also closes the chunk.
        if self._since_ns is not None and abs(t_ns - self._since_ns) >= CHUNK_NS:
            self.flush()
            self._since_ns = t_ns

    def flush(self) -> None:
        """Close the chunk and hand everything to the operating system (no fsync)."""
        writer = self._opened("flush")
        try:
            writer.flush()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise self._abandon(error) from None

    def close(self) -> None:
        """Write the index and close the file; may be called twice.

        Raises RunError when the disk refuses.
        """
        self._closed = True
        writer, file = self._writer, self._file
        self._writer = self._file = None
        if writer is None or file is None:
            return
        try:
            with file:
                writer.finish()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _opened(self, call: str) -> Writer:
        if self._writer is None:
            state = "closed" if self._closed else "not open yet; call open() first"
            raise StateError(f"{self.path}: {call}() refused, the recording is {state}")
        return self._writer

    def _abandon(self, error: OSError) -> RunError:
        # Half a chunk may be on disk, and whatever followed it could not be read.
        self._closed = True
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._writer = self._file = None
        return self._refused(error)

    def _refused(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path}: the recording cannot be written: {error.strerror}; what was "
            "written before stays readable"
        )
