"""Commands, enquiries and telemetry over ZeroMQ: addresses, keys, a client that gives up."""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from hil.errors import ConfigError, LinkError
from hil.messages.bus import ROLES, BusStruct, Request, Role, pack, unpack
from hil.types import AnyArray

Socket = Literal["command", "status", "telemetry"]
SOCKETS: tuple[Socket, ...] = ("command", "status", "telemetry")
LOOPBACK = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|\[::1\]|localhost):\d+")
IDLE_MS = 20  # longest wait for a command before the owner looks at the device again
LISTEN_MS = 20  # longest wait for a reply before the client looks whether the mirror is there
RESEND_S = 1.0  # an unanswered request is sent again this often; the server answers it once
MORE = int(zmq.SNDMORE)
FRAME_MAX = 128 * 1024 * 1024


def runtime_directory() -> Path:
    """Return the directory of this user's sockets (`HIL_RUNTIME` moves it)."""
    named = os.environ.get("HIL_RUNTIME")
    shared = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(named) if named else Path(shared or "/tmp") / f"hil-{os.getuid()}"  # noqa: S108
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise ConfigError(
            f"{path}: belongs to somebody else; set HIL_RUNTIME to a directory of yours"
        )
    return path


@dataclass(frozen=True)
class Address:
    """Where a mirror is: `ipc` sockets in the runtime directory, or three TCP ports.

    where: "ipc", or "tcp://host:port" (command; status and telemetry are the next two).
    service: what answers there, by its table in a configuration.
    """

    where: str
    name: str
    service: str = "mirror"

    def endpoint(self, socket: Socket) -> str:
        """Return the ZeroMQ endpoint of one socket; raises ConfigError."""
        if self.where == "ipc":
            directory = runtime_directory() / self.name
            directory.mkdir(mode=0o700, exist_ok=True)
            path = directory / socket
            if len(str(path)) > 100:  # a Unix socket address holds 107 bytes
                raise ConfigError(f"{path}: too long for a socket; set HIL_RUNTIME to a short path")
            return f"ipc://{path}"
        host, _, port = self.where.rpartition(":")
        if not re.fullmatch(r"tcp://.+", host) or not port.isdigit() or int(port) > 65533:
            raise ConfigError(
                f"{self.service}.address: {self.where!r}: expected 'ipc' or 'tcp://host:port'"
            )
        return f"{host}:{int(port) + SOCKETS.index(socket)}"

    @property
    def is_local(self) -> bool:
        """Whether nothing outside this machine can reach it."""
        return self.where == "ipc" or bool(LOOPBACK.fullmatch(self.where))


@dataclass(frozen=True)
class Keys:
    """A directory of CURVE keys.

    `mirror.key`, `mirror.key_secret`: the mirror; `<role>/<name>.key`: who may connect and
    as what; `client.key_secret`: of this machine's user.
    """

    directory: Path

    def secret(self, name: str) -> tuple[bytes, bytes]:
        """Return the public and secret key of `name`; raises ConfigError."""
        public, secret = self._load(self.directory / f"{name}.key_secret")
        if secret is None:
            raise ConfigError(f"{self.directory}/{name}.key_secret: holds no secret key")
        return public, secret

    def mirror_public(self) -> bytes:
        """Return the public key of the mirror."""
        return self._load(self.directory / "mirror.key")[0]

    def roles(self) -> dict[bytes, Role]:
        """Return every authorised public key with its role."""
        return {
            self._load(path)[0]: role
            for role in ROLES
            for path in sorted((self.directory / role).glob("*.key"))
        }

    @staticmethod
    def _load(path: Path) -> tuple[bytes, bytes | None]:
        try:
            return zmq.auth.load_certificate(path)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: no usable CURVE key ({error}); `hil keys` makes them"
            ) from None


