"""Grey frames from a camera, through OpenCV (an extra: `pip install 'hil[camera]'`)."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from hil.errors import ConfigError, LinkError, PortError
from hil.types import AnyArray

BY_ID = Path("/dev/v4l/by-id")  # where Linux names cameras by what they are
STALE = 4  # frames a driver may have kept from before they were wanted


def opencv() -> Any:
    """Return OpenCV; raises ConfigError saying how to install it."""
    try:
        return importlib.import_module("cv2")
    except ImportError:
        raise ConfigError(
            "camera: OpenCV is not installed; pip install 'hil[camera]', or opencv-python-headless"
        ) from None


class CameraLink:
    """One camera, or a film or numbered pictures in its place.

    device: "/dev/video0", a name under /dev/v4l/by-id, a file, "pictures/%03d.png", or a
    URL. size: width and height asked for, px; a camera may give another.
    """

    def __init__(self, device: str, size: tuple[int, int]) -> None:
        self.device = device
        self.size = size
        self._capture: Any = None

    @property
    def id(self) -> str:
        """What the camera is called, whatever number it got this time."""
        path = Path(self.device)
        if path.parent == Path("/dev") and BY_ID.exists():
            for link in sorted(BY_ID.iterdir()):
                if link.resolve() == path:
                    return link.name
        return path.name if path.parent == BY_ID else self.device

    def open(self) -> None:
        """Begin to look; raises PortError for a device that is not there."""
        cv2 = opencv()
        self.close()
        capture = cv2.VideoCapture(self.device)
        if not capture.isOpened():
            raise PortError(
                f"camera {self.device}: cannot be opened; look for it in {BY_ID} and set "
                "rig.camera.device"
            )
        if Path(self.device).exists() and self.device.startswith("/dev"):
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.size[1])
        found = [
            round(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        ]
        if tuple(found) != self.size:
            capture.release()
            raise ConfigError(
                f"rig.camera.size: {self.size[0]} × {self.size[1]} px asked for, camera "
                f"{self.device} gives {found[0]} × {found[1]} px; ask for that"
            )
        self._capture = capture

    def close(self) -> None:
        """Let go of the camera; may be called twice."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def grab(self, count: int, period_s: float, stale: int = STALE) -> list[AnyArray]:
        """Return frames exposed from now on, each (h, w), grey levels.

        stale: frames thrown away first. Raises LinkError when the camera gives no more.
        """
        cv2 = opencv()
        frames: list[AnyArray] = []
        live = self.device.startswith("/dev") or "://" in self.device  # others do not go on
        for _ in range(stale if live else 0):
            self._next()
        due = time.monotonic()
        while len(frames) < count:
            colour = self._next()
            if not live or time.monotonic() >= due:
                due += period_s
                grey = colour if colour.ndim == 2 else cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
                frames.append(grey)
        return frames

    def _next(self) -> AnyArray:
        if self._capture is None:
            raise LinkError(f"camera {self.device}: not open; call open() first")
        good, frame = self._capture.read()
        if not good:
            raise LinkError(f"camera {self.device}: gives no more images; check its cable")
        found: AnyArray = frame
        return found
