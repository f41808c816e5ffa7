"""Bounds of linear networks against cases worked out by hand and a search of many lines."""

from __future__ import annotations

import numpy as np
import pytest

from hil.mechanics.geometry import triangular_lattice
from hil.tasks.gates import TRUTH, Gates, GatesSettings
from hil.tasks.half_adder import HalfAdder, HalfAdderSettings
from hil.tasks.linear_bound import best_line, best_slope
from hil.tasks.response import Response, ResponseSettings

CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
LATTICE = triangular_lattice(4)


@pytest.mark.parametrize(
    ("gate", "through", "anywhere"),
    [("xor", 2, 3), ("xnor", 2, 3), ("and", 3, 4), ("or", 3, 4), ("nand", 3, 4)],
)
def test_gates(gate: str, through: int, anywhere: int) -> None:
    labels = np.array(TRUTH[gate])
    assert best_line(CORNERS, labels, threshold=False) == through / 4
    assert best_line(CORNERS, labels, threshold=True) == anywhere / 4


def test_no_line_of_many_is_better() -> None:
    random = np.random.default_rng(6)
    points = random.uniform(-1.0, 1.0, (40, 2))
    labels = (points[:, 0] * points[:, 1] < 0).astype(np.int64)
    angle = np.linspace(0.0, 2 * np.pi, 721)[:, None]
    height = np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 1]  # (lines, points)
    tried = [
        ((height > cut) == (labels == 1)).mean(axis=1).max() for cut in np.linspace(-1.5, 1.5, 301)
    ]
    assert max(tried) <= best_line(points, labels, threshold=True) < max(tried) + 0.06
    assert tried[150] <= best_line(points, labels, threshold=False) < 0.75


def test_responses() -> None:
    x = np.linspace(-1.0, 1.0, 9)
    assert best_slope(x, x**2) == pytest.approx(1.0)
    assert best_slope(x, 3 * x) == pytest.approx(0.0, abs=1e-15)
    assert best_slope(x, x + x**2) == pytest.approx(0.652, abs=5e-4)


def test_figures_say_margin_and_bound() -> None:
    for task in (
        Gates(GatesSettings(), geometry=LATTICE),
        HalfAdder(HalfAdderSettings(), geometry=LATTICE),
    ):
        u = np.zeros((4, 24))
        for bit, channel in enumerate(task.data.outputs):
            wanted = 2.0 * task.data.bits[task.train, bit] - 1.0
            u[:, channel.dof] = channel.sign * wanted * 1e-3 * (1 + np.arange(4))
        found = task.figures(u, task.train)
        assert found["margin_m"] == pytest.approx(1e-3)
        assert found["bits_right"] == found["bits"] == 4 * len(task.outputs)
        assert task.score(u, task.train).tolist() == [1.0] * 4
        assert np.array_equal(task.predict(u), task.labels(task.train))
        u[2] *= -1
        assert task.figures(u, task.train)["margin_m"] == pytest.approx(-3e-3)
    assert found["linear_bound"] == 5 / 8


def test_a_response_is_judged_by_its_error() -> None:
    task = Response(ResponseSettings(coefficients=(0.0, 3e-4)), geometry=LATTICE)
    dof = LATTICE.dof(10, 1)
    u = np.zeros((9, 24))
    u[:, dof] = 3e-4 * np.linspace(-1.0, 1.0, 9) ** 2
    assert task.figures(u, task.train)["nrmse"] == pytest.approx(0.0, abs=1e-12)
    assert task.figures(0 * u, task.train)["nrmse"] == pytest.approx(1.0)
    assert task.loss(0 * u, task.train)[0] == pytest.approx(0.5 * 3.0**2)
