"""A spring network, coloured by stiffness, with its supports, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.patheffects import withStroke

from hil.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILION,
    head,
    new_figure,
    save,
    stiffness_map,
    style,
)
from hil.types import Array, IntArray

PANEL = 6.4  # in, width of one network
MARGIN = 0.62  # of the spacing, around the outermost nodes
STRIP = 26.0  # points, below the network, for ruler and key
KIND_COLORS = (INK, VERMILION, "#56b4e9", GREEN)  # of bonds: worst first
HALO = [withStroke(linewidth=3.0, foreground="white")]


@dataclass(frozen=True)
class Mark:
    """A node that is loaded or watched.

    node: 0-based; label: what it stands for; direction: of the force or of the motion
    that is read, in the axes of the nodes, of any length.
    """

    node: int
    label: str
    direction: tuple[float, float]


@dataclass(frozen=True)
class _Scale:
    """Sizes that follow the spacing of the network."""

    spacing: float  # m
    points: float  # typographic points per spacing

    @property
    def node(self) -> float:
        """Diameter of a node, points."""
        return float(np.clip(0.21 * self.points, 2.0, 19.0))

    @property
    def bond(self) -> float:
        """Width of the stiffest bond, points."""
        return float(np.clip(0.095 * self.points, 1.2, 8.5))


def draw_network(
    nodes: Array,
    bonds: IntArray,
    stiffness: Array,
    path: Path,
    *,
    fixed: Sequence[int] = (),
    inputs: Sequence[Mark] = (),
    outputs: Sequence[Mark] = (),
    before: Array | None = None,
    limits: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw a network and save it as PNG; with `before`, two panels side by side.

    nodes: (nodes, 2), m. bonds: (bonds, 2), 0-based nodes. stiffness, before: (bonds,),
    N/m. fixed: 0-based nodes that cannot move. limits: N/m, ends of the colour scale,
    by default those of the data. Colour and width of a bond both grow with stiffness;
    nodes are numbered from 1. Raises RunError when the file cannot be written.
    """
    shown = [stiffness] if before is None else [before, stiffness]
    low, high = limits or (min(map(np.min, shown)), max(map(np.max, shown)))
    norm = Normalize(float(low), float(high))
    if low == high:  # one stiffness everywhere: the middle of the scale
        norm = Normalize(0.9 * float(low), 1.1 * float(high))
    ends = nodes[bonds]
    spacing = float(np.median(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)))
    corner = nodes.min(axis=0) - MARGIN * spacing
    size = nodes.max(axis=0) + MARGIN * spacing - corner
    scale = _Scale(spacing, 72.0 * PANEL * spacing / float(size[0]))
    strip = STRIP / scale.points * spacing
    corner[1] -= strip
    size[1] += strip
    height = float(np.clip(PANEL * size[1] / size[0], 2.0, 2.0 * PANEL))
    with style():
        figure = new_figure(PANEL * len(shown) + 1.1, height + 0.8)
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        names = [title] if before is None else ["before", "after"]
        for axes, values, name in zip(panels, shown, names, strict=True):
            axes.set(xlim=(corner[0], corner[0] + size[0]), ylim=(corner[1], corner[1] + size[1]))
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(name)
            _draw_bonds(axes, ends, values, norm, scale)
            centre = nodes.mean(axis=0)
            for node in fixed:
                _draw_support(axes, nodes[node], nodes[node] - centre, scale)
            for mark in inputs:
                _draw_input(axes, nodes[mark.node], nodes[mark.node] - centre, mark, scale)
            for mark in outputs:
                _draw_output(axes, nodes[mark.node], nodes[mark.node] - centre, mark, scale)
            _draw_nodes(axes, nodes, fixed, inputs, outputs, scale)
            _draw_ruler(axes, corner, scale)
            _draw_key(axes, bool(inputs), bool(outputs))
        if before is not None and title:
            head(figure, title)
        bar = figure.colorbar(
            ScalarMappable(norm, stiffness_map()), ax=list(panels), shrink=0.8, aspect=28, pad=0.02
        )
        bar.set_label("stiffness (N/m)")
        bar.outline.set_visible(False)
        return save(figure, path)


