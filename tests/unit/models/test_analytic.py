from __future__ import annotations

import numpy as np
import pytest

from hil.errors import MechanicsError
from hil.mechanics.cart_pole import CartPole, CartPoleParameters
from hil.models.analytic import CartPoleModel
from hil.types import Array

RUBBING = CartPoleParameters(
    cart_mass=1.3, pole_mass=0.4, length=0.7, cart_viscous=0.8, pivot_viscous=0.05
)


def draw(count: int, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    return random.normal(0.0, 3.0, (count, 4)), random.normal(0.0, 10.0, (count, 1))


def by_complex_step(model: CartPoleModel, x: Array, u: Array) -> Array:
    """Return (count, 2, 5): slopes by state and input, free of cancellation."""
    columns = []
    for column in range(5):
        z = np.concatenate((x, u), axis=1).astype(complex)
        z[:, column] += 1e-30j
        columns.append(CartPole(model.parameters).acceleration(z[:, :2], z[:, 2:4], z[:, 4:]).imag)
    return np.stack(columns, axis=-1) / 1e-30


def test_about_upright_it_is_the_textbook() -> None:
    found = CartPoleModel().linearise(np.zeros(4), np.zeros(1))
    np.testing.assert_array_equal(found.acceleration, np.zeros(2))
    # (M + m) g / (M l), m g / M, 1 / (M l), 1 / M
    np.testing.assert_allclose(found.by_state, [[39.24, 0, 0, 0], [-9.81, 0, 0, 0]], rtol=1e-15)
    np.testing.assert_allclose(found.by_input, [[-2.0], [1.0]], rtol=1e-15)


@pytest.mark.parametrize("parameters", [CartPoleParameters(), RUBBING])
def test_slopes_are_those_of_the_complex_step(parameters: CartPoleParameters) -> None:
    model, (x, u) = CartPoleModel(parameters), draw(50)
    found = model.linearise(x, u)
    slopes = np.concatenate((found.by_state, found.by_input), axis=-1)
    np.testing.assert_allclose(slopes, by_complex_step(model, x, u), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.acceleration, model.acceleration(x[:, :2], x[:, 2:], u))


def test_many_points_are_the_points_one_by_one() -> None:
    model, (x, u) = CartPoleModel(RUBBING), draw(6)
    many = model.linearise(x.reshape(2, 3, 4), u.reshape(2, 3, 1))
    assert [part.shape for part in many] == [(2, 3, 2), (2, 3, 2, 4), (2, 3, 2, 1)]
    for row in range(6):
        one = model.linearise(x[row], u[row])
        assert [part.shape for part in one] == [(2,), (2, 4), (2, 1)]
        for part, whole in zip(one, many, strict=True):
            np.testing.assert_allclose(part, whole[divmod(row, 3)], rtol=1e-13, atol=1e-13)


def test_dry_friction_and_stops_are_no_part_of_it() -> None:
    x, u = draw(6)
    dry = CartPoleParameters(cart_coulomb=3.0, pivot_coulomb=0.2, stops=(-1.0, 1.0))
    for part, smooth in zip(
        CartPoleModel(dry).linearise(x, u), CartPoleModel().linearise(x, u), strict=True
    ):
        np.testing.assert_array_equal(part, smooth)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_gives_none_and_no_error(wrong: float) -> None:
    model = CartPoleModel()
    found = model.linearise(np.array([wrong, 0.0, 0.0, 0.0]), np.zeros(1))
    assert not np.isfinite(found.acceleration).any()
    found = model.linearise(np.zeros(4), np.array([wrong]))
    assert not np.isfinite(found.acceleration).any()


def test_parameters_are_checked() -> None:
    with pytest.raises(MechanicsError, match="length"):
        CartPoleModel(CartPoleParameters(length=0.0))
