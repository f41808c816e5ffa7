"""From pixels to metres on a plane, by markers whose places are known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hil.types import Array


@dataclass(frozen=True)
class Plane:
    """A plane seen by a camera: a homography both ways."""

    to_metres: Array  # (3, 3)
    to_pixels: Array  # (3, 3)

    @classmethod
    def fit(cls, pixels: Array, metres: Array) -> Plane:
        """Fit the plane to points seen and known: each (n, 2), n at least 4; least squares.

        The distances are those in the image, where the noise is.
        """
        origin, scale = metres.mean(0), float(np.ptp(metres, axis=0).max())
        mid, width = pixels.mean(0), float(np.ptp(pixels, axis=0).max())
        found, _ = cv2.findHomography((metres - origin) / scale, (pixels - mid) / width)
        before = np.array([[1, 0, -origin[0]], [0, 1, -origin[1]], [0, 0, scale]]) / scale
        after = np.array([[width, 0, mid[0]], [0, width, mid[1]], [0, 0, 1]])
        forth = after @ np.asarray(found, dtype=np.float64) @ before
        return cls(np.asarray(np.linalg.inv(forth), dtype=np.float64), forth)

    def metres(self, pixels: Array) -> Array:
        """Return points of the image on the plane: (n, 2), m."""
        return _through(self.to_metres, pixels)

    def pixels(self, metres: Array) -> Array:
        """Return points of the plane in the image, without distortion: (n, 2), px."""
        return _through(self.to_pixels, metres)

    def scale(self, metres: Array) -> Array:
        """Return how long a metre is in the image at points of the plane: (n,), px/m."""
        step = 1e-5
        at = self.pixels(metres)
        x, y = (self.pixels(metres + side) - at for side in np.eye(2) * step)
        return np.sqrt(np.abs(x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0])) / step


def _through(matrix: Array, points: Array) -> Array:
    found = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(found[:, :2] / found[:, 2:])
