"""The cart-pole rig against a device double that loses frames, restarts, and talks much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import build, load
from hil.errors import FaultError, LinkError
from hil.messages import wire
from hil.messages.frame import Frame, encode
from hil.messages.layout import Message
from hil.rigs.base import RigState
from hil.rigs.cart_pole import CartPoleRig
from hil.safety.deadman import Minting
from hil.types import ClockKind
from tests.devices import PtyDevice

CONFIG = Path(__file__).parents[3] / "configs" / "cart_pole.toml"
Made = tuple["FakeCartPole", CartPoleRig]
Start = Callable[..., Made]


class FakeCartPole:
    """Answers as the firmware does; `sends` says which samples follow an answer."""

    def __init__(self) -> None:
        self.mode = wire.Mode.INACTIVE
        self.fault = wire.Fault.NONE
        self.newest = 0
        self.sends: Callable[[Message], int] = lambda message: 0
        self.lost = 0  # samples that are made and never arrive
        self.heard: list[Message] = []

    def answer(self, frame: Frame) -> bytes:
        message = frame.message
        self.heard.append(message)
        if isinstance(message, wire.ModeRequest):
            clear = message.mode == wire.Mode.CLEAR
            self.mode = wire.Mode.INACTIVE if clear else wire.Mode(message.mode)
        reply = encode(self.reply(message), frame.seq)
        for _ in range(self.sends(message)):
            self.newest += 1
            if self.lost:
                self.lost -= 1
            else:
                reply += encode(self.sample())
        return reply

    def sample(self) -> wire.Sample:
        return wire.Sample(
            20_000 * self.newest, self.newest, 0, 0.5, 0.25, 1.5, self.mode, self.fault, 3
        )

    def reply(self, message: Message) -> Message:
        if isinstance(message, wire.InfoRequest):
            application, board = wire.Application.CART_POLE, tuple(b"double".ljust(16, b"\0"))
            return wire.Info(0, 7, wire.SCHEMA_CRC, application, 256, 1_000_000, 1, 0, 0, 0, board)
        if isinstance(message, wire.TimeRequest):
            return wire.Time(message.host_ns, 20_000 * self.newest)
        if isinstance(message, wire.Drive):
            return wire.Driven(20_000 * self.newest, message.token, self.newest, message.force, 0)
        if isinstance(message, wire.SampleRequest):
            return self.sample()
        now = 20_000 * self.newest
        return wire.State(now, self.newest, 0, 0, 0, 0, 0, 0, self.mode, self.fault, 0, 0)


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[tuple[CartPoleRig, PtyDevice]] = []

    def make(clock: ClockKind, **overrides: Any) -> Made:
        fake = FakeCartPole()
        device = PtyDevice(fake.answer)
        rig: CartPoleRig = build(
            load(CONFIG, overrides=overrides).rig,
            "rig",
            tokens=Minting(100_000),
            clock=clock,
            port=device.port,
        )
        made.append((rig, device))
        return fake, rig

    yield make
    for rig, device in made:
        rig.close()
        device.close()


def lock_step(message: Message) -> int:
    return int(isinstance(message, wire.CartPoleSetup | wire.Drive | wire.Pass))


def test_a_sample_says_what_the_device_said(start: Start) -> None:
    fake, rig = start("virtual")
    fake.sends = lock_step
    info = rig.configure()
    assert (info.device_id, info.details["board"]) == ("0000000000000007", "double")
    sample = rig.read()
    np.testing.assert_array_equal(sample.y, [0.5, 0.25])
    np.testing.assert_array_equal(sample.u, [1.5])
    assert (sample.device_us, sample.sequence, sample.missed) == (20_000, 1, 0)
    assert sample.flags == ("interlock", "late")


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_a_sample_that_is_lost_on_the_way_is_asked_for(start: Start, clock: ClockKind) -> None:
    fake, rig = start(clock)
    fake.sends = lock_step
    fake.lost = 1
    rig.configure()
    assert rig.read().sequence == 1
    assert wire.SampleRequest(0) in fake.heard


def test_a_device_without_new_samples_is_given_up(start: Start) -> None:
    fake, rig = start("wall")
    rig.configure()
    with pytest.raises(LinkError, match="sends no new samples"):
        rig.read()
    assert rig.state is RigState.FAULT
    fake.sends = lock_step
    rig.clear()
    assert rig.read().sequence == 1


def test_the_newest_of_many_is_returned_and_the_rest_counted(start: Start) -> None:
    fake, rig = start("wall")
    fake.sends = lambda message: 40 if isinstance(message, wire.Drive) else 0
    rig.configure()
    rig.activate()
    rig.write(np.array([1.0]))
    # The 40 may arrive in a few pieces; none is returned twice and none is forgotten.
    samples = [rig.read()]
    while samples[-1].sequence < 40:
        samples.append(rig.read())
    assert len(samples) < 40
    assert sum(sample.missed + 1 for sample in samples) == 40


def test_each_command_has_a_token_of_its_own_from_the_time_of_the_sample(start: Start) -> None:
    fake, rig = start("virtual")
    fake.sends = lock_step
    rig.configure()
    rig.activate()
    for force in (1.0, -2.0):
        rig.read()
        rig.write(np.array([force]))
    drives = [m for m in fake.heard if isinstance(m, wire.Drive)]
    assert drives == [wire.Drive(120_000, 1, 1.0), wire.Drive(140_000, 2, -2.0)]


def test_reading_without_writing_passes_each_sample_once(start: Start) -> None:
    fake, rig = start("virtual")
    fake.sends = lock_step
    rig.configure()
    assert [rig.read().sequence for _ in range(4)] == [1, 2, 3, 4]
    passes = [m for m in fake.heard if isinstance(m, wire.Pass)]
    assert passes == [wire.Pass(1), wire.Pass(2), wire.Pass(3)]


def test_what_was_sent_before_activation_is_no_news(start: Start) -> None:
    fake, rig = start("wall")
    fake.sends = lambda message: 3 if isinstance(message, wire.CartPoleSetup) else 0
    rig.configure()
    fake.sends = lambda message: int(isinstance(message, wire.Drive))
    rig.activate()
    rig.write(np.array([0.0]))
    sample = rig.read()
    assert (sample.sequence, sample.missed) == (4, 0)


def test_a_fault_in_a_sample_is_raised_and_latched(start: Start) -> None:
    fake, rig = start("virtual")
    fake.sends = lock_step
    rig.configure()
    rig.activate()
    rig.read()
    fake.mode, fake.fault = wire.Mode.FAULT, wire.Fault.SENSOR
    rig.write(np.array([0.0]))
    with pytest.raises(FaultError, match="device fault SENSOR, seen at device time 40000 us"):
        rig.read()
    assert rig.fault == "device fault SENSOR"


def test_a_stop_from_elsewhere_ends_a_read_that_waits(start: Start) -> None:
    fake, rig = start("wall")

    def stop_it(message: Message) -> int:
        if isinstance(message, wire.SampleRequest):  # asked by a read that waits
            rig.stop("elsewhere")
        return 0

    fake.sends = stop_it
    rig.configure()
    with pytest.raises(FaultError, match=r"elsewhere.*clear\(\)"):
        rig.read()
    assert fake.heard[-1] == wire.ModeRequest(wire.Mode.FAULT)
