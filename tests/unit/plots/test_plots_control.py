"""The pictures of a control loop show the numbers they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from hil.plots.control import draw_adaptation, draw_budget, draw_control, draw_latency
from hil.types import Array

RNG = np.random.default_rng(5)
HOPS = {
    "estimate": RNG.gamma(4.0, 10.0, 400),
    "solve": RNG.gamma(9.0, 10.0, 400),
    "write": RNG.gamma(2.0, 30.0, 400),
}


def test_the_budget_stacks_percentiles_and_marks_that_of_the_sum(tmp_path: Path) -> None:
    (axes,) = draw_budget(HOPS, tmp_path / "budget.png").axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(bars) == 9
    right = [bar.get_x() + bar.get_width() for bar in bars[6:]]
    expected = [sum(np.percentile(v, share) for v in HOPS.values()) for share in (50, 90, 99)]
    assert right == pytest.approx(expected)
    marks = np.asarray(axes.lines[0].get_xdata())
    assert marks == pytest.approx(np.percentile(sum(HOPS.values()), [50, 90, 99]))
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")


def test_states_and_input_are_drawn_as_they_were(tmp_path: Path) -> None:
    time: Array = np.linspace(0.0, 1.0, 50)
    states, inputs = RNG.normal(size=(50, 4)), RNG.normal(size=(50, 1))
    top, middle, bottom = draw_control(time, states, inputs, tmp_path / "control.png").axes
    drawn = [line.get_ydata() for axes in (top, middle, bottom) for line in axes.lines]
    for values, expected in zip(drawn, [*states.T[[0, 2, 1, 3]], inputs[:, 0]], strict=True):
        np.testing.assert_array_equal(values, expected)


def test_the_histogram_counts_every_period(tmp_path: Path) -> None:
    (axes,) = draw_latency(HOPS, tmp_path / "latency.png").axes
    heights = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert sum(heights) == 2 * 400  # of the first two hops: there are two colours


def test_every_round_of_adaptation_is_drawn_and_told_apart(tmp_path: Path) -> None:
    time, error, candidate = np.arange(5.0), RNG.uniform(0.1, 1, 5), RNG.uniform(0.1, 1, 5)
    taken = np.array([False, True, False, True, False])
    path = tmp_path / "adaptation.png"
    (axes,) = draw_adaptation(time, error, candidate, taken, path).axes
    used, rejected, accepted = axes.lines
    np.testing.assert_array_equal(used.get_ydata(), error)
    np.testing.assert_array_equal(rejected.get_ydata(), candidate[~taken])
    np.testing.assert_array_equal(accepted.get_xdata(), time[taken])
    assert path.read_bytes().startswith(b"\x89PNG")
