"""The mirror: the one process that owns a rig, and the desk where others ask for it.

Two threads: the owner thread speaks to the device and answers commands, one at a time;
the desk thread answers status and stop from a snapshot, so that neither ever waits for a
batch. The owner is the main thread.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from hil.clock import make_clock
from hil.config import Config, Settings, check, settings_of
from hil.errors import HilError, LinkError, RunError, SafetyError
from hil.links.zeromq import SOCKETS, Address, BusServer, Keys
from hil.messages import bus
from hil.rigs.base import AbstractBoard, RigState
from hil.safety.lease import LeaseDesk
from hil.services.desk import Desk
from hil.services.owned import own
from hil.services.owned.base import Carried
from hil.types import AnyArray

RETRY_S = 2.0  # between two attempts to reach a device that was not there
REMEMBERED = 64  # clients whose last reply is kept for a safe retry
PERIODIC = (bus.ReadSample, bus.WriteInput)  # many a second: not each is worth a report
ROLE_NEEDED: dict[type[bus.Request], bus.Role] = {
    bus.Hello: "observe",
    bus.ReadStiffness: "observe",
    bus.ReadCoefficients: "observe",
    bus.ReadEmulator: "observe",
    bus.SetStiffness: "train",
    bus.SetCoefficients: "train",
}  # every other command: operate


class MirrorSettings(Settings, frozen=True, kw_only=True):
    """The mirror table."""

    address: Annotated[str, Meta(description="'ipc' or tcp://host:port (three ports)")] = "ipc"
    keys: Annotated[str, Meta(description="directory of CURVE keys")] = ""
    lease: Annotated[float, Meta(gt=0, le=3600, description="lease without a command, s")] = 10.0
    telemetry: Annotated[float, Meta(gt=0, le=60, description="between two states, s")] = 0.2


def bus_address(config: Config) -> tuple[Address, Keys | None, MirrorSettings]:
    """Return where the mirror of a configuration is, and the keys to it."""
    settings = check(config.mirror, MirrorSettings, "mirror")
    keys = Keys(Path(settings.keys)) if settings.keys else None
    _, rig_settings = settings_of(config.rig, "rig")
    return Address(settings.address, rig_settings.name), keys, settings


class Mirror:
    """Owns one rig and answers for it until told to end.

    port: where a simulated board answers, "" for the configured port; board: that board.
    """

    def __init__(self, config: Config, port: str = "", board: AbstractBoard | None = None) -> None:
        address, keys, self.settings = bus_address(config)
        self.name = address.name
        self.clock = make_clock(config.clock)
        self._clock_kind = config.clock
        self._simulated = config.board is not None
        self._owned = own(config, port, board)
        self.rig = self._owned.rig
        self._lease = LeaseDesk(self.name, self.settings.lease)
        self._server = BusServer(address, keys)
        self._decoder = msgspec.msgpack.Decoder(bus.Command)
        self._replies: OrderedDict[bytes, tuple[int, list[Any]]] = OrderedDict()
        self._info: dict[str, Any] = {}
        self._trouble = ""
        self._commands = self._refused = self._published = 0
        self._next_state = self._next_attempt = 0.0
        self._snapshot = self.report()
        self._desk = Desk(self._server, self.clock, lambda: self._snapshot, self.rig.stop)

    # -- life ---------------------------------------------------------------------------

    def serve(self, until: threading.Event, ready: Callable[[], None]) -> None:
        """Answer commands until `until` is set; then make the outputs safe.

        A device that does not answer leaves the mirror up and is tried again. Raises
        InputError where another attempt cannot help: no such port, other firmware.
        """
        try:
            self._desk.start()
            self._connect()
            self._look()
            ready()
            while not until.is_set():
                try:
                    said = self._server.receive()
                except TimeoutError:
                    self._idle()
                    self._look()
                else:
                    self._serve(*said)
        finally:
            self.rig.close()
            self._snapshot = self.report()
            self._desk.close()
            self._server.close()

    def interrupt(self) -> None:
        """Have whatever a person is being asked end, because the mirror is about to."""
        self._owned.interrupt()

    def endpoints(self) -> dict[str, str]:
        """Return where the three sockets are."""
        return {socket: self._server.address.endpoint(socket) for socket in SOCKETS}

    def _connect(self) -> None:
        self._next_attempt = time.monotonic() + RETRY_S
        try:
            self._info = self._owned.configure()
            self._trouble = ""
        except LinkError as error:
            if self._trouble != str(error):
                print(f"mirror: {error}; trying again every {RETRY_S:g} s", file=sys.stderr)
            self._trouble = str(error)

    def _idle(self) -> None:
        now = time.monotonic()
        if self.rig.state is RigState.UNCONFIGURED and now >= self._next_attempt:
            self._connect()
        self.rig.poll()

    def _changed(self) -> bool:
        """Say whether a state is due to be told: it is another one, or time has passed."""
        told = self._snapshot
        other = self.rig.state != told.state or (self.rig.fault or self._trouble) != told.fault
        return other or time.monotonic() >= self._next_state

    def _look(self) -> None:
        now = time.monotonic()
        if self._lease.expire(now) and self.rig.state is RigState.ACTIVE:
            print("mirror: the lease expired, the rig is deactivated", file=sys.stderr)
            with contextlib.suppress(RunError):  # latched where it happened
                self.rig.deactivate()
        before, self._snapshot = self._snapshot, self.report()
        asked = self._snapshot.recalibrate
        if bool(asked) != bool(before.recalibrate):
            print(f"mirror: {asked or 'the rig is as its calibration says again'}", file=sys.stderr)
            self._publish("recalibrate", {"reason": asked})
        if self._snapshot.state != before.state or now >= self._next_state:
            self._next_state = now + self.settings.telemetry
            values = msgspec.to_builtins(self._snapshot)
            del values["type"], values["info"]
            self._publish("state", values)

    # -- commands -----------------------------------------------------------------------

    def _serve(self, sender: bytes, frames: list[bytes], role: bus.Role) -> None:
        try:
            request, arrays = bus.unpack(self._decoder, frames)
        except LinkError:
            self._refused += 1
            return  # without a good header there is no seq to answer to
        seq, remembered = self._replies.get(sender, (0, []))
        if request.seq != seq:
            remembered = self._answer(request, arrays, role)
            self._replies[sender] = (request.seq, remembered)
            self._replies.move_to_end(sender)
            while len(self._replies) > REMEMBERED:
                self._replies.popitem(last=False)
        if not isinstance(request, PERIODIC) or self._changed():
            self._look()  # who asks for the status after this answer sees what it changed
        self._server.command.send_multipart([sender, *remembered])

    def _answer(self, request: bus.Request, arrays: list[AnyArray], role: bus.Role) -> list[Any]:
        call = str(request.__struct_config__.tag)
        needed = ROLE_NEEDED.get(type(request), "operate")
        try:
            if bus.ROLES.index(role) < bus.ROLES.index(needed):
                raise SafetyError(f"{call} needs the role {needed}, this key has {role}")
            if time.time_ns() > request.deadline_ns:
                raise SafetyError(f"{call} came after its deadline; nothing was done")
            lease = getattr(request, "lease", None)
            if lease is not None:
                self._lease.check(lease, call, time.monotonic())
            self._commands += 1
            reply, values = self._carry_out(request, arrays)
            if lease is not None:
                self._lease.renew(time.monotonic())  # from the end of the work on
            return bus.pack(reply, *values)
        except HilError as error:
            return bus.pack(self._refusal(request, error))
        except Exception as error:  # noqa: BLE001 - a defect of ours must end in a safe rig
            traceback.print_exc()
            self.rig.stop(f"internal error in {call}: {error!r}")
            self.rig.poll()
            return bus.pack(self._refusal(request, RunError(repr(error)), "internal"))

    def _refusal(self, request: bus.Request, error: HilError, code: str = "failed") -> bus.Reply:
        self._refused += 1
        if isinstance(error, SafetyError):
            code = error.code
        fields = {"error": type(error).__name__, "code": code, "reason": str(error)}
        return cast(bus.Reply, self._reply(bus.Refused, request, **fields))

    def _carry_out(
        self, request: bus.Request, arrays: list[AnyArray]
    ) -> tuple[bus.Reply, list[AnyArray]]:
        match request:
            case bus.Hello():
                return self._reply(
                    bus.Welcome,
                    request,
                    name=self.name,
                    clock=self._clock_kind,
                    state=self.rig.state,
                    lease_seconds=self.settings.lease,
                    info=self._info,
                ), []
            case bus.Acquire(client=client):
                lease = self._lease.acquire(client, time.monotonic())
                return self._reply(
                    bus.Leased, request, lease=lease, seconds=self.settings.lease
                ), []
            case bus.Release():
                if self.rig.state is RigState.ACTIVE:
                    self.rig.deactivate()
                self._lease.release()
            case bus.Configure():
                if self.rig.state is RigState.UNCONFIGURED:
                    self._connect()
                if self._trouble:
                    raise LinkError(self._trouble)
            case bus.Activate():
                self.rig.activate()
            case bus.Deactivate():
                self.rig.deactivate()
            case bus.Clear():
                self.rig.clear()
                self._info = self._owned.read_back()
            case _:
                done = self._owned.carry_out(request, arrays)
                if done.published:
                    self._publish(*done.published)
                if done.then is not None:
                    done.fields["then"] = self._then(request, done.then)
                return self._reply(done.kind, request, **done.fields), done.arrays
        return self._reply(bus.Done, request, state=self.rig.state, fault=self.rig.fault), []

    def _then(self, request: bus.Request, work: Callable[[], Carried]) -> bus.Reply:
        """Return what the second half of a request came to; its first half was done."""
        try:
            done = work()
        except HilError as error:
            return self._refusal(request, error)
        if done.published:
            self._publish(*done.published)
        return cast(bus.Reply, self._reply(done.kind, request, **done.fields))

    def _reply(self, kind: Callable[..., bus.Reply], request: bus.Request, **fields: Any) -> Any:
        device_us = self._owned.clock.now_us()
        self.clock.observe(device_us)
        return kind(seq=request.seq, t_ns=self.clock.now_ns(), device_us=device_us, **fields)

    # -- telemetry ----------------------------------------------------------------------

    def _publish(self, topic: str, values: dict[str, Any]) -> None:
        self._published += 1
        if not self._server.watched():
            return
        t_ns = self.clock.now_ns()
        values |= {"seq": self._published, "t_ns": t_ns}
        self._server.publish(bus.telemetry(f"{self.name}/{topic}", values, t_ns))

    def report(self) -> bus.StatusReport:
        """Return how the rig is; called by the owner thread."""
        clock = self._owned.clock
        offset = clock.offset
        return bus.StatusReport(
            seq=0,
            t_ns=self.clock.now_ns(),
            device_us=clock.now_us(),
            name=self.name,
            pid=os.getpid(),
            state=self.rig.state,
            fault=self.rig.fault or self._trouble,
            clock=self._clock_kind,
            simulated=self._simulated,
            port=self._owned.port,
            holder=self._lease.holder,
            lease_left_s=self._lease.left(time.monotonic()),
            commands=self._commands,
            measurements=self._owned.measurements,
            clock_offset_us=offset.offset_us if offset else None,
            round_trip_us=offset.round_trip_us if offset else None,
            twin_residual=self._owned.twin_residual,
            recalibrate=self._owned.recalibrate,
            counters=msgspec.structs.replace(self._owned.counters(), refused_mirror=self._refused),
            info=self._info,
        )