def draw_bond_kinds(
    nodes: Array,
    bonds: IntArray,
    kinds: Mapping[int, str],
    path: Path,
    *,
    order: Sequence[str],
    labels: Mapping[int, str] | None = None,
    fixed: Sequence[int] = (),
    inputs: Sequence[int] = (),
    outputs: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """Draw a network whose bonds fall into up to four kinds, and save it as PNG.

    nodes: (nodes, 2), m. bonds: (bonds, 2), 0-based nodes. kinds, labels: by 0-based bond;
    a bond without a kind is faint. order: the kinds, for colours and key. Nodes are numbered
    from 1. Raises RunError when the file cannot be written.
    """
    ends = nodes[bonds]
    spacing = float(np.median(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)))
    corner, far = nodes.min(axis=0) - MARGIN * spacing, nodes.max(axis=0) + MARGIN * spacing
    width = 1.6 * PANEL
    scale = _Scale(spacing, 72.0 * width * spacing / float(far[0] - corner[0]))
    colors = dict(zip(order, KIND_COLORS, strict=False))
    with style():
        figure = new_figure(width, width * float((far - corner)[1] / (far - corner)[0]) + 0.6)
        axes = figure.subplots()
        axes.set(xlim=(corner[0], far[0]), ylim=(corner[1], far[1]))
        axes.set_aspect("equal")
        axes.set_axis_off()
        shades = [colors.get(kinds.get(bond, ""), FAINT) for bond in range(len(bonds))]
        axes.add_collection(
            LineCollection(list(ends), colors=shades, linewidths=0.5 * scale.bond, gid="bonds"),
            autolim=False,
        )
        for bond, text in (labels or {}).items():
            middle = ends[bond].mean(axis=0)
            axes.annotate(
                text, (float(middle[0]), float(middle[1])), ha="center", va="center",
                fontsize=float(np.clip(0.085 * scale.points, 5.0, 9.0)), path_effects=HALO,
                zorder=6,
            )  # fmt: skip
        centre = nodes.mean(axis=0)
        for node in fixed:
            _draw_support(axes, nodes[node], nodes[node] - centre, scale)
        marks = [[Mark(node, "", (0.0, -1.0)) for node in part] for part in (inputs, outputs)]
        _draw_nodes(axes, nodes, fixed, marks[0], marks[1], scale)
        present = [kind for kind in order if kind in kinds.values()]
        axes.legend(
            handles=[
                *(Line2D([], [], color=colors[kind], linewidth=4, label=kind) for kind in present),
                *(
                    Line2D([], [], linestyle="", marker="o", color=color, label=label)
                    for label, color in (("force applied", BLUE), ("motion read", VERMILION))
                ),
            ],
            loc="lower right",
            bbox_to_anchor=(1.0, 0.02),
        )
        if title:
            head(figure, title)
        return save(figure, path)


def _draw_bonds(axes: Axes, ends: Array, k: Array, norm: Normalize, scale: _Scale) -> None:
    share = np.clip(norm(k), 0.0, 1.0)
    lines = LineCollection(
        list(ends),
        array=k,
        cmap=stiffness_map(),
        norm=norm,
        linewidths=scale.bond * (0.25 + 0.75 * share),
        capstyle="round",
        zorder=1,
        gid="bonds",
    )
    axes.add_collection(lines, autolim=False)


def _draw_nodes(
    axes: Axes,
    nodes: Array,
    fixed: Sequence[int],
    inputs: Sequence[Mark],
    outputs: Sequence[Mark],
    scale: _Scale,
) -> None:
    face = dict.fromkeys(fixed, INK)
    face |= {mark.node: BLUE for mark in inputs}
    face |= {mark.node: VERMILION for mark in outputs}
    axes.scatter(
        nodes[:, 0],
        nodes[:, 1],
        s=scale.node**2,
        c=[face.get(node, "white") for node in range(len(nodes))],
        edgecolors=[face.get(node, INK) for node in range(len(nodes))],
        linewidths=min(1.3, 0.08 * scale.node),
        zorder=4,
        gid="nodes",
    )
    if scale.node < 9.0:  # numbers would not be readable
        return
    for node, (x, y) in enumerate(nodes):
        axes.annotate(
            str(node + 1),
            (x, y),
            ha="center",
            va="center_baseline",
            fontsize=0.52 * scale.node,
            weight="bold",
            color="white" if node in face else INK,
            zorder=5,
        )


