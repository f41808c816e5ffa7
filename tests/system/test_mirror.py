"""The mirror over the bus: one commands, all watch, nothing passes a limit."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from hil.errors import (
    DeadmanError,
    FaultError,
    LeaseError,
    LinkError,
    RunError,
    SafetyError,
)
from hil.links.zeromq import BusClient, Keys
from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.messages import bus
from hil.rigs.base import RigState, Token
from hil.rigs.remote import RemoteRig
from hil.rigs.session import stop_rig
from hil.safety.deadman import Minting
from hil.services import keyring, owner
from tests.system.rigs import (
    address,
    board,
    client,
    events,
    hil,
    kill,
    mirror,
    spring_config,
    until,
)

MIDDLE = np.full(28, 137.5)
NETWORK = SpringNetwork.from_geometry(triangular_lattice(4))


def load_cases(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.05, 0.05, (count, 24))


@pytest.mark.smoke
def test_one_load_case_one_gradient_over_the_wire(tmp_path: Path) -> None:
    """The thin line through all rooms: C firmware, serial, mirror, ZeroMQ."""
    config = spring_config(ideal=True)
    with mirror(config, tmp_path), client(config) as rig:
        info = rig.configure()
        assert (info.dof, info.bonds) == (24, 28)
        rig.activate()
        applied = rig.set_stiffness(MIDDLE)
        np.testing.assert_allclose(applied, MIDDLE, rtol=1e-6)
        loads = load_cases(1)
        loss_gradient = np.zeros((1, 24))
        loss_gradient[0, 9] = 1.0
        forward = rig.settle(loads)
        adjoint = rig.settle(-0.05 * loss_gradient)
        gradient = (adjoint.elongation * forward.elongation).mean(0) / 0.05
        exact = NETWORK.backpropagate(MIDDLE, loads, lambda _: loss_gradient)
        cosine = (
            gradient @ exact.gradient / np.linalg.norm(gradient) / np.linalg.norm(exact.gradient)
        )
        assert 1.0 - cosine <= 1e-6
        assert forward.twin_residual is not None
        assert forward.twin_residual < 1e-5


def test_a_batch_longer_than_a_token_is_sent_in_parts(tmp_path: Path) -> None:
    config = spring_config(ideal=True)
    with mirror(config, tmp_path), client(config) as rig:
        assert rig.configure().max_cases < 50
        rig.activate()
        rig.set_stiffness(MIDDLE)
        loads = load_cases(50)
        measured = rig.settle(loads)
        expected = NETWORK.settle(MIDDLE, loads)
        np.testing.assert_allclose(measured.displacement, expected.displacement, atol=2e-9)
        np.testing.assert_allclose(measured.elongation, expected.elongation, atol=2e-9)


def test_a_second_client_is_refused_with_a_reason_and_may_watch(tmp_path: Path) -> None:
    config = spring_config()
    with mirror(config, tmp_path), client(config, "first") as first:
        first.configure()
        with client(config, "second") as second, pytest.raises(LeaseError, match="first holds the"):
            second.configure()
        first.activate()
        first.set_stiffness(MIDDLE)
        report = owner.status(config)
        assert report is not None
        assert (report.holder, report.state) == ("first", "active")
        assert report.counters.refused_mirror == 1
        first.close()
        with client(config, "second") as second:
            second.configure()
            assert second.state is RigState.INACTIVE


def test_a_lease_that_runs_out_makes_the_rig_safe(tmp_path: Path) -> None:
    config = spring_config(mirror__lease=0.3)
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        rig.activate()
        until(lambda: (r := owner.status(config)) is not None and r.state == "inactive")
        with pytest.raises(LeaseError, match="has expired"):
            rig.settle(load_cases(1))


def test_no_limit_can_be_passed_without_our_client(tmp_path: Path) -> None:
    """A client that makes its messages itself: the mirror holds the limits, not the client."""
    config = spring_config(ideal=True)
    with mirror(config, tmp_path):
        ask = BusClient(address(config), "command", bus.CommandReply)
        leased, _ = ask.ask(bus.Acquire, client="raw")
        assert isinstance(leased, bus.Leased)
        for kind in (bus.Configure, bus.Activate):
            assert isinstance(ask.ask(kind, lease=leased.lease)[0], bus.Done)
        for lease, force, code in (
            ("guess", 0.01, "lease"),
            (leased.lease, 0.3, "limit"),
            (leased.lease, np.nan, "limit"),
        ):
            loads = np.full((1, 24), force)
            reply, _ = ask.ask(
                bus.Settle,
                loads,
                lease=lease,
                token=1,
                valid_until_us=10**12,
                loads=bus.ArrayRef.of(loads),
            )
            assert isinstance(reply, bus.Refused)
            assert reply.code == code
        stiff = np.full(28, 1e6)
        reply, (applied,) = ask.ask(
            bus.SetStiffness, stiff, lease=leased.lease, stiffness=bus.ArrayRef.of(stiff)
        )
        np.testing.assert_array_equal(applied, np.full(28, 206.25))
        ask.close()


class Odd(Minting):
    """Mints what a test tells it to, and notes when its tokens end."""

    def __init__(self, life_us: int, sequence: int = 0) -> None:
        super().__init__(life_us)
        self.sequence = sequence
        self.minted: list[Token] = []

    def take(self, device_us: int) -> Token:
        token = super().take(device_us)
        if self.sequence:
            token = Token(self.sequence, token.valid_until_us)
        self.minted.append(token)
        return token


def test_a_used_token_is_refused(tmp_path: Path) -> None:
    config = spring_config(ideal=True)
    with mirror(config, tmp_path), client(config, mint=lambda life: Odd(life, 7)) as rig:
        rig.configure()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        rig.settle(load_cases(1))
        with pytest.raises(DeadmanError, match="TOKEN_STALE"):
            rig.settle(load_cases(1))


def test_one_token_is_worth_one_batch_of_a_device(tmp_path: Path) -> None:
    """A client that asks for an hour and does not split: the mirror cannot make a second token."""
    record = tmp_path / "plant.jsonl"
    config = spring_config(ideal=True, board__record=str(record), rig__watchdog=0.3)
    with mirror(config, tmp_path), client(config, mint=lambda _: Odd(3_600_000_000)) as rig:
        info = rig.configure()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        rig._info = replace(info, max_cases=32)
        with pytest.raises(DeadmanError, match="needs a token of its own"):
            rig.settle(load_cases(20))
        assert events(record)[-1]["max"] == 0


def test_an_expired_token_ends_the_batch_in_a_latched_fault(tmp_path: Path) -> None:
    record = tmp_path / "plant.jsonl"
    config = spring_config(ideal=True, board__record=str(record))
    with mirror(config, tmp_path), client(config, mint=lambda life: Minting(100_000)) as rig:
        rig.configure()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        begin = rig.device_us
        with pytest.raises(DeadmanError, match="expired"):
            rig.settle(load_cases(16))
        assert rig.fault
        last = events(record)[-1]
        assert last["max"] == 0
        assert last["time_us"] == begin + 100_000
        with pytest.raises(FaultError, match=r"clear\(\)"):
            rig.settle(load_cases(1))
        rig.clear()
        assert rig.state is RigState.INACTIVE
        np.testing.assert_allclose(rig.read_stiffness(), MIDDLE, rtol=1e-6)
        rig.activate()
        rig.settle(load_cases(2))


def test_stop_needs_no_lease_and_latches(tmp_path: Path) -> None:
    """In the middle of a batch, from another process."""
    record = tmp_path / "plant.jsonl"
    config = spring_config(clock="wall", board__record=str(record), rig__settle=0.2)
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        failures: list[Exception] = []

        def work() -> None:
            try:
                rig.settle(load_cases(100))
            except RunError as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: any(e["max"] > 0 for e in events(record)))
        ended = hil("stop", "--reason", "smoke on the bench", "--json")
        thread.join()
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout) == {"stopped": {"spring-network": "fault"}}
        assert events(record)[-1]["max"] == 0
        (error,) = failures
        assert isinstance(error, FaultError)
        assert "smoke on the bench" in str(error)
        report = owner.status(config)
        assert report is not None
        assert (report.state, report.fault) == ("fault", "smoke on the bench")
        rig.clear()
        rig.activate()


def test_a_killed_mirror_leaves_a_safe_plant(tmp_path: Path) -> None:
    """kill −9 in the middle of a batch; judged by the plant's own record."""
    with board(tmp_path, "clock=wall", "rig.settle=0.3", "rig.watchdog=1.5") as (port, record):
        config = spring_config(sim=False, rig__port=str(port), rig__settle=0.3, rig__watchdog=1.5)
        odd = Odd(600_000)
        with mirror(config, tmp_path), client(config, mint=lambda _: odd) as rig:
            rig.configure()
            rig.activate()
            rig.set_stiffness(MIDDLE)
            failures: list[Exception] = []

            def work() -> None:
                try:
                    rig.settle(load_cases(3))
                except RunError as error:
                    failures.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            until(lambda: any(e["max"] > 0 for e in events(record)))
            report = owner.status(config)
            assert report is not None
            kill(report.pid)
            thread.join()
            (error,) = failures
            assert isinstance(error, LinkError)
            assert "mirror at ipc://" in str(error)
            until(lambda: events(record)[-1]["max"] == 0)
            late = events(record)[-1]["time_us"] - odd.minted[-1].valid_until_us
            assert 0 <= late < 500_000  # us; how late Linux wakes a process, not the firmware
        with mirror(config, tmp_path), client(config, "next") as rig:
            rig.configure()  # reads the device back and clears its expired token
            rig.activate()
            assert events(record)[-1]["max"] == 0  # recovery moved nothing
            rig.settle(load_cases(1))


