"""The pictures of gyroscopes say what the arrays say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from PIL import Image

from hil.errors import RunError
from hil.mechanics.gyro_geometry import lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.plots.gyro import animate_rollout, draw_rollout
from hil.plots.gyro_charts import (
    ImperfectionPanel,
    draw_gyro_maps,
    draw_imperfection,
    draw_signals,
)
from hil.plots.gyro_rollout import Marked, Rollout
from hil.plots.style import BLUE, VERMILION
from hil.types import AnyArray, Array

RNG = np.random.default_rng(3)
STEPS = 12


def network(wrap: str = "both") -> Marked:
    geometry = lattice(4, 5, wrap=wrap)  # type: ignore[arg-type]
    return Marked(geometry, np.array([0, 10]), np.array([4, 14]))


def rollout(wrap: str = "both") -> Rollout:
    where = network(wrap)
    nudges = RNG.normal(0.0, 3.0, (STEPS, 2, 2))
    states = GyroNetwork(where.geometry).rollout(
        GyroParameters(gamma=1.0, stiffness=20.0), nudges[None], 0.05, inputs=where.inputs
    )[0]
    signal = RNG.uniform(-1.0, 1.0, (STEPS, 2))
    return Rollout(where, states, nudges, signal, 0.05)


def lines(figure: Figure, panel: int, gid: str) -> LineCollection:
    (found,) = [
        c for c in figure.axes[panel].collections
        if isinstance(c, LineCollection) and c.get_gid() == gid
    ]  # fmt: skip
    return found


def colors(path: Path) -> int:
    """Return how many colours a picture has: an empty one has few."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert found is not None
    return len(found)


def test_springs_seen_from_above_are_those_of_the_mechanics() -> None:
    """Every spring pulls along its own line: K times its elongation in the picture."""
    shown = rollout()
    q, where = shown.displacement(-1), shown.network
    inside, halves = where.segments(q)
    assert (len(inside), len(halves)) == (43, 34)  # of 60 springs, 17 are wrapped
    stretch = where.elongation(q)
    long = np.linalg.norm(inside[:, 1] - inside[:, 0], axis=1)
    np.testing.assert_allclose(long - 1.0, stretch[~where.wrapped], atol=1e-12)
    pairs = halves.reshape(-1, 2, 2, 2)
    half = np.linalg.norm(pairs[:, :, 1] - pairs[:, :, 0], axis=2)
    np.testing.assert_allclose(half.sum(axis=1) - 1.0, stretch[where.wrapped], atol=1e-12)
    # Both halves of a wrapped spring point away from their gyroscopes, in opposite directions.
    np.testing.assert_allclose(
        pairs[:, 0, 1] - pairs[:, 0, 0], pairs[:, 1, 0] - pairs[:, 1, 1], atol=1e-12
    )
    force = np.zeros_like(q)
    for spring, (near, far) in enumerate(where.geometry.springs):
        along = where.geometry.between[spring] + q[far] - q[near]
        pull = 20.0 * stretch[spring] * along / np.linalg.norm(along)
        force[near] += pull
        force[far] -= pull
    mechanics = GyroNetwork(where.geometry).spring_force(GyroParameters(stiffness=20.0), q)
    np.testing.assert_allclose(force, mechanics, atol=1e-10)


def test_a_strip_shows_each_moment_on_one_scale(tmp_path: Path) -> None:
    shown, steps = rollout(), [1, 6, 12]
    path = tmp_path / "new" / "a.png"
    figure = draw_rollout(shown, steps, path, title="The pen writes 3")
    limits = set()
    for panel, step in enumerate(steps):
        assert figure.axes[panel].get_title(loc="center") == f"t = {0.05 * step:.3g} s"
        (pen,) = [a for a in figure.axes[panel].lines if a.get_gid() == "written"]
        assert len(np.asarray(pen.get_xdata())) == step
        view = figure.axes[3 + panel]
        (nodes,) = [c for c in view.collections if isinstance(c, PathCollection)]
        q = shown.displacement(step)
        np.testing.assert_allclose(
            np.asarray(nodes.get_offsets()), shown.network.geometry.nodes + q
        )
        inside = lines(figure, 3 + panel, "springs")
        stretch = shown.network.elongation(q)[~shown.network.wrapped]
        np.testing.assert_array_equal(np.asarray(inside.get_array()), stretch)
        limits.add(inside.get_clim())
        (arrows,) = [c for c in view.collections if isinstance(c, Quiver)]
        np.testing.assert_array_equal(arrows.U, shown.nudges[step - 1, :, 0])
    ((low, high),) = limits
    assert low == -high
    assert colors(path) > 200
    assert "goes on at the other edge" in [t.get_text() for t in figure.legends[0].get_texts()]
    open_ended = draw_rollout(rollout("none"), [3], tmp_path / "b.png")
    assert len(open_ended.legends[0].get_texts()) == 3