def _draw_support(axes: Axes, at: Array, outward: Array, scale: _Scale) -> None:
    """Draw the sign for a fixed node: a triangle on hatched ground, turned outward."""
    axis = int(abs(outward[1]) > 1.001 * abs(outward[0]))  # sideways where it is even
    normal = np.zeros(2)
    normal[axis] = np.sign(outward[axis]) or -1.0
    along = np.array([-normal[1], normal[0]])
    foot = at + 0.3 * scale.spacing * normal
    half = 0.2 * scale.spacing * along
    axes.add_patch(Polygon([at, foot + half, foot - half], fc="white", ec=INK, lw=1.2, zorder=2))
    ground = [[foot + 1.35 * half, foot - 1.35 * half]]
    slant = 0.1 * scale.spacing * normal - 0.4 * half
    ground += [[foot + s * half, foot + s * half + slant] for s in np.linspace(-0.95, 1.35, 6)]
    axes.add_collection(
        LineCollection(ground, colors=INK, linewidths=1.2, zorder=2, gid="support"), autolim=False
    )


def _unit(vector: tuple[float, float]) -> Array:
    direction = np.asarray(vector, dtype=np.float64)
    return direction / np.linalg.norm(direction)


def _draw_input(axes: Axes, at: Array, outward: Array, mark: Mark, scale: _Scale) -> None:
    direction = _unit(mark.direction)
    tip = at + 0.44 * scale.spacing * direction
    _arrow(axes, at, tip, "-|>", BLUE, scale)
    # Beside a vertical arrow of an outer node the text runs outward, clear of the bonds.
    lean = float(outward[0]) if abs(outward[0]) > 0.25 * scale.spacing else 0.0
    start = tip + 0.04 * scale.spacing * direction
    if lean and abs(direction[1]) > abs(direction[0]):
        start[0] -= np.sign(lean) * 0.12 * scale.spacing
    _label(axes, start, direction, mark.label, BLUE, scale, lean)


def _draw_output(axes: Axes, at: Array, outward: Array, mark: Mark, scale: _Scale) -> None:
    along = _unit(mark.direction)
    side = np.array([-along[1], along[0]])
    if side @ outward < 0.0:
        side = -side
    middle = at + 0.26 * scale.spacing * side
    half = 0.2 * scale.spacing * along
    _arrow(axes, middle - half, middle + half, "<|-|>", VERMILION, scale)
    _label(axes, middle + 0.09 * scale.spacing * side, side, mark.label, VERMILION, scale)


def _arrow(axes: Axes, tail: Array, tip: Array, kind: str, color: str, scale: _Scale) -> None:
    axes.add_patch(
        FancyArrowPatch(
            (float(tail[0]), float(tail[1])),
            (float(tip[0]), float(tip[1])),
            arrowstyle=kind,
            color=color,
            linewidth=min(2.4, 0.03 * scale.points),
            mutation_scale=min(15.0, 0.17 * scale.points),
            shrinkA=0,
            shrinkB=0,
            zorder=3,
        )
    )


def _label(
    axes: Axes,
    at: Array,
    direction: Array,
    text: str,
    color: str,
    scale: _Scale,
    lean: float = 0.0,
) -> None:
    x, y = float(direction[0]), float(direction[1])
    vertical = abs(y) >= abs(x)
    side = lean if vertical else x
    axes.annotate(
        text,
        (float(at[0]), float(at[1])),
        ha="center" if side == 0.0 else ("left" if side > 0.0 else "right"),
        va="center" if not vertical else ("bottom" if y > 0.0 else "top"),
        fontsize=float(np.clip(0.12 * scale.points, 6.0, 11.0)),
        color=color,
        weight="bold",
        path_effects=HALO,
        zorder=6,
    )


def _draw_ruler(axes: Axes, corner: Array, scale: _Scale) -> None:
    """Draw how long one spacing is, at the lower left."""
    x = corner[0] + 0.06 * scale.spacing + np.array([0.0, scale.spacing])
    y = np.full(2, corner[1] + 6.0 / scale.points * scale.spacing)
    axes.plot(x, y, "|-", color=INK, linewidth=1.6, solid_capstyle="butt", gid="ruler")
    axes.annotate(
        f"{1e3 * scale.spacing:.3g} mm",
        (float(x.mean()), float(y[0])),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
    )


def _draw_key(axes: Axes, loaded: bool, watched: bool) -> None:
    """Say at the lower right what the two colours of nodes mean."""
    kinds = [("force applied", BLUE)] * loaded + [("motion read", VERMILION)] * watched
    if not kinds:
        return
    axes.legend(
        handles=[
            Line2D([], [], linestyle="", marker="o", markersize=8, color=color, label=label)
            for label, color in kinds
        ],
        loc="lower right",
        ncols=2,
        borderpad=0.0,
        borderaxespad=0.2,
        handletextpad=0.1,
        columnspacing=1.2,
    )
