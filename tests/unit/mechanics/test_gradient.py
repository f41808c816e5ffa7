from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MechanicsError
from hil.mechanics.factorisation import AbstractFactorisation, AbstractPlan
from hil.mechanics.geometry import Geometry, triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.types import AnyArray, Array
from tests.unit.mechanics import truth

GEOMETRIES: dict[str, Callable[[], Geometry]] = {
    "paper": lambda: triangular_lattice(4),
    "banded": lambda: triangular_lattice(8),
    "irregular": lambda: truth.irregular(5, 16),
    "space": lambda: truth.octet(3),
}
CASES = 7


class Problem:
    """A loss per load case that is smooth but not quadratic, and its derivative by hand."""

    def __init__(self, geometry: Geometry, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.network = SpringNetwork.from_geometry(geometry)
        self.k = random.uniform(80.0, 200.0, self.network.bond_count)
        self.load = random.normal(0.0, 0.05, (CASES, self.network.dof))
        scale = np.abs(self.network.settle(self.k, self.load).displacement).max()
        self.weight = random.standard_normal((CASES, self.network.dof)) / scale

    def losses(self, displacement: AnyArray) -> AnyArray:
        score = (self.weight * displacement).sum(axis=-1)
        return np.asarray(np.sin(score) + 0.3 * score**2)

    def slope(self, displacement: Array) -> Array:
        score = (self.weight * displacement).sum(axis=-1, keepdims=True)
        return np.asarray((np.cos(score) + 0.6 * score) * self.weight)

    def mean_loss(self, k: AnyArray) -> AnyArray:
        return np.asarray(self.losses(self.network.settle(k, self.load).displacement).mean())

    def gradient(self) -> Array:
        return self.network.backpropagate(self.k, self.load, self.slope).gradient

    def complex_step(self) -> Array:
        step = 1e-30  # no difference is taken, so no digit is lost
        found = np.empty(len(self.k))
        for bond in range(len(self.k)):
            k = self.k.astype(complex)
            k[bond] += 1j * step
            found[bond] = self.mean_loss(k).imag / step
        return found

    def differences(self, step: float = 1e-3) -> Array:
        found = np.empty(len(self.k))
        for bond in range(len(self.k)):
            change = np.zeros(len(self.k))
            change[bond] = step
            found[bond] = (self.mean_loss(self.k + change) - self.mean_loss(self.k - change)) / (
                2 * step
            )
        return found


def one_minus_cosine(a: Array, b: Array) -> float:
    # From the difference of unit vectors: 1 − a·b would drown in rounding at 1e-16.
    difference = a / np.linalg.norm(a) - b / np.linalg.norm(b)
    return float(difference @ difference) / 2


@pytest.fixture(params=GEOMETRIES)
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem(GEOMETRIES[request.param]())


def test_gradient_against_a_complex_step(problem: Problem) -> None:
    exact = problem.complex_step()
    found = problem.gradient()
    assert one_minus_cosine(found, exact) < 1e-20
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-11 * np.abs(exact).max())


def test_gradient_against_differences(problem: Problem) -> None:
    found, expected = problem.gradient(), problem.differences()
    assert one_minus_cosine(found, expected) <= 1e-9
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(expected), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_gradient_of_any_network(seed: int) -> None:
    problem = Problem(truth.irregular(seed, 9), seed)
    assert one_minus_cosine(problem.gradient(), problem.complex_step()) < 1e-18


def test_adjoint_is_the_equilibrium_under_minus_the_loss_gradient(problem: Problem) -> None:
    network = problem.network
    found = network.backpropagate(problem.k, problem.load, problem.slope)
    slope = problem.slope(found.forward.displacement)
    expected = network.settle(problem.k, -slope)
    np.testing.assert_allclose(found.adjoint.displacement, expected.displacement, rtol=1e-12)
    np.testing.assert_allclose(
        network.adjoint(problem.k, slope).elongation, found.adjoint.elongation, rtol=1e-12
    )
    residual = network.stiffness_matrix(problem.k) @ found.adjoint.displacement.T + slope.T
    np.testing.assert_allclose(residual, 0.0, atol=1e-9 * np.abs(slope).max())


def test_gradient_of_a_batch_is_the_mean_over_its_cases(problem: Problem) -> None:
    network = problem.network
    together = network.backpropagate(problem.k, problem.load, problem.slope)
    alone = [
        network.gradient(forward, adjoint)
        for forward, adjoint in zip(
            together.forward.elongation, together.adjoint.elongation, strict=True
        )
    ]
    np.testing.assert_allclose(together.gradient, np.mean(alone, axis=0), rtol=1e-12)


def test_one_case_without_a_batch(problem: Problem) -> None:
    weight, load = problem.weight[0], problem.load[0]
    found = problem.network.backpropagate(problem.k, load, lambda displacement: weight)
    assert found.gradient.shape == problem.k.shape
    expected = problem.network.gradient(
        problem.network.settle(problem.k, load).elongation,
        problem.network.settle(problem.k, -weight).elongation,
    )
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-10)


class Counting(AbstractPlan):
    """Counts how often a stiffness matrix is factorised."""

    def __init__(self, plan: AbstractPlan) -> None:
        self.plan, self.count = plan, 0

    def factorise(self, k: AnyArray) -> AbstractFactorisation:
        self.count += 1
        return self.plan.factorise(k)


def test_forward_adjoint_and_gradient_take_one_factorisation(problem: Problem) -> None:
    counting = Counting(problem.network._plan)
    problem.network._plan = counting
    problem.gradient()
    assert counting.count == 1
    factorisation = problem.network.factorise(problem.k)
    problem.network.backpropagate(factorisation, problem.load, problem.slope)
    assert counting.count == 2


def test_elongations_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(MechanicsError, match="one adjoint load per load case"):
        SpringNetwork.gradient(np.zeros((2, 28)), np.zeros(28))
    network = SpringNetwork.from_geometry(triangular_lattice(4))
    with pytest.raises(MechanicsError, match="one adjoint load per load case"):
        network.backpropagate(np.ones(28), np.zeros((3, 24)), lambda displacement: displacement[:1])
