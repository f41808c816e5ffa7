from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import MechanicsError
from hil.mechanics.geometry import Geometry, read_geometry, triangular_lattice, write_geometry
from hil.mechanics.spring_network import Equilibrium, SpringNetwork
from hil.types import AnyArray, Array
from tests.unit.mechanics import truth

GEOMETRIES: dict[str, Callable[[], Geometry]] = {
    "paper": lambda: triangular_lattice(4),
    "two rows": lambda: triangular_lattice(2),
    "banded": lambda: triangular_lattice(8),
    "sparse": lambda: triangular_lattice(17),
    "irregular": lambda: truth.irregular(3),
    "irregular, banded": lambda: truth.irregular(4, 60),
    "space": lambda: truth.octet(3),
    "space, banded": lambda: truth.octet(5),
}
SEEDS = st.integers(0, 2**32 - 1)
EASY = settings(max_examples=30, deadline=None)


@pytest.fixture(params=GEOMETRIES, scope="module")
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return GEOMETRIES[request.param]()


@pytest.fixture(scope="module")
def network(geometry: Geometry) -> SpringNetwork:
    return SpringNetwork.from_geometry(geometry)


def draw(network: SpringNetwork, seed: int, batch: int = 5) -> tuple[Array, Array]:
    """Return stiffness in N/m and loads in N."""
    random = np.random.default_rng(seed)
    k = random.uniform(50.0, 250.0, network.bond_count)
    return k, random.normal(0.0, 0.05, (batch, network.dof))


def test_by_hand() -> None:
    nodes = np.array([(0.0, 0.0), (2.0, 0.0), (1.0, 1.0)])
    bonds = np.array([(0, 2), (1, 2)])
    found = SpringNetwork(nodes, bonds, (0, 1)).settle(
        np.array([100.0, 100.0]), np.array([0.0, -1.0])
    )
    # Two springs at 45°: each carries 1/√2 N, and D is 100 N/m along either axis.
    assert isinstance(found, Equilibrium)
    np.testing.assert_allclose(found.displacement, (0.0, -0.01), atol=1e-15)
    np.testing.assert_allclose(found.elongation, (-0.01 / np.sqrt(2),) * 2)


def test_springs_in_series() -> None:
    k = np.array([10.0, 20.0, 40.0])
    chain = SpringNetwork(np.arange(4.0)[:, None], np.array([(0, 1), (1, 2), (2, 3)]), (0,))
    found = chain.settle(k, np.array([0.0, 0.0, 2.0]))
    np.testing.assert_allclose(found.elongation, 2.0 / k)
    np.testing.assert_allclose(found.displacement, np.cumsum(2.0 / k))
    assert chain.self_stresses == 0


def test_facts_of_the_paper_lattice() -> None:
    network = SpringNetwork.from_geometry(triangular_lattice(4))
    assert (network.dof, network.bond_count) == (24, 28)
    assert network.compat.shape == (28, 24)
    assert network.zero_modes() == 0
    assert network.self_stresses == 4
    assert np.linalg.matrix_rank(truth.compatibility(triangular_lattice(4))) == 24


def test_compatibility_is_the_change_of_length(geometry: Geometry, network: SpringNetwork) -> None:
    small = 1e-9 * np.random.default_rng(0).standard_normal(network.dof)
    shift = np.zeros(geometry.nodes.size)
    shift[geometry.free_dofs] = small

    def lengths(nodes: Array) -> Array:
        span = nodes[geometry.bonds[:, 1]] - nodes[geometry.bonds[:, 0]]
        return np.asarray(np.sqrt((span**2).sum(axis=1)))

    change = lengths(geometry.nodes + shift.reshape(geometry.nodes.shape)) - lengths(geometry.nodes)
    np.testing.assert_allclose(network.compat @ small, change, atol=1e-15)


def test_agrees_with_a_full_solve(geometry: Geometry, network: SpringNetwork) -> None:
    k, load = draw(network, 1)
    displacement, elongation = truth.settle(geometry, k, load)
    found = network.settle(k, load)
    np.testing.assert_allclose(found.displacement, displacement, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.elongation, elongation, rtol=1e-9, atol=1e-12)


def test_stiffness_matrix(geometry: Geometry, network: SpringNetwork) -> None:
    k, _ = draw(network, 2)
    matrix = network.stiffness_matrix(k)
    full = matrix if isinstance(matrix, np.ndarray) else matrix.toarray()
    np.testing.assert_allclose(full, truth.stiffness(geometry, k), rtol=1e-12, atol=1e-10)


def test_a_large_network_keeps_no_full_matrix() -> None:
    network = SpringNetwork.from_geometry(triangular_lattice(17))
    k, _ = draw(network, 0)
    assert network.compat.nnz < 4 * network.bond_count + 1
    assert network.stiffness_matrix(k).nnz < 16 * network.dof


def test_complex_stiffness_and_load(geometry: Geometry, network: SpringNetwork) -> None:
    k, load = draw(network, 3)
    k_complex, load_complex = k * (1 + 0.1j), load * (1 - 0.3j)
    for stiffness, force in [(k_complex, load), (k, load_complex), (k_complex, load_complex)]:
        expected, elongation = truth.settle(
            geometry, stiffness.astype(complex), force.astype(complex)
        )
        found = network.settle(stiffness, force)
        np.testing.assert_allclose(found.displacement, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.elongation, elongation, rtol=1e-9, atol=1e-12)


