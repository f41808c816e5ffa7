"""The inference process whole: clients, front, worker; killed, flooded, poisoned, swapped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from hil.config import Config, check, load
from hil.control.base import SolutionStatus
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.control.mppi import Mppi, MppiSettings
from hil.errors import InputError, LeaseError
from hil.inference.client import InferenceClient, model_of, results
from hil.inference.remote import RemoteModel, RemoteModelSettings
from hil.links.zeromq import Address
from hil.loop import Answer, ControlLoop, LoopSettings
from hil.mechanics.integrate import rk4
from hil.messages import bus
from hil.messages import inference as said
from hil.models import store
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel
from hil.models.rollouts import TURN, About, Charges, rollouts_for
from hil.services import infer
from hil.types import Array
from tests.contract.test_models import untrained_fnode
from tests.system.rigs import until
from tests.unit.loop.test_loop import RecordedRig, Seen

ADDRESS = Address("ipc", "inference", "inference")
SHIPPED = Path(__file__).parents[2] / "configs" / "inference.toml"
EQUATIONS = {"kind": "hil.models.analytic:CartPoleModel"}
SAMPLER: dict[str, Any] = {
    "horizon": 12, "dt": 0.02, "input_limits": [[-20.0, 20.0]],
    "state_weights": [10.0, 10.0, 1.0, 1.0], "input_weights": [0.05],
}  # fmt: skip
X, U = np.array([[0.1, 0.2, -0.3, 0.4]]), np.array([[1.5]])


def free_port() -> int:
    """Return a port of loopback that nobody listens to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def config(path: Path | None, **model: Any) -> Config:
    table = {"models": {"fnode": ({"path": str(path)} if path else {}) | model}}
    return Config(name="inference", inference=table)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store.save(untrained_fnode(), tmp_path_factory.mktemp("store"), {})


@contextlib.contextmanager
def serving(found: Config) -> Iterator[InferenceClient]:
    """Serve in a thread of this process; yields a client. What goes wrong there, fails here."""
    end, ready = threading.Event(), threading.Event()
    ended: list[object] = []

    def tell(line: str) -> None:
        if "ctrl-C" in line:
            ready.set()

    def run() -> None:
        try:
            ended.append(infer.serve_until(found, end, tell))
        except BaseException as error:  # noqa: BLE001 - told below
            ended.append(error)
        ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        assert not ended, ended
        with contextlib.closing(InferenceClient(ADDRESS)) as client:
            yield client
    finally:
        end.set()
        thread.join()
    assert isinstance(ended[0], said.Described), ended


def counts(client: InferenceClient) -> said.Counts:
    return model_of(client.describe(), "fnode").counts


def collect(
    client: InferenceClient, seqs: set[int], seconds: float = 60.0
) -> dict[int, said.Answer]:
    """Return the answer to every request; fails where one has none or two."""
    found: dict[int, said.Answer] = {}
    end = time.monotonic() + seconds
    while seqs - found.keys():
        assert time.monotonic() < end, f"{len(seqs - found.keys())} without an answer"
        with contextlib.suppress(TimeoutError):
            answer = client.receive(0.02).answer
            assert answer.seq in seqs
            assert answer.seq not in found
            found[answer.seq] = answer
    return found


