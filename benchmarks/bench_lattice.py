"""How the cost of a training step grows with the network: lattices and irregular networks.

    python benchmarks/bench_lattice.py [--json] [--repeats N] [--sizes 4,8,16] [--plot FILE]

A step is what `bench_insitu.py` calls "in process": one factorisation for 16 samples, forward
and adjoint, gradient, Adam. Irregular networks have the nodes of the lattice, moved, joined by
Delaunay and numbered at random: what order they are solved in is found, not given. Median CPU
time of this process over interleaved blocks, one BLAS thread. Set-up (once per network) is
given beside it, and the exponent p of time ~ dof^p over the three largest sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_insitu import (
    BETA,
    HIGH,
    LOW,
    SAMPLES,
    SIZES,
    Case,
    block,
    in_process,
    make_case,
    require_one_thread,
    seconds,
)
from rich.console import Console
from rich.table import Table

from hil.mechanics.geometry import Geometry
from hil.mechanics.irregular import irregular_network
from hil.mechanics.spring_network import SpringNetwork
from hil.plots.growth import draw_growth
from hil.tasks.iris import Iris, IrisSettings

BLOCK_S = 0.02


def irregular_case(n: int) -> Case:
    """Return the Iris task on an irregular network, its seven nodes drawn at random."""
    geometry = irregular_network(n)
    nodes = _free(geometry, 7)
    settings = IrisSettings(
        inputs=(nodes[0], nodes[1], nodes[2], nodes[3]),
        outputs=(nodes[4], nodes[5], nodes[6]),
        floor=0.0,
    )
    task = Iris(settings, geometry=geometry, seed=0)
    random = np.random.default_rng(0)
    return Case(
        geometry,
        SpringNetwork.from_geometry(geometry),
        task,
        random.permutation(task.train)[:SAMPLES],
        random.normal(0.0, 0.05, len(geometry.bonds)),
    )


def _free(geometry: Geometry, count: int) -> list[int]:
    """Return nodes that move, from 1."""
    chosen = np.random.default_rng(1).choice(geometry.free_nodes, count, replace=False)
    return [int(node) + 1 for node in chosen]


KINDS: dict[str, Callable[[int], Case]] = {"lattice": make_case, "irregular": irregular_case}


def measure(n: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return the figures of both kinds of network of n rows."""
    cases, steps, figures = {}, {}, {}
    for kind, make in KINDS.items():
        cases[kind] = case = make(n)
        begin = time.process_time()
        network = SpringNetwork.from_geometry(case.geometry)
        network.factorise(np.full(network.bond_count, 0.5 * (LOW + HIGH)))  # and its rank test
        figures[kind] = {
            "dof": float(network.dof),
            "bonds": float(network.bond_count),
            "set_up_s": time.process_time() - begin,
        }
        steps[kind] = in_process(case)
    lengths = {
        kind: max(1, int(BLOCK_S / min(block(s, 1), block(s, 1)))) for kind, s in steps.items()
    }
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats):
        for kind, step in steps.items():
            times[kind].append(block(step, lengths[kind]))
    for kind, found in times.items():
        figures[kind] |= {"cpu_s": statistics.median(found), "least_cpu_s": min(found)}
    return figures


def exponent(figures: list[dict[str, float]]) -> float:
    """Return p of time ~ dof^p between the third largest and the largest size."""
    few, many = figures[-3:][0], figures[-1]
    if few["dof"] == many["dof"]:
        return math.nan
    return math.log(many["cpu_s"] / few["cpu_s"]) / math.log(many["dof"] / few["dof"])


def main() -> None:
    """Measure, print a table, draw, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--repeats", type=int, default=9, help="blocks per network")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows of the lattices")
    parser.add_argument("--plot", type=Path, default=Path("runs/lattice.png"), help="the picture")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    if arguments.repeats < 2 or min(sizes) < 4:
        parser.error("at least 2 repeats and 4 rows, for the nodes of the task")
    require_one_thread()
    console = Console(stderr=arguments.json)
    table = Table(title=f"One training step, {SAMPLES} samples, β = {BETA:g}: CPU time")
    for heading in (
        "rows",
        "dof",
        *(f"{kind}{what}" for kind in KINDS for what in ("", ", set-up")),
    ):
        table.add_column(heading, justify="right")
    report: dict[str, dict[str, dict[str, float]]] = {}
    with console.status("measuring") as status:
        for n in sizes:
            status.update(f"measuring n = {n}")
            found = report[f"n={n}"] = measure(n, arguments.repeats)
            table.add_row(
                str(n), f"{found['lattice']['dof']:.0f}",
                *(seconds(found[k][name]) for k in KINDS for name in ("cpu_s", "set_up_s")),
            )  # fmt: skip
    console.print(table)
    lines = {kind: [found[kind] for found in report.values()] for kind in KINDS}
    growth = {kind: exponent(line) for kind, line in lines.items()}
    for kind, p in growth.items():
        console.print(f"{kind}: time ~ dof^{p:.2f} over the largest sizes")
    draw_growth(
        {
            kind: (np.array([f["dof"] for f in line]), np.array([f["cpu_s"] for f in line]))
            for kind, line in lines.items()
        },
        arguments.plot, title="Cost of one training step", unit="s of CPU time",
    )  # fmt: skip
    console.print(str(arguments.plot))
    if arguments.json:
        print(json.dumps({**report, "exponent": growth, "plot": str(arguments.plot)}))


if __name__ == "__main__":
    main()