class _Roles:
    """Tells the authenticator which public keys may connect."""

    def __init__(self, roles: dict[bytes, Role]) -> None:
        self.roles = roles

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether `key` may connect."""
        return key in self.roles


def receive_frames(socket: zmq.Socket[bytes], flags: int = 0) -> list[bytes]:
    """Return the frames of one message; raises zmq.Again when none comes in time.

    A frame itself knows whether another one follows: `recv_multipart` asks the socket, which
    takes twice as long as to receive.
    """
    frame = socket.recv(flags, copy=False)
    found = [frame.bytes]
    while frame.more:
        frame = socket.recv(copy=False)
        found.append(frame.bytes)
    return found


def send_frames(
    socket: zmq.Socket[bytes], frames: Sequence[bytes | memoryview], flags: int = 0
) -> None:
    """Send the frames of one message, in half the time of `send_multipart`."""
    *first, last = frames
    for frame in first:
        socket.send(frame, flags | MORE, copy=True)
    socket.send(last, flags, copy=True)


class BusServer:
    """The three sockets of a mirror, bound.

    Raises ConfigError for any address beyond loopback without keys.
    """

    def __init__(self, address: Address, keys: Keys | None = None) -> None:
        if keys is None and not address.is_local:
            raise ConfigError(
                f"{address.service}.address: {address.where} can be reached from other machines "
                "and no keys are given; bind to tcp://127.0.0.1:PORT or ipc, or make keys with "
                f"`hil keys` and set {address.service}.keys"
            )
        self.address = address
        self._roles = keys.roles() if keys else None
        self._context = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self._topics: set[bytes] = set()  # that somebody subscribed to
        try:
            if keys is not None:
                self._authenticator = ThreadAuthenticator(self._context)
                self._authenticator.start()
                self._authenticator.configure_curve_callback(
                    credentials_provider=_Roles(self._roles or {})
                )
            self.command = self._bind(zmq.ROUTER, "command", keys)
            self.command.rcvtimeo = IDLE_MS
            self.status = self._bind(zmq.ROUTER, "status", keys)
            self._telemetry = self._bind(zmq.XPUB, "telemetry", keys)
        except Exception:
            self.close()
            raise

    def _bind(self, kind: int, socket: Socket, keys: Keys | None) -> zmq.Socket[bytes]:
        bound: zmq.Socket[bytes] = self._context.socket(kind)
        bound.linger = 200
        bound.setsockopt(zmq.MAXMSGSIZE, FRAME_MAX)
        if kind == zmq.ROUTER:
            bound.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if keys is not None:
            bound.curve_publickey, bound.curve_secretkey = keys.secret("mirror")
            bound.curve_server = True
        endpoint = self.address.endpoint(socket)
        try:
            bound.bind(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"{self.address.service}.address: {endpoint} cannot be bound: {error}"
            ) from None
        return bound

    def watched(self) -> bool:
        """Return whether anybody listens to the telemetry."""
        while int(self._telemetry.get(zmq.EVENTS)) & zmq.POLLIN:
            said = self._telemetry.recv()  # 1 or 0, and the topic
            (self._topics.add if said[:1] == b"\1" else self._topics.discard)(said[1:])
        return bool(self._topics)

    def publish(self, frames: list[bytes]) -> None:
        """Send telemetry."""
        self._telemetry.send_multipart(frames)

    def receive(self, *, wait: bool = True) -> tuple[bytes, list[bytes], Role]:
        """Return the next command: its sender, its frames, and what the sender may do.

        Without keys everybody may do everything. Raises TimeoutError after IDLE_MS, or at
        once where none is to be waited for.
        """
        try:
            return self._receive(0 if wait else zmq.NOBLOCK)
        except zmq.Again:
            raise TimeoutError from None

    def _receive(self, flags: int) -> tuple[bytes, list[bytes], Role]:
        if self._roles is None:
            sender, *frames = receive_frames(self.command, flags)
            return sender, frames, "admin"
        peer, *seen = self.command.recv_multipart(flags, copy=False)
        user = str(seen[0].get("User-Id")).encode() if seen else b""
        role = self._roles.get(user, "observe")
        return bytes(peer.buffer), [bytes(frame.buffer) for frame in seen], role

    def close(self) -> None:
        """Close all sockets."""
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=200)


class BusClient:
    """Asks one socket of a mirror; knows when to give up, and says whom it asked."""

    def __init__(
        self,
        address: Address,
        socket: Socket,
        replies: Any,
        keys: Keys | None = None,
        name: str = "client",
    ) -> None:
        self.endpoint = address.endpoint(socket)
        self._service = address.service
        self._decoder = msgspec.msgpack.Decoder(replies)
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.identity = f"{name}-{uuid.uuid4().hex[:8]}".encode()
        self._socket.setsockopt(zmq.MAXMSGSIZE, FRAME_MAX)
        self._socket.rcvtimeo = self._wait = LISTEN_MS
        if keys is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = keys.secret("client")
            self._socket.curve_serverkey = keys.mirror_public()
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._socket.connect(self.endpoint)
        self._seq = 0

    def ask(
        self, kind: type[Request], *arrays: AnyArray, timeout: float = 5.0, **fields: Any
    ) -> tuple[BusStruct, list[AnyArray]]:
        """Send a request and return its reply with the reply's arrays.

        timeout: seconds after which it is given up; it is resent in between, which the
        mirror answers from memory. Raises LinkError naming the mirror when it is silent
        or disconnects.
        """
        frames, name = self._frames(kind, arrays, timeout, fields), str(kind.__struct_config__.tag)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            send_frames(self._socket, frames)
            resend = time.monotonic() + min(left, RESEND_S)
            while (left := resend - time.monotonic()) > 0:
                try:
                    reply, found = self.receive(left)
                except TimeoutError:
                    self._look_for_mirror(name)
                    continue
                if reply.seq == self._seq:
                    return reply, found
        raise LinkError(
            f"{self._service} at {self.endpoint}: no answer to {name!r} within {timeout:g} s; is "
            "it running?"
        )

    def send(
        self, kind: type[Request], *arrays: AnyArray, timeout: float = 5.0, **fields: Any
    ) -> int:
        """Send a request once and return its `seq`; `receive` brings answers in any order."""
        send_frames(self._socket, self._frames(kind, arrays, timeout, fields))
        return self._seq

    def receive(self, timeout: float) -> tuple[Any, list[AnyArray]]:
        """Return the next reply and its arrays; raises TimeoutError after at most LISTEN_MS."""
        wait = min(LISTEN_MS, max(1, math.ceil(timeout * 1e3)))
        if wait != self._wait:
            self._socket.rcvtimeo = self._wait = wait
        try:
            frames = receive_frames(self._socket)
        except zmq.Again:
            raise TimeoutError from None
        return unpack(self._decoder, frames)

    def _frames(
        self, kind: type[Request], arrays: Sequence[AnyArray], timeout: float, fields: Any
    ) -> list[bytes | memoryview]:
        self._seq += 1
        now = time.time_ns()
        request = kind(seq=self._seq, t_ns=now, deadline_ns=now + int(timeout * 1e9), **fields)
        return pack(request, *arrays)

    def _look_for_mirror(self, name: str) -> None:
        if self._monitor.poll(0):
            self._monitor.recv_multipart()
            raise LinkError(
                f"{self._service} at {self.endpoint}: gone during {name!r}; is it still running?"
            )

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._socket.disable_monitor()
        self._context.destroy(linger=0)
