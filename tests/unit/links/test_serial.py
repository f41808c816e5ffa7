"""The framed link against a device double on a pseudo-terminal."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hil.errors import LinkError, PortError
from hil.links.serial import SerialLink
from hil.messages import wire
from hil.messages.frame import Frame, FrameParser, encode
from tests.devices import PtyDevice

Start = Callable[[Callable[[Frame], bytes]], tuple[PtyDevice, SerialLink]]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[tuple[PtyDevice, SerialLink]] = []

    def make(answer: Callable[[Frame], bytes]) -> tuple[PtyDevice, SerialLink]:
        device = PtyDevice(answer)
        link = SerialLink(device.port)
        link.open()
        made.append((device, link))
        return made[-1]

    yield make
    for device, link in made:
        link.close()
        device.close()


def echo_time(frame: Frame) -> bytes:
    assert isinstance(frame.message, wire.TimeRequest)
    return encode(wire.Time(frame.message.host_ns, 5), frame.seq)


def test_answers_come_back_in_order_over_many_windows(start: Start) -> None:
    _, link = start(echo_time)
    answers = link.exchange([wire.TimeRequest(n) for n in range(100)])
    assert [a.host_ns for a in answers if isinstance(a, wire.Time)] == list(range(100))
    assert (link.counters.requests, link.counters.retransmits) == (100, 0)


def test_a_lost_request_is_sent_again_and_counted(start: Start) -> None:
    lost = {3, 7}

    def forgetful(frame: Frame) -> bytes:
        if frame.seq in lost:
            lost.discard(frame.seq)
            return b""
        return echo_time(frame)

    device, link = start(forgetful)
    answers = link.exchange([wire.TimeRequest(n) for n in range(10)], timeout=0.1)
    assert len(answers) == 10
    assert link.counters.retransmits == 2
    assert sorted(f.seq for f in device.heard) == sorted([*range(1, 11), 3, 7])


def test_garbage_duplicates_and_announcements_between_answers(start: Start) -> None:
    done = encode(wire.RunDone(1, 2, 3, 2))

    def noisy(frame: Frame) -> bytes:
        return b"\x55garbage\0" + done + echo_time(frame) * 2

    _, link = start(noisy)
    answers = [link.exchange([wire.TimeRequest(n)])[0] for n in range(20)]
    assert [a.host_ns for a in answers if isinstance(a, wire.Time)] == list(range(20))
    assert link.parser.counters.bad_frames >= 19
    assert isinstance(link.unasked(), wire.RunDone)


def test_late_answers_are_counted_and_never_mistaken(start: Start) -> None:
    """A device that answers everything one request late."""
    kept: list[bytes] = []

    def late(frame: Frame) -> bytes:
        kept.append(echo_time(frame))
        return kept[-2] if len(kept) > 1 else b""

    _, link = start(late)
    for n in range(5):
        (answer,) = link.exchange([wire.TimeRequest(n)], timeout=0.05)
        assert isinstance(answer, wire.Time)
        assert answer.host_ns == n
    assert link.counters.stray > 0
    assert link.counters.retransmits > 0


# pyserial's socket:// forgets to close a socket whose peer has hung up already.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")
def test_a_socket_is_a_port_like_any_other() -> None:
    """`socket://` as serial servers speak it; the peer hangs up at the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            parser = FrameParser()
            with peer:
                for _ in range(2):
                    for frame in parser.feed(peer.recv(4096)):
                        peer.sendall(echo_time(frame))

        thread = threading.Thread(target=serve)
        thread.start()
        link = SerialLink(f"socket://127.0.0.1:{server.getsockname()[1]}")
        link.open()
        for n in (1, 2):
            (answer,) = link.exchange([wire.TimeRequest(n)], timeout=2.0)
            assert answer == wire.Time(n, 5)
        thread.join()
        with pytest.raises(LinkError):
            link.exchange([wire.TimeRequest(3)], timeout=0.05, retries=3)
        link.close()


def test_a_silent_device_is_named_with_what_was_asked(start: Start) -> None:
    device, link = start(lambda frame: b"")
    with pytest.raises(LinkError, match=f"{device.port}: the device did not answer StateRequest"):
        link.exchange([wire.StateRequest(0)], timeout=0.02, retries=2)
    assert link.counters.timeouts == 2
    assert len(device.heard) == 3


def test_a_pulled_cable_closes_the_link(start: Start) -> None:
    device, link = start(echo_time)
    device.close()
    with pytest.raises(LinkError, match=r"lost|did not answer"):
        link.exchange([wire.TimeRequest(1)], timeout=0.02, retries=1)
    device.close = lambda: None  # type: ignore[method-assign]


def test_a_missing_port_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    for url in (str(tmp_path / "none"), "nonsense://x", "socket://127.0.0.1:1"):
        with pytest.raises(PortError, match="hil devices") as error:
            SerialLink(url).open()
        assert "\n" not in str(error.value)
