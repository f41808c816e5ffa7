"""Addresses, keys, roles, and a client that knows when to give up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from hil.errors import ConfigError, InputError, LinkError
from hil.links.zeromq import Address, BusClient, BusServer, Keys
from hil.messages import bus
from hil.services import keyring

ENQUIRY = msgspec.msgpack.Decoder(bus.Enquiry)


@contextmanager
def answering(
    server: BusServer, answer: Callable[[bus.Request, bus.Role], bus.Reply | None]
) -> Iterator[list[bus.Request]]:
    """Answer commands in a thread; yields what was asked."""
    asked: list[bus.Request] = []
    end = threading.Event()

    def run() -> None:
        while not end.is_set():
            try:
                sender, frames, role = server.receive()
            except TimeoutError:
                continue
            request, _ = bus.unpack(ENQUIRY, frames)
            asked.append(request)
            reply = answer(request, role)
            if reply is not None:
                server.command.send_multipart([sender, *bus.pack(reply)])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        end.set()
        thread.join()
        server.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def done(request: bus.Request, state: str = "inactive") -> bus.Done:
    return bus.Done(seq=request.seq, t_ns=0, device_us=0, state=state, fault="")


def ask(address: Address, keys: Keys | None = None, timeout: float = 3.0) -> bus.BusStruct:
    client = BusClient(address, "command", bus.EnquiryReply, keys)
    try:
        return client.ask(bus.Stop, timeout=timeout, reason="test")[0]
    finally:
        client.close()


def test_a_question_and_its_answer() -> None:
    address = Address("ipc", "rig")
    with answering(BusServer(address), lambda r, role: done(r, role)):
        reply = ask(address)
    assert isinstance(reply, bus.Done)
    assert reply.state == "admin"


def test_an_unanswered_question_is_asked_again_with_the_same_number() -> None:
    address = Address("ipc", "rig")
    replies = iter([False, True])
    with answering(BusServer(address), lambda r, _: done(r) if next(replies) else None) as asked:
        ask(address, timeout=5.0)
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_a_silent_and_a_vanished_mirror_are_named() -> None:
    address = Address("ipc", "rig")
    with pytest.raises(LinkError, match=r"mirror at ipc://.*/rig/command: no answer to 'stop'"):
        ask(address, timeout=0.2)
    server = BusServer(address)
    client = BusClient(address, "command", bus.EnquiryReply)
    with answering(server, lambda r, _: done(r)):
        client.ask(bus.Stop, reason="first")
    with pytest.raises(LinkError, match=r"mirror at ipc://.*: gone during 'stop'"):
        client.ask(bus.Stop, reason="second", timeout=10.0)
    client.close()


@pytest.mark.parametrize(
    "where", ["tcp://0.0.0.0:5570", "tcp://192.168.1.5:5570", "tcp://*:5570", "tcp://eth0:5570"]
)
def test_nothing_listens_beyond_loopback_without_keys(where: str) -> None:
    with pytest.raises(ConfigError, match="no keys are given"):
        BusServer(Address(where, "rig"))


@pytest.mark.parametrize("where", ["nonsense", "tcp://127.0.0.1", "udp://127.0.0.1:1", "ipc://x"])
def test_a_wrong_address_says_what_is_expected(where: str) -> None:
    with pytest.raises(ConfigError, match=r"mirror\.address"):
        BusServer(Address(where, "rig"))


def test_keys_decide_who_connects_and_as_what(tmp_path: Path) -> None:
    keyring.make(tmp_path / "mirror", "laptop", "observe")
    keyring.make(tmp_path / "stranger", "laptop", "admin")
    with pytest.raises(InputError, match="choose another --client"):
        keyring.make(tmp_path / "mirror", "laptop", "observe")
    for path in (tmp_path / "mirror").glob("*.key_secret"):
        assert path.stat().st_mode & 0o077 == 0
    client, stranger = tmp_path / "client", tmp_path / "stranger-client"
    for place, source in ((client, "mirror"), (stranger, "stranger")):
        place.mkdir()
        (place / "mirror.key").write_bytes((tmp_path / "mirror" / "mirror.key").read_bytes())
        secret = (tmp_path / source / "laptop.key_secret").read_bytes()
        (place / "client.key_secret").write_bytes(secret)
    address = Address("tcp://127.0.0.1:45570", "rig")
    with answering(BusServer(address, Keys(tmp_path / "mirror")), lambda r, role: done(r, role)):
        reply = ask(address, Keys(client))
        assert isinstance(reply, bus.Done)
        assert reply.state == "observe"
        for keys in (Keys(stranger), None):
            with pytest.raises(LinkError):
                ask(address, keys, timeout=0.5)


def test_whether_anybody_listens_to_the_telemetry_is_known() -> None:
    server = BusServer(Address("ipc", "rig"))
    context = zmq.Context()
    listeners = []
    for topic in (b"rig/", b"rig/", b""):  # the same twice: the last to go ends it
        listener = context.socket(zmq.SUB)
        listener.linger, listener.rcvtimeo = 0, 3000
        listener.setsockopt(zmq.SUBSCRIBE, topic)
        listeners.append(listener)
    assert not server.watched()
    try:
        for listener in listeners:
            listener.connect(server.address.endpoint("telemetry"))
        until(server.watched)
        for listener in listeners:
            assert server.watched()
            listener.close()
        until(lambda: not server.watched())
    finally:
        context.destroy(linger=0)
        server.close()


def test_telemetry_arrives_in_three_frames() -> None:
    server = BusServer(Address("ipc", "rig"))
    context = zmq.Context()
    listener = context.socket(zmq.SUB)
    listener.linger, listener.rcvtimeo = 0, 3000
    listener.setsockopt(zmq.SUBSCRIBE, b"rig/state")
    listener.connect(server.address.endpoint("telemetry"))
    try:
        until(server.watched)
        server.publish(bus.telemetry("rig/state", {"a": 1}, 1_500_000_000))
        topic, values, stamp = listener.recv_multipart()
        assert (topic, msgspec.msgpack.decode(values), stamp) == (
            b"rig/state", {"a": 1}, b"1.500000000",
        )  # fmt: skip
    finally:
        context.destroy(linger=0)
        server.close()


def test_a_missing_key_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mirror\.key_secret: no usable CURVE key"):
        BusServer(Address("tcp://127.0.0.1:45580", "rig"), Keys(tmp_path))
