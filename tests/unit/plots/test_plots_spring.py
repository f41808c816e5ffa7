"""Pictures of damage, of growth and of the bench say what the numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from hil.mechanics.geometry import triangular_lattice
from hil.plots.growth import draw_growth
from hil.plots.network import KIND_COLORS, draw_bond_kinds
from hil.plots.spring_bench import Bar, draw_spring_bench
from hil.plots.style import FAINT


def test_every_bond_has_the_colour_of_its_kind(tmp_path: Path) -> None:
    geometry, order = triangular_lattice(4), ("loose", "needed", "spare")
    kinds = {0: "loose", 1: "needed", 27: "spare"}
    figure = draw_bond_kinds(
        geometry.nodes, geometry.bonds, kinds, tmp_path / "kinds.png",
        order=order, labels={1: "0.5"}, fixed=geometry.fixed, inputs=[3], outputs=[7],
    )  # fmt: skip
    (axes,) = figure.axes
    (lines,) = [
        c for c in axes.collections if isinstance(c, LineCollection) and c.get_gid() == "bonds"
    ]
    colors = np.asarray(lines.get_colors())
    assert np.allclose(colors[[0, 1, 27]], [to_rgba(c) for c in KIND_COLORS[:3]])
    assert np.allclose(colors[2:27], to_rgba(FAINT))
    middle = geometry.nodes[geometry.bonds[1]].mean(axis=0)
    (label,) = [text for text in axes.texts if text.get_text() == "0.5"]
    assert np.allclose(label.xy, middle)  # type: ignore[attr-defined]
    assert (tmp_path / "kinds.png").stat().st_size > 10_000


def test_growth_is_drawn_as_measured(tmp_path: Path) -> None:
    size = np.array([10.0, 100.0, 1000.0])
    figure = draw_growth({"one": (size, 1e-6 * size**1.5)}, tmp_path / "growth.png")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert np.allclose(axes.lines[0].get_xdata(), size)
    assert np.allclose(axes.lines[0].get_ydata(), 1e-6 * size**1.5)


def test_seeds_means_and_published_figures_are_all_there(tmp_path: Path) -> None:
    seeds = {"wide": np.array([0.9, 0.94, 0.98]), "published": np.array([0.8, 0.7, 0.6])}
    losses = {"wide": np.array([1e-9, 2e-9]), "published": np.array([])}
    panels = {
        "accuracy": [Bar("Iris", seeds, paper=0.964, wanted=0.93)],
        "loss": [Bar("regression", losses)],
    }
    figure = draw_spring_bench(panels, tmp_path / "spring.png", title="All")
    accuracy, loss = figure.axes
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in accuracy.lines]
    for values in (seeds["wide"], seeds["published"], [0.94, 0.94], [0.7, 0.7], [0.964]):
        assert any(d.shape == np.shape(values) and np.allclose(d, values) for d in drawn)
    assert loss.get_yscale() == "log"
    assert len(loss.lines) == 2  # what was not measured is not drawn