def test_a_film_has_a_frame_per_moment_and_moves(tmp_path: Path) -> None:
    scores = RNG.dirichlet(np.ones(3), STEPS + 1)
    path = tmp_path / "new" / "a.gif"
    count = animate_rollout(rollout(), path, scores=scores, classes=("0", "1", "2"), every=4)
    with Image.open(path) as film:
        assert getattr(film, "n_frames", 1) == count == 4
        assert film.info["duration"] == 200  # ms: as fast as the network
        frames: list[AnyArray] = []
        for number in range(count):
            film.seek(number)
            frames.append(np.asarray(film.convert("L"), dtype=np.int64))
    for before, after in pairwise(frames):
        moved = (np.abs(after - before) > 40).mean()
        assert 1e-3 < moved < 0.2, "something moves, the rest stands still"


def test_signals_are_drawn_beside_the_model(tmp_path: Path) -> None:
    shown = rollout()
    read: Array = shown.states[:, shown.network.outputs] + 0.01
    figure = draw_signals(shown, tmp_path / "a.png", model=read, title="read")
    pen, nudges, x, y = figure.axes
    assert len(pen.lines) == 2
    assert len(nudges.lines) == 4
    for axes, axis in ((x, 0), (y, 1)):
        measured, model = axes.lines[2:4]
        np.testing.assert_array_equal(measured.get_ydata(), shown.states[:, 14, axis])
        np.testing.assert_array_equal(model.get_ydata(), read[:, 1, axis])
    assert (x.get_ylabel(), y.get_ylabel(), y.get_xlabel()) == (
        "x read (m)", "y read (m)", "time (s)",
    )  # fmt: skip
    legend = x.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["gyroscope 5", "gyroscope 15", "instrument", "model"]
    alone = draw_signals(shown, tmp_path / "b.png")
    assert len(alone.axes[2].lines) == 2


def test_maps_hold_every_number_where_it_belongs(tmp_path: Path) -> None:
    where = network()
    n, springs = 20, 60
    mass, length = RNG.uniform(0.5, 2.0, (2, n))
    gamma, stiffness = RNG.normal(0.0, 1.0, n), RNG.uniform(5.0, 30.0, springs)
    figure = draw_gyro_maps(where, mass, length, gamma, stiffness, tmp_path / "a.png", title="m")
    titles = [axes.get_title(loc="left") for axes in figure.axes[:4]]
    assert titles == ["mass m", "rod length L", "spin γ", "stiffness K"]
    assert [axes.get_ylabel() for axes in figure.axes[4:]] == ["kg", "m", "kg/s", "N/m"]
    for axes, values in zip(figure.axes, (mass, length, gamma), strict=False):
        (nodes,) = [c for c in axes.collections if isinstance(c, PathCollection)]
        np.testing.assert_array_equal(np.asarray(nodes.get_array()), values)
        np.testing.assert_array_equal(np.asarray(nodes.get_offsets()), where.geometry.nodes)
    assert nodes.get_clim() == (-np.abs(gamma).max(), np.abs(gamma).max()), "γ: even about 0"
    inside, halves = [c for c in figure.axes[3].collections if c.get_gid() == "springs"]
    np.testing.assert_array_equal(np.asarray(inside.get_array()), stiffness[~where.wrapped])
    np.testing.assert_array_equal(
        np.asarray(halves.get_array()), np.repeat(stiffness[where.wrapped], 2)
    )
    assert colors(tmp_path / "a.png") > 200
    same = draw_gyro_maps(
        where, np.ones(n), -length, gamma, -stiffness, tmp_path / "b.png"
    )  # negative ones, as a circuit allows
    assert same.axes[3].collections[0].get_clim() == (-stiffness.max(), stiffness.max())


def test_imperfections_have_one_colour_per_name(tmp_path: Path) -> None:
    levels = np.array([0.0, 1.0, 2.0])
    draws = np.array([[0.97, 0.95, 0.93], [0.96, 0.94, 0.89]])
    panels = [
        ImperfectionPanel("mismatch (%)", levels, {"as trained": draws, "calibrated": draws[0]}),
        ImperfectionPanel("noise (1)", levels + 1e-3, {"calibrated": draws[1]}, logarithmic=True),
    ]
    figure = draw_imperfection(panels, tmp_path / "a.png", wanted=0.95, chance=0.1, title="cost")
    left, right = figure.axes
    np.testing.assert_allclose(np.asarray(left.lines[0].get_ydata()), draws.mean(0))
    assert left.lines[1].get_color() == right.lines[0].get_color() == VERMILION
    assert left.lines[0].get_color() == BLUE
    assert (left.get_xscale(), right.get_xscale()) == ("linear", "log")
    assert [text.get_text() for text in right.texts] == ["wanted", "chance"]
    (band,) = left.collections
    ends = np.asarray(band.get_paths()[0].vertices)
    assert ends[:, 1].min() == 0.89
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["as trained", "calibrated"]


def test_a_film_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the film cannot be written"):
        animate_rollout(rollout(), tmp_path / "file" / "a.gif", every=6)
