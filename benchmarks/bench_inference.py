"""The inference process against the bare model, LitServe and Ray Serve; and under overload.

    python benchmarks/bench_inference.py [--json] [--seconds S] [--plot PNG]
    python benchmarks/bench_inference.py --overload [--seconds 60] [--json]

One FNODE 5 → 256 → 256 → 2, value and Jacobian (`linearise`). Bare: the model in this process,
one thread. Ours: `hil infer` over ipc, one client, one request after the other, of one point,
with what `[inference.realtime]` asks for (--priority, both on one CPU, kept awake) and without;
then 64 clients at once (8 processes with 8 connections each, a request on its way on each), each
request the 50 points of a horizon, and beside it one point each. Their throughput is given as a
share of the bare model at its best batch (all at once, or the server's), the better of before and
after in this run. The
clients work on the same processors as the server: with two of them that is part of the figure.
LitServe and Ray Serve answer the same requests as JSON over HTTP, with the batching of their own;
what is not installed is said.

--overload: rollouts of low priority at ten times what was found to be the capacity, from two
processes that do not wait for answers, and beside them a control client at 100 Hz with
priority 1 and a deadline; server and control client run with SCHED_FIFO (--priority), batches are
short. Every request has to be answered; memory is watched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from hil.inference.client import InferenceClient, model_of
from hil.links.zeromq import Address
from hil.messages import inference as said
from hil.models import store
from hil.models.fnode import Domain, FnodeModel, FnodeSettings, FnodeWeights, layout
from hil.realtime import RealTime, RealTimeSettings
from hil.types import Array

THREADS = "OPENBLAS_NUM_THREADS"
ADDRESS = Address("ipc", "bench-inference", "inference")
CLIENTS, PROCESSES, HORIZON = 64, 8, 50
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DEADLINE_S = 0.02  # of the control client
BATCH = 64  # rows of a batch of the server
FLOOD = (16, 8)  # rollouts in a request of the flood, steps of each
OTHERS_PORT = {"LitServe": 45871, "Ray Serve": 45872}


def network(seed: int = 0) -> FnodeModel:
    """Return an untrained FNODE of the paper's size: what it answers costs the same."""
    settings = FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,), hidden=(256, 256))
    random, width = np.random.default_rng(seed), layout(settings).width
    hidden, before = [], width
    for units in settings.hidden:
        weight = random.normal(0.0, before**-0.5, (units, before))
        hidden.append((weight, random.normal(0.0, 0.3, units)))
        before = units
    weights = FnodeWeights(
        input_mean=np.zeros(width), input_scale=np.ones(width), hidden=tuple(hidden),
        last=random.normal(0.0, 0.1, (2, before)), skip=random.normal(0.0, 0.3, (2, width)),
        offset=np.zeros(2), output_mean=np.zeros(2), output_scale=np.ones(2),
        domain=Domain.around(random.standard_normal((500, width))),
    )  # fmt: skip
    return FnodeModel(settings, weights)


def points(n: int) -> tuple[Array, Array]:
    """Return states (n, 4) and inputs (n, 1)."""
    random = np.random.default_rng(1)
    return random.normal(0.0, 1.0, (n, 4)), random.normal(0.0, 2.0, (n, 1))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return p50 and p99 in us."""
    p50, p99 = np.percentile(np.array(seconds) * 1e6, [50, 99])
    return {"p50_us": float(p50), "p99_us": float(p99)}


@contextlib.contextmanager
def served(model: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run `hil infer` on a model."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(
            f'name = "{ADDRESS.name}"\n[inference.models.fnode]\npath = "{model}"\n'
            f"max_batch_size = {BATCH}\n"
        )
        config.flush()
        words = [word for setting in settings for word in ("--set", setting)]
        process = subprocess.Popen(
            [sys.executable, "-m", "hil", "infer", config.name, *words],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            while "ctrl-C" not in (line := process.stderr.readline()):
                if not line:
                    sys.exit("hil infer did not start")
            yield process
        finally:
            process.terminate()
            process.communicate()


def bare(model: FnodeModel, rows: int, seconds: float) -> float:
    """Return the points a second of the model itself on batches of so many."""
    x, u = points(rows)
    model.linearise(x, u)
    count, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < seconds:
        model.linearise(x, u)
        count += rows
    return count / took


def best(model: FnodeModel, rows: int, seconds: float) -> float:
    """Return the same at the best size: all at once, a horizon, or the server's largest batch."""
    return max(bare(model, size, seconds / 4) for size in (rows, BATCH, HORIZON))


