"""Pictures of what a camera sees, and of what its lens does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREY, VERMILION, new_figure, save, style
from hil.types import AnyArray, Array

EXAGGERATED = 20.0  # times: a lens bends a straight line by a few pixels


def draw_sight(
    image: AnyArray, places: Array, names: Sequence[str], path: Path, *, title: str = ""
) -> Figure:
    """Draw an image with every marker that was found and its name; save as PNG.

    image: (h, w), grey levels. places: (n, 2), px. Raises RunError when the file cannot be
    written.
    """
    height, width = image.shape
    with style():
        figure = new_figure(8.0, 8.0 * height / width + 0.5)
        axes = figure.subplots()
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        for (x, y), name in zip(places, names, strict=True):
            color = BLUE if name.startswith("node") else VERMILION
            axes.plot(x, y, "+", color=color, ms=10, mew=1.5)
            label = name.removeprefix("node ").replace("frame marker ", "frame ")
            axes.annotate(
                label, (x, y), (7, 9), textcoords="offset points", color="white", size=10,
                bbox={"boxstyle": "round,pad=0.2", "fc": color, "lw": 0},
            )  # fmt: skip
        axes.set_axis_off()
        axes.set_title(title)
        return save(figure, path)


def draw_board_views(
    size: tuple[int, int],
    views: Sequence[Array],
    straighten: Callable[[Array], Array],
    path: Path,
    *,
    title: str = "",
) -> Figure:
    """Draw where the corners of a checkerboard were seen, and which way the lens bends.

    size: width and height of an image, px. views: (corners, 2) each, px. straighten: points
    of an image to where they would be without distortion. Raises RunError when the file
    cannot be written.
    """
    width, height = size
    grid = np.stack(np.meshgrid(*(np.linspace(0, n, 13) for n in size)), axis=-1)
    shift = straighten(grid.reshape(-1, 2)).reshape(grid.shape) - grid
    with style():
        figure = new_figure(8.0, 8.0 * height / width + 0.5)
        axes = figure.subplots()
        for corners in views:
            axes.plot(*corners.T, ".", color=BLUE, ms=3, alpha=0.6)
        bent = grid + EXAGGERATED * shift
        for lines in (bent, bent.swapaxes(0, 1)):
            for line in lines:
                axes.plot(*line.T, color=GREY, lw=0.7)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xlabel("px")
        largest = float(np.linalg.norm(shift, axis=-1).max())
        axes.set_title(f"{title}: straight lines, {EXAGGERATED:g}× (at most {largest:.1f} px)")
        return save(figure, path)
