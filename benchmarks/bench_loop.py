"""From a sensor's message to the actuator's: the loop over ipc, on a schedule.

    python benchmarks/bench_loop.py [--json] [--seconds S] [--priority N] [--cpus 1]
                                    [--doze] [--model F] [--plot PNG]

Two processes. The sensor holds a cart-pole (the equations, RK4, poses of 4096 counts a turn
and 50 µm) and answers on the bus as a mirror does: it sends a sample at its time, on an
absolute schedule, and waits for the input. The controller is that of `hil control`: bus
client, Kalman filter, FNODE 5 → 256 → 256 → 2 learned from poses, linearised at every state,
MPC over 50 periods, bounded, checked. Latency is taken at the sensor, from sending a sample to
receiving its input, with the clock of one process. A period is missed when the input comes
after the next sample was due; the schedule goes on, nothing is made up for.

"free": the next sample is sent as soon as the input of the one before has come. "500 Hz",
"1000 Hz": paced. "ours" is all of it as it is; "torch, rebuilt CVXPY" is the same loop with the
Jacobian by torch.autograd and the problem built anew and solved by SCS every period; it is left
out, with a line that says so, where torch or CVXPY is not installed.

Both processes ask for short timers, no garbage collection, SCHED_FIFO (--priority, 0: not) and
the CPUs of --cpus ("all": as they come), before the threads of ZeroMQ are made, so that these
have it, too; the controller keeps the CPUs awake between two periods (--doze: not). What they
were given stands in the report and under the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # the data generator is that of the tests

from loop_methods import METHODS, NEEDED, OURS, SERVED, make_controller, served

from hil.config import check
from hil.control.estimator import EstimatorSettings, PoseEstimator
from hil.links.zeromq import Address, BusServer
from hil.loop import Answer, ControlLoop, Hops, LoopSettings
from hil.mechanics.cart_pole_motion import CartPoleMotion, CartPoleState
from hil.messages import bus
from hil.models import store
from hil.models.fnode import FnodeModel
from hil.plots.control import draw_latency
from hil.realtime import RealTime, RealTimeSettings
from hil.rigs.base import DynamicRigInfo
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from hil.training.fit import Fit, FitSettings
from hil.types import Array
from tests.unit.training.cart_pole_runs import balanced_runs

THREADS = "OPENBLAS_NUM_THREADS"
RATES = {"free": 500, "500 Hz": 500, "1000 Hz": 1000}  # what the controller plans for
ADDRESS = Address("ipc", "bench-loop")
START = CartPoleState(0.05, 0.0, 0.0, 0.0)
TURN, PACE = 2 * np.pi / 4096, 50e-6  # rad, m: what the encoders tell
SPIN_S = 2e-4  # before a tick, in which the sensor does not sleep
WARM = 50  # periods that are not counted
NETWORK = {"nq": 2, "nu": 1, "angles": [0], "left_out": [1]}


# -- the sensor ------------------------------------------------------------------------------


@dataclass
class Sensor:
    """A cart-pole that answers on the bus as its mirror would.

    period: s of plant time between two samples. paced: whether they keep to a clock.
    """

    server: BusServer
    period: float
    paced: bool
    latency_us: list[float] = field(default_factory=list)
    late_us: list[float] = field(default_factory=list)  # of the sensor itself
    missed: int = 0
    largest_angle: float = 0.0

    def __post_init__(self) -> None:
        self._decoder = msgspec.msgpack.Decoder(bus.Command)
        self._motion, self._state, self._force = CartPoleMotion(), START, 0.0
        self._k = 0
        self._sender = b""

    def greet(self) -> None:
        """Answer until the controller has activated the rig."""
        state = "inactive"
        info = DynamicRigInfo(
            ADDRESS.name, "bench", ("angle", "position"), ("force",), ((-20.0, 20.0),),
            round(self.period * 1e6), round(self.period * 1e6), 200_000,
        )  # fmt: skip
        while state != "active":
            request = self._receive()
            match request:
                case bus.Hello():
                    self._reply(
                        bus.Welcome, request, name=ADDRESS.name, clock="wall", state=state,
                        lease_seconds=10.0, info=msgspec.to_builtins(info),
                    )  # fmt: skip
                case bus.Acquire():
                    self._reply(bus.Leased, request, lease="bench", seconds=10.0)
                case _:
                    state = "active" if isinstance(request, bus.Activate) else state
                    self._reply(bus.Done, request, state=state, fault="")

    def run(self, steps: int) -> None:
        """Send samples and receive inputs; whatever comes after the last is answered, too."""
        asked = self._receive()
        begin, due, skipped = time.perf_counter(), 0, 0
        for count in range(steps):
            if self.paced:
                self._wait(begin + due * self.period)
                self.late_us.append((time.perf_counter() - begin - due * self.period) * 1e6)
            sent = self._send_sample(asked, skipped)
            driven = self._receive()
            got = time.perf_counter()
            assert isinstance(driven, bus.WriteInput), driven
            self._reply(bus.Driven, driven, u=driven.u)
            self.latency_us.append((got - sent) * 1e6)
            after = int((got - begin) / self.period) + 1 if self.paced else due + 1
            skipped = max(0, after - due - 1)
            if count >= WARM:
                self.missed += skipped
            self._move(driven.u[0], 1 + skipped)
            due += 1 + skipped
            asked = self._receive()
        while not isinstance(asked, bus.Release):
            self._reply(bus.Done, asked, state="inactive", fault="")
            asked = self._receive()
        self._reply(bus.Done, asked, state="inactive", fault="")

    def _receive(self) -> bus.Request:
        for _ in range(5000):
            with contextlib.suppress(TimeoutError):
                self._sender, frames, _ = self.server.receive()
                request, _ = bus.unpack(self._decoder, frames)
                assert isinstance(request, bus.Request)
                return request
        raise SystemExit("the controller said nothing for 100 s")

    def _reply(self, kind: type[bus.Reply], request: bus.Request, **fields: Any) -> None:
        head = {"seq": request.seq, "t_ns": time.time_ns(), "device_us": self._device_us}
        self.server.command.send_multipart([self._sender, *bus.pack(kind(**head, **fields))])

    @property
    def _device_us(self) -> int:
        return round(self._k * self.period * 1e6)

    def _send_sample(self, asked: bus.Request, skipped: int) -> float:
        y = (TURN * round(self._state.theta / TURN), PACE * round(self._state.x / PACE))
        sent = time.perf_counter()
        self._reply(
            bus.Sampled, asked, y=y, u=(self._force,), sampled_us=self._device_us,
            sample=1 + self._k, missed=skipped, flags=(),
        )  # fmt: skip
        return sent

    def _move(self, force: float, periods: int) -> None:
        self._force = force
        for _ in range(periods):
            self._state = self._motion.step(self._state, force, self.period)
        self._k += periods
        self.largest_angle = max(self.largest_angle, abs(self._state.theta))

    @staticmethod
    def _wait(until: float) -> None:
        left = until - time.perf_counter() - SPIN_S
        if left > 0:
            time.sleep(left)
        while time.perf_counter() < until:
            pass


# -- the controller --------------------------------------------------------------------------


def wishes(asked: argparse.Namespace, *, awake: bool) -> RealTimeSettings:
    """Return what a process asks the system for."""
    cpus = () if asked.cpus == "all" else tuple(int(cpu) for cpu in asked.cpus.split(","))
    return RealTimeSettings(
        priority=asked.priority, timer_slack=1, cpus=cpus, awake=awake, freeze_gc=True
    )


def control(
    method: str, model_file: Path, dt: float, steps: int, realtime_settings: RealTimeSettings
) -> None:
    """Be the controller process; ends stdout with one JSON object."""
    model = store.load(model_file).model
    if not isinstance(model, FnodeModel):
        sys.exit(f"{model_file}: this benchmark wants an FNODE")
    # As long as the sensor wants, which counts its answers: missed periods are none.
    settings = LoopSettings(duration=1e4, fallback_max=1000)
    hops: list[Hops] = []
    plans = 0
    with contextlib.ExitStack() as stack:
        realtime = stack.enter_context(RealTime(realtime_settings))
        estimator = PoseEstimator(
            EstimatorSettings(pose_noise=(5e-4, 3e-5), acceleration_noise=(1.0, 0.5), dt=dt),
            dynamics=model,
        )
        controller = make_controller(method, model, dt)
        for _ in range(3):  # what is lazy is done now
            estimator.update(np.zeros(2), np.zeros(1))
            controller.solve(np.array([0.01, 0.0, 0.0, 0.0]), np.zeros(4), np.zeros(1))
        rig = RemoteDynamicRig(ADDRESS, mint=Minting, client="bench")
        stack.enter_context(rig)
        rig.configure()
        rig.activate()
        loop = ControlLoop(
            rig, estimator, controller, settings, period_s=dt, reference=lambda t: np.zeros(4)
        )
        for step in loop.run():
            hops.append(step.hops)
            plans += step.answer is Answer.PLAN
            if len(hops) == steps:
                break
    table = np.array(hops[WARM:])
    print(
        json.dumps(
            {
                "hops_us_p50": dict(zip(Hops._fields, np.median(table, axis=0), strict=True)),
                "without_plan": len(hops) - plans,
                "realtime": [answer.line for answer in realtime.answers],
            }
        )
    )


# -- both ------------------------------------------------------------------------------------


def measure(
    method: str, case: str, model_file: Path, asked: argparse.Namespace
) -> tuple[dict[str, Any], Array]:
    """Return the figures of one method at one rate, and its latencies, (steps,), us."""
    rate = RATES[case]
    steps = round(asked.seconds * rate)
    if method in NEEDED:
        steps = min(steps, WARM + 150)  # each takes tens of milliseconds
    command = [sys.executable, __file__, "--controller", method, "--model", str(model_file)]
    command += ["--rate", str(rate), "--steps", str(steps)]
    command += ["--priority", str(asked.priority), "--cpus", asked.cpus]
    command += ["--doze"] * asked.doze
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        with (
            RealTime(wishes(asked, awake=False)) as realtime,
            contextlib.closing(BusServer(ADDRESS)) as server,
        ):
            sensor = Sensor(server, 1.0 / rate, paced=case != "free")
            sensor.greet()
            sensor.run(steps)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        sys.exit(f"{method}, {case}: the controller ended with {process.returncode}")
    counted = np.array(sensor.latency_us[WARM:])
    due = len(counted) + sensor.missed
    figures = {
        "latency_us_p50": float(np.median(counted)),
        "latency_us_p99": float(np.percentile(counted, 99)),
        "missed_share": sensor.missed / due,
        "periods": due,
        "largest_angle_rad": sensor.largest_angle,
        "sensor_realtime": [answer.line for answer in realtime.answers],
        **json.loads(said.splitlines()[-1]),
    }
    if sensor.late_us:
        figures["sensor_late_us_p99"] = float(np.percentile(sensor.late_us[WARM:], 99))
    return figures, counted


def learn(directory: Path) -> Path:
    """Return the file of a model fitted to 120 s of quantised poses."""
    settings = check({"network": NETWORK}, FitSettings, "fit")
    return store.save(Fit(settings, seed=0).run(balanced_runs(0)).model, directory, {})


def methods(wanted: list[str], console: Console) -> Iterator[str]:
    """Yield what is wanted and can be measured here."""
    for method in wanted:
        missing = [name for name in NEEDED.get(method, ()) if find_spec(name) is None]
        if missing:
            console.print(f"{method} left out: not installed: {', '.join(missing)}")
        else:
            yield method


def show(console: Console, report: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the report as a table."""
    table = Table(title="sensor message → controller → actuator message, ipc")
    headings = (
        "case", "method", "p50 µs", "p99 µs", "missed", "estimate", "solve", "no plan", "largest θ"
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:2] else "right")
    for case, found in report.items():
        for method, f in found.items():
            hops = f["hops_us_p50"]
            missed = f"{f['missed_share']:.2%}" if case != "free" else ""
            table.add_row(
                case, method, f"{f['latency_us_p50']:.0f}", f"{f['latency_us_p99']:.0f}", missed,
                f"{hops['estimate']:.0f}", f"{hops['solve']:.0f}", str(f["without_plan"]),
                f"{f['largest_angle_rad']:.3f}",
            )  # fmt: skip
    console.print(table)
    for words in {line: None for found in report.values() for f in found.values()
                  for line in f["realtime"] + f["sensor_realtime"]}:  # fmt: skip
        console.print(words)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seconds", type=float, default=15.0, help="of every paced case")
    parser.add_argument("--priority", type=int, default=50, help="SCHED_FIFO, 0: not; default 50")
    last = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    parser.add_argument("--cpus", default=str(last), help=f"of both: 0,1 or all; default {last}")
    parser.add_argument("--doze", action="store_true", help="let the CPUs sleep in between")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all there are")
    parser.add_argument("--model", type=Path, help="an FNODE of `hil fit`; none: learn one")
    parser.add_argument("--plot", type=Path, help="where to draw the latencies, a PNG")
    for word, kind in (("--controller", str), ("--rate", int), ("--steps", int)):
        parser.add_argument(word, type=kind, help=argparse.SUPPRESS)  # of the other process
    found = parser.parse_args()
    if not found.seconds * 500 >= 2 * WARM:
        parser.error(f"--seconds: at least {2 * WARM / 500}")
    return found


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    asked = arguments()
    if asked.controller:
        wanted = wishes(asked, awake=not asked.doze)
        control(asked.controller, asked.model, 1.0 / asked.rate, asked.steps, wanted)
        return
    if THREADS not in os.environ:  # one BLAS thread; NumPy reads the number when it loads
        one = {THREADS: "1", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})
    console = Console(stderr=asked.json)
    report: dict[str, dict[str, dict[str, Any]]] = {}
    drawn: dict[str, Array] = {}
    with tempfile.TemporaryDirectory(prefix="hil-") as place:
        os.environ["HIL_RUNTIME"] = place
        with console.status("learning a model"):
            model_file = asked.model or learn(Path(place))
        names = list(methods(asked.methods or list(METHODS), console))
        for case in RATES:
            report[case] = {}
            for method in names:
                elsewhere = served(model_file, wishes(asked, awake=False))
                with (
                    console.status(f"{case}, {method}"),
                    elsewhere if method in SERVED else contextlib.nullcontext(),
                ):
                    report[case][method], drawn[f"{case}, {method}"] = measure(
                        method, case, model_file, asked
                    )
    show(console, report)
    if asked.plot:
        ours = {
            k: v for k, v in drawn.items() if k.endswith(f", {OURS}") and not k.startswith("free")
        }
        draw_latency(ours, asked.plot, title="Sensor message to actuator message")
    if asked.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
