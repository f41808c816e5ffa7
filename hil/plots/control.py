"""Pictures of a control loop: where it went, what it cost in time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREEN, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import AnyArray, Array

COLORS = (GREY, GREEN, BLUE, VERMILION)


def draw_control(
    time: Array, states: Array, inputs: Array, path: Path, *, title: str = ""
) -> Figure:
    """Draw the estimated states and the applied input of a cart-pole; save as PNG.

    time: (steps,), s. states: (steps, 4), θ in rad, x in m and their rates. inputs:
    (steps, 1), N. Raises RunError when the file cannot be written.
    """
    with style():
        figure = new_figure(7.6, 6.6)
        panels = figure.subplots(3, 1, sharex=True)
        for axes, columns, labels, unit, corner in (
            (panels[0], (0, 2), ("θ (rad)", "θ̇ (rad/s)"), "angle", "lower right"),
            (panels[1], (1, 3), ("x (m)", "ẋ (m/s)"), "position", "upper right"),
        ):
            for column, label, color in zip(columns, labels, (BLUE, VERMILION), strict=True):
                axes.plot(time, states[:, column], color=color, label=label)
            axes.set_ylabel(unit)
            axes.legend(loc=corner, ncols=2)
        panels[2].step(time, inputs[:, 0], where="post", color=BLUE)
        panels[2].set_ylabel("force (N)")
        panels[2].set_xlabel("time (s)")
        if title:
            head(figure, title)
        return save(figure, path)


def draw_latency(hops: Mapping[str, Array], path: Path, *, title: str = "") -> Figure:
    """Draw how long each hop of a period took, as histograms; save as PNG.

    hops: name → (steps,), µs. Raises RunError when the file cannot be written.
    """
    with style():
        figure = new_figure(7.6, 4.2)
        axes = figure.subplots()
        longest = max(float(np.max(values)) for values in hops.values())
        shortest = max(
            1.0, min(float(np.min(values[values > 0], initial=1e9)) for values in hops.values())
        )
        bins = np.geomspace(shortest, max(longest, 2 * shortest), 60)
        for (name, values), color in zip(hops.items(), (BLUE, VERMILION), strict=False):
            middle, high = np.percentile(values, [50, 99])
            label = f"{name}: p50 {middle:.0f} µs, p99 {high:.0f} µs"
            axes.hist(values, bins=list(bins), color=color, alpha=0.7, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("time (µs)")
        axes.set_ylabel("periods")
        axes.legend(loc="upper right")
        if title:
            head(figure, title)
        return save(figure, path)


def draw_budget(hops: Mapping[str, Array], path: Path, *, title: str = "") -> Figure:
    """Draw how a period is made up of its hops, stacked: p50, p90, p99; save as PNG.

    hops: name → (steps,), µs, in the order in which they happen. The bars of a percentile add
    up the hops' own percentiles, which is more than that of their sum; the sum's is marked.
    Raises RunError when the file cannot be written.
    """
    shares = (50, 90, 99)
    with style():
        figure = new_figure(7.6, 3.4)
        axes = figure.subplots()
        left = np.zeros(len(shares))
        rows = np.arange(len(shares))
        for (name, values), color in zip(hops.items(), COLORS, strict=False):
            width = np.percentile(values, shares)
            axes.barh(rows, width, left=left, color=color, label=f"{name}: {width[0]:.0f} µs")
            left = left + width
        whole = np.percentile(np.sum(list(hops.values()), axis=0), shares)
        axes.plot(whole, rows, linestyle="none", marker="|", markersize=24, color=INK, label="sum")
        axes.set_yticks(rows, [f"p{share}" for share in shares])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("time (µs)")
        axes.legend(loc="lower right")
        if title:
            head(figure, title)
        return save(figure, path)


def draw_adaptation(
    time: Array, error: Array, candidate: Array, taken: AnyArray, path: Path, *, title: str = ""
) -> Figure:
    """Draw how well the model in use and each candidate predicted the newest motion; save as PNG.

    time: (rounds,), s. error, candidate: (rounds,), of both, relative. taken: (rounds,), whether
    the candidate took over. Raises RunError when the file cannot be written.
    """
    with style():
        figure = new_figure(7.6, 4.2)
        axes = figure.subplots()
        axes.plot(time, error, color=BLUE, marker="o", markersize=4, label="model in use")
        for chosen, color, label in (
            (~taken, GREY, "candidate, rejected"),
            (taken, GREEN, "candidate, took over"),
        ):
            axes.plot(
                time[chosen], candidate[chosen], color=color, linestyle="none", marker="o",
                markersize=6, label=label,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("time (s)")
        axes.set_ylabel("error of filtered acceleration, relative")
        axes.legend(loc="upper right")
        if title:
            head(figure, title)
        return save(figure, path)
