"""How far circuits are from the equations, and whether the fast simulator knew.

    python benchmarks/bench_circuit.py [--json] [--picture FILE] [--products 300,1000,3000]

One, two and seven gyroscopes, each pushed another way every second, for 5 s: the circuit by
ngspice against RK4 with steps of 6 ms. "full": every term a part, real op-amps; "trimmed": its
resistors make up for what the op-amps' bandwidth takes; "lumped": a source per element.

The error is that of all positions and velocities over the run, root mean square, relative to
the motion. Beside it stands what the error model of the simulated instrument
(`sim.instruments.gyro_machine`) predicts, and what it leaves unexplained: ngspice against it.

"networks": the same for networks drawn anew, at GBW·τ = 1000: smallest and largest error.

"lattices": a slice of a lattice, wrapped in both directions. "LUCIDAC": two linearised
gyroscopes on lucipy's emulator, 5 s and 10 s, against the matrix exponential.

"live": the same circuit slice by slice in a process of its own, 50 ms of the network each,
against the batch; and the wall time of a slice.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from hil.errors import HilError
from hil.mechanics.gyro_geometry import lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.rigs.lucidac import LucidacRig, LucidacRigSettings
from hil.types import Array
from sim.circuits.examples import SCALES, STEP, Case, case, distance
from sim.circuits.live import LiveCircuit
from sim.circuits.netlist import CircuitParts, Kind
from sim.circuits.ngspice import run_batch
from sim.instruments.gyro_machine import AnalogErrors

GYROSCOPES = (1, 2, 7)
PRODUCTS = (300.0, 1000.0, 3000.0, 10000.0)  # GBW·τ
SLICE = STEP * SCALES.time  # s of the machine
BOARDS: dict[str, tuple[Kind, bool]] = {
    "full": ("full", False), "trimmed": ("full", True), "lumped": ("lumped", False),
}  # fmt: skip
POLE = 1000.0  # f_m·τ of the runs with a multiplier pole
TYPICAL = 1000.0  # GBW·τ of the networks drawn anew, and of the live runs
LATTICES: tuple[tuple[int, Kind], ...] = ((4, "full"), (4, "lumped"), (10, "lumped"))
Figures = dict[str, float]


def compare(which: Case, truth: Array, board: str, product: float, pole: float) -> Figures:
    """Return the error of a circuit, the predicted one, and what remains between them."""
    bandwidth, multiplier = product / SCALES.time, pole / SCALES.time
    kind, trimmed = BOARDS[board]
    parts = CircuitParts(
        kind=kind, gain_bandwidth=bandwidth, multiplier_pole=multiplier, trimmed=trimmed
    )
    errors = AnalogErrors(
        gain_bandwidth=bandwidth, multiplier_pole=multiplier,
        loading=kind == "full", trimmed=trimmed,
    )  # fmt: skip
    begin = time.perf_counter()
    states = run_batch(which.circuit(parts), which.nudges, SLICE)
    wall = time.perf_counter() - begin
    model = which.predicted(errors)
    error, predicted = distance(states, truth, truth), distance(model, truth, truth)
    return {
        "error": error,
        "predicted": predicted,
        "predicted_over_error": predicted / error,
        "unexplained": distance(states, model, truth),
        "wall_s": wall,
    }


def compare_live(live: LiveCircuit, which: Case, truth: Array, product: float) -> Figures:
    """Return how far slices are from a batch, and what a slice costs."""
    circuit = which.circuit(CircuitParts(gain_bandwidth=product / SCALES.time))
    live.load(circuit, len(which.nudges), SLICE)
    states, times = [which.initial], []
    for nudge in which.nudges:
        begin = time.perf_counter()
        states.append(live.advance(nudge))
        times.append(time.perf_counter() - begin)
    found = np.stack(states)
    return {
        "error": distance(found, truth, truth),
        "from_batch": distance(found, run_batch(circuit, which.nudges, SLICE), truth),
        "slice_s": statistics.median(times),
    }


def spread(n: int, board: str, networks: int) -> Figures:
    """Return the smallest and largest error, and ratio to the predicted one, of networks."""
    found = []
    for seed in range(networks):
        which = case(n, seed=seed)
        found.append(compare(which, which.truth(), board, TYPICAL, 0.0))
    errors = [row["error"] for row in found]
    ratios = [row["predicted_over_error"] for row in found]
    return {
        "networks": networks, "error_min": min(errors), "error_max": max(errors),
        "ratio_min": min(ratios), "ratio_max": max(ratios),
    }  # fmt: skip


def lattice_slices(live: LiveCircuit, rows: int, kind: Kind) -> Figures:
    """Return what a slice of a lattice costs, over half a second of it."""
    geometry = lattice(rows, rows)
    network, random = GyroNetwork(geometry), np.random.default_rng(0)
    nudges = np.zeros((10, network.n, 2))
    nudges[:, 0, 0] = 0.5
    parameters = GyroParameters(
        gamma=2.0 * random.standard_normal(network.n),
        stiffness=20.0 * np.exp(0.3 * random.standard_normal(network.spring_count)),
    )
    which = Case(network, parameters, nudges, np.zeros((network.n, 4)))
    live.load(which.circuit(CircuitParts(kind=kind)), len(nudges), SLICE)
    states, times = [which.initial], []
    for nudge in nudges:
        begin = time.perf_counter()
        states.append(live.advance(nudge))
        times.append(time.perf_counter() - begin)
    truth = which.truth()
    return {"error": distance(np.stack(states), truth, truth), "slice_s": statistics.median(times)}


def lucidac() -> dict[str, Figures]:
    """Return the errors of two linearised gyroscopes on the emulator of a LUCIDAC."""
    values = np.array([1.0, 1.3, 1.0, 0.8, 1.5, -1.0, 5.0])
    initial, found = np.zeros((2, 8)), {}
    initial[0, 0], initial[0, 7] = 0.3, -0.5
    with LucidacRig(LucidacRigSettings(name="bench", port="emu:/")) as rig:
        rig.configure()
        rig.set_coefficients(values)
        rig.activate()
        for steps in (100, 200):
            inputs = np.zeros((2, steps, 4))
            inputs[1, :, 0], inputs[1, :, 3] = 1.0, -0.5
            measured = rig.run(inputs, initial).states
            truth = rig.pair.rollout(values, inputs[:, 0], initial, STEP, steps)
            unit = np.tile([0.5, 0.5, 2.0, 2.0], 2)
            for number, name in enumerate(("free", "nudged")):
                error, of = (measured - truth)[number] / unit, truth[number] / unit
                found[f"{name} {steps * STEP:g} s"] = {
                    "rms": float(np.sqrt((error**2).mean() / (of**2).mean())),
                    "max": float(np.abs(error).max() / np.abs(of).max()),
                }
    return found


def draw(report: dict[str, dict[str, Figures]], path: Path) -> None:
    """Draw errors and their prediction over GBW·τ."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for number, n in enumerate(GYROSCOPES):
        rows = {float(key.split("=")[1]): row for key, row in report[f"n={n}"].items()
                if key.startswith("full GBW·τ")}  # fmt: skip
        colour = f"C{number}"
        plural = "s" if n > 1 else ""
        axes.loglog(
            list(rows), [100 * row["error"] for row in rows.values()], "o", color=colour,
            label=f"{n} gyroscope{plural}, ngspice",
        )  # fmt: skip
        axes.loglog(
            list(rows), [100 * row["predicted"] for row in rows.values()], "-", color=colour,
            label="predicted",
        )  # fmt: skip
    axes.axhline(2.0, color="0.6", linewidth=0.8)
    axes.set(xlabel="gain-bandwidth of the op-amps × time scale τ", ylabel="error over 5 s, %")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--picture", type=Path, help="file for a picture, PNG or SVG")
    parser.add_argument("--networks", type=int, default=4, help="drawn anew, for the spread")
    parser.add_argument(
        "--products", default=",".join(f"{p:g}" for p in PRODUCTS), help="values of GBW·τ"
    )
    arguments = parser.parse_args()
    products = [float(word) for word in arguments.products.split(",")]
    console = Console(stderr=arguments.json)
    table = Table(title="Circuits by ngspice against RK4, 5 s")
    for heading in ("gyroscopes", "circuit", "GBW·τ", "f_m·τ", "error", "predicted", "ratio",
                    "unexplained", "s"):  # fmt: skip
        table.add_column(heading, justify="right")
    report: dict[str, dict[str, Figures]] = {}
    settings = [(k, product, 0.0) for k in BOARDS for product in products]
    settings += [("full", products[-1], POLE)]
    live = LiveCircuit()
    try:
        with console.status("measuring") as status:
            for n in GYROSCOPES:
                which = case(n)
                truth = which.truth()
                rows = report[f"n={n}"] = {}
                for board, product, pole in settings:
                    status.update(f"{n} gyroscopes, {board}, GBW·τ = {product:g}")
                    row = compare(which, truth, board, product, pole)
                    named = f" f_m·τ={pole:g}" if pole else ""
                    rows[f"{board}{named} GBW·τ={product:g}"] = row
                    table.add_row(
                        str(n), board, f"{product:g}", f"{pole:g}" if pole else "–",
                        f"{row['error']:.2%}", f"{row['predicted']:.2%}",
                        f"{row['predicted_over_error']:.2f}", f"{row['unexplained']:.2%}",
                        f"{row['wall_s']:.2f}",
                    )  # fmt: skip
                rows["live"] = compare_live(live, which, truth, TYPICAL)
                for board in BOARDS if arguments.networks else ():
                    status.update(f"{n} gyroscopes, {board}, {arguments.networks} networks")
                    rows[f"networks {board}"] = spread(n, board, arguments.networks)
            status.update("lattices")
            report["lattices"] = {
                f"{rows} × {rows}, {kind}": lattice_slices(live, rows, kind)
                for rows, kind in LATTICES
            }
            if importlib.util.find_spec("lucipy"):
                status.update("LUCIDAC")
                report["LUCIDAC"] = lucidac()
    except HilError as error:
        sys.exit(f"bench_circuit: {error}")
    finally:
        live.close()
    console.print(table)
    for name, row in report["lattices"].items():
        console.print(f"live, {name}: {row['error']:.2%}, {1e3 * row['slice_s']:.0f} ms a slice")
    for name, row in report.get("LUCIDAC", {}).items():
        console.print(f"LUCIDAC, {name}: {row['rms']:.2%} rms, {row['max']:.2%} at worst")
    for name in (f"n={n}" for n in GYROSCOPES):
        rows = report[name]
        for board in BOARDS if arguments.networks else ():
            row = rows[f"networks {board}"]
            console.print(
                f"{name}, {board}, {arguments.networks} networks, GBW·τ = 1000: "
                f"{row['error_min']:.2%} to {row['error_max']:.2%}, predicted "
                f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f} of it"
            )
        row = rows["live"]
        console.print(
            f"live, {name}, GBW·τ = 1000: {row['error']:.2%}, {row['from_batch']:.3%} from the "
            f"batch, {1e3 * row['slice_s']:.1f} ms a slice (median)"
        )
    if arguments.picture:
        draw(report, arguments.picture)
        console.print(f"picture: {arguments.picture}")
    if arguments.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
