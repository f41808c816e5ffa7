"""What a lens does to straight lines, found from a checkerboard; kept per camera.

Pinhole and distortion (k1, k2, p1, p2) of Brown 1966, fitted by OpenCV after Zhang 2000. k3 is
left at 0: a board that fills half the image does not determine it, and its noise is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np

from hil.errors import ConfigError, MeasurementError
from hil.types import AnyArray, Array

VIEWS_MIN = 6  # fewer leave focal length and distortion undetermined
RMS_MAX = 1.0  # px; a larger one is another board, a moved zoom or a wrong count of corners


class Checkerboard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A flat checkerboard: inner corners along and across, side of a square in m."""

    columns: int = 9
    rows: int = 6
    square: float = 0.008


class Lens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A calibrated lens, and of which camera."""

    camera: str  # id of the camera it was found with
    size: tuple[int, int]  # width and height of its images, px
    matrix: tuple[float, float, float, float]  # fx, fy, cx, cy, px
    distortion: tuple[float, float, float, float, float]  # k1, k2, p1, p2, k3, 1
    rms: float  # of the corners about the fit, px
    views: int  # images of the board it was fitted to

    @classmethod
    def none(cls, camera: str, size: tuple[int, int]) -> Lens:
        """Return a lens that distorts nothing, for a camera that was not calibrated."""
        focal = float(max(size))
        return cls(camera, size, (focal, focal, size[0] / 2, size[1] / 2), (0.0,) * 5, 0.0, 0)

    def straighten(self, points: Array) -> Array:
        """Return where points of an image would be without distortion: (n, 2), px."""
        if not len(points):
            return points
        fx, fy, cx, cy = self.matrix
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        straight = cv2.undistortPoints(
            np.asarray(points, dtype=np.float64)[:, None, :], matrix, np.array(self.distortion),
            R=np.eye(3), P=matrix, criteria=criteria,
        )  # fmt: skip
        return np.asarray(straight[:, 0, :], dtype=np.float64)

    def bend(self, points: Array) -> Array:
        """Return where points without distortion are in an image: (n, 2), px."""
        fx, fy, cx, cy = self.matrix
        rays = np.column_stack([(points - [cx, cy]) / [fx, fy], np.ones(len(points))])
        matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        still = np.zeros(3)
        bent, _ = cv2.projectPoints(rays, still, still, matrix, np.array(self.distortion))
        return np.asarray(bent[:, 0, :], dtype=np.float64)

    def check(self, camera: str, size: tuple[int, int]) -> None:
        """Raise ConfigError unless this is the lens of a camera at an image size."""
        if (self.camera, self.size) == (camera, size):
            return
        raise ConfigError(
            f"lens: it was calibrated with camera {self.camera!r} at "
            f"{self.size[0]} × {self.size[1]} px, the rig has {camera!r} at "
            f"{size[0]} × {size[1]} px; calibrate this one: hil camera CONFIG --lens"
        )


@dataclass(frozen=True)
class View:
    """The corners of a checkerboard in one image."""

    corners: Array  # (rows·columns, 2), px


def find_corners(image: AnyArray, board: Checkerboard) -> View | None:
    """Return the inner corners of a checkerboard to a fraction of a pixel, None without one."""
    found, corners = cv2.findChessboardCornersSB(
        np.asarray(image, dtype=np.uint8), (board.columns, board.rows),
        flags=cv2.CALIB_CB_ACCURACY,
    )  # fmt: skip
    return View(np.asarray(corners, dtype=np.float64).reshape(-1, 2)) if found else None


def fit_lens(
    camera: str, size: tuple[int, int], board: Checkerboard, views: Sequence[View]
) -> Lens:
    """Fit a lens to views of a checkerboard held at different angles.

    Raises MeasurementError for too few views, or for corners no lens explains.
    """
    if len(views) < VIEWS_MIN:
        raise MeasurementError(
            f"lens: the board was seen in {len(views)} images, {VIEWS_MIN} are needed; hold all "
            f"{board.columns} × {board.rows} inner corners in view, tilted another way each time"
        )
    grid = np.zeros((board.rows * board.columns, 3), np.float32)
    grid[:, :2] = np.mgrid[: board.columns, : board.rows].T.reshape(-1, 2) * board.square
    seen = [view.corners.astype(np.float32)[:, None, :] for view in views]
    rms, matrix, distortion, *_ = cv2.calibrateCamera(
        [grid] * len(seen), seen, size, np.eye(3), np.zeros(5), flags=cv2.CALIB_FIX_K3
    )
    if not rms < RMS_MAX:
        raise MeasurementError(
            f"lens: the corners are {rms:.2f} px rms from any lens, at most {RMS_MAX} px is "
            "credible; look whether the board is flat and the camera's focus fixed"
        )
    k1, k2, p1, p2, k3 = (float(v) for v in np.ravel(distortion)[:5])
    m = np.asarray(matrix, dtype=np.float64)
    focal = (float(m[0, 0]), float(m[1, 1]), float(m[0, 2]), float(m[1, 2]))
    return Lens(camera, size, focal, (k1, k2, p1, p2, k3), float(rms), len(views))


def write_lens(lens: Lens, path: Path) -> None:
    """Write a lens as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(lens), indent=2) + b"\n")


def read_lens(path: Path) -> Lens:
    """Read a lens; raises ConfigError naming the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lens)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such lens; calibrate the camera: hil camera CONFIG --lens"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: not a lens: {error}") from None
