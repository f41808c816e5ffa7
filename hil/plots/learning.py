"""How a network learned: curves, confusion, gradients, twin residual, stiffness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hil.plots.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    VERMILION,
    confusion_map,
    head,
    new_figure,
    save,
    stiffness_map,
    style,
)
from hil.types import Array, IntArray

DECADES = 100.0  # a loss that falls by more is drawn on a logarithmic axis


def draw_learning(
    loss: Array,
    train_accuracy: Array,
    test_accuracy: Array,
    path: Path,
    *,
    test_loss: Array | None = None,
    first_epoch: int = 0,
    held_out: str = "test",
    title: str = "",
) -> Figure:
    """Draw loss and accuracy against epoch, one above the other, and save as PNG.

    loss, test_loss: (epochs,), dimensionless. train_accuracy, test_accuracy: (epochs,),
    0 … 1; NaN where nobody looked. first_epoch: number of the first entry; 0 when it was
    taken before learning. held_out: name of what is not learned from.
    Raises RunError when the file cannot be written.
    """
    epochs = first_epoch + np.arange(len(loss))
    with style():
        figure = new_figure(7.6, 5.8)
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, train, test in (
            (upper, loss, test_loss),
            (lower, train_accuracy, test_accuracy),
        ):
            _curve(axes, epochs, train, BLUE, "train")
            if test is not None:
                _curve(axes, epochs, test, VERMILION, held_out)
        upper.set_ylabel("loss")
        if loss.min() > 0 and loss.max() > DECADES * loss.min():
            upper.set_yscale("log")
        lower.set_ylabel("accuracy")
        lower.set_xlabel("epoch")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if len(epochs) == 1:
            lower.set_xlim(first_epoch - 1, first_epoch + 1)
        lower.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        lower.set_ylim(0.0, 1.03)
        names = [f"train, {train_accuracy[-1]:.1%} at the end"]
        if np.isfinite(test_accuracy[-1]):
            names.append(f"{held_out}, {test_accuracy[-1]:.1%}")
        lower.legend(names, loc="lower right", ncols=2)
        lower.margins(x=0.01)
        if title:
            head(figure, title)
        return save(figure, path)


def _curve(axes: Axes, x: Array | IntArray, y: Array, color: str, label: str) -> None:
    known = np.isfinite(y)  # accuracy is not looked at in every epoch
    # A run of one epoch is a point.
    marker = "o" if known.sum() == 1 else ""
    axes.plot(x[known], y[known], color=color, label=label, marker=marker)


def draw_confusion(
    counts: IntArray, names: Sequence[str], path: Path, *, title: str = ""
) -> Figure:
    """Draw a confusion matrix with counts and shares of each true class; save as PNG.

    counts: (classes, classes), rows true, columns predicted. names: of the classes.
    Raises RunError when the file cannot be written.
    """
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    with style():
        side = 1.35 * len(names)
        figure = new_figure(side + 1.4, side + 1.6)
        axes = figure.subplots()
        axes.imshow(share, cmap=confusion_map(), vmin=0.0, vmax=1.0)
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.55 else INK
            axes.text(
                column,
                row - 0.06,
                str(count),
                ha="center",
                va="center",
                fontsize=17,
                weight="bold",
                color=color if count else GREY,
            )
            if count:
                axes.text(
                    column,
                    row + 0.24,
                    f"{share[row, column]:.0%}",
                    ha="center",
                    va="center",
                    fontsize=10,
                    color=color,
                )
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names, rotation=90, va="center")
        axes.set_xlabel("predicted class", labelpad=9, weight="bold")
        axes.set_ylabel("true class", labelpad=9, weight="bold")
        # White lines between the cells instead of a frame.
        edges = np.arange(len(names) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(visible=False)
        axes.grid(which="minor", color="white", linewidth=3)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        right, total = int(np.trace(counts)), int(counts.sum())
        axes.set_title(title, pad=30)
        axes.text(
            0.0,
            1.03,
            f"{right} of {total} right, {right / max(total, 1):.1%}",
            transform=axes.transAxes,
        )
        return save(figure, path)


def draw_gradient(
    measured: Array, predicted: Array, path: Path, *, unit: str = "m/N", title: str = ""
) -> Figure:
    """Draw measured against predicted gradient with the line of identity; save as PNG.

    measured, predicted: any equal shape, ∂L/∂k. unit: of both; a loss without a unit over
    a stiffness gives m/N. The cosine and the relative L2 error named in the picture are
    those of all values together. Raises RunError when the file cannot be written.
    """
    x, y = predicted.ravel(), measured.ravel()
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    gap = 1.0 - float(x @ y) / lengths if lengths else np.nan
    error = float(np.linalg.norm(y - x) / np.linalg.norm(x)) if x.any() else np.nan
    reach = 1.08 * float(max(np.abs(x).max(), np.abs(y).max())) or 1.0
    power = 3 * int(np.floor(np.log10(reach) / 3.0))
    unit = unit if power == 0 else rf"$10^{{{power}}}$ {unit}"
    x, y, reach = x / 10.0**power, y / 10.0**power, reach / 10.0**power
    with style():
        figure = new_figure(6.2, 6.4)
        axes = figure.subplots()
        axes.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=1.2, label="measured = predicted")
        axes.plot(x, y, "o", color=BLUE, markersize=5, alpha=0.55, mew=0, label=f"{x.size} values")
        axes.set(
            xlim=(-reach, reach),
            ylim=(-reach, reach),
            xlabel=f"predicted ∂L/∂k ({unit})",
            ylabel=f"measured ∂L/∂k ({unit})",
        )
        axes.set_aspect("equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.legend(loc="upper left", handletextpad=0.5)
        axes.text(
            0.97,
            0.04,
            f"1 − cos = {_short(gap)}\nrelative error = {_short(error)}",
            transform=axes.transAxes,
            ha="right",
            linespacing=1.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )
        axes.set_title(title)
        return save(figure, path)


def _short(value: float) -> str:
    """Return two digits, as 0.0123 or 1.2 × 10⁻⁷."""
    if not np.isfinite(value):
        return "undefined"
    if value == 0.0 or abs(value) >= 1e-3:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa} × $10^{{{int(exponent)}}}$"


def draw_residual(
    residual: Array,
    path: Path,
    *,
    limit: float | None = None,
    label: str = "relative twin residual",
    title: str = "",
) -> Figure:
    """Draw the twin residual over measurements, with its running median; save as PNG.

    residual: (measurements,), 0 or more, what `label` says with its unit. limit: where
    an alarm would be raised. The axis is logarithmic when the values span more than a
    factor of 30. Raises RunError when the file cannot be written.
    """
    with style():
        figure = new_figure(7.6, 4.0)
        axes = figure.subplots()
        axes.plot(residual, ".", color=BLUE, markersize=5, alpha=0.35, mew=0, label="measured")
        window = max(len(residual) // 50, 1)
        blocks = residual[: len(residual) // window * window].reshape(-1, window)
        if window > 1:
            middle = (np.arange(len(blocks)) + 0.5) * window
            axes.plot(middle, np.median(blocks, axis=1), color=BLUE, label=f"median of {window}")
        if limit is not None:
            axes.axhline(limit, color=VERMILION, linewidth=1.4, linestyle="--", label="limit")
        positive = residual[residual > 0.0]
        if positive.size and positive.max() > 30.0 * positive.min():
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0.0)
        axes.set(xlabel="measurement", ylabel=label)
        axes.margins(x=0.01)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
        axes.set_title(title)
        return save(figure, path)


def draw_stiffness(
    stiffness: Array,
    path: Path,
    *,
    limits: tuple[float, float] | None = None,
    step: str = "training step",
    title: str = "",
) -> Figure:
    """Draw the stiffness of every bond over the steps and save as PNG.

    stiffness: (steps, bonds), N/m. limits: N/m, drawn as dashed lines. step: what a row
    of the array is. A line has the colour of the stiffness it ends with, as in
    `draw_network`. Raises RunError when the file cannot be written.
    """
    steps = np.arange(len(stiffness))
    with style():
        figure = new_figure(7.6, 4.6)
        axes = figure.subplots()
        lines = LineCollection(
            [np.column_stack([steps, k]) for k in stiffness.T],
            array=stiffness[-1],
            cmap=stiffness_map(),
            linewidths=1.6,
            alpha=0.9,
            gid="bonds",
        )
        if limits is not None:
            lines.set_clim(*limits)
            for bound in limits:
                axes.axhline(bound, color=GREY, linewidth=1.2, linestyle="--", zorder=1)
            axes.annotate(
                "limits",
                (0.99, max(limits)),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                color=GREY,
            )
        axes.add_collection(lines)
        axes.autoscale_view()
        axes.margins(x=0.01)
        axes.set(xlabel=step, ylabel="stiffness (N/m)")
        axes.grid(color=FAINT)
        axes.set_title(title)
        return save(figure, path)
