"""A network of gyroscopes in charts: what went in and came out, what was learned, what it bears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from matplotlib.typing import LineStyleType

from hil.plots.gyro import DASHES
from hil.plots.gyro_rollout import Marked, Rollout
from hil.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    VERMILION,
    head,
    new_figure,
    save,
    stiffness_map,
    strain_map,
    style,
)
from hil.types import Array

LINES = (BLUE, VERMILION, GREEN, INK, GREY)  # of the curves of imperfections


def draw_signals(
    rollout: Rollout, path: Path, *, model: Array | None = None, title: str = ""
) -> Figure:
    """Draw pen, nudges and what is read over time, one above the other; save as PNG.

    model: (steps + 1, outputs, 4), drawn dashed over the states of the rollout where these
    were measured. Raises RunError when the file cannot be written.
    """
    time, last = rollout.time, slice(-1, None)
    signal = np.concatenate((rollout.signal, rollout.signal[last]))  # held to the end
    nudges = np.concatenate((rollout.nudges, rollout.nudges[last]))
    read = rollout.states[:, rollout.network.outputs]
    with style():
        figure = new_figure(9.2, 8.4)
        panels = figure.subplots(4, 1, sharex=True, height_ratios=[1.0, 1.3, 1.6, 1.6])
        for axis, color in ((0, BLUE), (1, VERMILION)):
            panels[0].step(time, signal[:, axis], where="post", color=color)
        panels[0].set_ylabel("pen (1)")
        _beside(panels[0], [_line(BLUE, "x"), _line(VERMILION, "y")])
        colors = _colors(len(rollout.network.inputs))
        for node, color in enumerate(colors):
            for axis, dashes in ((0, "-"), (1, ":")):
                panels[1].step(
                    time, nudges[:, node, axis], dashes, where="post", color=color,
                    linewidth=1.4,
                )  # fmt: skip
        panels[1].set_ylabel("nudges (N)")
        named = [
            _line(c, f"gyroscope {i + 1}")
            for c, i in zip(colors, rollout.network.inputs, strict=True)
        ]
        _beside(panels[1], [*named, _line(GREY, "x", "-"), _line(GREY, "y", ":")])
        colors = _colors(len(rollout.network.outputs))
        for axes, axis in ((panels[2], 0), (panels[3], 1)):
            for node, color in enumerate(colors):
                axes.plot(time, read[:, node, axis], color=color, linewidth=1.8)
                if model is not None:
                    axes.plot(time, model[:, node, axis], "--", color=INK, linewidth=1.0)
            axes.set_ylabel(f"{'xy'[axis]} read (m)")
        named = [
            _line(c, f"gyroscope {i + 1}")
            for c, i in zip(colors, rollout.network.outputs, strict=True)
        ]
        if model is not None:
            named += [_line(GREY, "instrument"), _line(INK, "model", "--")]
        _beside(panels[2], named)
        panels[3].set_xlabel("time (s)")
        panels[3].margins(x=0.01)
        if title:
            head(figure, title)
        return save(figure, path)


def draw_gyro_maps(
    network: Marked, mass: Array, length: Array, gamma: Array, stiffness: Array, path: Path, *,
    title: str = "",
) -> Figure:  # fmt: skip
    """Draw masses, rods, spins and springs where they are, in four panels; save as PNG.

    mass, length, gamma: (n,), kg, m, kg/s. stiffness: (springs,), N/m. Raises RunError when
    the file cannot be written.
    """
    with style():
        figure = new_figure(11.4, 9.0)
        panels = figure.subplots(2, 2)
        for axes, values, label, even in (
            (panels[0, 0], mass, "mass m, kg", bool((mass > 0).all())),
            (panels[0, 1], length, "rod length L, m", True),
            (panels[1, 0], gamma, "spin γ, kg/s", False),
        ):
            _map_of_nodes(axes, network, values, label, even)
        _map_of_springs(panels[1, 1], network, stiffness, "stiffness K, N/m")
        rings = [
            Line2D([], [], linestyle="", marker="o", markersize=9, markerfacecolor="white",
                   markeredgewidth=2.2, markeredgecolor=color, label=label)
            for color, label in ((BLUE, "nudged"), (VERMILION, "read"))
        ]  # fmt: skip
        if network.wrapped.any():
            rings.append(
                Line2D([], [], linestyle=DASHES, color=GREY, label="goes on at the other edge")
            )
        figure.legend(handles=rings, loc="outside lower center", ncols=len(rings))
        if title:
            head(figure, title)
        return save(figure, path)


def _map_of_nodes(axes: Axes, network: Marked, values: Array, label: str, even: bool) -> None:
    """Draw a number per gyroscope; even: from least to most, else symmetric about 0."""
    nodes = network.geometry.nodes
    norm, colors = _scale(values, even)
    inside, halves = network.segments()
    for segments, dashes in ((inside, "-"), (halves, DASHES)):
        axes.add_collection(
            LineCollection(list(segments), colors=FAINT, linewidths=1.0, linestyles=[dashes],
                           zorder=0)
        )  # fmt: skip
    size = _points(axes, network, 0.66)
    axes.scatter(
        nodes[:, 0], nodes[:, 1], s=size**2, c=values, cmap=colors, norm=norm, gid="nodes",
        edgecolors=network.colored("white", BLUE, VERMILION), linewidths=0.12 * size, zorder=2,
    )  # fmt: skip
    _finish_map(axes, norm, colors, label)


def _map_of_springs(axes: Axes, network: Marked, values: Array, label: str) -> None:
    nodes, wrapped = network.geometry.nodes, network.wrapped
    even = bool((values >= 0).all())
    norm, colors = _scale(values, even)
    size = _points(axes, network, 0.66)
    share = np.abs(values) / (float(np.abs(values).max()) or 1.0)
    width = size * (0.06 + 0.3 * share)
    inside, halves = network.segments()
    for segments, numbers, widths, dashes in (
        (inside, values[~wrapped], width[~wrapped], "-"),
        (halves, np.repeat(values[wrapped], 2), np.repeat(width[wrapped], 2), DASHES),
    ):
        axes.add_collection(
            LineCollection(
                list(segments), array=numbers, cmap=colors, norm=norm, linewidths=widths,
                linestyles=[dashes], capstyle="butt", gid="springs", zorder=1,
            )
        )  # fmt: skip
    axes.scatter(
        nodes[:, 0], nodes[:, 1], s=(0.36 * size) ** 2, c="white", linewidths=0.1 * size,
        edgecolors=network.colored(INK, BLUE, VERMILION), zorder=2,
    )  # fmt: skip
    _finish_map(axes, norm, colors, label)


def _finish_map(axes: Axes, norm: Normalize, colors: Colormap, label: str) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    name, unit = label.split(", ")
    axes.set_title(name)
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=axes, shrink=0.85, aspect=22, pad=0.01)
    bar.set_label(unit)
    bar.outline.set_visible(False)


def _scale(values: Array, even: bool) -> tuple[Normalize, Colormap]:
    low, high = float(values.min()), float(values.max())
    if not even:
        reach = max(abs(low), abs(high)) or 1.0
        return Normalize(-reach, reach), strain_map()
    if low == high:  # one value everywhere: the middle of the scale
        low, high = 0.9 * low - 1e-9, 1.1 * high + 1e-9
    return Normalize(low, high), stiffness_map()


def _points(axes: Axes, network: Marked, share: float) -> float:
    """Set the limits of a map; return `share` of a spacing in points."""
    low, high = network.box(0.7)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    figure = axes.get_figure(root=True)
    assert figure is not None
    width = 0.36 * float(figure.get_figwidth())
    return float(np.clip(72.0 * share * width * network.spacing / (high[0] - low[0]), 2.0, 24.0))


@dataclass(frozen=True)
class ImperfectionPanel:
    """What one imperfection costs.

    label: what it is, with its unit. levels: (k,). accuracy: name → (k,) or (draws, k), 0 to
    1: mean as a line, least to most as a band. logarithmic: the axis of levels.
    """

    label: str
    levels: Array
    accuracy: Mapping[str, Array]
    logarithmic: bool = False


def draw_imperfection(
    panels: Sequence[ImperfectionPanel], path: Path, *, wanted: float | None = None,
    chance: float | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Draw accuracy against imperfections, one panel for each, on one scale; save as PNG.

    wanted: an accuracy to reach, chance: that of guessing, 0 to 1; drawn as lines. A name
    has one colour in all panels. Raises RunError when the file cannot be written.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.accuracy))
    colors = dict(zip(names, cycle(LINES), strict=False))
    with style():
        figure = new_figure(3.6 * len(panels) + 1.2, 4.4)
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            for name, found in panel.accuracy.items():
                draws = np.atleast_2d(found)
                axes.plot(
                    panel.levels, draws.mean(0), "o-", color=colors[name], markersize=5, label=name
                )
                if len(draws) > 1:
                    axes.fill_between(
                        panel.levels, draws.min(0), draws.max(0), color=colors[name], alpha=0.18,
                        linewidth=0,
                    )  # fmt: skip
            for level, text in ((wanted, "wanted"), (chance, "chance")):
                if level is not None:
                    axes.axhline(level, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
                    if axes is row[-1]:
                        axes.annotate(
                            text,
                            (1.01, level),
                            xycoords=axes.get_yaxis_transform(),
                            va="center",
                            color=GREY,
                            fontsize=9,
                        )
            if panel.logarithmic:
                axes.set_xscale("log")
            axes.set_xlabel(panel.label)
        row[0].set_ylabel("test accuracy")
        row[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        figure.legend(
            handles=[_line(color, name) for name, color in colors.items()],
            loc="outside lower center", ncols=len(colors),
        )  # fmt: skip
        if title:
            head(figure, title)
        return save(figure, path)


def _colors(count: int) -> list[str]:
    """Return a colour for each of several gyroscopes, ordered as they are."""
    return [to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count))]


def _line(color: str, label: str, dashes: LineStyleType = "-") -> Line2D:
    return Line2D([], [], color=color, linestyle=dashes, label=label)


def _beside(axes: Axes, handles: list[Line2D]) -> None:
    """Put a legend to the right of a panel, where it hides nothing."""
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.005, 1.03), fontsize=9,
        handlelength=1.6, labelspacing=0.3, borderaxespad=0.2,
    )  # fmt: skip
