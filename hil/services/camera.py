"""`hil camera`: what the camera of a bench sees, and what its lens does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from hil.config import Config, build, settings_of
from hil.errors import ConfigError, MeasurementError, RunError
from hil.links.camera import opencv
from hil.plots.camera import draw_board_views, draw_sight
from hil.recording.run import RESULTS, Run
from hil.rigs.bench import AbstractBench, Answer, HoldBoard
from hil.rigs.manual import ManualRig
from hil.rigs.terminal_bench import TerminalBench
from hil.safety.deadman import Minting
from hil.services import owner

Say = Callable[[str], None]
FRAMES = 4  # averaged per view of the board, held by hand
TRIES = 5  # to hold the board so that it is seen, per view


class Looked(msgspec.Struct, frozen=True):
    """What the camera sees of the bench: the JSON line of `hil camera`."""

    camera: str
    markers: int
    pixels_per_mm: float
    noise_px: float  # scatter of a marker in one image, px
    displacement_noise_px: float  # of a node that did not move, rms, px
    displacement_noise_um: float
    residual_px: float  # of the reference markers about the plane, rms, px
    run: str
    plots: list[str]


class Calibrated(msgspec.Struct, frozen=True):
    """What the lens of the camera is: the JSON line of `hil camera --lens`."""

    camera: str
    size: tuple[int, int]
    focal_px: float
    k1: float
    rms_px: float
    views: int
    lens: str
    run: str
    plots: list[str]


@contextlib.contextmanager
def _bench(config: Config) -> Iterator[tuple[ManualRig, AbstractBench]]:
    """Own the bench of a configuration; raises ConfigError for a rig without a camera."""
    kind, settings = settings_of(config.rig, "rig")
    if not issubclass(kind, ManualRig):
        raise ConfigError(
            f"rig.kind: {config.rig['kind']!r} has no camera; hil camera is for "
            "hil.rigs.manual:ManualRig"
        )
    opencv()
    with owner.owned(config):
        bench: AbstractBench
        if config.board is None:
            bench = TerminalBench(settings.camera)
        else:
            bench = build(
                config.board, "board", rig=config.rig, clock=config.clock, seed=config.seed,
                ideal=config.ideal,
            )  # fmt: skip
        life = round(settings.watchdog * 1e6)
        with ManualRig(settings, tokens=Minting(life), clock=config.clock, bench=bench) as rig:
            yield rig, bench


def look(config: Config, runs: Path, say: Say) -> Looked:
    """Look at a bench without load, twice: what moves then is noise.

    Raises MeasurementError where a marker is not seen, and what the camera raises.
    """
    with _bench(config) as (rig, bench):
        say(f"camera {bench.open()}, {bench.size[0]} × {bench.size[1]} px")
        rig.configure()
        rig.activate()
        count, period = rig.settings.samples, rig.settings.sample_period
        frames = bench.grab(count, period)
        tracker = rig.tracker
        registration = tracker.registration
        assert registration is not None
        sight = tracker.locate(frames, registration.nodes)
    off = float(np.sqrt(np.mean((sight.nodes - registration.nodes) ** 2)))
    run = Run.create(runs, f"{config.name}-camera", datetime.now())
    run.write_config(config)
    run.plots.mkdir(exist_ok=True)
    picture = run.plots / "camera.png"
    names = [tracker.layout.name(marker) for marker in range(len(registration.pixels))]
    seen = tracker.lens.bend(registration.pixels)
    draw_sight(frames[0], seen, names, picture, title=f"camera {bench.camera}")
    outcome = Looked(
        camera=bench.camera,
        markers=len(names),
        pixels_per_mm=registration.scale / 1e3,
        noise_px=registration.noise,
        displacement_noise_px=off * registration.scale,
        displacement_noise_um=off * 1e6,
        residual_px=sight.residual,
        run=str(run.path),
        plots=[str(picture)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def calibrate(config: Config, views: int, runs: Path, say: Say) -> Calibrated:
    """Find what the lens does from a checkerboard held in `views` ways, and write it down.

    Raises ConfigError where no file is named for it, MeasurementError where the board is
    not seen, RunError where the person stops.
    """
    from hil.vision.lens import Checkerboard, find_corners, fit_lens, write_lens

    board = Checkerboard()
    found = []
    with _bench(config) as (rig, bench):
        target = rig.settings.camera.lens
        if not target:
            raise ConfigError("rig.camera.lens: name the file the lens is to be written to")
        say(f"camera {bench.open()}, {bench.size[0]} × {bench.size[1]} px")
        for view in range(1, views + 1):
            task = HoldBoard(view, views, board.columns, board.rows, board.square)
            for _ in range(TRIES):
                if bench.ask(task, lambda: False) is Answer.STOP:
                    raise RunError("hil camera: stopped; no lens was written")
                image = np.mean(bench.grab(FRAMES, rig.settings.sample_period), axis=0)
                seen = find_corners(image, board)
                if seen is not None:
                    found.append(seen)
                    break
                bench.tell(f"view {view}: not every corner is in view; hold it another way")
            else:
                raise MeasurementError(
                    f"camera {bench.camera}: view {view}: the board was not seen in {TRIES} "
                    f"tries; it has {board.columns} × {board.rows} inner corners?"
                )
        lens = fit_lens(bench.camera, bench.size, board, found)
    write_lens(lens, Path(target))
    run = Run.create(runs, f"{config.name}-lens", datetime.now())
    run.write_config(config)
    run.plots.mkdir(exist_ok=True)
    picture = run.plots / "lens.png"
    corners = [view.corners for view in found]
    draw_board_views(lens.size, corners, lens.straighten, picture, title=f"lens of {lens.camera}")
    outcome = Calibrated(
        camera=lens.camera,
        size=lens.size,
        focal_px=lens.matrix[0],
        k1=lens.distortion[0],
        rms_px=lens.rms,
        views=lens.views,
        lens=target,
        run=str(run.path),
        plots=[str(picture)],
    )
    run.write_json(RESULTS, outcome)
    return outcome


def summary(outcome: Looked | Calibrated) -> str:
    """Return a result as lines for a person."""
    if isinstance(outcome, Calibrated):
        lines = [
            f"lens       f {outcome.focal_px:.1f} px, k1 {outcome.k1:+.3f}, corners "
            f"{outcome.rms_px:.3f} px rms in {outcome.views} views",
            f"camera     {outcome.camera}, {outcome.size[0]} × {outcome.size[1]} px",
            f"written    {outcome.lens}",
        ]
    else:
        lines = [
            f"markers    {outcome.markers} seen, {outcome.pixels_per_mm:.2f} px/mm",
            f"noise      {outcome.noise_px:.3f} px in one image; a node at rest reads "
            f"{outcome.displacement_noise_px:.3f} px rms = {outcome.displacement_noise_um:.1f} um",
            f"frame      {outcome.residual_px:.3f} px rms about a plane",
        ]
    return "\n".join([*lines, f"run        {outcome.run}", f"           {outcome.plots[0]}"])