def single(seconds: float) -> dict[str, Any]:
    """Return the latency of one client with one point, and what the front says of it."""
    x, u = points(1)
    taken: list[float] = []
    stages: list[tuple[float, float]] = []
    with contextlib.closing(InferenceClient(ADDRESS)) as client:
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            answer, _ = client.ask("fnode", "linearise", x, u)
            taken.append(time.perf_counter() - begin)
            assert isinstance(answer, said.Result)
            stages.append((answer.timing.queue_us, answer.timing.compute_us))
    queue_us, compute_us = np.median(np.array(stages), axis=0)
    return {
        **percentiles(taken[len(taken) // 10 :]), "requests": len(taken),
        "queue_us_p50": float(queue_us), "compute_us_p50": float(compute_us),
    }  # fmt: skip


def client_process(rows: int, connections: int, seconds: float, start: Any, told: Any) -> None:
    """Keep one request on its way on each of several connections."""
    x, u = points(rows)
    clients = [InferenceClient(ADDRESS) for _ in range(connections)]
    sent = [0.0] * connections
    start.wait()
    begin = time.perf_counter()
    for k, client in enumerate(clients):
        client.send("fnode", "linearise", x, u, timeout=30.0)
        sent[k] = time.perf_counter()
    taken, done = [], 0
    while time.perf_counter() < begin + seconds:
        for k, client in enumerate(clients):  # each answers in its turn: the queue is fair
            with contextlib.suppress(TimeoutError):
                answer = client.receive(1.0).answer
                now = time.perf_counter()
                assert isinstance(answer, said.Result)
                taken.append(now - sent[k])
                done += rows
                client.send("fnode", "linearise", x, u, timeout=30.0)
                sent[k] = time.perf_counter()
    told.put((done / (time.perf_counter() - begin), taken))
    for client in clients:
        client.close()


def concurrent(rows: int, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """Return points a second and latency of many clients at once."""
    context = multiprocessing.get_context("spawn")
    processes = min(PROCESSES, clients)
    start, told = context.Event(), context.Queue()
    each = [
        context.Process(
            target=client_process, args=(rows, clients // processes, seconds, start, told)
        )
        for _ in range(processes)
    ]
    for process in each:
        process.start()
    time.sleep(3.0)  # for all of them to have imported what they need
    start.set()
    found = [told.get(timeout=seconds + 60) for _ in each]
    for process in each:
        process.join()
    taken = [t for _, times in found for t in times]
    return {"points_per_s": sum(rate for rate, _ in found), **percentiles(taken)}


# -- the others ------------------------------------------------------------------------------

LITSERVE = """
import sys, numpy as np, litserve as ls
from hil.models.store import load
class Api(ls.LitAPI):
    def setup(self, device): self.model = load(sys.argv[1]).model
    def decode_request(self, request): return np.array(request["x"]), np.array(request["u"])
    def batch(self, inputs): return [i for i in inputs]
    def unbatch(self, output): return output
    def predict(self, inputs):
        sizes = np.cumsum([len(x) for x, _ in inputs])[:-1]
        found = self.model.linearise(*(np.concatenate(part) for part in zip(*inputs)))
        return list(zip(*(np.split(part, sizes) for part in found)))
    def encode_response(self, output): return {"outputs": [part.tolist() for part in output]}
if __name__ == "__main__":
    api = Api(max_batch_size=64, batch_timeout=0.0005)
    ls.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""
RAY = """
import os, sys, time, numpy as np
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray import serve
from hil.models.store import load
@serve.deployment(ray_actor_options={"num_cpus": 0.5}, max_ongoing_requests=128)
class Served:
    def __init__(self, path): self.model = load(path).model
    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0005)
    async def compute(self, inputs):
        sizes = np.cumsum([len(x) for x, _ in inputs])[:-1]
        found = self.model.linearise(*(np.concatenate(part) for part in zip(*inputs)))
        return list(zip(*(np.split(part, sizes) for part in found)))
    async def __call__(self, request):
        asked = await request.json()
        found = await self.compute((np.array(asked["x"]), np.array(asked["u"])))
        return {"outputs": [part.tolist() for part in found]}
ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
         log_to_driver=False, logging_level="error")
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(Served.bind(sys.argv[1]), route_prefix="/predict")
while True: time.sleep(1)
"""


def http_process(url: str, body: bytes, seconds: float, connections: int, told: Any) -> None:
    """Ask over HTTP from several threads, each with a connection that stays."""
    import http.client
    from urllib.parse import urlparse

    where = urlparse(url)
    taken: list[float] = []

    def ask() -> None:
        assert where.hostname is not None
        link = http.client.HTTPConnection(where.hostname, where.port, timeout=30)
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            link.request("POST", where.path, body, {"Content-Type": "application/json"})
            answer = link.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append(time.perf_counter() - begin)
        link.close()

    threads = [threading.Thread(target=ask) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.put(taken)


def other(name: str, model: Path, seconds: float) -> dict[str, Any]:
    """Return the figures of another server on the same model."""
    script = {"LitServe": LITSERVE, "Ray Serve": RAY}[name]
    url = f"http://127.0.0.1:{OTHERS_PORT[name]}/predict"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.py"
        path.write_text(script)
        log = (Path(folder) / "log").open("w+")
        process = subprocess.Popen(
            [sys.executable, str(path), str(model), str(OTHERS_PORT[name])],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            bodies = {
                rows: json.dumps(dict(zip("xu", (p.tolist() for p in points(rows)), strict=True)))
                for rows in (1, HORIZON)
            }
            _until_it_answers(url, bodies[1].encode(), process)
            context = multiprocessing.get_context("spawn")
            found: dict[str, Any] = {}
            for case, rows, processes, connections in (
                ("single", 1, 1, 1), ("64 clients", HORIZON, PROCESSES, CLIENTS // PROCESSES)
            ):  # fmt: skip
                told = context.Queue()
                asked = (url, bodies[rows].encode(), seconds, connections, told)
                each = [context.Process(target=http_process, args=asked) for _ in range(processes)]
                for one in each:
                    one.start()
                taken = [t for _ in each for t in told.get(timeout=seconds + 60)]
                for one in each:
                    one.join()
                found[case] = {"points_per_s": len(taken) * rows / seconds, **percentiles(taken)}
            return found
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
            log.close()


def _until_it_answers(url: str, body: bytes, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=10).read()
            return
        except OSError as error:
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"does not answer: {error}") from None
            time.sleep(0.5)


# -- overload --------------------------------------------------------------------------------


def flood_request() -> tuple[Array, Array, Array]:
    """Return rollouts from one state."""
    rows, steps = FLOOD
    return points(1)[0], np.random.default_rng(2).normal(size=(rows, steps, 1)), np.array([0.01])


def flood_capacity(client: InferenceClient) -> float:
    """Return how many requests a second are computed with four always on their way."""
    inputs, done, begin = flood_request(), 0, time.perf_counter()
    for _ in range(4):
        client.send("fnode", "rollout", *inputs, timeout=60.0)
    while time.perf_counter() < begin + 3.0:
        with contextlib.suppress(TimeoutError):
            client.receive(1.0)
            done += 1
            client.send("fnode", "rollout", *inputs, timeout=60.0)
    took = time.perf_counter() - begin
    for _ in range(4):
        client.receive(5.0)
    return done / took


def flood_process(rate: float, seconds: float, told: Any) -> None:
    """Send requests at a rate, whatever becomes of them, and count the answers."""
    inputs = flood_request()
    sent = 0
    kinds: dict[str, int] = {}
    with contextlib.closing(InferenceClient(ADDRESS, name="flood")) as client:
        begin = time.perf_counter()
        while (now := time.perf_counter() - begin) < seconds or sum(kinds.values()) < sent:
            if now > seconds + 30:
                break
            while now < seconds and sent < now * rate:
                client.send("fnode", "rollout", *inputs, timeout=60.0, timeout_us=100_000,
                            priority=said.LOWEST)  # fmt: skip
                sent += 1
                if sent % 32 == 0:
                    break
            for _ in range(64):
                try:
                    answer = client.receive(0.001).answer
                except TimeoutError:
                    break
                kind = type(answer).__name__
                kinds[kind] = kinds.get(kind, 0) + 1
    told.put((sent, kinds, sent / seconds))


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process and its children."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            rows = dict(r.split(":\t", 1) for r in stat.read_text().splitlines() if ":\t" in r)
            if pid in (int(rows["Pid"]), int(rows["PPid"])):
                total += float(rows.get("VmRSS", "0 kB").split()[0]) / 1024
    return total


def overload(model: Path, seconds: float, priority: int, console: Console) -> dict[str, Any]:
    """Return what becomes of ten times too many requests."""
    short = f"inference.models.fnode.batch_sizes.rollout={FLOOD[0]}"  # control waits for a batch
    with served(model, short, f"inference.realtime.priority={priority}") as server:
        with contextlib.closing(InferenceClient(ADDRESS)) as client:
            capacity = flood_capacity(client)
        console.print(f"capacity {capacity:.0f} requests of {FLOOD} rollouts and steps a second")
        context = multiprocessing.get_context("spawn")
        told = context.Queue()
        each = [
            context.Process(target=flood_process, args=(10 * capacity / 2, seconds, told))
            for _ in range(2)
        ]
        for process in each:
            process.start()
        x, u = points(1)
        taken: list[float] = []
        kinds: dict[str, int] = {}
        memory = [memory_mib(server.pid)]
        wishes = RealTime(RealTimeSettings(priority=priority, timer_slack=1))
        with wishes, contextlib.closing(InferenceClient(ADDRESS)) as client:
            begin = time.perf_counter()
            while (now := time.perf_counter()) < begin + seconds:
                answer, _ = client.ask(
                    "fnode", "linearise", x, u, timeout=5.0,
                    timeout_us=round(DEADLINE_S * 1e6), priority=said.HIGHEST,
                )  # fmt: skip
                taken.append(time.perf_counter() - now)
                kinds[type(answer).__name__] = kinds.get(type(answer).__name__, 0) + 1
                if len(taken) % 50 == 0:
                    memory.append(memory_mib(server.pid))
                time.sleep(max(0.0, now + 0.01 - time.perf_counter()))
            floods = [told.get(timeout=120) for _ in each]
            for process in each:
                process.join()
            counts = model_of(client.describe(), "fnode").counts
    answered = sum(sum(found.values()) for _, found, _ in floods)
    flood: dict[str, int] = {}
    for _, found, _ in floods:
        for kind, n in found.items():
            flood[kind] = flood.get(kind, 0) + n
    return {
        "seconds": seconds,
        "capacity_requests_per_s": capacity,
        "offered_over_capacity": sum(rate for *_, rate in floods) / capacity,
        "sent": sum(sent for sent, *_ in floods),
        "answered": answered,
        "flood": flood,
        "control": kinds,
        "control_latency": percentiles(taken),
        "control_within_deadline": float(np.mean(np.array(taken) < DEADLINE_S)),
        "deadline_s": DEADLINE_S,
        "memory_mib": {"before": memory[0], "largest": max(memory), "end": memory[-1]},
        "restarts": counts.restarts,
    }


# -- all -------------------------------------------------------------------------------------


def measure(
    model: FnodeModel, path: Path, seconds: float, priority: int, console: Console
) -> dict[str, Any]:
    """Return every figure."""
    report: dict[str, Any] = {"bare": {}, "ours": {}, "others": {}}
    cpu = max(os.sched_getaffinity(0))
    wanted = (
        "timer_slack=1", "freeze_gc=true", "awake=true", f"cpus=[{cpu}]", f"priority={priority}"
    )  # fmt: skip
    with served(path, *(f"inference.realtime.{wish}" for wish in wanted)):
        console.print("one client")
        wishes = RealTimeSettings(
            priority=priority, timer_slack=1, cpus=(cpu,), awake=True, freeze_gc=True
        )
        with RealTime(wishes) as realtime:
            report["ours"]["single"] = single(seconds)
        report["realtime"] = [answer.line for answer in realtime.answers]
    with served(path):
        console.print("one client, no priority")
        report["ours"]["single, no priority"] = single(seconds)
        for name, rows in (
            ("64 clients, a horizon each", HORIZON),
            ("64 clients, a point each", 1),
        ):
            console.print(name)
            before = best(model, CLIENTS * rows, seconds)
            mine = concurrent(rows, seconds)
            mine["bare_points_per_s"] = max(before, best(model, CLIENTS * rows, seconds))
            mine["share_of_bare"] = mine["points_per_s"] / mine["bare_points_per_s"]
            report["ours"][name] = mine
        console.print("growth with the size of a batch")
        growth: dict[str, list[float]] = {"rows": [], "bare": [], "ours": []}
        with contextlib.closing(InferenceClient(ADDRESS)) as client:
            for rows in SIZES:
                x, u = points(rows)
                taken = []
                for _ in range(200):
                    begin = time.perf_counter()
                    client.ask("fnode", "linearise", x, u)
                    taken.append(time.perf_counter() - begin)
                growth["rows"].append(rows)
                growth["ours"].append(rows / float(np.median(taken)))
                growth["bare"].append(bare(model, rows, 0.2))
        report["growth_points_per_s"] = growth
    for name, module in (("LitServe", "litserve"), ("Ray Serve", "ray.serve")):
        try:
            __import__(module)
        except ImportError:
            console.print(f"{name} left out: not installed (extra `bench`)")
            continue
        console.print(name)
        try:
            report["others"][name] = other(name, path, seconds)
        except Exception as error:  # noqa: BLE001 - the other figures are worth keeping
            console.print(f"{name} left out: {error}")
    return report


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="FNODE 5 → 256 → 256 → 2, value and Jacobian")
    for heading in ("case", "method", "p50 µs", "p99 µs", "points/s", "of bare"):
        table.add_column(heading, justify="right")
    for case in ("single", "single, no priority"):
        mine = report["ours"][case]
        name = case.replace("single", "one client")
        table.add_row(name, "hil", f"{mine['p50_us']:.0f}", f"{mine['p99_us']:.0f}", "", "")
    for name, found in report["others"].items():
        one = found["single"]
        table.add_row("one client", name, f"{one['p50_us']:.0f}", f"{one['p99_us']:.0f}", "", "")
    for case, found in report["ours"].items():
        if not case.startswith("single"):
            table.add_row(
                case, "hil", f"{found['p50_us']:.0f}", f"{found['p99_us']:.0f}",
                f"{found['points_per_s']:.0f}", f"{100 * found['share_of_bare']:.0f} %",
            )  # fmt: skip
    for name, found in report["others"].items():
        many = found["64 clients"]
        table.add_row(
            "64 clients, a horizon each", name, f"{many['p50_us']:.0f}", f"{many['p99_us']:.0f}",
            f"{many['points_per_s']:.0f}", "",
        )  # fmt: skip
    console.print(table)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw throughput against the size of a request."""
    growth = report["growth_points_per_s"]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(growth["rows"], growth["bare"], "o-", label="the model itself")
    axes.loglog(growth["rows"], growth["ours"], "s-", label="hil infer, one client over ipc")
    axes.set(xlabel="points in a request", ylabel="points per second")
    axes.set_title("Value and Jacobian, FNODE 5 → 256 → 256 → 2")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, print, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seconds", type=float, help="of each case; 5, of --overload 60")
    parser.add_argument("--overload", action="store_true", help="flood it instead")
    parser.add_argument(
        "--priority",
        type=int,
        default=20,
        help="SCHED_FIFO, of the case with one client and of --overload",
    )
    parser.add_argument("--plot", type=Path, help="draw throughput against the size of a request")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    if THREADS not in os.environ:  # NumPy reads it when it loads
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})
    with tempfile.TemporaryDirectory(prefix="hil") as scratch:
        os.environ["HIL_RUNTIME"] = f"{scratch}/run"
        model = network()
        path = store.save(model, scratch, {})
        if arguments.overload:
            report = overload(path, arguments.seconds or 60.0, arguments.priority, console)
            console.print_json(json.dumps(report))
        else:
            report = measure(model, path, arguments.seconds or 5.0, arguments.priority, console)
            show(report, console)
            if arguments.plot:
                draw(report, arguments.plot)
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
