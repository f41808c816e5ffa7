"""Commands, answers and blocks to an instrument, over PyVISA.

A resource is named as VISA names it: `TCPIP::192.168.1.7::5025::SOCKET`. Every wait has an
end, whatever the instrument does; what went wrong on the way is a LinkError, after which the
link is closed, because what is still under way belongs to a question nobody asks any more.
Sessions belong to one thread (pyvisa#726): another one is refused.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from functools import cache
from typing import NoReturn

import pyvisa
from pyvisa.resources import MessageBasedResource

from hil.errors import LinkError, PortError, StateError
from hil.links.serial import LinkCounters
from hil.messages.scpi import BLOCK_BYTES_MAX, ErrorCode, Report, block, parse_report

REPORTS_MAX = 64  # errors taken from one instrument at a time
CHUNK = 1 << 16  # bytes asked for at once


class VisaLink:
    """Speaks to one instrument; a line or a block at a time.

    url: a VISA resource string; timeout: seconds to wait for an answer; backend: the VISA
    library, "@py" for pyvisa-py, "" for the one installed here.
    """

    def __init__(self, url: str, timeout: float = 2.0, backend: str = "@py") -> None:
        self.url = url
        self.timeout = timeout
        self.backend = backend
        self.counters = LinkCounters()
        self._resource: MessageBasedResource | None = None
        self._owner: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as anybody has noticed."""
        return self._resource is not None

    def open(self) -> None:
        """Connect; the calling thread owns the link from now on.

        Raises PortError for a resource string that means nothing here, LinkError where
        nobody answers.
        """
        self.close()
        try:
            pyvisa.rname.ResourceName.from_string(self.url)
            resource = _manager(self.backend).open_resource(
                self.url, open_timeout=round(1000 * self.timeout)
            )
        except pyvisa.rname.InvalidResourceName as error:
            raise PortError(
                f"instrument {self.url!r}: not a VISA resource string ({_plain(error)}); expected "
                "one like TCPIP::192.168.1.7::5025::SOCKET"
            ) from None
        except Exception as error:  # noqa: BLE001 - pyvisa-py raises Exception itself here
            raise LinkError(
                f"instrument {self.url}: cannot be reached ({_plain(error)}); check that it is "
                "on, and its address"
            ) from None
        if not isinstance(resource, MessageBasedResource):
            resource.close()
            raise PortError(f"instrument {self.url}: takes no messages, only registers")
        self._resource = resource
        self._owner = threading.get_ident()
        resource.timeout = 1000 * self.timeout
        resource.write_termination = resource.read_termination = "\n"
        self._tune()

    def reopen(self) -> None:
        """Connect again after a loss; raises as `open` does."""
        self.open()
        self.counters.reconnects += 1

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        resource, self._resource = self._resource, None
        if resource is not None:
            with contextlib.suppress(pyvisa.Error, OSError):  # gone already is what was wanted
                resource.close()

    def write(self, command: str, data: bytes | None = None) -> None:
        """Send a command, with a block as its last parameter where there is `data`."""
        resource = self._need()
        self.counters.requests += 1
        message = command.encode("ascii")
        if data is not None:
            message += (b"," if " " in command else b" ") + block(data)
        try:
            resource.write_raw(message + b"\n")
        except (pyvisa.Error, OSError) as error:
            self._lost(command, error)

    def query(self, command: str, timeout: float | None = None) -> str:
        """Send a query and return its answer, one line without its end.

        timeout: seconds, in place of the link's own.
        """
        self.write(command)
        self._await(command, timeout)
        resource = self._need()
        try:
            answer = resource.read_raw()
        except (pyvisa.Error, OSError) as error:
            self._lost(command, error)
        if not answer.endswith(b"\n"):
            self._lost(command, LinkError("the answer ends in the middle of a line"))
        return answer.decode("ascii", "replace").strip()

    def query_block(self, command: str, timeout: float | None = None) -> bytes:
        """Send a query and return the definite-length block it is answered with."""
        self.write(command)
        self._await(command, timeout)
        resource = self._need()
        data = b""
        try:
            resource.read_termination = None  # a block may hold any byte
            head = resource.read_bytes(2)
            if head[:1] != b"#" or head[1:] not in b"123456789":
                self._lost(command, LinkError(f"expected a block, the answer begins {head!r}"))
            digits = resource.read_bytes(int(head[1:]))
            if not digits.isdigit() or int(digits) > BLOCK_BYTES_MAX:
                self._lost(command, LinkError(f"block of {digits!r} bytes refused"))
            data = resource.read_bytes(int(digits) + 1, chunk_size=CHUNK)
            resource.read_termination = "\n"
        except (pyvisa.Error, OSError) as error:
            self._lost(command, error)
        if data[-1:] != b"\n":
            self._lost(command, LinkError(f"more follows the block of {len(data) - 1} bytes"))
        return data[:-1]

    def errors(self) -> list[Report]:
        """Empty the instrument's error queue; oldest first."""
        found: list[Report] = []
        while len(found) < REPORTS_MAX:
            report = parse_report(self.query("SYST:ERR?"))
            if report.code == ErrorCode.NO_ERROR:
                break
            found.append(report)
        return found

    def _need(self) -> MessageBasedResource:
        if self._resource is None:
            raise LinkError(f"instrument {self.url}: not connected")
        if threading.get_ident() != self._owner:
            raise StateError(f"instrument {self.url}: belongs to the thread that connected to it")
        return self._resource

    def _socket(self) -> socket.socket | None:
        """Return the socket below, where the backend is pyvisa-py and has one."""
        resource = self._resource
        sessions = getattr(getattr(resource, "visalib", None), "sessions", {})
        session = sessions.get(resource.session) if resource is not None else None
        found = getattr(session, "interface", None)
        return found if isinstance(found, socket.socket) else None

    def _tune(self) -> None:
        """Make a socket send at once, and give up what is never acknowledged.

        pyvisa-py takes a refused connection for one that stands, and waits without end for
        an instrument that has stopped reading.
        """
        below = self._socket()
        if below is None:
            return
        try:
            below.getpeername()
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = round(1000 * self.timeout)
                below.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        except OSError:
            self.close()
            raise LinkError(
                f"instrument {self.url}: cannot be reached (connection refused); check that it "
                "is on, and its address"
            ) from None

    def _await(self, command: str, timeout: float | None) -> None:
        """Wait for the first byte of an answer; pyvisa-py takes a closed socket for silence."""
        resource, below = self._need(), self._socket()
        patience = self.timeout if timeout is None else timeout
        resource.timeout = 1000 * max(patience, self.timeout)
        if below is None:
            return
        try:
            ready, _, _ = select.select([below], [], [], patience)
            if ready and not below.recv(1, socket.MSG_PEEK):
                self._lost(command, LinkError("the instrument closed the connection"))
        except OSError as error:
            self._lost(command, error)
        if not ready:
            self.counters.timeouts += 1
            self._lost(command, LinkError(f"no answer in {patience:g} s"))

    def _lost(self, command: str, error: Exception) -> NoReturn:
        self.close()
        raise LinkError(
            f"instrument {self.url}: {command.partition(' ')[0]} failed, {_plain(error)}"
        ) from None


@cache
def _manager(backend: str) -> pyvisa.ResourceManager:
    """Return the resource manager of this process; closing it would close every link."""
    return pyvisa.ResourceManager(backend)


def _plain(error: Exception) -> str:
    text = getattr(error, "strerror", None) or getattr(error, "description", None) or str(error)
    return str(text).strip().rstrip(".")
