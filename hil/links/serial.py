"""A framed, retried request/answer link over any pyserial URL."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import serial
from serial.tools import list_ports

from hil.errors import LinkError, PortError
from hil.messages.frame import Frame, FrameParser, encode
from hil.messages.layout import Message

WINDOW = 16  # requests under way at once: what a small device's receive buffer holds
READ_MAX = 65536
POLL_S = 0.005  # one blocking read; a change of pyserial's timeout costs system calls


@dataclass
class LinkCounters:
    """What happened on this side of the wire."""

    requests: int = 0
    retransmits: int = 0
    timeouts: int = 0
    reconnects: int = 0
    stray: int = 0  # answers nobody waits for any more


class SerialLink:
    """Speaks frames over a serial port.

    url: `/dev/ttyACM0`, `socket://host:port`, `rfc2217://…`; baud: bits per second;
    serial_number: of the USB device, by which it is found again under another name
    (learnt at the first opening where the port has one).
    """

    def __init__(self, url: str, baud: int = 921600, serial_number: str = "") -> None:
        self.url = url
        self.baud = baud
        self.serial_number = serial_number
        self.counters = LinkCounters()
        self.parser = FrameParser()
        self._port: serial.SerialBase | None = None
        self._fd = -1  # of a device file: read and written without pyserial's detours
        self._seq = 0
        self._unasked: deque[Frame] = deque(maxlen=256)

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._port is not None

    def open(self) -> None:
        """Open the port; raises PortError when it is missing or refused."""
        self.close()
        url = find_port(self.serial_number) or self.url
        try:
            port = serial.serial_for_url(
                url, baudrate=self.baud, timeout=POLL_S, write_timeout=1.0, exclusive=True
            )
        except (serial.SerialException, ValueError, OSError) as error:
            raise PortError(
                f"port {url}: cannot be opened ({_plain(error)}); check the cable and rights, "
                "or see `hil devices` for the ports of this machine"
            ) from None
        self._port = port
        self._fd = port.fd if os.name == "posix" and isinstance(port, serial.Serial) else -1
        self._unasked.clear()
        if not self.serial_number:
            self.serial_number = next(
                (p.serial_number or "" for p in list_ports.comports() if p.device == url), ""
            )

    def reopen(self) -> None:
        """Open again after a loss; raises PortError."""
        self.open()
        self.counters.reconnects += 1

    def close(self) -> None:
        """Close the port; may be called twice."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(OSError):  # gone already is what was wanted
                port.close()

    def exchange(
        self, requests: Sequence[Message], timeout: float = 0.25, retries: int = 8
    ) -> list[Message]:
        """Send requests and return their answers in the same order.

        timeout: seconds to wait for the answers of a window before the missing ones are
        sent again; retries: how often. Raises LinkError when the device stays silent or
        the port is lost.
        """
        answers: list[Message] = []
        for start in range(0, len(requests), WINDOW):
            answers += self._window(requests[start : start + WINDOW], timeout, retries)
        return answers

    def _window(self, requests: Sequence[Message], timeout: float, retries: int) -> list[Message]:
        frames = {self._next_seq(): request for request in requests}
        answers: dict[int, Message] = {}
        self.counters.requests += len(requests)
        for attempt in range(retries + 1):
            missing = [encode(m, seq) for seq, m in frames.items() if seq not in answers]
            if attempt:
                self.counters.timeouts += 1
                self.counters.retransmits += len(missing)
            self._write(b"".join(missing))
            deadline = time.monotonic() + timeout
            while len(answers) < len(frames) and time.monotonic() < deadline:
                for frame in self._read():
                    if frame.seq in frames:
                        answers[frame.seq] = frame.message
                    elif frame.seq == 0:
                        self._unasked.append(frame)
                    else:
                        self.counters.stray += 1
            if len(answers) == len(frames):
                return [answers[seq] for seq in frames]
        names = ", ".join(sorted({type(m).__name__ for m in frames.values()}))
        raise LinkError(
            f"port {self.url}: the device did not answer {names} in {retries + 1} attempts of "
            f"{timeout} s ({self.parser.counters.bad_frames} bad frames so far); check power, "
            "cable and baud rate"
        )

    @property
    def pending(self) -> bool:
        """Whether something has arrived that `unasked()` has not returned; does not wait."""
        port = self._need_port()
        try:
            return bool(self._unasked) or port.in_waiting > 0
        except (serial.SerialException, OSError) as error:
            self._lost(error)

    def unasked(self) -> Message | None:
        """Return the next message the device sent by itself, or None after 5 ms."""
        if not self._unasked:
            for frame in self._read():
                if frame.seq == 0:
                    self._unasked.append(frame)
                else:
                    self.counters.stray += 1
        return self._unasked.popleft().message if self._unasked else None

    def _next_seq(self) -> int:
        self._seq = self._seq % 0xFFFF + 1  # 0 is for what nobody asked
        return self._seq

    def _write(self, data: bytes) -> None:
        port = self._need_port()
        try:
            if self._fd >= 0:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._fd, data) :]
            if data:
                port.write(data)
        except (serial.SerialException, OSError) as error:
            self._lost(error)

    def _read(self) -> list[Frame]:
        port = self._need_port()
        try:
            if self._fd >= 0:
                data = self._bite() if select.select([self._fd], [], [], POLL_S)[0] else b""
            else:
                data = port.read(port.in_waiting or 1)
        except (serial.SerialException, OSError, TypeError) as error:
            self._lost(error)
        return list(self.parser.feed(data))

    def _bite(self) -> bytes:
        """Return what there is at a device file; pyserial asks for it twice, byte and rest."""
        if not (data := os.read(self._fd, READ_MAX)):
            raise serial.SerialException("device disconnected")
        return data

    def _need_port(self) -> serial.SerialBase:
        if self._port is None:
            raise LinkError(f"port {self.url}: not open")
        return self._port

    def _lost(self, error: Exception) -> NoReturn:
        self.close()
        raise LinkError(f"port {self.url}: lost ({_plain(error)})") from None


def find_port(serial_number: str) -> str:
    """Return the port that carries the USB serial number now, "" when none does."""
    if not serial_number:
        return ""
    return next((p.device for p in list_ports.comports() if p.serial_number == serial_number), "")


def _plain(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip()
