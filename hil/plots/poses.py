"""What was learned from poses, by number of trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullLocator

from hil.plots.style import BLUE, GREEN, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import Array, IntArray

LABELS = {
    "test": "next pose, mean square error",
    "integration": "integration, mean square error",
    "inertia": "inertia, mean square error",
}
COLOURS = (BLUE, VERMILION, GREEN, INK)
MARKS = ("o", "s", "^", "x", "+")


class Curve(NamedTuple):
    """One model by number of trajectories."""

    label: str
    sizes: IntArray  # (n,)
    values: Array  # (n, 3): median and quartiles; (n, 1): published


def draw_poses(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], path: Path, *, title: str = ""
) -> Figure:
    """Draw a row per case and a panel per figure, on logarithmic axes, and save as PNG.

    What is published is grey and dashed. Raises RunError when the file cannot be written.
    """
    wide = max(len(figures) for figures in panels.values())
    with style():
        figure = new_figure(2.2 + 4.4 * wide, 0.6 + 3.6 * len(panels))
        grid = figure.subplots(len(panels), wide, squeeze=False)
        for row, (case, figures) in zip(grid, panels.items(), strict=True):
            marks = iter(MARKS * 10)
            mark: dict[str, str] = {}
            handles: dict[str, Line2D] = {}
            for axes, (name, curves) in zip(row, figures.items(), strict=False):
                own = iter(COLOURS * len(curves))
                for label, sizes, values in curves:
                    if values.shape[1] == 1:
                        label = f"{label}, published"
                        if label not in mark:
                            mark[label] = next(marks)
                        (line,) = axes.plot(
                            sizes, values[:, 0], color=GREY, linewidth=1.2, linestyle="--",
                            marker=mark[label], markersize=4,
                        )  # fmt: skip
                    else:
                        colour = next(own)
                        (line,) = axes.plot(sizes, values[:, 0], color=colour, marker="o", ms=4)
                        axes.fill_between(
                            sizes, values[:, 1], values[:, 2], color=colour, alpha=0.15
                        )
                    handles.setdefault(label, line)
                sizes_seen = sorted({int(size) for curve in curves for size in curve.sizes})
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.set_xticks(sizes_seen, [str(size) for size in sizes_seen])
                axes.xaxis.set_minor_locator(NullLocator())
                axes.yaxis.set_major_locator(LogLocator(numticks=6))
                axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(1, 0.5)))
                axes.set_ylabel(LABELS.get(name, name))
                axes.set_xlabel("trajectories")
            row[0].set_title(case)
            row[-1].legend(
                handles.values(), handles.keys(), fontsize=8, loc="upper left",
                bbox_to_anchor=(1.02, 1.0),
            )  # fmt: skip
        head(figure, title)
        return save(figure, path)
