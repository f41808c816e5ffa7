"""What every model keeps; a new file in `hil/models` is picked up by itself.

A model that can be made without arguments needs nothing here; another adds one line to
`MAKE`: any instance will do, trained or not.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hil.models
from hil.models.base import AbstractDynamics, Linearisation
from hil.models.dictionary import DictionaryModel, DictionarySettings, DictionaryWeights, terms
from hil.models.ensemble import EnsembleModel
from hil.models.fnode import Domain, FnodeModel, FnodeSettings, FnodeWeights, layout
from hil.models.hnn import HnnModel
from hil.models.lagrangian import LagrangianModel
from hil.models.lagrangian_weights import LagrangianSettings
from hil.models.linear import LinearModel
from hil.models.lnn import LnnModel
from hil.models.mechanical import MechanicalModel, MechanicalWeights, term_count
from hil.models.scalar_network import ScalarNetwork
from hil.models.store import save
from hil.models.stored import StoredModel, StoredModelSettings
from hil.models.symo import SymoModel
from hil.training.lagrangian_network import LagrangianNetwork, Triples
from hil.types import Array


def untrained_fnode() -> FnodeModel:
    """Return a network of random weights, of two positions, the first an angle."""
    settings = FnodeSettings(nq=2, nu=1, angles=(0,), hidden=(16, 12))
    random, width = np.random.default_rng(3), layout(settings).width

    def layer(units: int, before: int) -> tuple[Array, Array]:
        weight = random.normal(0.0, before**-0.5, (units, before))
        return weight, random.normal(0.0, 0.3, units)

    weights = FnodeWeights(
        input_mean=random.normal(0.0, 0.2, width),
        input_scale=random.uniform(0.5, 2.0, width),
        hidden=(layer(16, width), layer(12, 16)),
        last=random.normal(0.0, 0.3, (2, 12)),
        skip=random.normal(0.0, 0.3, (2, width)),
        offset=random.normal(0.0, 0.3, 2),
        output_mean=random.normal(0.0, 0.3, 2),
        output_scale=np.array([5.0, 2.0]),
        domain=Domain.around(random.standard_normal((500, width))),
    )
    return FnodeModel(settings, weights)


def untrained_mechanical() -> MechanicalModel:
    """Return a network of random coefficients, of an angle and a place that both matter."""
    settings = FnodeSettings(nq=2, nu=1, angles=(0,), hidden=(8, 6))
    random, width, count = np.random.default_rng(4), layout(settings).width, term_count(settings)
    weights = MechanicalWeights(
        input_mean=random.normal(0.0, 0.2, width),
        input_scale=random.uniform(0.5, 2.0, width),
        hidden=(
            (random.normal(0.0, 0.5, (8, 3)), random.normal(0.0, 0.3, 8)),
            (random.normal(0.0, 0.3, (6, 8)), random.normal(0.0, 0.3, 6)),
        ),
        last=random.normal(0.0, 0.5, (2, count, 6)),
        constant=random.normal(0.0, 0.5, (2, count)),
        domain=Domain.around(random.standard_normal((500, width))),
    )
    return MechanicalModel(settings, weights)


def untrained_dictionary() -> DictionaryModel:
    """Return a Lagrangian of random coefficients about a mass that is positive everywhere."""
    settings = DictionarySettings(nq=2, angles=(0,), driven=(1,), damping=True)
    random, at = np.random.default_rng(5), terms(settings)
    coefficients = random.normal(0.0, 0.3, at.kinetic + at.potential + at.damping)
    waves = at.kinetic // len(at.pairs)
    coefficients[0], coefficients[2 * waves] = 3.0, 4.0
    domain = Domain.around(random.standard_normal((500, 4)))
    return DictionaryModel(settings, DictionaryWeights(coefficients, domain))


def untrained_ensemble() -> EnsembleModel:
    """Return two networks, of which one is the other."""
    members = (untrained_fnode(), untrained_fnode())
    return EnsembleModel(members, np.full(2, 1.6), np.full(2, 0.1))


def untrained_scalar() -> ScalarNetwork:
    """Return a small energy of two positions and two velocities."""
    return ScalarNetwork.start(4, (6, 5), np.random.default_rng(8))


SCALE = np.array([0.7, 1.3, 0.9, 2.0])


def any_linear() -> LinearModel:
    """Return a matrix for two positions and one input."""
    return LinearModel(np.random.default_rng(6).normal(size=(2, 6)))


def from_the_store() -> StoredModel:
    """Return the same network, written and read."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(untrained_fnode(), folder, {})
        return StoredModel(StoredModelSettings(path=str(path)))


