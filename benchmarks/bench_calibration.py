"""The in-situ gradient of a rig that is not what it says, before and after calibration.

`python benchmarks/bench_calibration.py`: simulated rigs with 5 % unknown stiffness mismatch and
10 % unknown sensor gains, one a seed. The gradients of two losses are measured in place at
random stiffness and set beside the exact ones at the true stiffness, relative L2 over all of
them: Iris (cross-entropy of |u|, with a kink at 0) and regression (squares). Twice calibrated:
with nothing but the known forces, and with one length known as well (a dial gauge at node 11:
its gain to 0.1 %, drawn with that error). `units` leaves the one factor aside that all gradients
share, the length scale no force can show. `all known` is a rig of which nothing is unknown: what
is left there is noise, not calibration.
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
from hil.rigs.calibration import CalibrationRecord, Parameter, geometry_hash, write
from hil.tasks.base import AbstractStaticTask
from hil.training.calibration import (
    ReferenceSettings,
    SpringNetworkCalibration,
    SpringNetworkCalibrationSettings,
)
from hil.types import Array, IntArray
from sim.rigs.spring_network import SimSpringNetwork
from sim.rigs.spring_network_plant import SpringNetworkPlant

CONFIGS = Path(__file__).parents[1] / "configs"
FORCE, ADJOINT_FORCE = 0.04, 0.04  # N, of tasks and adjoint loads: no sensor meets its end
FLAWS = "board.plant.imperfections."
MISMATCH, GAIN = 0.05, 0.1
GAUGE_NODE, GAUGE = 11, 0.001  # from 1; what a dial gauge knows a gain to
SETTINGS, BATCH = 8, 16  # random stiffness, samples at each
AVERAGED = 16  # repeats where noise is to be averaged away
RIGS = {"ideal otherwise": 0.0, "default noise": None}
METHODS = ("before", "forces only", "forces only, units", "one length known", "all known")
TASKS = {"Iris": "iris.toml", "regression": "regression.toml"}
Errors = dict[str, dict[str, float]]


def make(config: Config, seed: int) -> SimSpringNetwork:
    """Return a simulated rig in process."""
    assert config.board is not None
    kind = "sim.rigs.spring_network:SimSpringNetwork"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    rig: SimSpringNetwork = build(table, "rig", seed=seed)
    return rig


def configured(noise: float | None) -> Config:
    """Return a rig with unknown springs and sensors, noise as shipped or none."""
    over: dict[str, Any] = {FLAWS + "stiffness_mismatch": MISMATCH, FLAWS + "sensor_gain": GAIN}
    if noise is not None:
        over |= {FLAWS + "sensor_noise": noise, FLAWS + "adc_bits": 0, FLAWS + "dac_bits": 0}
    return load(CONFIGS / "spring_network.toml", sim=True, overrides=over)


def calibrated(
    config: Config, rig: SimSpringNetwork, network: SpringNetwork, seed: int, gauge: bool,
    folder: Path,
) -> Calibrated:  # fmt: skip
    """Return a rig that was calibrated, with its calibration applied."""
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
    return applied(rig, network, info.device_id, found.parameters, found.figures, folder)


def applied(
    rig: SimSpringNetwork, network: SpringNetwork, device_id: str,
    parameters: dict[str, Parameter], figures: dict[str, Any], folder: Path,
) -> Calibrated:  # fmt: skip
    """Return an active rig with a calibration applied."""
    record = CalibrationRecord(
        kind=KIND, device_id=device_id, date="", board="", firmware="", wire_schema="",
        config_hash="", geometry_hash=geometry_hash(network.geometry),
        parameters=parameters, figures=figures,
    )  # fmt: skip
    path = folder / f"{device_id}.json"
    write(record, path)
    made = Calibrated(rig, network, str(path))
    made.configure()
    made.activate()
    return made


def in_place(rig: AbstractStaticRig, task: AbstractStaticTask, batch: IntArray) -> Array:
    """Return ∂L/∂k from two equilibria, (bonds,), m/N."""
    forward = rig.settle(task.loads(batch))
    wanted = task.adjoint_loads(forward.displacement, batch)
    largest = np.abs(wanted).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0) / ADJOINT_FORCE  # a sample may want nothing
    adjoint = rig.settle(wanted / scale)
    return np.asarray((adjoint.elongation * forward.elongation * scale).mean(0))


def gradients(
    rig: AbstractStaticRig, plant: SpringNetworkPlant, network: SpringNetwork,
    task: AbstractStaticTask, seed: int, repeats: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Return measured and exact gradients at random stiffness, (settings, bonds)."""
    random = np.random.default_rng([seed, 88])
    measured, exact = [], []
    for _ in range(SETTINGS):
        rig.set_stiffness(random.uniform(95.0, 180.0, network.bond_count))
        true = plant.true_stiffness(plant.applied(Target.STIFFNESS))
        batch = random.choice(task.train, BATCH, replace=False)
        measured.append(np.mean([in_place(rig, task, batch) for _ in range(repeats)], axis=0))
        slope = partial(slope_of, task, batch)
        exact.append(network.backpropagate(true, task.loads(batch), slope).gradient)
    return np.array(measured), np.array(exact)