def test_a_pulled_cable_is_a_fault_and_a_new_one_recovers(tmp_path: Path) -> None:
    port = tmp_path / "port"
    config = spring_config(sim=False, rig__port=str(port))
    with contextlib.ExitStack() as stack:
        with board(tmp_path, "clock=wall"):
            stack.enter_context(mirror(config, tmp_path))
        until(lambda: (r := owner.status(config)) is not None and r.state == "fault")
        report = owner.status(config)
        assert report is not None
        assert str(port) in report.fault
        stack.enter_context(board(tmp_path, "clock=wall"))
        rig = stack.enter_context(client(config))
        rig.configure()
        assert rig.state is RigState.FAULT
        rig.clear()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        rig.settle(load_cases(1))
        after = owner.status(config)
        assert after is not None
        assert after.counters.reconnects >= 1


def test_garbage_on_the_bus_is_refused_and_counted(tmp_path: Path) -> None:
    config = spring_config()
    rng = np.random.default_rng(3)
    with mirror(config, tmp_path):
        context = zmq.Context()
        for socket in ("command", "status"):
            raw = context.socket(zmq.DEALER)
            raw.linger = 500
            raw.connect(address(config).endpoint(socket))
            for _ in range(2000):
                frames = [rng.bytes(int(rng.integers(0, 200))) for _ in range(rng.integers(1, 4))]
                raw.send_multipart(frames)
            raw.close()
        context.term()
        until(lambda: (r := owner.status(config)) is not None and r.counters.refused_mirror == 2000)
        with client(config) as rig:
            rig.configure()


