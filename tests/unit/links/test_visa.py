"""The VISA link against instruments that answer, lie, fall silent and hang up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hil.errors import LinkError, PortError, StateError
from hil.links.visa import VisaLink
from hil.messages.scpi import Report, block, reals, to_reals

Answer = Callable[[bytes], bytes | None]


class Instrument:
    """Answers each line the way a test wants it to; None hangs up."""

    def __init__(self, answer: Answer) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.heard = b""
        self.url = f"TCPIP::127.0.0.1::{self._server.getsockname()[1]}::SOCKET"
        self._answer = answer
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            client, _ = self._server.accept()
            if self._ended:
                client.close()
                return
            with contextlib.suppress(OSError), client, client.makefile("rb") as lines:
                for line in lines:
                    self.heard += line
                    answer = self._answer(line.strip())
                    if answer is None:
                        break
                    client.sendall(answer)

    def close(self) -> None:
        self._ended = True
        address = self._server.getsockname()
        socket.create_connection(address).close()
        self._thread.join()
        self._server.close()


@pytest.fixture
def make() -> Iterator[Callable[[Answer], tuple[Instrument, VisaLink]]]:
    made: list[tuple[Instrument, VisaLink]] = []

    def start(answer: Answer) -> tuple[Instrument, VisaLink]:
        instrument = Instrument(answer)
        link = VisaLink(instrument.url, timeout=0.3)
        made.append((instrument, link))
        link.open()
        return instrument, link

    yield start
    for instrument, link in made:
        link.close()
        instrument.close()


Make = Callable[[Answer], tuple[Instrument, VisaLink]]


def test_lines_and_blocks(make: Make) -> None:
    values = np.random.default_rng(0).normal(size=(70, 300))
    payload = reals(values)
    assert b"\n" in payload  # or nothing would be shown by this

    def answer(line: bytes) -> bytes:
        return block(payload) + b"\n" if line == b"DATA?" else b"hil," + line + b"\n"

    _, link = make(answer)
    assert link.query("*IDN?") == "hil,*IDN?"
    got = to_reals(link.query_block("DATA?"), 70, 300)
    np.testing.assert_array_equal(got, values.astype(np.float32))
    assert link.query("AGAIN?") == "hil,AGAIN?"


def test_a_block_follows_its_command(make: Make) -> None:
    # As an instrument does: a command has no answer, and what comes back ends what was sent.
    instrument, link = make(lambda line: b"0\n" if line.endswith(b"?") else b"")
    link.write("A", b"12")
    link.write("A 1", b"34")
    link.query("*OPC?")
    assert instrument.heard == b"A #212\nA 1,#1234\n*OPC?\n".replace(b"#212", b"#1212")


def test_the_error_queue_is_emptied(make: Make) -> None:
    waiting = [b'-113,"Undefined header;FOO"', b"-222,Data out of range", b'0,"No error"']
    _, link = make(lambda _: waiting.pop(0) + b"\n")
    assert link.errors() == [
        Report(-113, "Undefined header;FOO"), Report(-222, "Data out of range"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no answer in 0.3 s"),
        (b"half a li", "Timeout"),
        (None, "closed the connection"),
    ],
)
def test_a_bad_line_ends_the_connection(make: Make, answer: bytes | None, said: str) -> None:
    _, link = make(lambda _: answer)
    with pytest.raises(LinkError, match=said):
        link.query("*IDN?")
    assert not link.is_open
    with pytest.raises(LinkError, match="not connected"):
        link.query("*IDN?")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"#15abc\n", "Timeout"),  # fewer bytes than it says
        (b"#12abcd\n", "more follows"),
        (b"12.5\n", "expected a block"),
        (b"#3a12\n", "refused"),
        (b"#9999999999\n", "refused"),
    ],
)
def test_a_bad_block_ends_the_connection(make: Make, answer: bytes, said: str) -> None:
    _, link = make(lambda line: answer if line == b"DATA?" else b"fine\n")
    with pytest.raises(LinkError, match=said):
        link.query_block("DATA?")
    assert not link.is_open
    link.reopen()
    assert link.query("*IDN?") == "fine"
    assert link.counters.reconnects == 1


def test_who_opened_it_owns_it(make: Make) -> None:
    _, link = make(lambda _: b"0\n")
    caught: list[Exception] = []

    def elsewhere() -> None:
        try:
            link.query("*IDN?")
        except StateError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "belongs to the thread" in str(caught[0])


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LinkError, match="cannot be reached"):
        VisaLink(f"TCPIP::127.0.0.1::{port}::SOCKET").open()
    for url in ("/dev/ttyACM0", "TCPIP::127.0.0.1::SOCKET"):
        with pytest.raises(PortError, match="not a VISA resource string"):
            VisaLink(url).open()
