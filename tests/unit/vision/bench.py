"""A network before a camera whose lens, pose and noise are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.bench import MarkerSettings
from hil.types import AnyArray, Array
from hil.vision.lens import Lens
from hil.vision.tracking import Layout, Tracker
from sim.cameras.camera import CameraSettings, SimCamera
from sim.cameras.scene import Scene, draw_scene

GEOMETRY = triangular_lattice(4)
NETWORK = SpringNetwork.from_geometry(GEOMETRY)
MARKERS = MarkerSettings()
FRAME = np.array(MARKERS.frame)
PERIOD_US = 40_000


def camera(ideal: bool = False) -> SimCamera:
    return SimCamera(CameraSettings(width=640, height=480), seed=5, ideal=ideal)


def true_lens(eye: SimCamera) -> Lens:
    fx, (cx, cy) = eye.focal, (np.array(eye.settings.off_centre) + 0.5) * eye.size
    return Lens("camera", eye.size, (fx, fx, cx, cy), eye.settings.distortion, 0.0, 0)


def tracker(eye: SimCamera) -> Tracker:
    layout = Layout(GEOMETRY.nodes, GEOMETRY.bonds, GEOMETRY.fixed, FRAME, MARKERS.radius)
    return Tracker(true_lens(eye), layout, MARKERS)


def moved(random: np.random.Generator) -> Array:
    """Return how far every node goes under forces up to 50 mN: (n, 2), m."""
    found = np.zeros(GEOMETRY.nodes.size)
    load = random.uniform(-0.05, 0.05, NETWORK.dof)
    found[GEOMETRY.free_dofs] = NETWORK.settle(np.full(28, 137.5), load).displacement
    return found.reshape(-1, 2)


class Stand:
    """Renders what a camera sees; time goes on, so that no noise comes twice."""

    def __init__(self, eye: SimCamera) -> None:
        self.eye = eye
        self._now_us = 0
        self._planes: dict[bytes, AnyArray] = {}

    def restart(self) -> None:
        """Put the camera back; the same noise follows whichever test came before."""
        self.eye.shift, self.eye.turn = np.zeros(3), np.zeros(3)
        self._now_us = 10**9

    def frames(
        self,
        shift: Array | float = 0.0,
        count: int = 16,
        hidden: Sequence[tuple[float, float, float, float]] = (),
        frame: Array = FRAME,
    ) -> list[AnyArray]:
        pose = np.concatenate([self.eye.shift, self.eye.turn]).tobytes()
        if pose not in self._planes:
            self._planes[pose] = self.eye.plane()
        scene = Scene(
            GEOMETRY.nodes + shift, GEOMETRY.bonds, np.full(28, 0.002), frame, MARKERS.radius,
            tuple(hidden),
        )  # fmt: skip
        clean = draw_scene(self.eye, scene, self._planes[pose])
        self._now_us += 10**7
        return self.eye.expose(clean, self._now_us, count, PERIOD_US)