def untrained_lagrangian() -> LagrangianModel:
    """Return a Lagrangian of random weights, with friction that depends on the place."""
    settings = LagrangianSettings(
        nq=2, driven=(1,), angles=(0,), hidden=(8, 6), damping="positions", floor=0.5
    )
    random = np.random.default_rng(5)
    width = 3 + 2 + 1
    q = random.normal(0.0, 1.0, (3, 4, 2))
    u = random.normal(0.0, 1.0, (2, 4, 1))
    net = LagrangianNetwork.start(settings, Triples(*q, *u), 0.05, random)
    net = net.with_flat(net.flat + random.normal(0.0, 0.2, len(net.flat)))
    domain = Domain.around(random.standard_normal((500, width)))
    return LagrangianModel(settings, net.finished(domain))


def untrained_symo() -> SymoModel:
    """Return the same, stepping from pose to pose."""
    made = untrained_lagrangian()
    return SymoModel(made.settings, made.weights)


MAKE: dict[str, Callable[[], AbstractDynamics]] = {
    "FnodeModel": untrained_fnode,
    "LagrangianModel": untrained_lagrangian,
    "DictionaryModel": untrained_dictionary,
    "EnsembleModel": untrained_ensemble,
    "HnnModel": lambda: HnnModel(untrained_scalar(), SCALE, np.array([2.0, 0.5])),
    "LinearModel": any_linear,
    "LnnModel": lambda: LnnModel(untrained_scalar(), 3 * SCALE),
    "MechanicalModel": untrained_mechanical,
    "StoredModel": from_the_store,
    "SymoModel": untrained_symo,
}


def found() -> list[type[Any]]:
    """Return every model that can be made, of every module in `hil.models`."""
    models = []
    for entry in pkgutil.iter_modules(hil.models.__path__):
        if entry.name.startswith("torch_"):  # says the same as a model with PyTorch, an extra
            continue
        module = importlib.import_module(f"hil.models.{entry.name}")
        models += [
            item
            for _, item in inspect.getmembers(module, inspect.isclass)
            if issubclass(item, AbstractDynamics)
            and not inspect.isabstract(item)
            and item.__module__ == module.__name__
        ]
    return models


def make(kind: type[Any]) -> AbstractDynamics:
    model: AbstractDynamics = MAKE.get(kind.__name__, kind)()
    return model


@pytest.fixture(params=found(), ids=lambda kind: kind.__name__)
def model(request: pytest.FixtureRequest) -> AbstractDynamics:
    return make(request.param)


def draw(model: AbstractDynamics, count: int) -> tuple[Array, Array]:
    """Return states (count, nx) and inputs (count, nu)."""
    random = np.random.default_rng(1)
    return random.normal(0.0, 1.0, (count, model.nx)), random.normal(0.0, 2.0, (count, model.nu))


def accelerations(model: AbstractDynamics, x: Array, u: Array) -> Array:
    return model.acceleration(x[..., : model.nq], x[..., model.nq :], u)


def one_table(found: Linearisation) -> Array:
    """Return (nq, nx + nu)."""
    return np.concatenate((found.by_state, found.by_input), axis=-1)


def test_there_are_models_to_test() -> None:
    assert {"CartPoleModel", "FnodeModel"} <= {kind.__name__ for kind in found()}


def test_shapes(model: AbstractDynamics) -> None:
    assert model.nx == 2 * model.nq > 0
    x, u = draw(model, 7)
    a = accelerations(model, x, u)
    assert a.shape == (7, model.nq)
    assert a.dtype == np.float64
    at = model.linearise(x[0], u[0])
    assert at.acceleration.shape == (model.nq,)
    assert at.by_state.shape == (model.nq, model.nx)
    assert at.by_input.shape == (model.nq, model.nu)
    assert all(part.dtype == np.float64 and np.isfinite(part).all() for part in at)


