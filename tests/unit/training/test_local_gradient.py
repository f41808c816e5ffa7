"""The gradient measured in place against differences and a complex step of dense statics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.training.gradients.separate import local_gradient
from hil.types import Array, IntArray
from tests.unit.training.parts import ExactRig, Parts, parts

P = parts(seed=1)
BATCH = P.task.train[:16]
STIFFNESS = np.random.default_rng(7).uniform(100.0, 175.0, P.network.bond_count)


def mean_loss(p: Parts, k: Any, batch: IntArray) -> Any:
    """Return −log(|u_right| / Σ|u|), mean over samples, by a dense solve; k may be complex."""
    compat = p.network.compat
    u = np.linalg.solve(compat.T @ (k[:, None] * compat), p.task.loads(batch).T.astype(k.dtype)).T
    read = [p.network.geometry.dof(node, 0) for node in p.task.outputs]
    size = u[:, read] * np.sign(u[:, read].real)  # |u|, analytic in k
    right = size[np.arange(len(batch)), p.task.labels(batch)]
    return -np.log(right / size.sum(1)).mean()


def one_minus_cosine(a: Array, b: Array) -> float:
    return 1.0 - float(a @ b / np.sqrt((a @ a) * (b @ b)))


def measured_on_the_ideal_double(force: float = 0.12) -> Array:
    rig = P.rig(ideal=True)
    applied = rig.set_stiffness(STIFFNESS)
    assert np.array_equal(applied, STIFFNESS)
    return local_gradient(rig.settle, P.task, BATCH, force).gradient


def test_it_is_a_complex_step() -> None:
    step, expected = 1e-20, np.zeros(len(STIFFNESS))
    for bond in range(len(STIFFNESS)):
        k = STIFFNESS.astype(complex)
        k[bond] += 1j * step
        expected[bond] = mean_loss(P, k, BATCH).imag / step
    gradient = measured_on_the_ideal_double()
    assert one_minus_cosine(gradient, expected) < 1e-12
    assert np.allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_it_is_a_central_difference() -> None:
    step, expected = 1e-3, np.zeros(len(STIFFNESS))
    for bond in range(len(STIFFNESS)):
        up, down = STIFFNESS.copy(), STIFFNESS.copy()
        up[bond] += step
        down[bond] -= step
        expected[bond] = (mean_loss(P, up, BATCH) - mean_loss(P, down, BATCH)) / (2 * step)
    assert one_minus_cosine(measured_on_the_ideal_double(), expected) < 1e-9


@pytest.mark.parametrize("force", [1e-4, 0.2])
def test_the_adjoint_force_is_scaled_back(force: float) -> None:
    exact = ExactRig(P.network)
    exact.set_stiffness(STIFFNESS)
    gradient = local_gradient(exact.settle, P.task, BATCH, force).gradient
    assert np.allclose(gradient, measured_on_the_ideal_double(), rtol=1e-9, atol=1e-13)


def test_every_adjoint_case_uses_the_force_it_may() -> None:
    seen: list[Array] = []
    exact = ExactRig(P.network)

    def settle(loads: Array) -> Any:
        seen.append(loads)
        return exact.settle(loads)

    local_gradient(settle, P.task, BATCH, 0.05)
    assert np.allclose(np.abs(seen[1]).max(axis=1), 0.05, rtol=1e-15)


class Indifferent:
    """A task some or all of whose samples have no gradient."""

    def __init__(self, deaf: slice) -> None:
        self.deaf = deaf

    def __getattr__(self, name: str) -> Any:
        return getattr(P.task, name)

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        loads = P.task.adjoint_loads(displacement, batch)
        loads[self.deaf] = 0.0
        return loads


def test_samples_without_a_gradient_add_nothing() -> None:
    rig: Any = ExactRig(P.network)
    task: Any = Indifferent(slice(0, 4))
    found = local_gradient(rig.settle, task, BATCH, 0.1)
    others = local_gradient(rig.settle, P.task, BATCH[4:], 0.1)
    assert not found.products[:4].any()
    assert np.allclose(found.gradient * 16 / 12, others.gradient, rtol=1e-12)


def test_no_gradient_at_all_is_not_measured() -> None:
    rig: Any = ExactRig(P.network)
    task: Any = Indifferent(slice(None))
    found = local_gradient(rig.settle, task, BATCH, 0.1)
    assert found.adjoint is None
    assert not found.gradient.any()
    assert rig.settled == len(BATCH)
