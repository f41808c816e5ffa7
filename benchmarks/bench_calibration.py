"""The in-situ gradient of a rig that is not what it says, before and after calibration.

`python benchmarks/bench_calibration.py`: simulated rigs with 5 % unknown stiffness mismatch and
10 % unknown sensor gains, one a seed. The gradient of the Iris loss is measured in place at
random stiffness and set beside the exact one at the true stiffness, relative L2 over all of
them. Twice calibrated: with nothing but the known forces, and with one length known as well (a
dial gauge at node 11: its gain to 0.1 %, drawn with that error). `units` leaves the one factor
aside that all gradients share, the length scale no force can show.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import Config, build, load
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.mechanics.spring_network import SpringNetwork
from hil.messages.wire import Target
from hil.rigs.base import AbstractStaticRig
from hil.rigs.calibrated import KIND, Calibrated
from hil.rigs.calibration import CalibrationRecord, geometry_hash, write
from hil.tasks.base import AbstractStaticTask
from hil.training.calibration import (
    ReferenceSettings,
    SpringNetworkCalibration,
    SpringNetworkCalibrationSettings,
)
from hil.training.gradients.separate import local_gradient
from hil.types import Array
from sim.rigs.spring_network import SimSpringNetwork

IRIS = Path(__file__).parents[1] / "configs" / "iris.toml"
FLAWS = "board.plant.imperfections."
MISMATCH, GAIN = 0.05, 0.1
GAUGE_NODE, GAUGE = 11, 0.001  # from 1; what a dial gauge knows a gain to
SETTINGS, BATCH = 8, 16  # random stiffness, samples at each
AVERAGED = 32  # repeats where noise is to be averaged away
RIGS = {"ideal otherwise": 0.0, "default noise": None}
METHODS = ("before", "forces only", "forces only, units", "one length known")


def make(config: Config, seed: int) -> SimSpringNetwork:
    """Return a simulated rig in process."""
    assert config.board is not None
    kind = "sim.rigs.spring_network:SimSpringNetwork"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    rig: SimSpringNetwork = build(table, "rig", seed=seed)
    return rig


def configured(noise: float | None) -> Config:
    """Return Iris on a rig with unknown springs and sensors, noise as shipped or none."""
    over: dict[str, Any] = {FLAWS + "stiffness_mismatch": MISMATCH, FLAWS + "sensor_gain": GAIN}
    if noise is not None:
        over |= {FLAWS + "sensor_noise": noise, FLAWS + "adc_bits": 0, FLAWS + "dac_bits": 0}
    return load(IRIS, sim=True, overrides=over)


def calibrated(
    config: Config, rig: SimSpringNetwork, network: SpringNetwork, seed: int, gauge: bool,
    folder: Path,
) -> tuple[Calibrated, dict[str, Any]]:  # fmt: skip
    """Return a rig with its calibration applied, and what the calibration says of itself."""
    assert config.calibration is not None
    info = rig.configure()
    assert rig.plant is not None
    told = {key: value for key, value in config.calibration.items() if key != "kind"}
    settings = SpringNetworkCalibrationSettings(**told)
    if gauge:
        true = rig.plant.gain[network.geometry.dof(GAUGE_NODE - 1, 1)]
        error = GAUGE * np.random.default_rng([seed, 77]).standard_normal()
        settings = SpringNetworkCalibrationSettings(
            **told,
            reference=ReferenceSettings(
                node=GAUGE_NODE, axis="y", gain=float(true * (1 + error)), deviation=GAUGE
            ),
        )
    how = SpringNetworkCalibration(settings, network=network, seed=seed)
    rig.activate()
    found = how.find(list(how.run(rig, info)), info, rig.settings.samples)
    rig.deactivate()
    record = CalibrationRecord(
        kind=KIND, device_id=info.device_id, date="", board="", firmware="", wire_schema="",
        config_hash="", geometry_hash=geometry_hash(network.geometry),
        parameters=found.parameters, figures=found.figures,
    )  # fmt: skip
    path = folder / f"{info.device_id}.json"
    write(record, path)
    applied = Calibrated(rig, network, str(path))
    applied.configure()
    applied.activate()
    return applied, found.figures


def gradients(
    rig: AbstractStaticRig, plant: Any, network: SpringNetwork, task: AbstractStaticTask,
    force: float, seed: int, repeats: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Return measured and exact gradients at random stiffness, (settings, bonds)."""
    random = np.random.default_rng([seed, 88])
    measured, exact = [], []
    for _ in range(SETTINGS):
        rig.set_stiffness(random.uniform(95.0, 180.0, network.bond_count))
        true = plant.true_stiffness(plant.applied(Target.STIFFNESS))
        batch = random.choice(task.train, BATCH, replace=False)
        found = [local_gradient(rig.settle, task, batch, force).gradient for _ in range(repeats)]
        measured.append(np.mean(found, axis=0))
        known = local_gradient(partial(network.settle, true), task, batch, force)
        exact.append(known.gradient)
    return np.array(measured), np.array(exact)


