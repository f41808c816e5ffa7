"""A real bench: the person sits at this terminal, the camera is on a cable."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from hil.links.camera import CameraLink
from hil.rigs.bench import AbstractBench, Answer, Instruction
from hil.types import AnyArray

LOOK_S = 0.1  # between two looks whether the rig was stopped
KEYS = {"": Answer.DONE, "s": Answer.SKIP, "q": Answer.STOP}


class CameraSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which camera, and its lens."""

    device: Annotated[str, Meta(min_length=1, description="as OpenCV names it")] = "/dev/video0"
    size: Annotated[tuple[int, int], Meta(description="width and height of an image, px")] = (
        1280,
        960,
    )
    lens: Annotated[str, Meta(description="file of its calibration; none: straight")] = ""


class TerminalBench(AbstractBench):
    """Prints instructions to stderr, reads answers from stdin, frames from a camera."""

    def __init__(self, settings: CameraSettings) -> None:
        self._camera = CameraLink(settings.device, settings.size)
        self._begun = time.monotonic()

    @property
    def camera(self) -> str:
        """Id of the camera."""
        return self._camera.id

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an image, px."""
        return self._camera.size

    def open(self) -> str:
        """Open the camera; raises PortError, ConfigError."""
        self._camera.open()
        return self.camera

    def close(self) -> None:
        """Let go of the camera."""
        self._camera.close()

    def ask(self, instruction: Instruction, stopped: Callable[[], bool]) -> Answer:
        """Say what to do and wait for Enter, s or q; an end of the input is a stop."""
        print(f"\n{instruction.words()}", file=sys.stderr)
        while True:
            print("  Enter: done   s: skip   q: stop > ", end="", file=sys.stderr, flush=True)
            line = _line(stopped)
            if line is None:
                print(file=sys.stderr)
                return Answer.STOP
            if (answer := KEYS.get(line.strip().lower())) is not None:
                return answer

    def tell(self, text: str) -> None:
        """Print."""
        print(text, file=sys.stderr)

    def grab(self, count: int, period_s: float) -> Sequence[AnyArray]:
        """Return the next frames of the camera."""
        return self._camera.grab(count, period_s)

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def now_us(self) -> int:
        """Return the time since this object was made, us."""
        return int((time.monotonic() - self._begun) * 1e6)


def _line(stopped: Callable[[], bool]) -> str | None:
    """Return what was typed up to Enter, None at a stop or when nobody is there."""
    typed = b""
    while not stopped():
        ready, _, _ = select.select([0], [], [], LOOK_S)
        if ready:
            more = os.read(0, 1)
            if not more:
                return None
            if more == b"\n":
                return typed.decode(errors="replace")
            typed += more
    return None
