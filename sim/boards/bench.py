"""A simulated bench: a person who does as told, a network, and a camera that renders it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings, build, check
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.messages.wire import Target
from hil.rigs.bench import (
    AbstractBench,
    Answer,
    Hang,
    HoldBoard,
    Instruction,
    MarkerSettings,
    Mount,
)
from hil.types import AnyArray, Array, ClockKind
from sim.cameras.camera import CameraSettings, SimCamera, rotation
from sim.cameras.scene import Scene, draw_checkerboard, draw_scene
from sim.rigs.spring_network_plant import SpringNetworkPlant

STREAM_BOARD = 302  # of the random numbers of a seed: how a checkerboard is held
HANDS_US = 2_000_000  # what a person takes to do one thing
REST = 1e-7  # m, a motion within a burst of images that no camera sees
KEPT = 256  # instructions and words that are remembered


class SimBenchSettings(Settings, frozen=True, kw_only=True):
    """The board table of a bench that is simulated."""

    plant: Annotated[dict[str, Any], Meta(description="table of the plant, a part of its own")]
    camera: CameraSettings = CameraSettings()


class BenchRig(msgspec.Struct, frozen=True, kw_only=True):
    """What a bench needs to know of the rig it plays; other keys are not looked at."""

    geometry: GeometrySettings
    markers: MarkerSettings = MarkerSettings()


class SimBench(AbstractBench):
    """Plays the person and the camera of a manual rig, in this process.

    rig: the rig table. Time is the bench's own and passes when something is done; the noise
    of an image depends on the seed and its time. What goes wrong on a bench is done to it
    from outside: `bump`, `hidden`, and `before`, which is called with every instruction and
    may answer in the person's place.
    """

    Settings: ClassVar[type[SimBenchSettings]] = SimBenchSettings

    def __init__(
        self,
        settings: SimBenchSettings,
        *,
        rig: Mapping[str, Any],
        clock: ClockKind = "virtual",
        seed: int = 0,
        ideal: bool = False,
        start_us: int = 0,
    ) -> None:
        known = check({k: rig[k] for k in BenchRig.__struct_fields__ if k in rig}, BenchRig, "rig")
        self.geometry = make_geometry(known.geometry, Path.cwd())
        self.eye = SimCamera(settings.camera, seed, ideal)
        self.hidden: tuple[tuple[float, float, float, float], ...] = ()  # x0 y0 x1 y1, m
        self.before: Callable[[Instruction], Answer | None] = lambda instruction: None
        self.asked: deque[Instruction] = deque(maxlen=KEPT)
        self.told: deque[str] = deque(maxlen=KEPT)
        self._radius, self._frame = known.markers.radius, np.array(known.markers.frame)
        self._plant: SpringNetworkPlant = build(
            settings.plant, "board.plant", rig=rig, seed=seed, ideal=ideal
        )
        self._seed = seed
        self._now_us = start_us
        self._widths = np.full(len(self.geometry.bonds), 2.0)  # mm, only drawn
        self._board: HoldBoard | None = None
        self._plane: tuple[bytes, AnyArray] = b"", np.empty(0)
        self._drawn: tuple[bytes, AnyArray] = b"", np.empty(0)

    @property
    def camera(self) -> str:
        """Id of the camera."""
        return "simulated"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an image, px."""
        return self.eye.size

    def open(self) -> str:
        """Return the id of the camera."""
        return self.camera

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def ask(self, instruction: Instruction, stopped: Callable[[], bool]) -> Answer:
        """Do what is told."""
        if stopped():
            return Answer.STOP
        self.asked.append(instruction)
        if (said := self.before(instruction)) is not None:
            return said
        self._now_us += HANDS_US
        self._board = instruction if isinstance(instruction, HoldBoard) else None
        if isinstance(instruction, Hang):
            self._plant.write(self._now_us, Target.FORCE, 0, instruction.load)
        elif isinstance(instruction, Mount):
            self._widths = instruction.widths
            self._plant.write(self._now_us, Target.STIFFNESS, 0, instruction.stiffness)
        return Answer.DONE

    def tell(self, text: str) -> None:
        """Keep what was told."""
        self.told.append(text)

    def grab(self, count: int, period_s: float) -> Sequence[AnyArray]:
        """Return frames of what there is now."""
        period_us = round(period_s * 1e6)
        end_us = self._now_us + count * period_us
        farther = self.displacement(end_us) - self.displacement()
        rests = bool(np.abs(farther).max() < REST) or self._board is not None
        frames: list[AnyArray] = []
        while self._now_us < end_us:
            at_once = count if rests else 1
            clean = self._scene() if self._board is None else self._checkerboard(self._board)
            frames += self.eye.expose(clean, self._now_us, at_once, period_us)
            self._now_us += at_once * period_us
        return frames

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._now_us += round(seconds * 1e6)

    def now_us(self) -> int:
        """Return the time, us."""
        return self._now_us

    def displacement(self, time_us: int | None = None) -> Array:
        """Return how far every node really is from its place without load: (n, 2), m.

        time_us: not before the newest change; None: now.
        """
        moved = np.zeros(self.geometry.nodes.size)
        sampled = self._plant.sample(self._now_us if time_us is None else time_us)
        moved[self.geometry.free_dofs] = sampled[: len(self.geometry.free_dofs)]
        return moved.reshape(-1, 2)

    def bump(self, shift: Sequence[float], turn: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        """Move the camera: shift (3,), m, and turn (3,), rad."""
        self.eye.shift = self.eye.shift + np.asarray(shift)
        self.eye.turn = self.eye.turn + np.asarray(turn)

    def move_marker(self, marker: int, by: tuple[float, float]) -> None:
        """Move a marker of the frame, counted from 0, by (x, y), m."""
        self._frame = self._frame.copy()
        self._frame[marker] += by

    def _scene(self) -> AnyArray:
        """Return the network as the lens shows it; drawn anew when something moved."""
        moved = self.displacement()
        pose = np.concatenate([self.eye.shift, self.eye.turn]).tobytes()
        if self._plane[0] != pose:
            self._plane = pose, self.eye.plane()
        seen = np.concatenate([moved.ravel(), self._widths, self._frame.ravel(), *self.hidden])
        key = seen.tobytes() + pose
        if self._drawn[0] != key:
            scene = Scene(
                self.geometry.nodes + moved, self.geometry.bonds, self._widths * 1e-3,
                self._frame, self._radius, self.hidden,
            )  # fmt: skip
            self._drawn = key, draw_scene(self.eye, scene, self._plane[1])
        return self._drawn[1]

    def _checkerboard(self, board: HoldBoard) -> AnyArray:
        """Return a checkerboard as a hand holds it: a pose drawn for every view."""
        random = np.random.default_rng([self._seed, STREAM_BOARD, board.view])
        size = np.array([board.columns - 1, board.rows - 1, 0]) * board.square
        depth, view = self.eye.settings.distance, self.eye.settings.view
        room = np.maximum(view * np.array([0.8, 0.6]) - size[:2] * 1.2, 0) / 2
        angles = np.radians(random.uniform(-25, 25, 3) * [1, 1, 0.4])
        turned = rotation(angles) @ np.diag([1.0, -1.0, -1.0])
        at = np.array([*random.uniform(-room, room), depth * random.uniform(0.95, 1.15)])
        plane = self.eye.plane((turned, at - turned @ (size / 2)))
        return draw_checkerboard(self.eye, plane, board.columns, board.rows, board.square)
