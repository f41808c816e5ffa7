"""Models let loose: their motion beside the true one, and their errors side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import FAINT, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import Array

PAPER = "published"


def colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return colours that are told apart, by place."""
    ramp = matplotlib.colormaps["tab10"]
    return [ramp(i % 10) for i in range(count)]


def draw_errors(
    errors: Mapping[str, Mapping[str, Sequence[float]]],
    paper: Mapping[str, Mapping[str, float]],
    path: Path,
    *,
    title: str,
) -> Figure:
    """Draw every seed's error by system and model on a logarithmic axis, and save as PNG.

    errors: system → model → one number per seed. paper: system → model → published. A rollout
    that diverged stands at the upper edge. Raises RunError when the file cannot be written.
    """
    models = list(dict.fromkeys(model for row in errors.values() for model in row))
    with style():
        figure = new_figure(10.5, 1.0 + 0.85 * len(errors))
        axes = figure.subplots()
        known = [e for row in errors.values() for found in row.values() for e in found]
        finite = [e for e in known if 0 < e < 1e6] or [1.0]
        low, high = min(finite) / 3, max(finite) * 3
        shades = colours(len(models))
        for place, (system, row) in enumerate(errors.items()):
            axes.axhspan(place - 0.5, place + 0.5, color=FAINT if place % 2 else "white", zorder=0)
            for number, model in enumerate(models):
                y = place - 0.4 + 0.8 * (number + 0.5) / len(models)
                found = np.clip(np.array(row.get(model, ())), low, high)
                label = model if system == next(iter(errors)) else None
                axes.plot(found, np.full(len(found), y), "o", ms=4, color=shades[number],
                          alpha=0.8, label=label)  # fmt: skip
                if model in paper.get(system, {}):
                    axes.plot(paper[system][model], y, "x", ms=6, color=shades[number])
        axes.plot([], [], "x", color=INK, label=PAPER)
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(len(errors) - 0.5, -0.5)
        axes.set_yticks(range(len(errors)), list(errors))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("mean square error, positions and velocities, SI")
        figure.legend(loc="outside right upper", fontsize=9)
        head(figure, title)
        return save(figure, path)


def draw_rollouts(
    time: Array,
    truth: Array,
    found: Mapping[str, Array],
    path: Path,
    *,
    title: str,
    known: float | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """Draw positions against time, one panel each, and save as PNG.

    time: (n,), s. truth: (n, nq). found: model → (n, nq), NaN where it left the numbers. known:
    s, until when the motion was learned from; None: no such time. names: of the columns.
    """
    count = truth.shape[1]
    with style():
        figure = new_figure(9.6, 1.2 + 2.0 * count)
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        shades = colours(len(found))
        for position, axes in enumerate(panels):
            if known is not None:
                axes.axvspan(known, time[-1], color=FAINT, zorder=0)
                axes.axvline(known, color=VERMILION, lw=1.0)
            line = truth[:, position]
            axes.plot(time, line, color=GREY, lw=5, alpha=0.5, label="truth")
            for shade, (model, states) in zip(shades, found.items(), strict=True):
                axes.plot(time, states[:, position], color=shade, lw=1.2, label=model)
            room = 0.4 * max(float(np.ptp(line)), 1e-9)
            axes.set_ylim(line.min() - room, line.max() + room)
            axes.set_ylabel(names[position] if names else f"q{position + 1}")
            axes.margins(x=0)
        panels[-1].set_xlabel("time, s" + ("" if known is None else "; shaded: not learned from"))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=9)
        head(figure, title)
        return save(figure, path)


def draw_noise(
    noise: Array,
    errors: Mapping[str, Mapping[str, Sequence[float | None]]],
    path: Path,
    *,
    title: str,
) -> Figure:
    """Draw the error of each method against the noise, one panel per system; save as PNG.

    noise: (levels,), over each coordinate's deviation. errors: system → method → one number
    per level.
    """
    levels = np.arange(len(noise))
    with style():
        figure = new_figure(2.2 + 2.8 * len(errors), 4.2)
        panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
        for axes, (system, methods) in zip(panels, errors.items(), strict=True):
            for shade, (method, line) in zip(colours(len(methods)), methods.items(), strict=True):
                axes.plot(levels, np.array(line, dtype=float), "o-", color=shade, label=method)
            axes.set_yscale("log")
            axes.set_xticks(levels, [f"{level:.1%}" for level in noise])
            axes.set_xlabel("noise over spread")
            axes.set_title(system)
        panels[0].set_ylabel("relative rms error")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=9)
        head(figure, title)
        return save(figure, path)