def test_answers_are_those_of_the_model_and_come_in_batches(stored: Path) -> None:
    model = untrained_fnode()
    random = np.random.default_rng(0)
    with serving(config(stored)) as client:
        for n in (1, 7):
            x, u = random.normal(size=(n, 4)), random.normal(size=(n, 1))
            outcome = client.ask("fnode", "linearise", x, u)
            for got, want in zip(results(outcome), model.linearise(x, u), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
            (distance,) = results(client.ask("fnode", "domain", x, u))
            assert distance[0] == pytest.approx(model.domain(x[0], u[0]))
        plan = random.normal(size=(3, 5, 1))
        (states,) = results(client.ask("fnode", "rollout", X, plan, np.array([0.02])))
        after = rk4(model.acceleration, np.repeat(X, 3, 0), plan[:, 0], 0.02)
        np.testing.assert_allclose(states[:, 0], after, rtol=1e-12)
        single = client.ask("fnode", "acceleration", X.astype("f4"), U.astype("f4"))
        assert results(single)[0].dtype == np.float32
        seqs = {client.send("fnode", "linearise", X, U, timeout=20.0) for _ in range(200)}
        answers = collect(client, seqs).values()
        assert all(isinstance(a, said.Result) for a in answers)
        assert max(a.timing.batch_rows for a in answers if isinstance(a, said.Result)) > 1


def test_what_is_wrong_is_named_and_nothing_is_wedged(stored: Path) -> None:
    with serving(config(stored, slot_mib=1)) as client:
        nan = X.copy()
        nan[0, 2] = np.nan
        wrong: dict[str, tuple[Any, ...]] = {
            "x: nan at [0, 2]": ("fnode", "linearise", nan, U),
            "expected (rows, 4)": ("fnode", "linearise", X[:, :3], U),
            "found int64": ("fnode", "linearise", X, U.astype(int)),
            "expected x, u": ("fnode", "linearise", X),
            "no operation 'nothing'": ("fnode", "nothing", X, U),
            "no model 'other'": ("other", "linearise", X, U),
            "ask in parts": ("fnode", "acceleration", np.zeros((30_000, 4)), U),
        }
        for text, asked in wrong.items():
            answer = client.ask(*asked).answer
            assert isinstance(answer, said.Rejected)
            assert text in answer.reason
        context = zmq.Context()
        raw = context.socket(zmq.DEALER)
        raw.linger, raw.rcvtimeo = 0, 5000
        raw.connect(ADDRESS.endpoint("command"))
        decoder = msgspec.msgpack.Decoder(said.InferenceAnswer)
        gigabyte = {"type": "array", "dtype": "<f8", "shape": [1 << 27]}
        now = time.time_ns()
        head = {"type": "ask", "seq": 7, "t_ns": now, "deadline_ns": now + 10**10}
        fields = {"model": "fnode", "operation": "linearise", "inputs": [gigabyte]}
        claims = [
            ([msgspec.msgpack.encode({**head, **fields}), b"small"], 7, "needs 1073741824 bytes"),
            ([msgspec.msgpack.encode({**head, "type": "pickle"})], 7, "refused"),
            ([b"\x80\x04cos\nsystem\n"], 0, "refused"),
        ]
        try:
            for frames, seq, text in claims:
                raw.send_multipart(frames)
                answer, _ = bus.unpack(decoder, raw.recv_multipart())
                assert isinstance(answer, said.Rejected)
                assert answer.seq == seq
                assert text in answer.reason
        finally:
            context.destroy(linger=0)
        assert isinstance(client.ask("fnode", "linearise", X, U).answer, said.Result)
        assert counts(client).rejected == len(wrong) - 1
        assert client.describe().malformed == 1 + len(claims)


def test_a_killed_worker_is_replaced_and_its_requests_are_answered(stored: Path) -> None:
    with serving(config(stored)) as client:
        pid = model_of(client.describe(), "fnode").pid
        plan = np.zeros((64, 400, 1))
        seqs = {client.send("fnode", "rollout", X, plan, np.array([0.01]), timeout=60.0)}
        seqs |= {client.send("fnode", "linearise", X, U, timeout=60.0) for _ in range(100)}
        time.sleep(0.02)  # the rollout is being computed
        os.kill(pid, signal.SIGKILL)
        answers = collect(client, seqs)
        assert all(isinstance(answer, said.Result) for answer in answers.values())
        assert counts(client).restarts == 1
        assert model_of(client.describe(), "fnode").pid != pid


def test_short_work_is_computed_by_the_front_and_nothing_else_is(stored: Path) -> None:
    with serving(config(stored, direct_us=10_000_000)) as client:
        x, u = np.random.default_rng(4).normal(size=(3, 4)), U
        from_worker = results(client.ask("fnode", "linearise", x, u))  # u counts for all rows
        pid = model_of(client.describe(), "fnode").pid
        os.kill(pid, signal.SIGSTOP)
        outcome = client.ask("fnode", "linearise", x, u)
        assert isinstance(outcome.answer, said.Result)
        assert outcome.answer.version == stored.stem
        for got, want in zip(outcome.outputs, from_worker, strict=True):
            np.testing.assert_array_equal(got, want)
        single = results(client.ask("fnode", "linearise", x.astype("f4"), u))
        assert single[0].dtype == np.float32
        new = {client.send("fnode", "linearise", x[:2], u, timeout=60.0)}  # who knows how long
        with pytest.raises(TimeoutError):
            client.receive(0.02)
        os.kill(pid, signal.SIGKILL)
        (answer,) = collect(client, new).values()
        assert isinstance(answer, said.Result)
        found = counts(client)
        assert (found.results, found.batches, found.restarts) == (4, 4, 1)


def test_a_batch_that_takes_too_long_ends_as_failed(stored: Path) -> None:
    with serving(config(stored, stall=0.15)) as client:
        plan = np.zeros((64, 4000, 1))  # seconds
        answer = client.ask("fnode", "rollout", X, plan, np.array([0.01]), timeout=60.0).answer
        assert isinstance(answer, said.Failed)
        assert "2 times" in answer.reason
        assert isinstance(client.ask("fnode", "linearise", X, U, timeout=20).answer, said.Result)


def test_overload_is_answered_and_control_goes_first(stored: Path) -> None:
    """Far more than can be computed: every request has one answer, a late one is not computed."""
    limits = {"max_queue_size": 16, "max_batch_size": 8}
    with (
        serving(config(stored, **limits)) as client,
        contextlib.closing(InferenceClient(ADDRESS)) as flood,
    ):
        plan, dt = np.zeros((8, 40, 1)), np.array([0.01])
        seqs, end = set(), time.monotonic() + 2.0
        answers: dict[int, said.Answer] = {}
        controlled: list[said.Answer] = []
        while time.monotonic() < end:
            for _ in range(20):
                seqs.add(
                    flood.send("fnode", "rollout", X, plan, dt, timeout=10.0, timeout_us=50_000)
                )
            outcome = client.ask("fnode", "linearise", X, U, timeout=5.0, priority=said.HIGHEST)
            controlled.append(outcome.answer)
            with contextlib.suppress(TimeoutError):  # who reads no answers is not sent any more
                while True:
                    answer = flood.receive(0.0).answer
                    assert answer.seq not in answers
                    answers[answer.seq] = answer
        answers |= collect(flood, seqs - answers.keys())
        kinds = {kind: sum(isinstance(a, kind) for a in answers.values()) for kind in
                 (said.Result, said.Late, said.Busy)}  # fmt: skip
        assert sum(kinds.values()) == len(seqs)
        assert kinds[said.Busy] > 0
        assert kinds[said.Result] > 0
        assert all(isinstance(answer, said.Result) for answer in controlled)
        found = counts(client)
        assert found.results == kinds[said.Result] + len(controlled)
        assert (found.late, found.busy) == (kinds[said.Late], kinds[said.Busy])


def test_a_deadline_that_is_over_is_late(stored: Path) -> None:
    with serving(config(stored)) as client:
        slow = client.send("fnode", "rollout", X, np.zeros((64, 400, 1)), np.array([0.01]))
        time.sleep(0.02)  # it is being computed
        hurried = client.send("fnode", "linearise", X, U, timeout_us=1000)
        patient = client.send("fnode", "linearise", X, U, timeout_us=1000, timeout_action="delay")
        answers = collect(client, {slow, hurried, patient})
        assert isinstance(answers[hurried], said.Late)
        assert isinstance(answers[patient], said.Result)


def test_a_client_that_vanishes_is_counted(stored: Path) -> None:
    with serving(config(stored)) as client:
        gone = InferenceClient(ADDRESS)
        gone.send("fnode", "rollout", X, np.zeros((64, 400, 1)), np.array([0.01]), timeout=60.0)
        time.sleep(0.02)
        gone.close()
        until(lambda: counts(client).vanished == 1)
        assert isinstance(client.ask("fnode", "linearise", X, U).answer, said.Result)


def other(gain: float, tmp_path: Path) -> Path:
    """Return the file of the same network, its answers multiplied."""
    model = untrained_fnode()
    found = model.weights
    weights = replace(
        found, output_mean=found.output_mean * gain, output_scale=found.output_scale * gain
    )
    return store.save(FnodeModel(model.settings, weights), tmp_path, {})


def test_a_swap_under_load_loses_nothing(stored: Path, tmp_path: Path) -> None:
    near, far = other(1.01, tmp_path), other(3.0, tmp_path)
    found = config(stored, max_queue_size=5000, swap={"slowdown": 1e6})
    with serving(found) as client:
        flowing, versions, stop = [0], set(), threading.Event()

        def load() -> None:
            with contextlib.closing(InferenceClient(ADDRESS)) as mine:
                while not stop.is_set():
                    seqs = {mine.send("fnode", "linearise", X, U, timeout=20.0) for _ in range(20)}
                    for answer in collect(mine, seqs).values():
                        assert isinstance(answer, said.Result), answer
                        versions.add(answer.version)
                        flowing[0] += 1

        thread = threading.Thread(target=load)
        thread.start()
        try:
            refused = infer.swap(found, f"fnode={far}", lambda _: None)
            assert refused.state == "refused"
            assert "deviation" in refused.reason
            assert refused.deviation == pytest.approx(2.0)
            taken = infer.swap(found, f"fnode={near}", lambda _: None)
            assert taken.state == "accepted"
            assert taken.batches >= 20
            assert taken.deviation == pytest.approx(0.01)
            missing = infer.swap(found, f"fnode={tmp_path / 'none.safetensors'}", lambda _: None)
            assert missing.state == "refused"
            assert "no model can be read" in missing.reason
            answered = flowing[0]
            until(lambda: flowing[0] > answered + 100)
        finally:
            stop.set()
            thread.join()
        for _ in range(20):  # some by the front, which has the new model, too
            got = results(client.ask("fnode", "linearise", X, U))
            want = store.load(near).model.linearise(X, U)
            np.testing.assert_allclose(got[0], want[0], rtol=1e-12)
            flowing[0] += 1
        assert versions == {stored.stem, near.stem}
        assert counts(client).results == flowing[0]
        assert (counts(client).swaps, counts(client).restarts) == (1, 0)
        with pytest.raises(InputError, match="no model 'other'"):
            infer.swap(found, f"other={near}", lambda _: None)


def sampled() -> tuple[Charges, About, Array]:
    """Return samples about a plan, with limits on states and inputs, and open sides."""
    random, inf = np.random.default_rng(3), np.inf
    about = About(
        X[0], np.zeros(4), random.normal(0.0, 3.0, (1, 4)), random.normal(0.0, 0.2, (13, 4)),
        np.array([-0.5]), np.array([inf]),
    )  # fmt: skip
    return (
        Charges(
            np.array([10.0, 10.0, 1.0, 1.0]), np.array([0.05]), np.eye(4) + 0.1,
            np.array([-inf, -0.1, -inf, -inf]), np.array([inf, 0.1, inf, inf]),
            np.array([0.0, 300.0, 0.0, 0.0]), np.array([TURN, 0.0, 0.0, 0.0]), 0.02,
        ),
        about,
        random.normal(0.0, 2.0, (40, 12, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["FNODE", "equations"])
def test_samples_followed_there_are_followed_as_here(stored: Path, kind: str) -> None:
    """To the last bit; and a sampling controller plans the same to the last bit."""
    model: AbstractDynamics = store.load(stored).model
    found = config(stored)
    if kind == "equations":
        found, model = config(None, model=EQUATIONS), CartPoleModel()
    with (
        serving(found),
        contextlib.closing(RemoteModel(RemoteModelSettings(model="fnode", deadline=5))) as far,
    ):
        charges, about, samples = sampled()
        here = rollouts_for(model, charges)
        there = far.follow(charges, about, samples)
        assert there is not None
        wanted = here.follow(about, samples)
        assert wanted is not None
        for got, want in zip(there, wanted, strict=True):
            np.testing.assert_array_equal(got, want)
        assert about.low[0] == there.inputs.min()  # a limit was met
        settings = check({**SAMPLER, "samples": 64, "block": 32}, MppiSettings, "control")
        local, remote = (Mppi(settings, dynamics=d) for d in (model, far))
        for x in np.random.default_rng(2).normal(0.0, 0.1, (3, 4)):
            plan, expected = remote.solve(x, np.zeros(4)), local.solve(x, np.zeros(4))
            assert plan.status is SolutionStatus.SAMPLED
            np.testing.assert_array_equal(plan.inputs, expected.inputs)
        assert far.misses == 0


def test_an_inference_process_that_is_killed_ends_in_the_declared_answer() -> None:
    """Shifted, shifted, safe: the next inputs of the last plan, then the stop."""
    served = subprocess.Popen(
        [sys.executable, "-m", "hil", "infer", str(SHIPPED), "--set", "inference.metrics=0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert served.stderr is not None
        while "ctrl-C" not in (line := served.stderr.readline()):
            assert line, "it ended"
        far = RemoteModel(RemoteModelSettings(model="cart_pole", deadline=2.0))
        with contextlib.closing(far):
            controller = Mppi(check(SAMPLER, MppiSettings, "control"), dynamics=far)
            rig = RecordedRig()
            loop = ControlLoop(
                rig, Seen(), controller, LoopSettings(duration=1.0), period_s=0.02,
                reference=lambda t: np.array([0.0, 0.1, 0.0, 0.0]),
            )  # fmt: skip
            steps = []
            for step in loop.run():
                steps.append(step)
                if len(steps) == 4:
                    os.kill(served.pid, signal.SIGKILL)
                    served.wait()
        answers = [step.answer for step in steps]
        assert answers == [Answer.PLAN] * 4 + [Answer.SHIFTED] * 2 + [Answer.SAFE]
        plan = steps[3].solution.inputs
        np.testing.assert_array_equal([steps[4].u, steps[5].u], plan[1:3])
        assert far.misses > 0
        assert "no plan in 3 periods: no rollout was followed in time" in rig.stopped
    finally:
        served.kill()
        served.communicate()


def test_a_remote_model_plans_as_the_model_does_and_a_miss_is_no_plan(stored: Path) -> None:
    problem = MpcSettings(
        horizon=10, dt=0.05, terminal="lqr", linearise="state", discretise="rk4",
        input_limits=((-20.0, 20.0),), state_limits=((-np.inf, np.inf),) * 4,
        state_weights=(10.0, 10.0, 1.0, 1.0), input_weights=(0.05,),
    )  # fmt: skip
    model = store.load(stored).model
    with serving(config(stored, direct_us=0)) as client:
        settings = RemoteModelSettings(model="fnode", deadline=2.0)
        with contextlib.closing(RemoteModel(settings)) as remote:
            assert (remote.nq, remote.nu) == (2, 1)
            here, there = (LinearMpc(problem, dynamics=d) for d in (model, remote))
            for x in np.random.default_rng(2).normal(0.0, 0.1, (5, 4)):
                plan, wanted = there.solve(x, np.zeros(4)), here.solve(x, np.zeros(4))
                assert plan.status == wanted.status
                np.testing.assert_allclose(plan.inputs, wanted.inputs, rtol=1e-9, atol=1e-9)
            assert remote.domain(X[0], U[0]) == pytest.approx(model.domain(X[0], U[0]))
            assert remote.misses == 0
            pid = model_of(client.describe(), "fnode").pid
            hurried = RemoteModel(RemoteModelSettings(model="fnode", deadline=0.02))
            assert hurried.follow(*sampled()) is not None  # the first ones may take their time
            assert np.isfinite(hurried.linearise(X[0], U[0]).by_state).all()
            assert np.isfinite(hurried.domain(X[0], U[0]))
            os.kill(pid, signal.SIGSTOP)
            try:
                assert np.isnan(hurried.linearise(X[0], U[0]).by_state).all()
                assert hurried.domain(X[0], U[0]) == np.inf
                assert hurried.follow(*sampled()) is None
                assert hurried.misses == 3
                there._dynamics = hurried
                there.reset()
                assert there.solve(X[0], np.zeros(4)).status is SolutionStatus.FAILED
            finally:
                hurried.close()
                os.kill(pid, signal.SIGCONT)
            assert np.isfinite(remote.linearise(X[0], U[0]).by_state).all()


def test_the_verb_serves_the_shipped_configuration(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "hil", "infer", str(SHIPPED)]
    served = subprocess.Popen(
        [*command, "--set", f"inference.metrics={port}", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert served.stderr is not None
        while "ctrl-C" not in (line := served.stderr.readline()):
            assert line, "it ended"
        with pytest.raises(LeaseError, match="serves it already"):
            infer.serve_until(load(SHIPPED), threading.Event(), lambda _: None)
        with contextlib.closing(InferenceClient(ADDRESS)) as client:
            results(client.ask("cart_pole", "linearise", X, U))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        assert 'hil_inference_requests_total{model="cart_pole",outcome="results"} 1.0' in text
        assert 'hil_inference_total_seconds_count{model="cart_pole"} 1.0' in text
        said_so = subprocess.run([*command, "--status"], capture_output=True, text=True, timeout=60)
        assert said_so.returncode == 0
        assert "1 results in 1 batches" in said_so.stdout
        served.send_signal(signal.SIGINT)
        out, _ = served.communicate(timeout=30)
    finally:
        served.kill()
        served.communicate()
    assert json.loads(out.splitlines()[-1])["models"][0]["counts"]["results"] == 1
    assert served.returncode == 0


@pytest.mark.parametrize(
    ("settings", "said_so"),
    [
        (["inference.models.cart_pole.path=none"], "no model can be read here"),
        (["inference.models.cart_pole.path="], "expected one of path"),
        (["inference.models.cart_pole.device=cuda", "inference.models.cart_pole.dtype=float32"],
         "cuda"),
        (["inference.address=tcp://0.0.0.0:5580"], "no keys are given"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_one_line(settings: list[str], said_so: str) -> None:
    command = [sys.executable, "-m", "hil", "infer", str(SHIPPED), "--set", "inference.metrics=0"]
    command += [word for setting in settings for word in ("--set", setting)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert said_so in ended.stderr.splitlines()[-1]
