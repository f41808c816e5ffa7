"""What a calibration found: stiffness against command, gains, the step response, a held-out fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREEN, GREY, INK, VERMILION, head, new_figure, save, style
from hil.types import Array

COLUMNS = 7
SIGMAS = 3.0  # of the intervals that are drawn


def draw_stiffness_curves(command: Array, stiffness: Array, deviation: Array, path: Path) -> Figure:
    """Draw, bond by bond, how far stiffness is from its command, with intervals of 3 σ.

    command: (levels,), N/m; stiffness and deviation: (levels, bonds), N/m.
    """
    bonds = stiffness.shape[1]
    rows = -(-bonds // COLUMNS)
    off, error = (stiffness / command[:, None] - 1.0) * 100, deviation / command[:, None] * 100
    reach = 1.45 * float(np.abs(off).max() + SIGMAS * error.max())
    with style():
        figure = new_figure(12.5, 1.55 * rows + 0.9)
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for bond, axes in enumerate(panels.flat):
            if bond >= bonds:
                axes.set_axis_off()
                continue
            axes.axhline(0.0, color=GREY, linewidth=0.8)
            axes.errorbar(
                command, off[:, bond], SIGMAS * error[:, bond], color=BLUE, marker="o",
                markersize=3, linewidth=1.2, capsize=2,
            )  # fmt: skip
            axes.set_ylim(-reach, reach)
            axes.text(0.05, 0.86, f"bond {bond + 1}", transform=axes.transAxes, fontsize=9)
            axes.tick_params(labelsize=8)
        figure.supxlabel("stiffness command (N/m)", fontsize=10)
        figure.supylabel("stiffness − command (%)", fontsize=10)
        head(figure, "Stiffness against command, with intervals of 3 σ")
        return save(figure, path)


def draw_gains(gain: Array, deviation: Array, dof: int, path: Path) -> Figure:
    """Draw the gain of every channel with its interval of 3 σ; (channels,), 1."""
    with style():
        figure = new_figure(11.0, 4.2)
        axes = figure.subplots()
        at = np.arange(1, len(gain) + 1)
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        for name, part, colour in (
            ("displacement sensors", slice(0, dof), BLUE),
            ("elongation sensors", slice(dof, None), GREEN),
        ):
            axes.errorbar(
                at[part], gain[part], SIGMAS * deviation[part], color=colour, linestyle="none",
                marker="o", markersize=4, linewidth=1.4, capsize=2, label=name,
            )  # fmt: skip
        axes.set(xlabel="channel", ylabel="gain: reading over length")
        axes.set_title("Gains of the sensors, with intervals of 3 σ")
        axes.legend(loc="upper center", ncols=2)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.15 * (high - low))
        return save(figure, path)


def draw_settling(time: Array, share: Array, tau: float, path: Path) -> Figure:
    """Draw how far the network had come at times after the force; time, tau in s."""
    with style():
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        fine = np.geomspace(time.min(), time.max(), 300)
        if tau > 0:
            label = f"1 − exp(−t/τ), τ = {1e3 * tau:.3g} ms"
            axes.plot(1e3 * fine, 1 - np.exp(-fine / tau), color=GREY, label=label)
        axes.plot(1e3 * time, share, "o", color=BLUE, markersize=4, label="measured")
        axes.set(
            xlabel="time after the force (ms)", ylabel="share of the way to rest", xscale="log"
        )
        axes.set_title("Settling after a force")
        axes.legend(loc="lower right")
        return save(figure, path)


def draw_held_out(z: Array, chi: Array, chi_ideal: Array, dof: int, path: Path) -> Figure:
    """Draw how a fitted rig predicts a recording it never saw.

    z: (readings,), residual in units of noise; chi and chi_ideal: (channels,), mean square of
    it, of the fitted and of an ideal rig.
    """
    with style():
        figure = new_figure(11.0, 4.2)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
        edges = np.linspace(-5, 5, 61)
        left.hist(np.clip(z, -5, 5), bins=edges, density=True, color=BLUE, alpha=0.7)
        left.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.5)
        left.set(xlabel="residual (noise standard deviations)", ylabel="density")
        left.set_title("Held-out residuals, and N(0, 1)")
        at = np.arange(1, len(chi) + 1)
        right.axhline(1.0, color=GREY, linewidth=0.8)
        right.axvline(dof + 0.5, color=GREY, linewidth=0.8, linestyle=":")
        right.plot(at, chi_ideal, "x", color=VERMILION, label="ideal rig")
        right.plot(at, chi, "o", color=BLUE, markersize=4, label="fitted rig")
        right.set(xlabel="channel (displacements, then elongations)", yscale="log")
        right.set_title("Mean square of the residual, by channel")
        right.legend(loc="upper right")
        return save(figure, path)
