"""What there is to see: a network with its markers, and a checkerboard."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hil.types import AnyArray, Array, IntArray
from sim.cameras.camera import GREY, SimCamera, inside

DISC = 1.8  # radius of the black disc under a dot, of the dot's
MARGIN = 5.0  # of the blur: where an edge has faded out


@dataclass(frozen=True)
class Scene:
    """A network on its bench."""

    nodes: Array  # (n, 2), where the nodes are now, m
    bonds: IntArray  # (m, 2), from 0
    widths: Array  # (m,), of the struts, m
    frame: Array  # (f, 2), markers on the board behind, m
    radius: float  # of a dot, m
    hidden: tuple[tuple[float, float, float, float], ...] = field(default=())  # x0 y0 x1 y1, m


def draw_scene(camera: SimCamera, scene: Scene, plane: AnyArray) -> AnyArray:
    """Return the scene as the lens shows it, without noise: (h, w), grey levels.

    plane: where every pixel looks, (2, h, w), m.
    """
    image = np.full(plane.shape[1:], GREY.ground, dtype=np.float32)
    places = np.concatenate([scene.nodes, scene.frame])
    pixels, dots = camera.project(places), places.astype(np.float32)
    for (i, j), width in zip(scene.bonds, scene.widths, strict=True):
        box = _box(image, pixels[[i, j]], width / camera.metres)
        along = dots[j] - dots[i]
        x, y = plane[0][box] - dots[i, 0], plane[1][box] - dots[i, 1]
        share = np.clip((x * along[0] + y * along[1]) / (along @ along), 0, 1)
        distance = np.hypot(x - share * along[0], y - share * along[1])
        _paint(image, box, (width / 2 - distance) / camera.metres, camera.edge, GREY.strut)
    for at, pixel in zip(dots, pixels, strict=True):
        box = _box(image, pixel[None], 1.2 * DISC * scene.radius / camera.metres)
        distance = np.hypot(plane[0][box] - at[0], plane[1][box] - at[1])
        for size, grey in ((DISC * scene.radius, GREY.disc), (scene.radius, GREY.dot)):
            _paint(image, box, (size - distance) / camera.metres, camera.edge, grey)
    for x0, y0, x1, y1 in scene.hidden:
        x, y = plane
        image[(x > x0) & (x < x1) & (y > y0) & (y < y1)] = GREY.ground
    return image


def draw_checkerboard(
    camera: SimCamera, plane: AnyArray, columns: int, rows: int, square: float
) -> AnyArray:
    """Return a checkerboard with its first inner corner at (0, 0) of a plane: (h, w)."""
    x, y = plane / square
    blur = camera.edge * camera.metres / square
    pattern = _wave(x, blur) * _wave(y, blur)  # −1 to 1
    board = (x > -1) & (x < columns) & (y > -1) & (y < rows)
    mid, swing = (GREY.dot + GREY.disc) / 2, (GREY.dot - GREY.disc) / 2
    return np.where(board, mid + swing * pattern, GREY.dot).astype(np.float32)


def _wave(x: AnyArray, blur: float) -> AnyArray:
    """Return a blurred square wave that changes sign at whole numbers."""
    nearest = np.rint(x)
    sign = np.where(nearest.astype(np.int64) % 2 == 0, 1.0, -1.0)
    return np.asarray(sign * (2 * inside(x - nearest, blur) - 1))


def _box(image: AnyArray, points: Array, reach: float) -> tuple[slice, slice]:
    """Return the part of an image around points, px."""
    low = np.floor(points.min(0) - reach - MARGIN).astype(int)
    high = np.ceil(points.max(0) + reach + MARGIN).astype(int) + 1
    height, width = image.shape
    (x0, y0), (x1, y1) = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    return slice(y0, y1), slice(x0, x1)


def _paint(
    image: AnyArray, box: tuple[slice, slice], distance: AnyArray, edge: float, grey: float
) -> None:
    """Lay a colour over where `distance` to the outline, px, is positive."""
    cover = inside(distance, edge)
    image[box] += cover * (np.float32(grey) - image[box])
