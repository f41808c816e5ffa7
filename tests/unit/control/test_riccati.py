"""The recursion against one dense solve of the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest

from hil.control.riccati import Cost, Stages, factor, feedforward, unbounded
from hil.types import Array


def dense(stages: Stages, cost: Cost, horizon: int, start: Array, target: Array) -> Array:
    """Return (x_1 … x_N, u_0 … u_{N−1}) from the KKT system, dense."""
    nx, nu = stages.b.shape[1:]
    n = horizon * (nx + nu)
    hessian, pull = np.zeros((n, n)), np.zeros(n)
    rows, right = np.zeros((horizon * nx, n)), np.zeros(horizon * nx)
    for k in range(horizon):
        s = min(k, len(stages.a) - 1)
        x, u = (
            slice(k * nx, (k + 1) * nx),
            slice(horizon * nx + k * nu, horizon * nx + (k + 1) * nu),
        )
        weight = cost.end if k == horizon - 1 else cost.q
        hessian[x, x], hessian[u, u] = weight, cost.r
        pull[x] = weight @ target
        rows[x, x], rows[x, u] = np.eye(nx), -stages.b[s]
        right[x] = stages.c[s]
        if k:
            rows[x, (k - 1) * nx : k * nx] = -stages.a[s]
        else:
            right[x] += stages.a[s] @ start
    if cost.pinned:
        pin = np.zeros((nx, n))
        pin[:, (horizon - 1) * nx : horizon * nx] = np.eye(nx)
        rows, right = np.vstack([rows, pin]), np.concatenate([right, target])
    kkt = np.block([[hessian, rows.T], [rows, np.zeros((len(rows), len(rows)))]])
    found: Array = np.linalg.solve(kkt, np.concatenate([pull, right]))[:n]
    return found


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("varying", [True, False])
@pytest.mark.parametrize(("nx", "nu"), [(4, 1), (4, 2), (6, 3)])
def test_plan_equals_a_dense_solve(nx: int, nu: int, varying: bool, pinned: bool) -> None:
    random = np.random.default_rng(nx + nu)
    horizon = 12
    count = horizon if varying else 1
    stages = Stages(
        np.eye(nx) + 0.2 * random.normal(size=(count, nx, nx)),
        random.normal(size=(count, nx, nu)),
        random.normal(size=(count, nx)),
    )
    root = random.normal(size=(nx, nx))
    weight = random.normal(size=(nu, nu))
    cost = Cost(np.eye(nx) + root @ root.T, np.eye(nu) + weight @ weight.T, 3 * np.eye(nx), pinned)
    start, target = random.normal(size=nx), random.normal(size=nx)
    factors = factor(stages, cost, horizon)
    push = feedforward(factors, stages, cost, target)
    plan = unbounded(factors, stages, cost, push, start, target)
    truth = dense(stages, cost, horizon, start, target)
    np.testing.assert_allclose(plan.states[1:].ravel(), truth[: horizon * nx], atol=1e-9)
    np.testing.assert_allclose(plan.inputs.ravel(), truth[horizon * nx :], atol=1e-9)
    if pinned:
        np.testing.assert_allclose(plan.states[-1], target, atol=1e-11)


def test_pinned_end_out_of_reach_gives_no_numbers() -> None:
    """Two periods of one input cannot place four states."""
    random = np.random.default_rng(1)
    stages = Stages(np.eye(4)[None] + 0.1, random.normal(size=(1, 4, 1)), np.zeros((1, 4)))
    cost = Cost(np.eye(4), np.eye(1), np.eye(4), True)
    factors = factor(stages, cost, 2)
    push = feedforward(factors, stages, cost, np.zeros(4))
    plan = unbounded(factors, stages, cost, push, np.ones(4), np.zeros(4))
    assert not np.abs(plan.states[-1]).max() < 1e-6
