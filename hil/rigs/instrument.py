"""An instrument on a link: who it is, its error queue as our errors, a stop, a lost link.

Every rig behind an instrument has one; what it measures is the rig's own business.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import NoReturn

from hil.errors import (
    ConfigError,
    FaultError,
    HilError,
    LimitError,
    LinkError,
    RunError,
    SchemaError,
    StateError,
)
from hil.links.visa import VisaLink
from hil.messages.instrument import POWER_ON
from hil.messages.scpi import ErrorCode, Report
from hil.rigs.base import Lifecycle, RigState
from hil.rigs.device_clock import DeviceClock
from hil.types import ClockKind

LOOK_S = 0.2  # between two looks at an instrument that nobody asks anything


class Instrument:
    """SCPI to one instrument; its errors are asked for after every command.

    A lost link, an instrument that restarted and a fault it reports latch `life`; the error
    is raised as well. What it refused changes nothing and latches nothing.
    """

    def __init__(self, link: VisaLink, clock: ClockKind, life: Lifecycle) -> None:
        self.link = link
        self.clock = DeviceClock(clock)
        self.life = life
        self._stop = threading.Event()
        self._stop_reason = ""
        self._looked = 0.0

    def identify(self, model: str, serial_number: str) -> tuple[str, str]:
        """Connect if need be; return serial number and firmware.

        Raises PortError, LinkError, SchemaError for another model, ConfigError for another
        one of the same.
        """
        if not self.link.is_open:
            self.link.open()
        found = self.link.query("*IDN?")
        fields = [word.strip() for word in found.split(",")]
        where = f"instrument {self.link.url}"
        if len(fields) != 4 or fields[1] != model:
            self.link.close()
            raise SchemaError(f"{where}: is {found!r:.80}, this rig needs a {model}")
        if serial_number and fields[2] != serial_number:
            self.link.close()
            raise ConfigError(
                f"{where}: has serial number {fields[2]}, rig.serial_number says "
                f"{serial_number}; connect the right one or correct the address"
            )
        self.link.errors()  # of whoever was here before
        self.look()
        return fields[2], fields[3]

    def look(self) -> bool:
        """Ask for time and events; return whether it was switched on since the last look."""
        answer = self.ask("*ESR?;:SYST:TIME?")
        try:
            events, device_us = (int(word) for word in answer.split(";"))
        except ValueError:
            self._lost(LinkError(f"instrument {self.link.url}: events and time are {answer!r:.60}"))
        self.clock.observe(device_us)
        return bool(events & POWER_ON)

    def command(self, text: str, data: bytes | None = None) -> None:
        """Have it do something; raises what it says was wrong with that."""
        try:
            self.link.write(text, data)
        except LinkError as error:
            self._lost(error)
        self.check(text)

    def tell(self, text: str) -> None:
        """Have it do something without asking what was wrong with that."""
        try:
            self.link.write(text)
        except LinkError as error:
            self._lost(error)

    def ask(self, text: str) -> str:
        """Return the answer to a query."""
        try:
            return self.link.query(text)
        except LinkError as error:
            self._lost(error)

    def ask_block(self, text: str, timeout: float | None = None) -> bytes:
        """Return the block a query is answered with."""
        try:
            return self.link.query_block(text, timeout)
        except LinkError as error:
            self._lost(error)

    def check(self, what: str) -> None:
        """Empty the error queue; raise what the first entry means."""
        try:
            reports = self.link.errors()
        except LinkError as error:
            self._lost(error)
        if reports:
            raise self._meaning(what, reports[0], len(reports) - 1)

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for a stop that has not been cleared."""
        return self._stop.is_set()

    def ask_stop(self, reason: str) -> None:
        """Ask the owner thread for a stop; from any thread."""
        self._stop_reason = reason
        self._stop.set()

    def wait_stop(self, seconds: float) -> None:
        """Wait, shorter where somebody asks for a stop."""
        self._stop.wait(seconds)

    def stop_now(self) -> None:
        """Latch the fault, end the run and switch the outputs off; by the owner thread."""
        self.life.latch(self._stop_reason)
        if self.link.is_open:
            with contextlib.suppress(LinkError):  # no way to it: its run ends by itself
                self.link.write("OUTP OFF")

    def cleared(self) -> None:
        """Forget a stop: the instrument has been looked at anew."""
        self._stop.clear()
        self.life.cleared()

    def poll(self) -> None:
        """Act on a stop; notice an instrument that is gone or was restarted."""
        if self.life.state is RigState.UNCONFIGURED:
            return
        if self.stopping and self.life.state is not RigState.FAULT:
            self.stop_now()
        now = time.monotonic()
        if self.link.is_open and now >= self._looked + LOOK_S:
            self._looked = now
            with contextlib.suppress(RunError):  # latched where it happened
                if self.look():
                    self.restarted()

    def restarted(self) -> NoReturn:
        """Latch that it was switched off and on: what it was set to is gone."""
        error = FaultError(
            f"instrument {self.link.url}: it was restarted and has forgotten its coefficients; "
            "clear(), then set them again"
        )
        self.life.latch(str(error))
        raise error

    def close(self) -> None:
        """Switch the outputs off and let go of the link."""
        if self.link.is_open:
            with contextlib.suppress(RunError):
                self.link.write("OUTP OFF")
            self.link.close()
        self.life.state = RigState.UNCONFIGURED

    def _lost(self, error: LinkError) -> NoReturn:
        self.link.close()
        if self.life.state is not RigState.UNCONFIGURED:
            self.life.latch(str(error))
        raise error

    def _meaning(self, what: str, report: Report, more: int) -> HilError:
        text = (
            f"instrument {self.link.url} refused {what.partition(' ')[0]}: {report.text} "
            f"({report.code})" + (f" and {more} more" if more else "")
        )
        if report.code > 0:
            if self.life.state is not RigState.UNCONFIGURED:
                self.life.latch(f"instrument: {report.text} ({report.code})")
            return FaultError(f"{text}; remove the cause, then clear()")
        if report.code in (ErrorCode.INVALID_BLOCK, ErrorCode.QUERY_INTERRUPTED):
            return LinkError(text)
        if report.code in (ErrorCode.OUT_OF_RANGE, ErrorCode.TOO_MUCH_DATA):
            return LimitError(text)
        if report.code == ErrorCode.SETTINGS_CONFLICT:
            return StateError(text)
        if -200 < report.code <= -100:
            return SchemaError(f"{text}; its firmware and this host know different commands")
        return RunError(text)
