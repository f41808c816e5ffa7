"""How a cost grows with a size, on two logarithmic axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREEN, GREY, VERMILION, head, new_figure, save, style
from hil.types import Array

COLORS = (BLUE, VERMILION, GREEN)


def draw_growth(
    lines: Mapping[str, tuple[Array, Array]],
    path: Path,
    *,
    title: str = "",
    unit: str = "",
    size: str = "degrees of freedom",
) -> Figure:
    """Draw cost against size, one line each, beside slopes 1 and 2, and save as PNG.

    lines: name → sizes (n,) and costs (n,), both above 0. Raises RunError when the file cannot
    be written.
    """
    with style():
        figure = new_figure(6.6, 4.8)
        axes = figure.subplots()
        for color, (name, (sizes, costs)) in zip(COLORS, lines.items(), strict=False):
            axes.plot(sizes, costs, "o-", color=color, label=name)
        sizes, costs = next(iter(lines.values()))
        ends = np.array([sizes[-1] / 8.0, sizes[-1]])
        for power in (1, 2):
            guide = costs[-1] * (ends / ends[-1]) ** power
            axes.plot(ends, guide, "--", color=GREY, linewidth=1.0, zorder=1)
            axes.annotate(
                f"~ size{'²' if power == 2 else ''}", (float(ends[0]), float(guide[0])),
                xytext=(-4, 0), textcoords="offset points", ha="right", va="center", color=GREY,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel=size, ylabel=unit)
        axes.legend(loc="upper left")
        if title:
            head(figure, title)
        return save(figure, path)