def test_a_late_command_is_not_begun(tmp_path: Path) -> None:
    config = spring_config()
    with mirror(config, tmp_path):
        context = zmq.Context()
        raw = context.socket(zmq.DEALER)
        raw.connect(address(config).endpoint("command"))
        raw.send_multipart(bus.pack(bus.Acquire(seq=1, t_ns=0, deadline_ns=1, client="late")))
        reply, _ = bus.unpack(msgspec.msgpack.Decoder(bus.CommandReply), raw.recv_multipart())
        raw.close()
        context.term()
        assert isinstance(reply, bus.Refused)
        assert "deadline" in reply.reason


def test_telemetry_says_state_measurement_and_twin(tmp_path: Path) -> None:
    config = spring_config()
    with mirror(config, tmp_path), client(config) as rig:
        context = zmq.Context()
        listener = context.socket(zmq.SUB)
        listener.subscribe(b"")
        listener.connect(address(config).endpoint("telemetry"))
        assert listener.poll(5000)  # the state comes by itself
        rig.configure()
        rig.activate()
        rig.set_stiffness(MIDDLE)
        rig.settle(load_cases(2))
        heard: dict[str, dict[str, object]] = {}
        while "spring-network/measurement" not in heard:
            assert listener.poll(5000)
            topic, body, stamp = listener.recv_multipart()
            heard[topic.decode()] = msgspec.msgpack.decode(body)
            assert float(stamp) >= 0
        listener.close()
        context.term()
    measurement = heard["spring-network/measurement"]
    elongation = measurement["elongation"]
    assert isinstance(elongation, list)
    assert len(elongation) == 28
    residual = measurement["twin_residual"]
    assert isinstance(residual, float)
    assert 0.001 < residual < 0.2  # 12 bit, 0.5 % mismatch, 1 % noise: seen, and no more
    assert heard["spring-network/state"]["t_ns"] is not None


def test_one_rig_one_mirror(tmp_path: Path) -> None:
    config = spring_config()
    with mirror(config, tmp_path), pytest.raises(SafetyError, match="another mirror owns it"):
        owner.ChildMirror(owner.MirrorJob(config), tmp_path / "second.log").__enter__()


def test_wall_clock_estimates_the_clock_offset(tmp_path: Path) -> None:
    config = spring_config(clock="wall")
    with mirror(config, tmp_path), client(config) as rig:
        rig.configure()
        report = owner.status(config)
        assert report is not None
        assert report.clock_offset_us is not None
        assert report.round_trip_us is not None
        assert report.round_trip_us > 0


def test_a_key_may_do_what_its_role_says(tmp_path: Path) -> None:
    """CURVE over TCP: watch with observe, measure with operate, learn with train."""
    keyring.make(tmp_path / "keys", "client", "train")
    for role in ("observe", "operate"):
        keyring.make(tmp_path / "keys", role, role)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1] % 60000 + 2000
    where = f"tcp://127.0.0.1:{port}"
    config = spring_config(mirror__address=where, mirror__keys=str(tmp_path / "keys"))
    with mirror(config, tmp_path):
        for role, complaint in (
            ("observe", "acquire needs the role operate, this key has observe"),
            ("operate", "set_stiffness needs the role train, this key has operate"),
            ("client", ""),
        ):
            own = tmp_path / role
            own.mkdir()
            shutil.copy(tmp_path / "keys/mirror.key", own)
            shutil.copy(tmp_path / f"keys/{role}.key_secret", own / "client.key_secret")
            rig = RemoteRig(address(config), mint=Minting, client=role, keys=Keys(own))
            with rig, pytest.raises(SafetyError, match=complaint) if complaint else nullcontext():
                rig.configure()
                rig.activate()
                rig.settle(load_cases(1))
                rig.set_stiffness(MIDDLE)
        assert owner.status(config) is not None
        assert stop_rig(address(config), "anybody may", Keys(tmp_path / "observe")) == "fault"
