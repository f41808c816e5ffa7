"""How far measured gradients are from the exact one, over what was chosen to measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hil.plots.style import BLUE, GREEN, GREY, VERMILION, head, new_figure, save, style

COLOURS = (VERMILION, GREEN, BLUE, GREY)
AXES = {"N": "largest force of an adjoint load (N)", "N/m": "step of stiffness (N/m)"}
Curve = tuple[str, Sequence[float], Sequence[float]]


def draw_gradients(curves: Mapping[str, Curve], path: Path, *, title: str) -> Figure:
    """Draw relative errors over sizes, a panel per unit, and save as PNG.

    curves: name → unit of the sizes, sizes, relative errors. Raises RunError when the file
    cannot be written.
    """
    units = list(dict.fromkeys(unit for unit, _, _ in curves.values()))
    with style():
        figure = new_figure(5.6 * len(units), 4.6)
        panels = figure.subplots(1, len(units), sharey=True, squeeze=False)[0]
        for axes, unit in zip(panels, units, strict=True):
            shown = [(name, c) for name, c in curves.items() if c[0] == unit]
            for at, (name, (_, sizes, errors)) in enumerate(shown):
                axes.loglog(
                    sizes, errors, marker="o", color=COLOURS[at % 4], markersize=4, label=name,
                    linestyle="-" if at < 4 else "--",
                )  # fmt: skip
            axes.set_xlabel(AXES[unit])
            axes.legend(fontsize=9)
        panels[0].set_ylabel("|measured − exact| / |exact|")
        head(figure, title)
        return save(figure, path)
