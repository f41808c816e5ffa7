"""Periods of a model against differences of its own steps and against the exponential."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from hil.control.discretise import advance, linearised, step_slopes
from hil.models.analytic import CartPoleModel
from tests.unit.control.loops import LinearDynamics


@pytest.mark.parametrize("order", [1, 4])
def test_slopes_of_a_step_are_its_differences(order: int) -> None:
    model, dt, h = CartPoleModel(), 0.05, 1e-6
    x, u = np.array([0.7, 0.2, -1.1, 0.4]), np.array([3.0])
    a, b, c = (part[0] for part in step_slopes(model, x[None], u[None], dt, order))
    np.testing.assert_allclose(a @ x + b @ u + c, advance(model, x, u, dt, order), atol=1e-13)
    for i in range(4):
        e = h * np.eye(4)[i]
        ahead, behind = (advance(model, x + s * e, u, dt, order) for s in (1, -1))
        np.testing.assert_allclose(a[:, i], (ahead - behind) / (2 * h), atol=1e-8)
    ahead, behind = (advance(model, x, u + s * h, dt, order) for s in (1, -1))
    np.testing.assert_allclose(b[:, 0], (ahead - behind) / (2 * h), atol=1e-8)


@pytest.mark.parametrize(("order", "error"), [(1, 0.1), (4, 2e-4)])
def test_linear_period_approaches_the_exponential(order: int, error: float) -> None:
    by_state = np.array([[39.24, 0, 0, 0], [-9.81, 0, 0, 0]])
    model = LinearDynamics(by_state, np.array([[-2.0], [1.0]]), np.array([0.5, -0.3]))
    full = np.zeros((6, 6))
    full[:2, 2:4] = np.eye(2)
    full[2:4, :4], full[2:4, 4], full[2:4, 5] = by_state, [-2.0, 1.0], [0.5, -0.3]
    exact = expm(0.05 * full)
    x, u = np.array([0.3, -0.1, 0.2, 0.5]), np.array([1.5])
    a, b, c = linearised(model, x, u, 0.05, order)
    found = np.column_stack([a[0], b[0], c[0]])
    np.testing.assert_allclose(found, exact[:4], atol=error)
    np.testing.assert_allclose(  # an affine model has one period, wherever it is linearised
        a[0] @ x + b[0] @ u + c[0], advance(model, x, u, 0.05, order), atol=1e-14
    )
