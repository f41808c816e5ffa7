"""What a spring network learned, seed by seed, beside what was published and what was wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hil.plots.style import BLUE, GREEN, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import Array

COLORS = (BLUE, VERMILION, GREEN, GREY)
SPAN = 0.56  # of the room of one case that its methods fill
NARROWEST = 6.6  # in
MIDDLE = 0.09  # half the width of the line at a mean


@dataclass(frozen=True)
class Bar:
    """One case: the figure of every seed by method, the published one, the wanted one."""

    name: str
    points: Mapping[str, Array]  # method → (seeds,)
    paper: float | None = None
    wanted: float | None = None


def draw_spring_bench(
    panels: Mapping[str, Sequence[Bar]], path: Path, *, title: str = ""
) -> Figure:
    """Draw a panel per kind of figure (`accuracy`, `loss`) and save as PNG.

    Every seed is a dot, their mean a line; the published figure is a black diamond, what was
    wanted a dashed line. Losses are on a logarithmic axis. Raises RunError when the file cannot
    be written.
    """
    methods = list(next(iter(panels.values()))[0].points)
    with style():
        room = 1.9 * sum(len(bars) for bars in panels.values()) + 1.6
        figure = new_figure(max(room, NARROWEST), 5.2)
        widths = [len(bars) for bars in panels.values()]
        axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
        for one, (kind, bars) in zip(axes, panels.items(), strict=True):
            _panel(one, kind, bars, methods)
        handles = [
            *(
                Line2D([], [], linestyle="", marker="o", color=COLORS[i % 4], label=method)
                for i, method in enumerate(methods)
            ),
            Line2D([], [], linestyle="", marker="D", color=INK, label="published"),
            Line2D([], [], linestyle="--", color=INK, label="wanted of wide"),
        ]
        columns = len(handles) if room > 2 * NARROWEST else 3
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        if title:
            head(figure, title)
        return save(figure, path)


def _panel(axes: Axes, kind: str, bars: Sequence[Bar], methods: Sequence[str]) -> None:
    places = np.linspace(-SPAN / 2, SPAN / 2, len(methods)) if len(methods) > 1 else np.zeros(1)
    for at, bar in enumerate(bars):
        for i, method in enumerate(methods):
            values, x = bar.points[method], at + float(places[i])
            if not len(values):
                continue
            color = COLORS[i % 4]
            spread = np.linspace(-0.04, 0.04, len(values)) if len(values) > 1 else np.zeros(1)
            axes.plot(x + spread, values, "o", color=color, markersize=4, alpha=0.55)
            middle = float(values.mean())
            axes.plot([x - MIDDLE, x + MIDDLE], [middle, middle], color=color, linewidth=2.5)
        if bar.paper is not None:
            axes.plot([at - 0.43], [bar.paper], "D", color=INK, markersize=6)
        if bar.wanted is not None:
            axes.plot([at - 0.45, at + 0.45], [bar.wanted] * 2, "--", color=INK, linewidth=1.0)
    axes.set_xticks(range(len(bars)), [bar.name.replace(", ", ",\n") for bar in bars])
    axes.set_xlim(-0.6, len(bars) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(kind)
    if kind == "loss":
        axes.set_yscale("log")
