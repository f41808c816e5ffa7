"""The bounded stiffness: its range, its slope, its inverse, its end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil.training.bounded import BoundedStiffness

WIDE = BoundedStiffness(89.375, 185.625, 10.0)
HELD = BoundedStiffness(89.375, 185.625, 10.0, saturation=5.0)


@given(st.floats(-1e6, 1e6))
def test_no_variable_leaves_the_bounds(variable: float) -> None:
    assert 89.375 <= WIDE.stiffness(np.array([variable]))[0] <= 185.625


@given(st.floats(-1.0, 1.0))
def test_stiffness_is_the_logistic_function(variable: float) -> None:
    expected = 89.375 + 96.25 / (1.0 + np.exp(-10.0 * variable))
    assert WIDE.stiffness(np.array([variable]))[0] == pytest.approx(expected, rel=1e-14)


def test_zero_is_midway() -> None:
    assert WIDE.stiffness(np.zeros(1))[0] == 137.5
    assert WIDE.variable(np.array([137.5]))[0] == 0.0


@given(st.floats(-1.0, 1.0))
def test_derivative_is_a_central_difference(variable: float) -> None:
    h = 1e-5
    up, down = (WIDE.stiffness(np.array([variable + d]))[0] for d in (h, -h))
    found = WIDE.derivative(WIDE.stiffness(np.array([variable])))[0]
    assert found == pytest.approx((up - down) / (2 * h), rel=1e-5)


@given(st.floats(90.0, 185.0))
def test_variable_is_the_inverse(stiffness: float) -> None:
    back = WIDE.stiffness(WIDE.variable(np.array([stiffness])))[0]
    assert back == pytest.approx(stiffness, rel=1e-13)


def test_outside_the_bounds_all_is_finite() -> None:
    outside = np.array([0.0, 89.375, 185.625, 1e9])
    assert np.isfinite(WIDE.variable(outside)).all()
    assert not WIDE.derivative(outside).any()


def test_saturation_ends_the_variable() -> None:
    assert HELD.clip(np.array([-2.0, 0.1, 2.0])).tolist() == [-0.5, 0.1, 0.5]
    assert HELD.variable(np.array([0.0, 1e9])).tolist() == [-0.5, 0.5]
    assert (HELD.derivative(HELD.stiffness(np.array([-0.5, 0.5]))) > 1.0).all()
    assert WIDE.clip(np.array([-20.0])).tolist() == [-20.0]
