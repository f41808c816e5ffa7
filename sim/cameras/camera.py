"""A camera that looks at a plane: lens, pose, blur, noise; images as a real one gives them.

Everything here is NumPy and its own formulae, so that what finds markers with OpenCV is
tested against something else.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import ndtr

from hil.config import Settings
from hil.types import AnyArray, Array

Image = NDArray[np.uint8]
STREAM_NOISE = 301  # of the random numbers of a seed

# An intensity-weighted centroid over an aperture of 1.35 dot radii sums noise from
# π(1.35 R)² pixels, each with its lever arm: its scatter in px is this times noise / contrast.
APERTURE = 1.35
CENTROID = APERTURE**2 / (2 * math.sqrt(math.pi))


class CameraSettings(Settings, frozen=True, kw_only=True):
    """A camera on a stand over the bench, not quite straight."""

    width: Annotated[int, Meta(ge=160, le=8192, description="of an image, px")] = 1280
    height: Annotated[int, Meta(ge=120, le=8192, description="of an image, px")] = 960
    view: Annotated[float, Meta(gt=0, description="of the bench an image is wide, m")] = 0.12
    distance: Annotated[float, Meta(gt=0, description="to the bench, m")] = 0.35
    look_at: Annotated[tuple[float, float], Meta(description="where on the bench, m")] = (
        0.032,
        0.016,
    )
    tilt: Annotated[
        tuple[float, float, float], Meta(description="about x, y and the line of sight, degrees")
    ] = (4.0, -3.0, 1.5)
    distortion: Annotated[
        tuple[float, float, float, float, float], Meta(description="k1, k2, p1, p2, k3, 1")
    ] = (-0.22, 0.06, 4e-4, -3e-4, 0.0)
    off_centre: Annotated[
        tuple[float, float], Meta(description="of the optical axis, of the image's size, 1")
    ] = (0.01, -0.015)
    blur: Annotated[float, Meta(ge=0, le=20, description="standard deviation, px")] = 0.8
    noise: Annotated[
        float, Meta(ge=0, le=1, description="scatter of one dot's centre in one frame, px")
    ] = 0.1


class Grey(NamedTuple):
    """How bright things are, of 255."""

    ground: float = 115.0
    strut: float = 135.0
    disc: float = 50.0
    dot: float = 205.0


GREY = Grey()


class SimCamera:
    """Where every pixel looks, and what a sensor makes of it.

    ideal: no noise and no rounding to grey levels; lens and pose stay.
    """

    def __init__(self, settings: CameraSettings, seed: int = 0, ideal: bool = False) -> None:
        self.settings = settings
        self.focal = settings.width * settings.distance / settings.view  # px
        self.shift = np.zeros(3)  # of the camera since it was put up, m
        self.turn = np.zeros(3)  # of the camera since it was put up, rad
        self._seed, self._ideal = seed, ideal
        share = np.array(settings.off_centre) + 0.5
        self._centre = share * [settings.width, settings.height]  # (2,), px

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an image, px."""
        return self.settings.width, self.settings.height

    @property
    def noise(self) -> float:
        """Standard deviation of a pixel, grey levels."""
        return 0.0 if self._ideal else self.settings.noise * (GREY.dot - GREY.disc) / CENTROID

    @property
    def edge(self) -> float:
        """Standard deviation of what a pixel and the lens make of a sharp edge, px."""
        return math.sqrt(self.settings.blur**2 + 1 / 12)

    @property
    def metres(self) -> float:
        """How much of the bench a pixel sees in the middle, m."""
        return self.settings.view / self.settings.width

    def bench_pose(self) -> tuple[Array, Array]:
        """Return rotation (3, 3) and translation (3,), m, from the bench to the camera."""
        about = np.radians(self.settings.tilt) + self.turn
        turned = rotation(about) @ np.diag([1.0, -1.0, -1.0])  # y of an image goes down
        middle = np.array([*self.settings.look_at, 0.0])
        return turned, [0, 0, self.settings.distance] - turned @ middle + self.shift

    def project(self, points: Array, pose: tuple[Array, Array] | None = None) -> Array:
        """Return where points of a plane are in the image: (n, 2), m → (n, 2), px."""
        turned, away = pose or self.bench_pose()
        seen = np.column_stack([points, np.zeros(len(points))]) @ turned.T + away
        return np.asarray(self._distorted(seen[:, :2] / seen[:, 2:]) * self.focal + self._centre)

    def plane(self, pose: tuple[Array, Array] | None = None) -> AnyArray:
        """Return the point of a plane every pixel looks at: (2, h, w), x and y, m, float32."""
        turned, away = pose or self.bench_pose()
        matrix = np.linalg.inv(np.column_stack([turned[:, :2], away]))  # rays → plane
        rays = self._rays
        found = rays @ matrix[:, :2].T + matrix[:, 2]
        return np.ascontiguousarray(
            np.moveaxis(found[..., :2] / found[..., 2:], -1, 0), dtype=np.float32
        )

    def expose(self, clean: AnyArray, time_us: int, count: int, period_us: int) -> list[AnyArray]:
        """Return frames of a scene that stands still.

        clean: (h, w), grey levels. The noise of a frame depends on the seed and its time.
        """
        if self._ideal:
            return [clean] * count
        frames = []
        for i in range(count):
            stream = [self._seed, STREAM_NOISE, time_us + i * period_us]
            random = np.random.Generator(np.random.SFC64(stream))
            frame = random.standard_normal(clean.shape, dtype=np.float32)
            frame *= np.float32(self.noise)
            frame += clean
            np.rint(np.clip(frame, 0, 255, out=frame), out=frame)
            frames.append(frame.astype(np.uint8))
        return frames

    @cached_property
    def _rays(self) -> Array:
        """Undistorted direction of every pixel at unit depth: (h, w, 2), 1."""
        width, height = self.size
        y, x = np.mgrid[:height, :width].astype(np.float64)
        distorted = (np.stack([x, y], axis=-1) - self._centre) / self.focal
        rays = distorted.copy()
        for _ in range(50):  # a contraction: the distortion is a few percent
            step = distorted - self._distorted(rays)
            rays += step
            if np.abs(step).max() < 1e-9:
                break
        return rays

    def _distorted(self, rays: Array) -> Array:
        """Apply the lens of Brown 1966 to directions (…, 2) at unit depth."""
        k1, k2, p1, p2, k3 = self.settings.distortion
        x, y = rays[..., 0], rays[..., 1]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            axis=-1,
        )


def rotation(about: Array) -> Array:
    """Return the rotation about x, then y, then z by angles in rad: (3, 3)."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(about), np.sin(about)
    x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x)


def inside(distance: AnyArray, edge: float) -> AnyArray:
    """Return how much of a pixel is inside, 0 to 1, from the distance to an edge in px."""
    return np.asarray(ndtr(distance / np.float32(edge)))
