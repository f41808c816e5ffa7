"""What a camera knows of a network: displacement error against noise, and Iris read by it.

    python benchmarks/bench_camera.py [--json] [--plot FILE.png] [--cases N] [--flowers N]
                                      [--noises 0.05,0.1] [--frames 1,16]

Frames are rendered (lens distortion, tilt, blur, 8 bit, noise on every pixel) for load cases
whose displacements are known. Noise is given as what it does to one marker: the scatter of
its centre in one frame, px. The lens is found from rendered checkerboards first. Then a
network is trained on Iris by exact gradients, its struts are rounded to printed widths,
mounted on the simulated bench of configs/manual.toml, and every flower is hung and read by
the camera at 0.1 px.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hil.config import build, load
from hil.mechanics.spring_network import SpringNetwork
from hil.plots.style import BLUE, GREEN, INK, VERMILION, new_figure, save, style
from hil.rigs.bench import Hang, HoldBoard
from hil.rigs.manual import ManualRig
from hil.safety.deadman import Minting
from hil.tasks.iris import Iris
from hil.training.adam import AdamState
from hil.training.gradients.separate import local_gradient
from hil.training.insitu import InSituTraining
from hil.types import Array
from hil.vision.lens import Checkerboard, Lens, find_corners, fit_lens
from hil.vision.tracking import Layout, Tracker
from sim.boards.bench import SimBench

CONFIGS = Path(__file__).parents[1] / "configs"
VIEWS = 12
PERIOD = 0.04  # s
COLORS = (VERMILION, BLUE, GREEN, INK)


def bench_at(noise: float, seed: int, **more: Any) -> tuple[ManualRig, SimBench]:
    """Return the simulated bench at a noise of `noise` px, and the rig around it."""
    overrides = {"board.camera.noise": noise, "rig.drift_max": 0.0} | more
    config = load(CONFIGS / "manual.toml", sim=True, overrides=overrides)
    assert config.board is not None
    bench = build(config.board, "board", rig=config.rig, seed=seed)
    rig = build(config.rig, "rig", tokens=Minting(60_000_000), clock="virtual", bench=bench)
    return rig, bench


def lens_of(bench: SimBench) -> Lens:
    """Calibrate the lens of a bench with a checkerboard."""
    board, views = Checkerboard(), []
    for view in range(1, VIEWS + 1):
        bench.ask(HoldBoard(view, VIEWS, board.columns, board.rows, board.square), lambda: False)
        found = find_corners(np.mean(bench.grab(4, PERIOD), axis=0), board)
        if found is not None:
            views.append(found)
    return fit_lens(bench.camera, bench.size, board, views)


def displacement_error(noise: float, frames: int, cases: int, lens: Lens, seed: int) -> float:
    """Return the rms error of all displacements of some load cases, px."""
    rig, bench = bench_at(noise, seed)
    layout = Layout(
        bench.geometry.nodes, bench.geometry.bonds, bench.geometry.fixed,
        np.array(rig.settings.markers.frame), rig.settings.markers.radius,
    )  # fmt: skip
    tracker = Tracker(lens, layout, rig.settings.markers)
    seen = tracker.register(bench.grab(4 * max(frames, 2), PERIOD))
    random, errors = np.random.default_rng(seed), []
    for _ in range(cases):
        load = random.uniform(-0.05, 0.05, rig.network.dof)
        bench.ask(Hang((), load), lambda: False)
        bench.wait(2.0)
        truth = bench.displacement()
        images = bench.grab(max(frames, 2), PERIOD)[-frames:]
        images = images if frames > 1 else [images[0], images[0]]
        sight = tracker.locate(images, seen.nodes + truth)
        errors.append((sight.nodes - seen.nodes - truth) * seen.scale)
    return float(np.sqrt(np.mean(np.square(errors))))


def trained(network: SpringNetwork, task: Iris, epochs: int, seed: int) -> Array:
    """Return the stiffness that exact gradients find: (bonds,), N/m."""
    config = load(CONFIGS / "iris.toml", overrides={"training.epochs": epochs})
    training: InSituTraining = build(config.training or {}, "training", network=network, seed=seed)
    variable = np.zeros(network.bond_count)
    adam = AdamState.start(network.bond_count)
    for epoch in range(epochs):
        for step in range(training.steps(task)):
            stiffness = training.bounded.stiffness(variable)
            batch = training.batch(task, epoch, step)
            settle = partial(network.settle, stiffness)
            gradient = local_gradient(settle, task, batch, 0.1).gradient
            slope = gradient * training.bounded.derivative(stiffness)
            change, adam = training.optimizer.step(slope, adam)
            variable = training.bounded.clip(variable + change)
    return training.bounded.stiffness(variable)


def iris(flowers: int, noise: float, epochs: int, seed: int, **more: Any) -> dict[str, Any]:
    """Return the accuracy of a trained network as computed and as read by the camera."""
    rig, _ = bench_at(noise, seed, **more)
    table = load(CONFIGS / "iris.toml").task or {}
    task: Iris = build(table, "task", geometry=rig.network.geometry, seed=seed)
    stiffness = trained(rig.network, task, epochs, seed)
    every = np.concatenate([task.test, task.train])[:flowers]
    loads = task.loads(every)
    with rig:
        rig.configure()
        rig.activate()
        applied = rig.set_stiffness(stiffness)
        measured = rig.settle(loads)
    model = rig.network.settle(stiffness, loads).displacement
    printed = rig.network.settle(applied, loads).displacement
    read = task.predict(measured.displacement)
    return {
        "flowers": len(every),
        "noise_px": noise,
        "frames": rig.settings.samples,
        "accuracy_model": float(task.score(model, every).mean()),
        "accuracy_printed_struts": float(task.score(printed, every).mean()),
        "accuracy_camera": float(task.score(measured.displacement, every).mean()),
        "same_answer_as_model": float((read == task.predict(model)).mean()),
    }


def draw(errors: dict[str, dict[str, float]], path: Path) -> None:
    """Draw displacement error against noise, a curve for each number of frames."""
    with style():
        figure = new_figure(7.2, 4.6)
        axes = figure.subplots()
        for color, (frames, curve) in zip(COLORS, errors.items(), strict=False):
            noises = [float(noise) for noise in curve]
            axes.loglog(noises, list(curve.values()), "o-", color=color, label=f"{frames} frames")
        axes.axhline(0.05, color=INK, lw=0.8, ls="--")
        axes.text(noises[0], 0.052, "wanted at 0.1 px", size=9)
        axes.set_xlabel("scatter of one marker in one frame, px")
        axes.set_ylabel("displacement error, px rms")
        axes.set_title("What the camera knows of a displacement")
        axes.legend()
        save(figure, path)


def numbers(text: str) -> list[float]:
    """Return `0.1,0.2` as numbers."""
    return [float(word) for word in text.split(",")]


def main() -> None:
    """Run, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--cases", type=int, default=30, help="load cases per point")
    parser.add_argument("--noises", type=numbers, default=numbers("0.02,0.05,0.1,0.2"))
    parser.add_argument("--frames", type=numbers, default=numbers("1,4,16,64"))
    parser.add_argument("--flowers", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=100, help="of training Iris")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json)
    _, bench = bench_at(0.1, arguments.seed)
    lens = lens_of(bench)
    errors: dict[str, dict[str, float]] = {}
    table = Table(title=f"displacement error, px rms, {arguments.cases} load cases")
    for heading in ("frames", *(f"noise {noise:g} px" for noise in arguments.noises)):
        table.add_column(heading, justify="right")
    with console.status("rendering"):
        for frames in map(int, arguments.frames):
            row = errors[str(frames)] = {
                f"{noise:g}": displacement_error(
                    noise, frames, arguments.cases, lens, arguments.seed
                )
                for noise in arguments.noises
            }
            table.add_row(str(frames), *(f"{error:.4f}" for error in row.values()))
        flowers = iris(arguments.flowers, 0.1, arguments.epochs, arguments.seed)
    console.print(table)
    console.print(
        f"lens: corners {lens.rms:.3f} px rms in {lens.views} views\n"
        f"Iris, {flowers['flowers']} flowers at {flowers['noise_px']} px: model "
        f"{flowers['accuracy_model']:.3f}, printed struts "
        f"{flowers['accuracy_printed_struts']:.3f}, camera {flowers['accuracy_camera']:.3f}, "
        f"the model's answer {flowers['same_answer_as_model']:.1%}"
    )
    if arguments.plot:
        draw(errors, arguments.plot)
    if arguments.json:
        report = {
            "image": list(bench.size), "pixels_per_mm": 1e-3 / bench.eye.metres,
            "lens_rms_px": lens.rms, "lens_views": lens.views,
            "displacement_error_px": errors, "iris": flowers,
        }  # fmt: skip
        print(json.dumps(report))


if __name__ == "__main__":
    main()
