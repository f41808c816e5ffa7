"""The picture of a network says what the arrays say."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hil.errors import RunError
from hil.plots.network import Mark, draw_network
from hil.plots.style import DPI
from hil.types import Array, IntArray


def lattice(rows: int = 4, spacing: float = 0.016) -> tuple[Array, IntArray]:
    """Return a triangle of nodes and the bonds between neighbours."""
    nodes = np.array(
        [
            (spacing * (column + row / 2), -spacing * row * np.sqrt(0.75))
            for row in range(rows)
            for column in range(rows + 1 - row)
        ]
    )
    gaps = np.linalg.norm(nodes[:, None] - nodes[None], axis=2)
    return nodes, np.argwhere(np.triu(np.isclose(gaps, spacing)))


NODES, BONDS = lattice()
STIFFNESS = np.random.default_rng(5).uniform(90.0, 185.0, len(BONDS))


def collections(axes: Axes, gid: str) -> list[LineCollection]:
    return [c for c in axes.collections if isinstance(c, LineCollection) and c.get_gid() == gid]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def png_chunks(path: Path) -> dict[bytes, bytes]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def test_the_lattice_is_the_paper_s() -> None:
    assert (len(NODES), len(BONDS)) == (14, 28)


def test_one_segment_per_bond_where_the_bond_is(tmp_path: Path) -> None:
    figure = draw_network(NODES, BONDS, STIFFNESS, tmp_path / "new" / "a.png")
    (lines,) = collections(figure.axes[0], "bonds")
    segments = np.array(lines.get_segments())
    assert np.array_equal(segments, NODES[BONDS])
    assert figure.axes[0].get_aspect() == 1.0


def test_stiffer_is_darker_and_wider(tmp_path: Path) -> None:
    figure = draw_network(NODES, BONDS, STIFFNESS, tmp_path / "a.png")
    (lines,) = collections(figure.axes[0], "bonds")
    order = np.argsort(STIFFNESS)
    # Relative luminance of sRGB, ITU-R BT.709 weights.
    luminance = np.asarray(lines.get_colors())[order, :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) <= 1e-3)
    assert luminance[0] > 5 * luminance[-1]
    widths = np.asarray(lines.get_linewidth())[order]
    assert np.all(np.diff(widths) > 0.0)


def test_nodes_are_numbered_from_one_and_marks_are_named(tmp_path: Path) -> None:
    inputs = [Mark(13, "sepal length", (0, -1)), Mark(9, "petal width", (0, -1))]
    outputs = [Mark(7, "setosa", (1, 0)), Mark(1, "versicolor", (0, 1))]
    figure = draw_network(
        NODES,
        BONDS,
        STIFFNESS,
        tmp_path / "a.png",
        fixed=[0, 4],
        inputs=inputs,
        outputs=outputs,
        title="Iris",
    )
    axes = figure.axes[0]
    at = {text.get_text(): text.get_position() for text in axes.texts}
    for number in range(1, 15):
        assert at[str(number)] == pytest.approx(tuple(NODES[number - 1]))
    assert {"sepal length", "petal width", "setosa", "versicolor", "16 mm"} <= set(at)
    assert at["sepal length"][1] < NODES[13, 1] - 0.3 * 0.016, "the force points down"
    assert len(collections(axes, "support")) == 2
    assert axes.get_title(loc="left") == "Iris"
    assert figure.axes[-1].get_ylabel() == "stiffness (N/m)"
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["force applied", "motion read"]


def test_before_and_after_share_one_colour_scale(tmp_path: Path) -> None:
    before = np.full(len(BONDS), 60.0)
    figure = draw_network(NODES, BONDS, STIFFNESS, tmp_path / "a.png", before=before)
    left, right = (collections(axes, "bonds")[0] for axes in figure.axes[:2])
    assert left.get_clim() == right.get_clim() == (60.0, STIFFNESS.max())
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["before", "after"]
    figure = draw_network(NODES, BONDS, STIFFNESS, tmp_path / "b.png", limits=(50.0, 200.0))
    assert collections(figure.axes[0], "bonds")[0].get_clim() == (50.0, 200.0)


def test_equal_stiffness_lies_in_the_middle_of_the_scale(tmp_path: Path) -> None:
    figure = draw_network(NODES, BONDS, np.full(len(BONDS), 137.5), tmp_path / "a.png")
    low, high = collections(figure.axes[0], "bonds")[0].get_clim()
    assert low is not None
    assert high is not None
    assert low + high == pytest.approx(2 * 137.5)


def test_a_large_network_drops_the_numbers(tmp_path: Path) -> None:
    nodes, bonds = lattice(24)
    figure = draw_network(nodes, bonds, np.ones(len(bonds)), tmp_path / "a.png", fixed=[0, 24])
    assert texts(figure) == ["16 mm"]
    assert len(collections(figure.axes[0], "bonds")[0].get_segments()) == len(bonds)


def test_the_png_has_its_size_and_says_nothing_of_when_or_who(tmp_path: Path) -> None:
    figure = draw_network(NODES, BONDS, STIFFNESS, tmp_path / "a.png", fixed=[0, 4])
    draw_network(NODES, BONDS, STIFFNESS, tmp_path / "b.png", fixed=[0, 4])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    chunks = png_chunks(tmp_path / "a.png")
    assert set(chunks) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
    size = struct.unpack_from(">II", chunks[b"IHDR"])
    assert size == tuple((figure.get_size_inches() * DPI).astype(int))


def test_the_user_s_settings_neither_matter_nor_change(tmp_path: Path) -> None:
    draw_network(NODES, BONDS, STIFFNESS, tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black"}):
        draw_network(NODES, BONDS, STIFFNESS, tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30.0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_global_figure_state_is_loaded() -> None:
    parts = "network, hil.plots.learning, hil.plots.gyro_charts"
    code = f"import hil.plots.{parts}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.split()
    assert "matplotlib.figure" in loaded
    assert "matplotlib.pyplot" not in loaded


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the picture cannot be written"):
        draw_network(NODES, BONDS, STIFFNESS, tmp_path / "file" / "a.png")
