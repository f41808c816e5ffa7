"""The desk: a thread that answers status and stop while the owner of the rig works."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import msgspec
import zmq

from hil.clock import AbstractClock
from hil.errors import LinkError
from hil.links.zeromq import BusServer
from hil.messages import bus

STOP_CONFIRM_S = 1.0  # how long a stop waits for the owner to say that it is done


class Desk:
    """Answers the status socket from a snapshot the owner thread replaces.

    stop: asks the rig to stop, from this thread; stopped: set by the owner once it has.
    """

    def __init__(
        self,
        server: BusServer,
        clock: AbstractClock,
        report: Callable[[], bus.StatusReport],
        stop: Callable[[str], None],
    ) -> None:
        self._socket = server.status
        self._clock = clock
        self._report = report
        self._stop_rig = stop
        self._decoder = msgspec.msgpack.Decoder(bus.Enquiry)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering; returns when the thread has ended."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            if not self._socket.poll(50):
                continue
            peer, *frames = self._socket.recv_multipart()
            try:
                request, _ = bus.unpack(self._decoder, frames)
            except LinkError:
                continue  # nobody to answer: without a header there is no seq
            reply = self._answer(request)
            with contextlib.suppress(zmq.ZMQError):  # the asker has gone
                self._socket.send_multipart([peer, *bus.pack(reply)])

    def _answer(self, request: bus.Enquiry) -> bus.EnquiryReply:
        if isinstance(request, bus.Stop):
            self._stop_rig(request.reason)
            end = time.monotonic() + STOP_CONFIRM_S
            while self._report().state in ("active", "inactive") and time.monotonic() < end:
                self._end.wait(0.005)
        report = msgspec.structs.replace(self._report(), seq=request.seq, t_ns=self._clock.now_ns())
        if isinstance(request, bus.StatusRequest):
            return report
        return bus.Done(
            seq=request.seq,
            t_ns=report.t_ns,
            device_us=report.device_us,
            state=report.state,
            fault=report.fault,
        )
