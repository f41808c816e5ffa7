"""The pictures of learning show the numbers they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hil.plots.learning import (
    draw_confusion,
    draw_gradient,
    draw_learning,
    draw_residual,
    draw_stiffness,
)
from hil.plots.style import DPI
from hil.types import Array

RNG = np.random.default_rng(8)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def y_of(axes: Axes, number: int) -> Array:
    return np.asarray(axes.lines[number].get_ydata(), dtype=np.float64)


@pytest.fixture
def learned(tmp_path: Path) -> tuple[Figure, Path]:
    epochs = np.arange(21)
    fall: Array = np.power(0.97, epochs, dtype=np.float64)
    rise: Array = np.multiply(0.03, epochs, dtype=np.float64)
    path = tmp_path / "plots" / "learning.png"
    figure = draw_learning(
        1.1 * fall,
        0.35 + rise,
        0.30 + rise,
        path,
        test_loss=1.2 * fall,
        first_epoch=1,
        title="Iris",
    )
    return figure, path


def test_learning_curves_are_the_data(learned: tuple[Figure, Path]) -> None:
    figure, path = learned
    loss, accuracy = figure.axes
    assert y_of(loss, 0) == pytest.approx(1.1 * 0.97 ** np.arange(21))
    assert y_of(loss, 1) == pytest.approx(1.2 * 0.97 ** np.arange(21))
    assert y_of(accuracy, 1) == pytest.approx(0.30 + 0.03 * np.arange(21))
    assert list(np.asarray(accuracy.lines[0].get_xdata())[[0, -1]]) == [1, 21]
    assert accuracy.get_xlabel() == "epoch"
    assert legend(accuracy) == ["train, 95.0% at the end", "test, 90.0%"]
    assert accuracy.get_ylim()[0] == 0.0
    assert size_of(path) == tuple((figure.get_size_inches() * DPI).astype(int))


def test_what_is_held_out_has_its_name_and_may_be_nothing(tmp_path: Path) -> None:
    loss, accuracy = np.array([2.0, 1.0]), np.array([0.4, 0.8])
    path = tmp_path / "a.png"
    figure = draw_learning(loss, accuracy, accuracy - 0.1, path, held_out="validation")
    assert legend(figure.axes[1]) == ["train, 80.0% at the end", "validation, 70.0%"]
    nothing = np.full(2, np.nan)
    figure = draw_learning(loss, accuracy, nothing, path, test_loss=nothing)
    assert legend(figure.axes[1]) == ["train, 80.0% at the end"]


def test_one_epoch_is_a_visible_point(tmp_path: Path) -> None:
    one = np.array([0.5])
    figure = draw_learning(one, one, one, tmp_path / "a.png")
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert figure.axes[0].get_xlim() == (-1.0, 1.0)


def test_confusion_shows_counts_and_shares_of_the_true_class(tmp_path: Path) -> None:
    counts = np.array([[13, 0, 0], [0, 12, 4], [0, 0, 0]])
    figure = draw_confusion(counts, ["a", "b", "c"], tmp_path / "a.png", title="test set")
    (axes,) = figure.axes
    assert axes.get_ylabel() == "true class"
    cells = {t.get_text(): t.get_position() for t in axes.texts if t.get_text() != "0"}
    assert set(cells) == {"13", "100%", "12", "75%", "4", "25%", "25 of 29 right, 86.2%"}
    column, row = cells["4"]
    assert (round(column), round(row)) == (2, 1)
    shown = np.asarray(axes.images[0].get_array())
    assert shown.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.75, 0.25], [0.0, 0.0, 0.0]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "c"]


def test_gradient_names_its_own_agreement(tmp_path: Path) -> None:
    predicted = 1e-4 * RNG.standard_normal((5, 28))
    measured = 1.02 * predicted + 2e-6 * RNG.standard_normal((5, 28))
    figure = draw_gradient(measured, predicted, tmp_path / "a.png", title="in place")
    (axes,) = figure.axes
    cosine = np.vdot(measured, predicted) / np.sqrt(
        np.vdot(measured, measured) * np.vdot(predicted, predicted)
    )
    error = np.sqrt(np.sum((measured - predicted) ** 2) / np.sum(predicted**2))
    gap, relative = texts(axes)[0].split("\n")
    mantissa, exponent = gap.removeprefix("1 − cos = ").split(" × $10^{")
    assert float(mantissa) * 10.0 ** int(exponent[:-2]) == pytest.approx(1.0 - cosine, rel=0.06)
    assert float(relative.split("= ")[1]) == pytest.approx(error, rel=0.06)
    points = axes.lines[1]
    # In micro-units, which the labels say.
    assert np.asarray(points.get_xdata()) == pytest.approx(1e6 * predicted.ravel())
    assert y_of(axes, 1) == pytest.approx(1e6 * measured.ravel())
    assert axes.get_xlabel() == "predicted ∂L/∂k ($10^{-6}$ m/N)"
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1.0


def test_gradient_of_nothing_is_said_to_be_undefined(tmp_path: Path) -> None:
    figure = draw_gradient(np.zeros(4), np.zeros(4), tmp_path / "a.png")
    assert texts(figure.axes[0]) == ["1 − cos = undefined\nrelative error = undefined"]


def test_residual_axis_is_logarithmic_only_when_it_must_be(tmp_path: Path) -> None:
    calm = np.abs(0.01 + 0.001 * RNG.standard_normal(500))
    figure = draw_residual(calm, tmp_path / "a.png", limit=0.05)
    (axes,) = figure.axes
    assert axes.get_yscale() == "linear"
    assert np.array_equal(y_of(axes, 0), calm)
    assert y_of(axes, 1)[0] == np.median(calm[:10])
    assert legend(axes) == ["measured", "median of 10", "limit"]
    broken = calm.copy()
    broken[300:] *= 100.0
    broken[0] = 0.0
    assert draw_residual(broken, tmp_path / "b.png").axes[0].get_yscale() == "log"
    assert legend(draw_residual(calm[:3], tmp_path / "c.png").axes[0]) == ["measured"]
    draw_residual(calm[:0], tmp_path / "d.png")
    assert size_of(tmp_path / "d.png") == size_of(tmp_path / "a.png")


def test_stiffness_has_one_line_per_bond_inside_the_limits(tmp_path: Path) -> None:
    k = 137.5 + np.cumsum(RNG.standard_normal((50, 28)), axis=0)
    figure = draw_stiffness(k, tmp_path / "a.png", limits=(90.0, 185.0), step="epoch")
    (axes,) = figure.axes
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    segments = np.array(lines.get_segments())
    assert np.array_equal(segments[:, :, 1], k.T)
    assert np.asarray(lines.get_array()).tolist() == k[-1].tolist()
    assert lines.get_clim() == (90.0, 185.0)
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylim()[0] < 90.0
    assert axes.get_ylim()[1] > 185.0
