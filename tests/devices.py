"""Doubles of devices that several rooms test against."""

from __future__ import annotations

import os
import select
import threading
import tty
from collections.abc import Callable

from hil.messages.frame import Frame, FrameParser


class PtyDevice:
    """Answers frames on a pseudo-terminal the way a test wants it to."""

    def __init__(self, answer: Callable[[Frame], bytes]) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.heard: list[Frame] = []
        self._answer = answer
        self._wake, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        parser = FrameParser()
        while True:
            ready, _, _ = select.select([self.master, self._wake], [], [])
            if self._wake in ready:
                return
            for frame in parser.feed(os.read(self.master, 4096)):
                self.heard.append(frame)
                if reply := self._answer(frame):
                    os.write(self.master, reply)

    def close(self) -> None:
        os.write(self._end, b"x")
        self._thread.join()
        for descriptor in (self.master, self._slave, self._wake, self._end):
            os.close(descriptor)
