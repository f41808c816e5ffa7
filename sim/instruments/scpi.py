"""The instrument's side of SCPI: bytes → commands, commands → a table of functions.

What is understood of IEEE 488.2 and SCPI-99: long and short keywords in any case, optional
ones in brackets, `;` with the path rule, common commands (`*IDN?`), numbers, words and
definite-length blocks. One message is one line; a block may hold any byte.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from hil.messages.scpi import BLOCK_BYTES_MAX, TEXTS, ErrorCode, Report

LINE_BYTES_MAX = 64 * 1024  # of a message without its blocks
QUEUE_LENGTH = 32
MARKS = re.compile(rb"[#;\n]")
BLOCK_PATIENCE_S = 1.0  # between two bytes of a block, before it is given up

Parameter = str | bytes
"""A parameter as it was written, or the bytes of a block."""


class ScpiError(Exception):
    """What a command is answered with in the error queue."""

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True)
class Call:
    """One command of a message: its header in full, from the root, and its parameters."""

    header: str
    parameters: tuple[Parameter, ...]

    def number(self, index: int, low: float = -1e30, high: float = 1e30) -> float:
        """Return a parameter as a number inside bounds."""
        word = self._parameter(index)
        try:
            value = float(word if isinstance(word, str) else "block")
        except ValueError:
            raise ScpiError(ErrorCode.DATA_TYPE, f"parameter {index + 1}: a number") from None
        if not low <= value <= high:  # false for NaN as well
            raise ScpiError(
                ErrorCode.OUT_OF_RANGE, f"parameter {index + 1}: {value:g} not in {low:g}..{high:g}"
            )
        return value

    def integer(self, index: int, low: int = 0, high: int = 1 << 30) -> int:
        """Return a parameter as a whole number inside bounds."""
        value = self.number(index, low, high)
        if value != int(value):
            raise ScpiError(ErrorCode.DATA_TYPE, f"parameter {index + 1}: a whole number")
        return int(value)

    def word(self, index: int, *known: str) -> str:
        """Return the long form of a parameter that is one of some words, `MASS`, `LENGth`."""
        word = self._parameter(index)
        for name in known:
            if isinstance(word, str) and word.upper() in _forms(name):
                return name.upper()
        raise ScpiError(ErrorCode.DATA_TYPE, f"parameter {index + 1}: {', '.join(known)}")

    def block(self, index: int, length: int) -> bytes:
        """Return a parameter as a block of `length` bytes."""
        data = self._parameter(index)
        if not isinstance(data, bytes):
            raise ScpiError(ErrorCode.DATA_TYPE, f"parameter {index + 1}: a block")
        if len(data) != length:
            raise ScpiError(
                ErrorCode.INVALID_BLOCK, f"{len(data)} bytes, expected {length}; nothing was set"
            )
        return data

    def count(self, low: int, high: int | None = None) -> int:
        """Check how many parameters there are and return it."""
        found = len(self.parameters)
        if not low <= found <= (low if high is None else high):
            raise ScpiError(ErrorCode.PARAMETER_COUNT, f"{found} given")
        return found

    def _parameter(self, index: int) -> Parameter:
        if index >= len(self.parameters):
            raise ScpiError(ErrorCode.PARAMETER_COUNT, f"{len(self.parameters)} given")
        return self.parameters[index]


Handler = Callable[[Call], bytes | str | None]


class CommandTable:
    """Headers as manuals write them, `COEFficient:DATA?`, and what each of them does."""

    def __init__(self, commands: dict[str, Handler]) -> None:
        self._handlers: dict[str, Handler] = {}
        for pattern, handler in commands.items():
            for header in spellings(pattern):
                assert header not in self._handlers, f"{header} means two things"
                self._handlers[header] = handler

    def handler(self, call: Call) -> Handler:
        """Return what a command does; raises ScpiError for an unknown one."""
        try:
            return self._handlers[call.header]
        except KeyError:
            raise ScpiError(ErrorCode.UNDEFINED_HEADER, call.header[:60]) from None


def spellings(pattern: str) -> list[str]:
    """Return every way to write a header, `SYSTem:ERRor[:NEXT]?` has six."""
    query = "?" if pattern.endswith("?") else ""
    parts = re.findall(r"(\[)?:?([*A-Za-z]+)\]?", pattern.rstrip("?"))
    choices = [_forms(word) | ({""} if optional else set()) for optional, word in parts]
    return [":".join(filter(None, words)) + query for words in product(*choices)]


def _forms(keyword: str) -> set[str]:
    short = "".join(letter for letter in keyword if not letter.islower())
    return {short, keyword.upper()}


class ErrorQueue:
    """The errors nobody has asked for yet; the oldest stay when it is full."""

    def __init__(self) -> None:
        self._waiting: deque[Report] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, code: ErrorCode, detail: str = "") -> None:
        """Note an error."""
        text = TEXTS[code] + (f";{detail}" if detail else "")
        if len(self._waiting) == QUEUE_LENGTH - 1:
            code, text = ErrorCode.QUEUE_OVERFLOW, TEXTS[ErrorCode.QUEUE_OVERFLOW]
        if len(self._waiting) < QUEUE_LENGTH:
            self._waiting.append(Report(code, text.replace('"', "'").replace("\n", " ")))

    def take(self) -> str:
        """Return the oldest as `SYSTem:ERRor?` answers."""
        report = self._waiting.popleft() if self._waiting else Report(0, TEXTS[ErrorCode.NO_ERROR])
        return f'{report.code:d},"{report.text}"'

    def clear(self) -> None:
        """Forget them."""
        self._waiting.clear()


class MessageParser:
    """Turns what arrives into messages; each is a list of calls, or the error it is.

    A block that does not end as it said is given up after BLOCK_PATIENCE_S without a byte.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fed = 0.0
        self._skipping = False  # the rest of a line that was refused

    def feed(self, data: bytes) -> list[list[Call] | ScpiError]:
        """Take bytes; return the messages that are complete now."""
        self._buffer += data
        self._fed = time.monotonic()
        found: list[list[Call] | ScpiError] = []
        while True:
            if self._skipping:  # what is in step again begins after the next line end
                _, line_end, self._buffer = self._buffer.partition(b"\n")
                self._skipping = not line_end
            try:
                end, calls = _message(self._buffer)
            except ScpiError as error:
                self._skipping = True
                found.append(error)
                continue
            if end < 0:
                return found
            self._buffer = self._buffer[end:]
            found.append(calls)

    def stuck(self) -> ScpiError | None:
        """Give up a block that stopped coming; return the error that this is."""
        if not self._buffer or time.monotonic() - self._fed < BLOCK_PATIENCE_S:
            return None
        if b"#" not in self._buffer:
            return None  # a line somebody types by hand
        self._buffer.clear()
        return ScpiError(ErrorCode.INVALID_BLOCK, "fewer bytes than its length says")