def test_a_batch_is_its_cases_one_by_one(network: SpringNetwork) -> None:
    k, load = draw(network, 4)
    together = network.settle(k, load)
    for case, displacement, elongation in zip(load, *together, strict=True):
        alone = network.settle(k, case)
        assert alone.displacement.shape == (network.dof,)
        assert alone.elongation.shape == (network.bond_count,)
        np.testing.assert_allclose(alone.displacement, displacement, rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(alone.elongation, elongation, rtol=1e-10, atol=1e-15)


def test_one_factorisation_serves_many_loads(network: SpringNetwork) -> None:
    k, load = draw(network, 5)
    factorisation = network.factorise(k)
    for _ in range(2):  # solving must not wear it out
        found = network.settle(factorisation, load)
        np.testing.assert_array_equal(found.displacement, network.settle(k, load).displacement)


def test_arguments_stay_as_they_were(network: SpringNetwork) -> None:
    k, load = draw(network, 6)
    before = k.copy(), load.copy()
    network.backpropagate(k, load, lambda displacement: displacement)
    np.testing.assert_array_equal(k, before[0])
    np.testing.assert_array_equal(load, before[1])


@pytest.mark.parametrize("loaded", [1, 3])
def test_loads_on_few_degrees_of_freedom(network: SpringNetwork, loaded: int) -> None:
    k, load = draw(network, 7, batch=8)
    load[:, loaded:] = 0.0
    found = network.settle(k, load)
    residual = network.stiffness_matrix(k) @ found.displacement.T - load.T
    np.testing.assert_allclose(residual, 0.0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_loads_of_other_types_are_computed_in_float64(
    network: SpringNetwork, dtype: type[np.generic]
) -> None:
    k, _ = draw(network, 8)
    load = np.zeros((2, network.dof), dtype=dtype)
    load[0, 0], load[1, -1] = 1, -2
    for cases in (load, load[:1], load[0]):
        found = network.settle(k, cases).displacement
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, network.settle(k, cases.astype(float)).displacement)


def test_no_load_and_no_case(network: SpringNetwork) -> None:
    k, _ = draw(network, 9)
    assert not network.settle(k, np.zeros((3, network.dof))).displacement.any()
    assert network.settle(k, np.zeros((0, network.dof))).elongation.shape == (0, network.bond_count)


def test_shapes_that_do_not_fit_are_refused() -> None:
    network = SpringNetwork.from_geometry(triangular_lattice(4))
    k = np.ones(28)
    loads: list[AnyArray] = [np.zeros(23), np.zeros((2, 28)), np.zeros((1, 2, 24)), np.zeros(())]
    for load in loads:
        with pytest.raises(MechanicsError, match=r"expected \(24,\) or \(batch, 24\)"):
            network.settle(k, load)
    stiffnesses: list[AnyArray] = [np.ones(27), np.ones((1, 28)), np.ones(())]
    for stiffness in stiffnesses:
        with pytest.raises(MechanicsError, match=r"stiffness has shape .* expected \(28,\)"):
            network.settle(stiffness, np.zeros(24))


def test_an_irregular_network_from_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    geometry = truth.irregular(11, 20)
    path = tmp_path_factory.mktemp("geometry") / "net.toml"
    write_geometry(geometry, path)
    network = SpringNetwork.from_geometry(read_geometry(path))
    k, load = draw(network, 10)
    np.testing.assert_allclose(
        network.settle(k, load).displacement, truth.settle(geometry, k, load)[0], rtol=1e-9
    )


@EASY
@given(SEEDS)
def test_the_work_of_the_load_is_the_energy_of_the_springs(seed: int) -> None:
    network = SpringNetwork.from_geometry(truth.irregular(seed))
    k, load = draw(network, seed)
    found = network.settle(k, load)
    work = 0.5 * (load * found.displacement).sum(axis=1)
    energy = 0.5 * (k * found.elongation**2).sum(axis=1)
    np.testing.assert_allclose(work, energy, rtol=1e-9)


@EASY
@given(SEEDS)
def test_reciprocity(seed: int) -> None:
    """Maxwell–Betti: load A does the same work along B's displacement as B along A's."""
    network = SpringNetwork.from_geometry(truth.irregular(seed))
    k, load = draw(network, seed, batch=4)
    work = load @ network.settle(k, load).displacement.T
    np.testing.assert_allclose(work, work.T, rtol=1e-9, atol=1e-12)


@EASY
@given(SEEDS, st.floats(1e-3, 1e3), st.floats(-10.0, 10.0))
def test_linear_in_load_and_inverse_in_stiffness(seed: int, stiffer: float, more: float) -> None:
    network = SpringNetwork.from_geometry(truth.irregular(seed))
    k, load = draw(network, seed)
    once = network.settle(k, load).displacement
    scaled = network.settle(stiffer * k, more * load).displacement
    np.testing.assert_allclose(scaled, more / stiffer * once, rtol=1e-8, atol=1e-12)


@EASY
@given(SEEDS)
def test_forces_of_the_springs_balance_the_load(seed: int) -> None:
    geometry = truth.irregular(seed)
    network = SpringNetwork.from_geometry(geometry)
    k, load = draw(network, seed)
    tension = k * network.settle(k, load).elongation
    np.testing.assert_allclose(tension @ truth.compatibility(geometry), load, atol=1e-10)
