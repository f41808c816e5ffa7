"""Pictures of a sweep: a figure over its settings, and the vehicles of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREEN, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import AnyArray

COLORS = (BLUE, VERMILION, GREEN, INK, GREY)


def draw_sweep(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
    *,
    axis: str,
    metric: str,
    title: str = "",
) -> Figure:
    """Draw a metric against an axis, every point and the median of each group; save as PNG.

    curves: curve → value of the axis → what the points there came to, over their seeds. Where
    every value is a number the axis is drawn to scale. Raises RunError when the file cannot be
    written.
    """
    places, scaled = _places([name for groups in curves.values() for name in groups])
    gap = min(np.diff(sorted(set(places.values()))), default=1.0)
    with style():
        figure = new_figure(7.6, 4.4)
        axes = figure.subplots()
        for number, (label, groups) in enumerate(curves.items()):
            color = COLORS[number % len(COLORS)]
            shift = 0.08 * gap * (number - (len(curves) - 1) / 2)
            at = np.array([places[name] for name in groups]) + shift
            order = np.argsort(at)
            middle = np.array([np.median(values) for values in groups.values()])
            for place, values in zip(at, groups.values(), strict=True):
                axes.plot([place] * len(values), list(values), "o", color=color, alpha=0.35, ms=5)
                axes.plot([place] * 2, [min(values), max(values)], color=color, lw=1.0)
            marker = "o-" if scaled else "o"
            axes.plot(at[order], middle[order], marker, color=color, label=label or "median")
        axes.set_xticks(list(places.values()), list(places))
        axes.margins(x=0.2)
        axes.set_xlabel(axis)
        axes.set_ylabel(metric)
        axes.legend(loc="best")
        if title:
            head(figure, title)
        return save(figure, path)


def draw_vehicles(
    dt: float, columns: Mapping[str, AnyArray], path: Path, *, title: str = ""
) -> Figure:
    """Draw where vehicles went, how fast, and what they were told; save as PNG.

    dt: step, s. columns: x, y in m and speed in m/s, (n, steps + 1); throttle and steering,
    (n, steps), 1. Raises RunError when the file cannot be written.
    """
    count, steps = columns["throttle"].shape
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, count))
    with style():
        figure = new_figure(9.6, 5.6)
        panels = figure.subplot_mosaic(
            [["path", "speed"], ["path", "throttle"], ["path", "steering"]],
            width_ratios=[1.0, 1.0],
        )
        time = np.arange(steps + 1) * dt
        for i, shade in enumerate(shades):
            panels["path"].plot(columns["x"][i], columns["y"][i], color=shade, lw=1.2)
            panels["speed"].plot(time, columns["speed"][i], color=shade, lw=1.2)
            for name in ("throttle", "steering"):
                panels[name].plot(time[:-1], columns[name][i], color=shade, lw=0.8)
        panels["path"].set_aspect("equal", adjustable="datalim")
        panels["path"].set_xlabel("x (m)")
        panels["path"].set_ylabel("y (m)")
        panels["speed"].set_ylabel("speed (m/s)")
        for name in ("throttle", "steering"):
            panels[name].set_ylabel(name)
        panels["steering"].set_xlabel("time (s)")
        if title:
            head(figure, title)
        return save(figure, path)


def _places(names: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Return where each value of an axis stands: at its number (true), or one after another."""
    once = list(dict.fromkeys(names))
    try:
        found, scaled = [float(name) for name in once], True
    except ValueError:
        found, scaled = [float(place) for place in range(len(once))], False
    return dict(zip(once, found, strict=True)), scaled