def slope_of(task: AbstractStaticTask, batch: IntArray, displacement: Array) -> Array:
    """Return ∂L/∂u, (batch, dof), 1/m."""
    return -task.adjoint_loads(displacement, batch)


def relative(measured: Array, exact: Array, units: bool = False) -> float:
    """Return the relative L2 error; units: after the best common factor."""
    if units:
        measured = measured * float((measured * exact).sum() / (measured**2).sum())
    return float(np.linalg.norm(measured - exact) / np.linalg.norm(exact))


def perfect(config: Config, network: SpringNetwork, seed: int, folder: Path) -> Calibrated:
    """Return a rig of which everything is known: what is left is noise."""
    rig = make(config, seed)
    info = rig.configure()
    plant = rig.plant
    assert plant is not None
    low, high = rig.settings.stiffness
    mismatch = plant.true_stiffness(np.full(info.bonds, 100.0)) / 100.0 - 1.0
    values: dict[str, Any] = {
        "stiffness_correction": [mismatch, mismatch * (high - low) / (high + low)],
        "command_range": [low, high], "gain": plant.gain, "zero": np.zeros(plant.channels),
        "noise": np.ones(plant.channels), "range": np.ones(plant.channels),
    }  # fmt: skip
    parameters = {n: Parameter("", np.asarray(v).tolist(), None) for n, v in values.items()}
    return applied(rig, network, info.device_id, parameters, {}, folder)


def measure(config: Config, seed: int, noisy: bool, folder: Path) -> Errors:
    """Return the relative error of each method on one rig, by task and by what is averaged."""
    geometry = make_geometry(GeometrySettings(lattice=4), Path.cwd())
    network = SpringNetwork.from_geometry(geometry)
    raw = make(config, seed)
    raw.configure()
    raw.activate()
    rigs: dict[str, tuple[AbstractStaticRig, SimSpringNetwork]] = {"before": (raw, raw)}
    for name, gauge in (("forces only", False), ("one length known", True)):
        inner = make(config, seed)
        rigs[name] = (calibrated(config, inner, network, seed, gauge, folder), inner)
    known = perfect(config, network, seed, folder)
    rigs["all known"] = (known, known._rig)  # type: ignore[assignment]
    report: Errors = {}
    for label, file in TASKS.items():
        told = load(CONFIGS / file, overrides={"task.force": FORCE})
        task = build(told.task or {}, "task", geometry=geometry, seed=seed)
        for about, repeats in {"one batch": 1, f"mean of {AVERAGED}": AVERAGED}.items():
            if repeats > 1 and not noisy:
                continue
            found = report.setdefault(f"{label}, {about}", {})
            for name, (rig, inner) in rigs.items():
                assert inner.plant is not None
                pair = gradients(rig, inner.plant, network, task, seed, repeats)
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
