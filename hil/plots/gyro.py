"""A network of gyroscopes from above: where everything is at chosen times, and as a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hil.errors import RunError
from hil.plots.gyro_rollout import Rollout
from hil.plots.style import (
    BLUE,
    FAINT,
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

PANEL = 3.5  # in, width of one view from above in a strip
MARGIN = 0.8  # of a spacing, around the outermost gyroscopes: room to move in
FILM = 7.2  # in, of a film
FILM_DPI = 80
FULL_SCALE = 98.0  # percentile of elongations at which the colour scale ends
DASHES = (0, (1.4, 0.9))


class _View:
    """One panel from above that can be set to any step."""

    def __init__(self, axes: Axes, rollout: Rollout, norm: Normalize) -> None:
        self._rollout = rollout
        network = rollout.network
        nodes, spacing = network.geometry.nodes, network.spacing
        low, high = network.box(MARGIN)
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.set_axis_off()
        points = 72.0 * axes.get_position().width * _width(axes) / float(high[0] - low[0])
        size = float(np.clip(0.3 * points * spacing, 1.5, 14.0))
        axes.plot(*nodes.T, ".", color=FAINT, markersize=0.45 * size, zorder=0)
        self._inside, self._halves = (
            LineCollection(
                [], cmap=strain_map(), norm=norm, linewidths=0.3 * size, linestyles=[dashes],
                capstyle="butt", zorder=1, gid=gid,
            )
            for gid, dashes in (("springs", "-"), ("wrapped", DASHES))
        )  # fmt: skip
        for lines in (self._inside, self._halves):
            axes.add_collection(lines, autolim=False)
        self._nodes = axes.scatter(
            nodes[:, 0], nodes[:, 1], s=size**2, c=network.colored("white", BLUE, VERMILION),
            edgecolors=INK, linewidths=0.08 * size, zorder=3, gid="nodes",
        )  # fmt: skip
        strongest = float(np.abs(rollout.nudges).max()) or 1.0
        self._arrows = axes.quiver(
            *nodes[network.inputs].T, *np.zeros((2, len(network.inputs))),
            angles="xy", scale_units="xy", scale=strongest / (1.5 * spacing), color=BLUE,
            width=0.3 * size / 72.0, units="inches", zorder=4, clip_on=False,
        )  # fmt: skip
        self._arrows.set_gid("nudges")
        self._arrows.set_in_layout(False)

    def show(self, step: int) -> None:
        """Set everything as it was after `step` steps."""
        rollout, network = self._rollout, self._rollout.network
        q = rollout.displacement(step)
        inside, halves = network.segments(q)
        stretch, wrapped = network.elongation(q), network.wrapped
        self._inside.set_segments(list(inside))
        self._inside.set_array(stretch[~wrapped])
        self._halves.set_segments(list(halves))
        self._halves.set_array(np.repeat(stretch[wrapped], 2))
        at = network.geometry.nodes + q
        self._nodes.set_offsets(at)
        self._arrows.set_offsets(at[network.inputs])
        self._arrows.set_UVC(*rollout.nudges[max(step - 1, 0)].T)


class _Pen:
    """The paper, with what was written until a step."""

    def __init__(self, axes: Axes, rollout: Rollout) -> None:
        self._signal = rollout.signal
        axes.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(FAINT)
        axes.grid(visible=False)
        axes.plot(*self._signal.T, color=FAINT, linewidth=3.0)
        (self._line,) = axes.plot([], [], color=INK, linewidth=3.0, gid="written")
        (self._tip,) = axes.plot([], [], "o", color=BLUE, markersize=8)

    def show(self, step: int) -> None:
        """Show what was written after `step` steps."""
        written = self._signal[: max(step, 1)]
        self._line.set_data(*written.T)
        self._tip.set_data(*written[-1:].T)


def draw_rollout(rollout: Rollout, steps: Sequence[int], path: Path, *, title: str = "") -> Figure:
    """Draw pen and network at chosen steps, side by side, and save as PNG.

    Blue arrows are nudges, the longest 1.5 spacings. Displacements are to scale. Raises
    RunError when the file cannot be written.
    """
    norm = _norm(rollout, steps)
    with style():
        low, high = rollout.network.box(MARGIN)
        tall = PANEL * float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.2, 2.0))
        figure = new_figure(PANEL * len(steps) + 1.0, tall + 2.5)
        panels = figure.subplots(2, len(steps), squeeze=False, height_ratios=[1.2, tall])
        for column, step in enumerate(steps):
            paper, view = panels[:, column]
            _Pen(paper, rollout).show(step)
            paper.set_title(f"t = {rollout.time[step]:.3g} s", loc="center")
            _View(view, rollout, norm).show(step)
        _colour_bar(figure, norm, list(panels[1]))
        _key(figure, bool(rollout.network.wrapped.any()))
        if title:
            head(figure, title)
        return save(figure, path)


def animate_rollout(
    rollout: Rollout, path: Path, *, scores: Array | None = None, classes: Sequence[str] = (),
    every: int = 2, title: str = "",
) -> int:  # fmt: skip
    """Write a film as GIF, as fast as the network is; return the number of its frames.

    scores: (steps + 1, classes), 0 to 1, what a readout of each moment would say; drawn
    beside the network. every: steps between two frames. Raises RunError when the file
    cannot be written.
    """
    steps = list(range(0, rollout.steps + 1, every))
    norm = _norm(rollout, steps)
    with style():
        figure = new_figure(FILM * 1.3, FILM * 0.8)
        figure.set_dpi(FILM_DPI)
        canvas = FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=[1.0, 3.4], height_ratios=[1.0, 1.35])
        view_axes = figure.add_subplot(grid[:, 1])
        paper = figure.add_subplot(grid[0, 0])
        pen, view = _Pen(paper, rollout), _View(view_axes, rollout, norm)
        bars = None
        if scores is not None:
            axes = figure.add_subplot(grid[1, 0])
            bars = axes.barh(range(len(classes)), np.zeros(len(classes)), color=GREY)
            axes.set_yticks(range(len(classes)), classes)
            axes.set(xlim=(0.0, 1.0), xticks=[0.0, 0.5, 1.0], xlabel="probability, read now")
            axes.invert_yaxis()
            axes.grid(visible=False, axis="y")
        _colour_bar(figure, norm, [view_axes])
        _key(figure, bool(rollout.network.wrapped.any()))
        if title:
            head(figure, title)
        writer = PillowWriter(fps=max(1, round(1.0 / (every * rollout.dt))))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writer.saving(figure, str(path), FILM_DPI):
                for step in steps:
                    pen.show(step)
                    view.show(step)
                    paper.set_title(f"t = {rollout.time[step]:.2f} s", loc="center")
                    if bars is not None and scores is not None:
                        best = int(scores[step].argmax())
                        for number, bar in enumerate(bars):
                            bar.set_width(float(scores[step, number]))
                            bar.set_color(VERMILION if number == best else GREY)
                    if step == 0:  # places are found once: they must not wander
                        canvas.draw()  # type: ignore[no-untyped-call]
                        figure.set_layout_engine("none")
                    writer.grab_frame()
        except OSError as error:
            raise RunError(f"{path}: the film cannot be written: {error.strerror}") from None
    return len(steps)


def _norm(rollout: Rollout, steps: Sequence[int]) -> Normalize:
    """Return one symmetric scale for all steps: a few extremes may lie beyond its ends."""
    stretch = np.abs([rollout.network.elongation(rollout.displacement(step)) for step in steps])
    reach = float(np.percentile(stretch, FULL_SCALE)) or 1.0 if stretch.size else 1.0
    return Normalize(-reach, reach)


def _colour_bar(figure: Figure, norm: Normalize, axes: list[Axes]) -> None:
    bar = figure.colorbar(
        ScalarMappable(norm, strain_map()), ax=axes, shrink=0.8, aspect=24, pad=0.01,
        extend="both",
    )  # fmt: skip
    bar.set_label("elongation of springs (m)")
    bar.outline.set_visible(False)


def _key(figure: Figure, wrapped: bool) -> None:
    """Say below everything what the signs mean."""
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=8, color=BLUE, label="nudged"),
        Line2D([], [], linestyle="", marker="o", markersize=8, color=VERMILION, label="read"),
        Line2D([], [], linestyle="", marker=r"$\rightarrow$", markersize=13, color=BLUE,
               label="nudge"),
    ]  # fmt: skip
    if wrapped:
        handles.append(
            Line2D([], [], linestyle=DASHES, color=GREY, label="goes on at the other edge")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _width(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return float(figure.get_figwidth())
