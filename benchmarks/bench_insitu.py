"""What one training step costs: 16 Iris samples, forward, adjoint, stiffness update.

    python benchmarks/bench_insitu.py [--json] [--repeats N] [--sizes 4,8,16]

Every method gets the same samples, loss and start and must end at the same variables, or
the script stops. Methods take turns, block by block, so that a busy machine is busy for
all. Figures are CPU time of this process with one BLAS thread, median over the blocks.

"in process": hil.mechanics and hil.training, one factorisation for all samples, forward
and adjoint; the loss of the task is written out here, for a batch.

"published procedure": a plain NumPy port of the procedure of Li & Mao 2024. Every sample
settles the network twice. Each time the stiffness is taken from the variables, the matrix
of all nodes is assembled, rows and columns of the fixed ones are deleted, the system is
solved, and cost and cost gradient are evaluated (nobody uses those of the adjoint; they
are evaluated there too). One thing is faster here: the cost gradient is a formula, theirs
is symbolic. Both use the chain factor of the bounded variable, which theirs leaves out.

"through the stack" (n = 4): the same step on a simulated rig, ideal, under the virtual
clock: C firmware behind a pty, mirror and ZeroMQ, five processes on this machine. Wall
time, beside the wall time of "in process", taken in turns. The rig's own time (settling,
averaging) is given as well: it is what a real rig would need at least.

"per sample, lean": what is left when that port repeats nothing: stiffness once a step,
matrix once a sample, no fixed nodes in it, cost gradient once. What remains between it and
"in process" is one factorisation for all and arithmetic on whole batches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import load
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.remote import RemoteRig
from hil.safety.deadman import Minting
from hil.services.mirror import bus_address
from hil.services.owner import ChildMirror, MirrorJob
from hil.tasks.iris import Iris, IrisSettings
from hil.training.adam import Adam, AdamState
from hil.training.bounded import BoundedStiffness
from hil.training.events import StepDone
from hil.training.gradient_check import GradientCheckSettings
from hil.training.insitu import InSituSettings, InSituTraining
from hil.types import Array, IntArray

OURS = "in process"  # what the others are compared with
STACK = "through the stack"
STACK_EVENTS = 24  # per turn: three epochs of seven steps
SPRING = Path(__file__).parents[1] / "configs" / "spring_network.toml"
SAMPLES = 16
LOW, HIGH, BETA = 89.375, 185.625, 10.0  # N/m, N/m, 1: widths of 1.3 to 2.7 mm
RATE, BETA1, BETA2, EPSILON = 0.006, 0.9, 0.999, 1e-8
SIZES = (4, 8, 16, 32, 64, 128)
PORT_MAX = 16  # a port assembles full matrices 16 times; beyond it would only be waited for
BLOCK_S = 0.02  # a block of one method runs its step until it has taken this long
THREADS = "OPENBLAS_NUM_THREADS"
SAME = 1e-8  # largest relative difference between the gradients of two methods


class Learned(NamedTuple):
    """What a training step from the start of a case ends with."""

    gradient: Array  # (bonds,), by the variables
    variables: Array  # (bonds,)


Step = Callable[[], Learned]


@dataclass(frozen=True)
class Case:
    """One lattice, its samples, and the variables training starts from."""

    geometry: Geometry
    network: SpringNetwork
    task: Iris
    batch: IntArray  # (16,)
    start: Array  # (bonds,)


def make_case(n: int) -> Case:
    """Return the Iris task on n rows; for n = 4, with the nodes of the paper."""
    geometry = triangular_lattice(n)
    last = len(geometry.nodes)
    settings = IrisSettings(
        inputs=(last, last - 2, last - 1, last - 4),  # 14, 12, 13, 10 of 14
        outputs=(n + 4, 2, 3),
        floor=0.0,  # the published loss
        scale_with="all",
    )
    task = Iris(settings, geometry=geometry, seed=0)
    random = np.random.default_rng(0)
    batch = random.permutation(task.train)[:SAMPLES]
    start = random.normal(0.0, 0.05, len(geometry.bonds))
    return Case(geometry, SpringNetwork.from_geometry(geometry), task, batch, start)


def in_process(case: Case) -> Step:
    """Return the step as `hil` takes it."""
    network, task = case.network, case.task
    bounded, adam = BoundedStiffness(LOW, HIGH, BETA), Adam(RATE, BETA1, BETA2, EPSILON)
    state = AdamState.start(network.bond_count)
    read = np.array([case.geometry.dof(node, 0) for node in task.outputs])
    targets = np.eye(3)[task.labels(case.batch)]

    def loss_gradient(displacement: Array) -> Array:
        u = displacement[:, read]  # (16, 3)
        size = np.abs(u)
        p = size / np.add.reduce(size, axis=1, keepdims=True)
        slope = np.zeros_like(displacement)
        slope[:, read] = (p - targets) / u
        return slope

    def step() -> Learned:
        k = bounded.stiffness(case.start)
        learned = network.backpropagate(k, task.loads(case.batch), loss_gradient)
        gradient = learned.gradient * bounded.derivative(k)
        change, _ = adam.step(gradient, state)
        return Learned(gradient, case.start + change)

    return step


def adam_from_rest(gradient: Array) -> Array:
    """Return the first change Adam makes, written out."""
    first = BETA1 * np.zeros_like(gradient) + (1 - BETA1) * gradient
    second = BETA2 * np.zeros_like(gradient) + (1 - BETA2) * gradient**2
    first_hat = first / (1 - BETA1**1)
    second_hat = second / (1 - BETA2**1)
    return -RATE * first_hat / (np.sqrt(second_hat) + EPSILON)


def cost_and_slope(u: Array, target: Array) -> tuple[float, Array]:
    """Return cross-entropy over p = |u| / Σ|u| and its derivative by u; u, target: (3,)."""
    size = np.sqrt(u**2)
    total = np.sum(size)
    p = size / total
    return float(-np.log(target @ p)), (p - target) / u


def published_procedure(case: Case) -> Step:
    """Return the published procedure, ported to plain NumPy."""
    geometry, task = case.geometry, case.task
    dofs = geometry.nodes.size
    span = geometry.nodes[geometry.bonds[:, 1]] - geometry.nodes[geometry.bonds[:, 0]]
    compat = np.zeros((len(span), dofs))  # of all nodes, the fixed ones too
    for bond, (a, b) in enumerate(geometry.bonds):
        unit = span[bond] / np.linalg.norm(span[bond])
        compat[bond, 2 * a : 2 * a + 2] = -unit
        compat[bond, 2 * b : 2 * b + 2] = unit
    fixed = np.array([2 * node + axis for node in geometry.fixed for axis in (0, 1)])
    free = np.delete(np.arange(dofs), fixed)
    read = np.array([2 * node for node in task.outputs])
    pulled = np.array([2 * node + 1 for node in task.inputs])
    pulls = task.loads(case.batch)[:, [geometry.dof(node, 1) for node in task.inputs]]
    targets = np.eye(3)[task.labels(case.batch)]

    def settle(variables: Array, load: Array, target: Array) -> tuple[float, Array, Array]:
        k = LOW + (HIGH - LOW) / (1 + np.exp(-BETA * variables))
        matrix = compat.T @ np.diag(k) @ compat
        matrix = np.delete(np.delete(matrix, fixed, axis=0), fixed, axis=1)
        u = np.zeros(dofs)
        u[free] = np.linalg.solve(matrix, np.delete(load, fixed))
        elongation = compat @ u
        cost, slope = cost_and_slope(u[read], target)
        adjoint_load = np.zeros(dofs)
        adjoint_load[read] = -slope
        return cost, elongation, adjoint_load

    def step() -> Learned:
        products = []
        cost = 0.0
        for pull, target in zip(pulls, targets, strict=True):
            load = np.zeros(dofs)
            load[pulled] = pull
            sample_cost, forward, adjoint_load = settle(case.start, load, target)
            _, adjoint, _ = settle(case.start, adjoint_load, target)
            products.append(adjoint * forward)
            cost += sample_cost
        k = LOW + (HIGH - LOW) / (1 + np.exp(-BETA * case.start))
        slope = BETA * (k - LOW) * (HIGH - k) / (HIGH - LOW)
        gradient = np.mean(products, axis=0) * slope
        return Learned(gradient, case.start + adam_from_rest(gradient))

    return step


def lean_per_sample(case: Case) -> Step:
    """Return a per-sample step without the published procedure's repeated work."""
    task = case.task
    compat = case.network.compat
    compat = compat if isinstance(compat, np.ndarray) else compat.toarray()
    compat_t = compat.T.copy()
    loads = task.loads(case.batch)
    read = np.array([case.geometry.dof(node, 0) for node in task.outputs])
    targets = np.eye(3)[task.labels(case.batch)]

    def step() -> Learned:
        k = LOW + (HIGH - LOW) / (1 + np.exp(-BETA * case.start))
        products = np.zeros_like(k)
        for pull, target in zip(loads, targets, strict=True):
            matrix = (compat_t * k) @ compat
            u = np.linalg.solve(matrix, pull)
            _, slope = cost_and_slope(u[read], target)
            adjoint_load = np.zeros_like(u)
            adjoint_load[read] = -slope
            products += (compat @ np.linalg.solve(matrix, adjoint_load)) * (compat @ u)
        slope = BETA * (k - LOW) * (HIGH - k) / (HIGH - LOW)
        gradient = products / len(loads) * slope
        return Learned(gradient, case.start + adam_from_rest(gradient))

    return step


