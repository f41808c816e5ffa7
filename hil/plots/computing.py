"""A network at work: where it goes under each input, and how it learned to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hil.mechanics.geometry import Geometry
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
    strain_map,
    style,
)
from hil.types import Array

ARROW = 0.7  # of the spacing: the largest force


@dataclass(frozen=True)
class Case:
    """One input and where the network goes; only planar networks are drawn."""

    title: str
    displacement: Array  # (dof,), m
    load: Array  # (dof,), N
    read: tuple[float, ...]  # of each output, m


def draw_computing(
    geometry: Geometry,
    stiffness: Array,
    cases: Sequence[Case],
    *,
    outputs: Sequence[int],
    names: Sequence[str],
    learning: Sequence[tuple[int, float, float]],
    path: Path,
    title: str,
) -> Figure:
    """Draw the network displaced under every case, true to scale, and save as PNG.

    outputs: nodes that are read, from 0, and their names. learning: epoch, score, margin in m.
    Bonds are coloured by strain and as wide as they are stiff; pushes are arrows. Raises
    RunError when the file cannot be written.
    """
    strains = [_strains(geometry, case.displacement) for case in cases]
    largest = max(float(np.abs(strain).max()) for strain in strains)
    norm = Normalize(-largest, largest)
    with style():
        figure = new_figure(3.6 * len(cases) + 0.9, 6.4)
        grid = figure.add_gridspec(2, len(cases), height_ratios=(1.0, 0.62))
        panels = [figure.add_subplot(grid[0, at]) for at in range(len(cases))]
        for axes, case, strain in zip(panels, cases, strains, strict=True):
            _draw_case(axes, geometry, stiffness, case, strain, norm, outputs, names)
        bar = figure.colorbar(
            ScalarMappable(norm, strain_map()), ax=panels, shrink=0.8, aspect=24, pad=0.01
        )
        bar.set_label("strain")
        bar.outline.set_visible(False)
        half = max(1, len(cases) // 2)
        _draw_learning(figure.add_subplot(grid[1, :half]), learning)
        _draw_readings(figure.add_subplot(grid[1, half:]), cases, names)
        head(figure, title)
        return save(figure, path)


def _strains(geometry: Geometry, displacement: Array) -> Array:
    moved = _moved(geometry, displacement)
    span = moved[geometry.bonds[:, 1]] - moved[geometry.bonds[:, 0]]
    return np.asarray(np.linalg.norm(span, axis=1) / geometry.lengths - 1.0)


def _moved(geometry: Geometry, displacement: Array) -> Array:
    at = geometry.nodes.copy()
    at.ravel()[geometry.free_dofs] += displacement
    return at


def _draw_case(
    axes: Axes,
    geometry: Geometry,
    stiffness: Array,
    case: Case,
    strain: Array,
    norm: Normalize,
    outputs: Sequence[int],
    names: Sequence[str],
) -> None:
    moved, spacing = _moved(geometry, case.displacement), float(np.median(geometry.lengths))
    low, high = geometry.nodes.min(axis=0) - spacing, geometry.nodes.max(axis=0) + spacing
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), title=case.title)
    axes.set_aspect("equal")
    axes.set_axis_off()
    rest = LineCollection(list(geometry.nodes[geometry.bonds]), colors=FAINT, linewidths=2.0)
    axes.add_collection(rest, autolim=False)
    width = 1.0 + 3.5 * (stiffness - stiffness.min()) / max(float(np.ptp(stiffness)), 1e-9)
    axes.add_collection(
        LineCollection(
            list(moved[geometry.bonds]), array=strain, cmap=strain_map(), norm=norm,
            linewidths=width, capstyle="round", zorder=2, gid="bonds",
        ),
        autolim=False,
    )  # fmt: skip
    colours = [INK if node in geometry.fixed else "white" for node in range(len(moved))]
    for node, colour in zip(outputs, (VERMILION, GREEN, BLUE), strict=False):
        colours[node] = colour
    axes.scatter(
        moved[:, 0], moved[:, 1], s=42, c=colours, edgecolors=INK, linewidths=1.0, zorder=4
    )
    for node, name, read in zip(outputs, names, case.read, strict=True):
        axes.annotate(
            f"{name} {int(read > 0)}", tuple(moved[node]), xytext=(7, -13),
            textcoords="offset points", fontsize=9, weight="bold", zorder=6,
        )  # fmt: skip
    force = np.zeros(geometry.nodes.size)
    force[geometry.free_dofs] = case.load
    pushes = force.reshape(geometry.nodes.shape)
    scale = ARROW * spacing / max(float(np.abs(pushes).max()), 1e-12)
    for pushed in np.flatnonzero(pushes.any(axis=1)):
        tip = moved[pushed] + scale * pushes[pushed]
        axes.annotate(
            "", tuple(tip), tuple(moved[pushed]), zorder=5,
            arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 2.2},
        )  # fmt: skip


def _draw_learning(axes: Axes, learning: Sequence[tuple[int, float, float]]) -> None:
    epochs, score, margin = np.array(learning).T
    axes.plot(epochs, 1e3 * margin, color=BLUE, label="margin")
    axes.axhline(0.0, color=GREY, linewidth=1.0)
    axes.set(xlabel="step", ylabel="margin (mm)", title="Learning in place")
    right = axes.twinx()
    right.plot(epochs, score, color=VERMILION, linestyle="--")
    right.set_ylabel("share of bits right", color=VERMILION)
    right.set_ylim(0.0, 1.05)
    right.grid(visible=False)


def _draw_readings(axes: Axes, cases: Sequence[Case], names: Sequence[str]) -> None:
    at = np.arange(len(cases))
    read = 1e3 * np.array([case.read for case in cases])  # (cases, outputs), mm
    for bit, (name, colour) in enumerate(zip(names, (VERMILION, GREEN, BLUE), strict=False)):
        axes.bar(at + 0.36 * bit - 0.18, read[:, bit], 0.34, color=colour, label=name)
    axes.axhline(0.0, color=INK, linewidth=1.0)
    axes.set_xticks(at, [case.title for case in cases])
    axes.set(ylabel="displacement (mm)", title="What is read: above zero is 1")
    axes.grid(visible=False, axis="x")
    axes.legend()
