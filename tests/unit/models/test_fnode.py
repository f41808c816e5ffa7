"""The network against differences, against itself written out plainly, and its domain."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import ConfigError
from hil.models.fnode import (
    Domain,
    FnodeModel,
    FnodeSettings,
    FnodeWeights,
    features,
    layout,
    turning_slack,
)
from hil.types import Array

VARIANTS = [
    FnodeSettings(nq=2, nu=1, angles=(0,), hidden=(24, 24)),
    FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,), hidden=(24, 16)),
    FnodeSettings(nq=3, nu=2, angles=(1, 2), hidden=(12, 9, 7)),
    FnodeSettings(nq=1, nu=0, hidden=(10,), skip=False),
    FnodeSettings(nq=2, nu=1, angles=(0,), hidden=(40, 36)),
    FnodeSettings(nq=9, nu=1, hidden=(40, 40)),  # more rows than are multiplied one by one
]


def make(settings: FnodeSettings, seed: int = 0) -> FnodeModel:
    random, width = np.random.default_rng(seed), layout(settings).width
    hidden, before = [], width
    for units in settings.hidden:
        weight = random.normal(0, before**-0.5, (units, before))
        hidden.append((weight, random.normal(0, 0.3, units)))
        before = units
    weights = FnodeWeights(
        input_mean=random.normal(0, 0.3, width),
        input_scale=random.uniform(0.5, 2, width),
        hidden=tuple(hidden),
        last=random.normal(0, 1, (settings.nq, before)),
        skip=random.normal(0, 1, (settings.nq, width)) * settings.skip,
        offset=random.normal(0, 1, settings.nq),
        output_mean=random.normal(0, 1, settings.nq),
        output_scale=random.uniform(0.5, 5, settings.nq),
        domain=Domain.around(random.standard_normal((4000, width))),
    )
    return FnodeModel(settings, weights)


@pytest.fixture(params=VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> FnodeModel:
    return make(request.param)


def draw(model: FnodeModel, count: int) -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    return random.normal(0, 0.7, (count, model.nx)), random.normal(0, 1, (count, model.nu))


def plain(model: FnodeModel, x: Array, u: Array) -> Array:
    """Return q̈ as the weights are written, scaling and all, one point at a time."""
    w, nq, s = model.weights, model.nq, model.settings
    entries: list[float] = []
    for i in range(nq):
        if i in s.left_out:
            continue
        entries += [np.sin(x[i]), np.cos(x[i])] if i in s.angles else [x[i]]
    z: Array = np.array([*entries, *x[nq:], *u])
    h = z = (z - w.input_mean) / w.input_scale
    for weight, bias in w.hidden:
        h = np.tanh(weight @ h + bias)
    found: Array = w.output_mean + w.output_scale * (w.last @ h + w.skip @ z + w.offset)
    return found


def test_folded_scaling_changes_nothing(model: FnodeModel) -> None:
    x, u = draw(model, 5)
    expected = np.array([plain(model, *row) for row in zip(x, u, strict=True)])
    found = model.acceleration(x[:, : model.nq], x[:, model.nq :], u)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_slopes_are_those_of_differences(model: FnodeModel) -> None:
    x, u = draw(model, 3)
    for row in range(3):
        at = model.linearise(x[row], u[row])
        point = np.concatenate([x[row], u[row]])
        slopes = np.concatenate([at.by_state, at.by_input], axis=1)
        for column in range(len(point)):
            step = np.zeros(len(point))
            step[column] = 1e-6
            ahead, behind = point + step, point - step
            slope = plain(model, ahead[: model.nx], ahead[model.nx :])
            slope = (slope - plain(model, behind[: model.nx], behind[model.nx :])) / 2e-6
            np.testing.assert_allclose(slopes[:, column], slope, rtol=1e-6, atol=1e-7)


def test_many_points_are_linearised_as_each_alone(model: FnodeModel) -> None:
    x, u = draw(model, 6)
    together = model.linearise(x, u)
    for row in range(6):
        for many, one in zip(together, model.linearise(x[row], u[row]), strict=True):
            np.testing.assert_allclose(many[row], one, rtol=1e-11, atol=1e-11)


def test_a_turn_changes_nothing() -> None:
    model = make(VARIANTS[0])
    x, u = draw(model, 1)
    turned = x[0] + np.array([2 * np.pi, 0, 0, 0])
    for before, after in zip(
        model.linearise(x[0], u[0]), model.linearise(turned, u[0]), strict=True
    ):
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-9)


def test_a_position_left_out_does_not_matter() -> None:
    model = make(VARIANTS[1])
    x, u = draw(model, 1)
    moved = x[0] + np.array([0, 3.0, 0, 0])
    at = model.linearise(x[0], u[0])
    assert np.array_equal(at.acceleration, model.linearise(moved, u[0]).acceleration)
    assert (at.by_state[:, 1] == 0).all()
    assert (at.by_state[:, [0, 2, 3]] != 0).all()
    assert model.domain(x[0], u[0]) == model.domain(moved, u[0])


@pytest.mark.parametrize("name", ["angles", "left_out"])
def test_a_position_that_is_not_there_is_named(name: str) -> None:
    settings = FnodeSettings(nq=2, nu=1, **{name: (2,)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"{name}: position 2 .* allowed: 0 to 1"):
        layout(settings)


def in_units(model: FnodeModel, z: Array) -> FnodeModel:
    """Return the model with its scaling and its domain those of inputs z."""
    w = model.weights
    mean, scale = z.mean(axis=0), z.std(axis=0)
    domain = Domain.around((z - mean) / scale, turning_slack(model.settings, mean, scale))
    parts = {name: a for name, a in w.arrays().items() if not name.startswith("domain")}
    parts |= {"input_mean": mean, "input_scale": scale}
    parts |= {f"domain.{name}": getattr(domain, name) for name in ("mean", "factor", "edge")}
    return FnodeModel(model.settings, FnodeWeights.from_arrays(model.settings, parts))


def test_the_edge_of_the_domain_holds_the_data() -> None:
    """99.9 % of correlated data lie inside; what breaks the correlation lies outside."""
    random = np.random.default_rng(2)
    blank = make(VARIANTS[1])
    q, v = random.normal(0, 0.1, (20_000, 2)), random.normal(0, 1, (20_000, 2))
    u = -30 * q[:, :1] + random.normal(0, 1, (20_000, 1))  # a feedback was at work
    model = in_units(blank, features(blank.settings, q, v, u))
    distances = model.domains(q, v, u)
    assert np.mean(distances <= 1) == pytest.approx(0.999, abs=1e-4)
    alone = [
        model.domain(np.concatenate([a, b]), c)
        for a, b, c in zip(q[:50], v[:50], u[:50], strict=True)
    ]
    np.testing.assert_allclose(alone, distances[:50], rtol=1e-9)
    along = [
        model.domain(np.array([s, 0, 0, 0]), np.array([-30 * s])) for s in (0.1, 0.2, 0.4, 0.8)
    ]
    assert along == sorted(along)
    assert along[0] < 1 < along[-1]
    assert model.domain(np.array([0.1, 0, 0, 0]), np.array([3.0])) > 1
    assert model.domain(np.array([0, 0, 5.5, 0]), np.array([0.0])) > 1


def test_a_full_circle_is_inside_and_a_short_arc_ends() -> None:
    random = np.random.default_rng(4)
    blank = make(VARIANTS[1])
    v, u = random.normal(0, 1, (5000, 2)), random.normal(0, 1, (5000, 1))
    around, arc = (
        in_units(blank, features(blank.settings, np.stack([theta, theta], axis=1), v, u))
        for theta in (random.uniform(-np.pi, np.pi, 5000), random.normal(2.0, 0.1, 5000))
    )
    for theta in np.linspace(-np.pi, np.pi, 9):
        assert around.domain(np.array([theta, 0, 0, 0]), np.zeros(1)) < 1
    assert arc.domain(np.array([2.0, 0, 0, 0]), np.zeros(1)) < 0.1
    assert arc.domain(np.array([2.0 + 2 * np.pi, 0, 0, 0]), np.zeros(1)) < 0.1
    for theta in (1.0, 3.0, 2.0 + np.pi):
        assert arc.domain(np.array([theta, 0, 0, 0]), np.zeros(1)) > 1


def test_distance_does_not_depend_on_units() -> None:
    """Mahalanobis: stretching an input and its data alike changes no distance."""
    z = np.random.default_rng(3).normal(size=(1000, 4))
    stretch = np.array([1.0, 20.0, 0.05, 3.0])
    one, other = Domain.around(z), Domain.around(z * stretch)
    point = np.array([0.3, -1.0, 2.0, 0.5])
    near = np.linalg.norm(one.factor @ (point - one.mean)) / one.edge
    far = np.linalg.norm(other.factor @ (point * stretch - other.mean)) / other.edge
    assert near == pytest.approx(far, rel=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_what_is_no_number_is_infinitely_far(value: float, place: int) -> None:
    model = make(VARIANTS[1])
    point = np.zeros(5)
    point[place] = value
    assert model.domain(point[:4], point[4:]) == np.inf