def _message(buffer: bytearray) -> tuple[int, list[Call]]:
    """Return where the first message ends and its calls; (−1, []) while it is incomplete."""
    calls: list[Call] = []
    path: list[str] = []
    pieces: list[Parameter] = []  # of one command: text, and blocks between it
    at = light = 0  # light: bytes outside of blocks
    while mark := MARKS.search(buffer, at):
        start = mark.start()
        light += start - at + 1
        if light > LINE_BYTES_MAX:
            break
        pieces.append(buffer[at:start].decode("ascii", "replace"))
        at = start + 1
        if mark[0] == b"#":
            found = _block(buffer, start)
            if found is None or found[1] >= len(buffer):
                return -1, []
            if buffer[found[1]] not in b",;\r\n \t":
                raise ScpiError(ErrorCode.INVALID_BLOCK, "more bytes than its length says")
            pieces.append(bytes(buffer[slice(*found)]))
            at = found[1]
            continue
        head, _, first = str(pieces[0]).strip().partition(" ")
        if head:
            header, path = _absolute(head, path)
            calls.append(Call(header, tuple(_parameters([first, *pieces[1:]]))))
        pieces = []
        if mark[0] == b"\n":
            return at, calls
    if light + len(buffer) - at > LINE_BYTES_MAX:
        raise ScpiError(ErrorCode.BUFFER_OVERRUN, f"a line of more than {LINE_BYTES_MAX} bytes")
    return -1, []


def _parameters(pieces: list[Parameter]) -> Iterator[Parameter]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from filter(None, (word.strip() for word in piece.split(",")))


def _block(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return where the bytes of the block at `at` begin and end; None: not there yet."""
    if len(buffer) < at + 2:
        return None
    count = buffer[at + 1] - ord("0")
    if not 1 <= count <= 9:
        raise ScpiError(ErrorCode.INVALID_BLOCK, "a length of 1 to 9 digits follows the #")
    digits = bytes(buffer[at + 2 : at + 2 + count])
    if not digits.isdigit():
        if len(digits) < count and (not digits or digits.isdigit()):
            return None
        raise ScpiError(ErrorCode.INVALID_BLOCK, "its length is no number")
    if len(digits) < count:
        return None
    if int(digits) > BLOCK_BYTES_MAX:
        raise ScpiError(ErrorCode.TOO_MUCH_DATA, f"a block of {int(digits)} bytes")
    start = at + 2 + count
    return start, start + int(digits)


def _absolute(head: str, path: list[str]) -> tuple[str, list[str]]:
    """Return a header from the root and the path the next one starts from (SCPI-99, 6.2.4)."""
    upper = head.upper()
    if upper.startswith("*"):
        return upper, path
    keywords = upper.lstrip(":").split(":")
    if not upper.startswith(":"):
        keywords = path + keywords
    return ":".join(keywords), keywords[:-1]
