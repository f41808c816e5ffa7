"""One ngspice in one process: `python -m sim.circuits.child`; nothing but the standard library.

libngspice keeps its circuit in global variables and ends the process when it is unhappy.
Here it may: the parent (`sim.circuits.live`) reads of it in a closed pipe. Requests come on
stdin, answers go to stdout; each is four bytes of length, one letter, and what follows:

    L netlist      load it, tran included, up to its start   → L, or X and the reason
    S volts…       the nudges of a slice; operate for one slice → S volts… of the state
    (end)          the process ends, whatever it was doing

Between two slices the circuit is at halt: ngspice waits inside its own step for the next S.
A slice ends where the solver is made to land on its end.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_void_p
from typing import Any

LIBRARY = "libngspice.so.0"
FIRST = 1e-3  # of a slice: the first step after the nudges have jumped
CLOSE = 1e-9  # of a slice: the end has been reached


class VecValues(ctypes.Structure):
    """A vector's newest value, as `SendData` hands it over."""

    _fields_ = (
        ("name", c_char_p),
        ("creal", c_double),
        ("cimag", c_double),
        ("is_scale", c_bool),
        ("is_complex", c_bool),
    )


class VecValuesAll(ctypes.Structure):
    """All vectors at one point in time."""

    _fields_ = (
        ("veccount", c_int),
        ("vecindex", c_int),
        ("vecsa", POINTER(POINTER(VecValues))),
    )


SEND_CHAR = ctypes.CFUNCTYPE(c_int, c_char_p, c_int, c_void_p)
SEND_STAT = ctypes.CFUNCTYPE(c_int, c_char_p, c_int, c_void_p)
EXIT = ctypes.CFUNCTYPE(c_int, c_int, c_bool, c_bool, c_int, c_void_p)
SEND_DATA = ctypes.CFUNCTYPE(c_int, POINTER(VecValuesAll), c_int, c_int, c_void_p)
SEND_INIT = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)
THREAD = ctypes.CFUNCTYPE(c_int, c_bool, c_int, c_void_p)
GET_SOURCE = ctypes.CFUNCTYPE(c_int, POINTER(c_double), c_double, c_char_p, c_int, c_void_p)
GET_SYNC = ctypes.CFUNCTYPE(
    c_int, c_double, POINTER(c_double), c_double, c_int, c_int, c_int, c_void_p
)


class Child:
    """ngspice, and the two pipes to whoever asked for it."""

    def __init__(self, receive: int, send: int) -> None:
        self._receive, self._send = receive, send
        self._said: list[str] = []
        self._slice = 0.0
        self._end = 0.0  # s of the machine at which the present slice ends
        self._time = 0.0  # of the newest point
        self._inputs: dict[bytes, float] = {}
        self._sources: list[bytes] = []
        self._saved: list[bytes] = []
        self._order: list[int] = []
        self._newest: list[float] = []

    def run(self) -> None:
        """Load and operate until the parent goes."""
        spice = ctypes.CDLL(LIBRARY)
        held: tuple[Any, ...] = (
            SEND_CHAR(self._say),
            SEND_STAT(lambda *_: 0),
            EXIT(self._exit),
            SEND_DATA(self._data),
            SEND_INIT(lambda *_: 0),
            THREAD(lambda *_: 0),
            GET_SOURCE(self._source),
            GET_SYNC(self._sync),
        )
        spice.ngSpice_Init(*held[:6], None)
        spice.ngSpice_Init_Sync(held[6], None, held[7], ctypes.byref(c_int(0)), None)
        command: Callable[[bytes], int] = spice.ngSpice_Command
        while True:
            letter, body = self._hear()
            if letter != b"L":
                self._tell(b"X", b"no circuit is loaded")
                continue
            head, _, deck = body.partition(b"\n")
            self._slice, self._end, self._time = float(head.split(b"|")[0]), 0.0, 0.0
            self._sources, self._saved = (part.split() for part in head.split(b"|")[1:])
            self._order, self._newest = [], []
            self._said.clear()
            lines = deck.splitlines()
            if spice.ngSpice_Circ((c_char_p * (len(lines) + 1))(*lines, None)):
                self._tell(b"X", self._reason())
                continue
            # Comes back after the last slice; slices are asked for from within, in `_sync`.
            failed = command(b"run")
            if failed or self._end - self._time > CLOSE * self._slice or not self._end:
                self._tell(b"X", self._reason())
            else:
                self._answer()
            command(b"destroy all")
            command(b"remcirc")

    def _sync(
        self, time: float, delta: Any, _: float, __: int, ___: int, after: int, ____: Any
    ) -> int:
        """Wait where a slice ends; shorten a step that would go beyond its end."""
        if after:
            return 0
        if self._end - time <= CLOSE * self._slice:
            if self._end:
                self._answer()
            else:
                self._tell(b"L")
            self._listen()
            delta[0] = min(delta[0], FIRST * self._slice)
        delta[0] = min(delta[0], self._end - time)
        return 0

    def _data(self, values: Any, _: int, __: int, ___: Any) -> int:
        """Keep the newest point; ngspice reuses the memory it comes in."""
        vectors = values.contents.vecsa
        if not self._order:
            names = [vectors[i].contents.name.lower() for i in range(values.contents.veccount)]
            self._order = [names.index(name) for name in (*self._saved, b"time")]
        *self._newest, self._time = (vectors[i].contents.creal for i in self._order)
        return 0

    def _answer(self) -> None:
        """Tell the state at the end of a slice."""
        self._tell(b"S", struct.pack(f"<{len(self._newest)}d", *self._newest))

    def _listen(self) -> None:
        """Wait for the nudges of the next slice."""
        letter, body = self._hear()
        if letter != b"S" or len(body) != 8 * len(self._sources):
            os._exit(3)  # a parent that lost count
        volts = struct.unpack(f"<{len(self._sources)}d", body)
        self._inputs = dict(zip(self._sources, volts, strict=True))
        self._end += self._slice

    def _source(self, volts: Any, _: float, name: bytes, __: int, ___: Any) -> int:
        volts[0] = self._inputs.get(name.lower(), 0.0)
        return 0

    def _say(self, text: bytes, _: int, __: Any) -> int:
        self._said.append(text.decode("utf-8", "replace").partition(" ")[2].strip())
        return 0

    def _exit(self, status: int, *_: Any) -> int:
        os._exit(status or 1)

    def _reason(self) -> bytes:
        wrong = [line for line in self._said if "rror" in line or "too small" in line]
        return " ".join(wrong or self._said[-3:] or ["no reason"]).encode()

    def _hear(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack("<I", self._read(4))
        body = self._read(length)
        return body[:1], body[1:]

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = os.read(self._receive, count - len(data))
            if not piece:
                os._exit(0)  # nobody is left to answer
            data += piece
        return data

    def _tell(self, letter: bytes, body: bytes = b"") -> None:
        data = struct.pack("<I", 1 + len(body)) + letter + body
        while data:
            data = data[os.write(self._send, data) :]


if __name__ == "__main__":
    # ngspice and its models print where they like; answers keep a descriptor of their own.
    answers = os.dup(1)
    os.dup2(2, 1)
    Child(0, answers).run()