def relative(measured: Array, exact: Array, units: bool = False) -> float:
    """Return the relative L2 error; units: after the best common factor."""
    if units:
        measured = measured * float((measured * exact).sum() / (measured**2).sum())
    return float(np.linalg.norm(measured - exact) / np.linalg.norm(exact))


def measure(config: Config, seed: int, noisy: bool, folder: Path) -> dict[str, dict[str, float]]:
    """Return, by what is averaged, the relative error of each method on one rig."""
    geometry = make_geometry(GeometrySettings(lattice=4), Path.cwd())
    network = SpringNetwork.from_geometry(geometry)
    task = build(config.task or {}, "task", geometry=geometry, seed=seed)
    force = float((config.training or {})["adjoint_force"])
    report: dict[str, dict[str, float]] = {"one batch": {}}
    rounds = {"one batch": 1} | ({"averaged": AVERAGED} if noisy else {})
    raw = make(config, seed)
    raw.configure()
    raw.activate()
    rigs: dict[str, tuple[AbstractStaticRig, SimSpringNetwork]] = {"before": (raw, raw)}
    for name, gauge in (("forces only", False), ("one length known", True)):
        inner = make(config, seed)
        rigs[name] = (calibrated(config, inner, network, seed, gauge, folder)[0], inner)
    for about, repeats in rounds.items():
        found = report.setdefault(about, {})
        for name, (rig, inner) in rigs.items():
            pair = gradients(rig, inner.plant, network, task, force, seed, repeats)
            found[name] = relative(*pair)
            if name == "forces only":
                found[f"{name}, units"] = relative(*pair, units=True)
    return report


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seeds", type=int, default=10, help="rigs")
    asked = parser.parse_args()
    console = Console(stderr=asked.json)
    table = Table(title="relative error of the in-situ gradient: mean ± std, worst")
    for heading in ("rig", *METHODS):
        table.add_column(heading, justify="right")
    report: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for rig, noise in RIGS.items():
            config = configured(noise)
            found = []
            for seed in range(asked.seeds):
                print(f"{rig}, seed {seed}", file=sys.stderr)
                found.append(measure(config, seed, noise is None, Path(folder)))
            for about in found[0]:
                row = report[f"{rig}, {about}"] = {}
                for method in METHODS:
                    errors = np.array([one[about][method] for one in found])
                    row[method] = {
                        "mean": float(errors.mean()),
                        "std": float(errors.std(ddof=1)) if len(errors) > 1 else 0.0,
                        "worst": float(errors.max()),
                    }
                cells = [
                    f"{s['mean']:.2%} ± {s['std']:.2%}, {s['worst']:.2%}" for s in row.values()
                ]
                table.add_row(f"{rig}, {about}", *cells)
    console.print(table)
    if asked.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