# A method is a name, what makes its step for a case, and the largest lattice it is run on.
METHODS: dict[str, tuple[Callable[[Case], Step], int]] = {
    OURS: (in_process, max(SIZES)),
    "published procedure": (published_procedure, PORT_MAX),
    "per sample, lean": (lean_per_sample, PORT_MAX),
}


def block(step: Step, steps: int) -> float:
    """Return the CPU time of one step in s, from a run of several."""
    begin = time.process_time()
    for _ in range(steps):
        step()
    return (time.process_time() - begin) / steps


def measure(case: Case, n: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return the figures of each method: CPU time per step in s and how it was measured."""
    steps = {name: make(case) for name, (make, largest) in METHODS.items() if n <= largest}
    results = {name: step() for name, step in steps.items()}
    expected = results[OURS]
    for name, result in results.items():
        error = np.linalg.norm(result.gradient - expected.gradient)
        moved = np.abs(result.variables - expected.variables).max()
        if error > SAME * np.linalg.norm(expected.gradient) or moved > SAME:
            sys.exit(f"bench_insitu: n = {n}: {name!r} does not end where {OURS!r} does")
    # Two short runs warm caches and say how many steps make a block.
    lengths = {
        name: max(1, int(BLOCK_S / min(block(s, 1), block(s, 1)))) for name, s in steps.items()
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(block(step, lengths[name]))
    ours = statistics.median(times[OURS])
    return {name: figures(found, lengths[name], ours) for name, found in times.items()}


def measure_stack(case: Case, repeats: int) -> dict[str, dict[str, float]]:
    """Return wall time per step, s, in process and through the stack, in turns."""
    config = load(SPRING, sim=True, overrides={"ideal": True, "rig.name": f"bench-{os.getpid()}"})
    address, _, _ = bus_address(config)
    settings = InSituSettings(
        stiffness=(LOW, HIGH), beta=BETA, rate=RATE, epochs=10_000,
        evaluate_every=0, check=GradientCheckSettings(every=0),
    )  # fmt: skip
    training = InSituTraining(settings, network=case.network, seed=0)
    with (
        tempfile.TemporaryDirectory() as folder,
        ChildMirror(MirrorJob(config), Path(folder) / "mirror.log"),
        RemoteRig(address, mint=Minting, client="bench") as rig,
    ):
        rig.configure()
        rig.activate()
        events = training.run(rig, case.task)
        next(events)  # the rig is set to its start
        ours = in_process(case)
        wall: dict[str, list[float]] = {OURS: [], STACK: []}
        begun_us, steps = rig.device_us, 0
        for _ in range(repeats):
            begin = time.perf_counter()
            taken = [next(events) for _ in range(STACK_EVENTS)]
            done = sum(isinstance(event, StepDone) for event in taken)
            wall[STACK].append((time.perf_counter() - begin) / done)
            steps += done
            begin = time.perf_counter()
            for _ in range(200):
                ours()
            wall[OURS].append((time.perf_counter() - begin) / 200)
        rig_s = (rig.device_us - begun_us) / 1e6 / steps
    medians = {name: statistics.median(times) for name, times in wall.items()}
    return {
        OURS: {"wall_s": medians[OURS], "over_in_process": 1.0},
        STACK: {
            "wall_s": medians[STACK],
            "over_in_process": medians[STACK] / medians[OURS],
            "rig_s": rig_s,
        },
    }


def figures(times: list[float], steps: int, ours: float) -> dict[str, float]:
    """Return what is reported of the blocks of one method, beside the one in process."""
    quartiles = statistics.quantiles(times, n=4)
    return {
        "cpu_s": statistics.median(times),
        "over_in_process": statistics.median(times) / ours,
        "cpu_s_quartile_1": quartiles[0],
        "cpu_s_quartile_3": quartiles[2],
        "blocks": len(times),
        "steps_per_block": steps,
    }


def seconds(value: float) -> str:
    """Return a time with its unit, three digits."""
    return f"{value * 1e6:.3g} µs" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def cell(found: dict[str, dict[str, float]], name: str) -> str:
    """Return what the table says of one method."""
    if name not in found:
        return "–"
    ratio = "" if name == OURS else f" ({found[name]['over_in_process']:.3g}×)"
    return seconds(found[name]["cpu_s"]) + ratio


def require_one_thread() -> None:
    """Start this script again with one BLAS thread; NumPy reads the number when it loads."""
    if THREADS not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, THREADS: "1"})


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--repeats", type=int, default=15, help="blocks per method and size")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows of the lattices")
    arguments = parser.parse_args()
    sizes, repeats = [int(size) for size in arguments.sizes.split(",")], arguments.repeats
    if repeats < 2 or min(sizes) < 4:
        parser.error("at least 2 repeats, for quartiles, and 4 rows, for the nodes of the task")
    require_one_thread()
    console = Console(stderr=arguments.json)
    table = Table(title=f"One training step, {SAMPLES} Iris samples: CPU time (ratio)")
    for heading in ("rows", "dof", "bonds", *METHODS):
        table.add_column(heading, justify="right")
    report: dict[str, dict[str, dict[str, float]]] = {}
    with console.status("measuring") as status:
        for n in sizes:
            status.update(f"measuring n = {n}")
            case = make_case(n)
            found = report[f"n={n}"] = measure(case, n, repeats)
            size = (str(n), str(case.network.dof), str(case.network.bond_count))
            table.add_row(*size, *(cell(found, name) for name in METHODS))
        status.update("measuring the stack")
        stack = report["stack n=4"] = measure_stack(make_case(4), repeats)
    console.print(table)
    through = stack[STACK]
    console.print(
        f"{STACK}, n = 4: {seconds(through['wall_s'])} wall a step, "
        f"{through['over_in_process']:.0f}× in process ({seconds(stack[OURS]['wall_s'])}), "
        f"{through['rig_s']:.3f} s of rig time"
    )
    console.print(f"medians of {repeats} interleaved blocks of about {BLOCK_S * 1e3:.0f} ms each")
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