def test_equal_arguments_give_equal_bits(model: AbstractDynamics) -> None:
    again = make(type(model))
    x, u = draw(model, 7)
    first = accelerations(model, x, u).copy()
    slopes = one_table(model.linearise(x[0], u[0])).copy()
    model.linearise(x[1], u[1])  # leaves nothing behind
    for other in (model, again):
        assert np.array_equal(accelerations(other, x, u), first)
        assert np.array_equal(one_table(other.linearise(x[0], u[0])), slopes)


def test_one_point_is_judged_by_itself(model: AbstractDynamics) -> None:
    x, u = draw(model, 7)
    together = accelerations(model, x, u)
    for row in range(7):
        alone = accelerations(model, x[row : row + 1], u[row : row + 1])[0]
        np.testing.assert_allclose(alone, together[row], rtol=1e-12, atol=1e-12)


def test_what_it_gave_and_was_given_stays(model: AbstractDynamics) -> None:
    x, u = draw(model, 7)
    for array in (x, u):
        array.setflags(write=False)
    kept = [accelerations(model, x, u), *model.linearise(x[0], u[0])]
    copies = [part.copy() for part in kept]
    accelerations(model, x[::-1], u)
    model.linearise(x[1], u[1])
    for part, copy in zip(kept, copies, strict=True):
        assert np.array_equal(part, copy)


def test_it_linearises_about_its_own_acceleration(model: AbstractDynamics) -> None:
    x, u = draw(model, 20)
    together = accelerations(model, x, u)
    for row in range(20):
        at = model.linearise(x[row], u[row]).acceleration
        np.testing.assert_allclose(at, together[row], rtol=1e-12, atol=1e-12)


def test_many_points_are_linearised_as_one_is(model: AbstractDynamics) -> None:
    x, u = draw(model, 20)
    together = model.linearise(x, u)
    for row in range(20):
        for many, one in zip(together, model.linearise(x[row], u[row]), strict=True):
            np.testing.assert_allclose(many[row], one, rtol=1e-10, atol=1e-10)


def test_slopes_are_those_of_differences(model: AbstractDynamics) -> None:
    x, u = draw(model, 20)
    z = np.concatenate((x, u), axis=1)
    exact = np.array([one_table(model.linearise(*row)) for row in zip(x, u, strict=True)])
    assert np.abs(exact).max() > 0.1, "flat: nothing would be tested"
    for column in range(z.shape[1]):
        step = np.zeros(z.shape[1])
        step[column] = 1e-5
        ahead, behind = (
            accelerations(model, moved[:, : model.nx], moved[:, model.nx :])
            for moved in (z + step, z - step)
        )
        slope = (ahead - behind) / 2e-5
        np.testing.assert_allclose(exact[..., column], slope, rtol=1e-7, atol=1e-7)


def test_slopes_are_those_of_the_complex_step(model: AbstractDynamics) -> None:
    x, u = draw(model, 20)
    exact = np.array([one_table(model.linearise(*row)) for row in zip(x, u, strict=True)])
    for column in range(model.nx + model.nu):
        z: Any = np.concatenate((x, u), axis=1).astype(complex)
        z[:, column] += 1e-30j
        try:
            moved = accelerations(model, z[:, : model.nx], z[:, model.nx :])
        except (TypeError, np.exceptions.ComplexWarning):
            pytest.skip("the model takes real numbers only")
        slope = moved.imag / 1e-30
        np.testing.assert_allclose(exact[..., column], slope, rtol=1e-12, atol=1e-12)


def test_what_is_no_number_is_not_made_one(model: AbstractDynamics) -> None:
    x, u = draw(model, 2)
    for place in range(model.nx + model.nu):
        z = np.concatenate((x, u), axis=1)
        z[0, place] = np.nan
        slopes = one_table(model.linearise(x[0], u[0]))
        at = model.linearise(z[0, : model.nx], z[0, model.nx :])
        a = accelerations(model, z[:, : model.nx], z[:, model.nx :])
        assert np.isfinite(a[1]).all(), "it leaks into other points"
        if (slopes[:, place] != 0).any():  # else the model does not depend on it
            assert not np.isfinite(at.acceleration).all()
            assert not np.isfinite(a[0]).all()
