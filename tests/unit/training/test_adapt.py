"""A model brought up to date: what is identified, what stays, and what is turned down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError
from hil.mechanics.cart_pole import CartPoleParameters
from hil.models.analytic import CartPoleModel
from hil.models.fnode import AbstractNetwork, FnodeSettings, features
from hil.models.mechanical import MechanicalModel
from hil.training.adapt import Adapter, AdaptSettings, Rejection
from hil.training.fit import Motion
from hil.training.fit_mechanical import FitMechanical, FitMechanicalSettings
from tests.contract.test_models import untrained_fnode, untrained_mechanical
from tests.unit.training.cart_pole_runs import balanced_runs

NETWORK = FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,), hidden=(16, 16))
ORIGIN = np.zeros(4), np.zeros(1)


@pytest.fixture(scope="module")
def model() -> MechanicalModel:
    settings = FitMechanicalSettings(network=NETWORK, mirror=True)
    return FitMechanical(settings).run(balanced_runs(0, runs=2)).model


@pytest.fixture(scope="module")
def changed() -> Motion:
    """Return 10 s with a cart of 1.5 kg."""
    parameters = CartPoleParameters(cart_mass=1.5)
    return balanced_runs(5, seconds=10.0, runs=1, force=5.0, parameters=parameters)[0]


def adapter(**changes: Any) -> Adapter:
    return Adapter(check({"mirror": True, **changes}, AdaptSettings, "adaptation"))


@pytest.mark.parametrize("make", [untrained_fnode, untrained_mechanical])
def test_a_network_is_linear_in_its_last_layer(make: Any) -> None:
    network: AbstractNetwork = make()
    random = np.random.default_rng(0)
    q, v, u = (random.normal(0.0, 1.0, (7, n)) for n in (2, 2, 1))
    z = features(network.settings, q, v, u)
    columns = network.columns(z)
    change = random.normal(0.0, 0.1, (columns.shape[1], 2))
    moved = network.moved(change)
    np.testing.assert_allclose(network.answers(z), network.acceleration(q, v, u), rtol=1e-12)
    np.testing.assert_allclose(
        moved.acceleration(q, v, u), network.acceleration(q, v, u) + columns @ change, atol=1e-12
    )


def test_a_heavier_cart_is_learned_within_one_window(
    model: MechanicalModel, changed: Motion
) -> None:
    proposal = adapter().propose(model, [changed])
    assert proposal.accepted
    assert proposal.candidate_error < proposal.error / 5
    truth = CartPoleModel(CartPoleParameters(cart_mass=1.5)).linearise(*ORIGIN)
    found, before = (m.linearise(*ORIGIN) for m in (proposal.candidate, model))
    np.testing.assert_allclose(found.by_input, truth.by_input, rtol=0.03)
    np.testing.assert_allclose(found.by_state[:, 0], truth.by_state[:, 0], rtol=0.05)
    assert np.abs(before.by_input / truth.by_input - 1).min() > 0.4
    again = adapter().propose(model, [changed])
    np.testing.assert_array_equal(again.candidate.linearise(*ORIGIN)[1], found.by_state)


def test_gaps_cost_a_little_motion_and_no_more(model: MechanicalModel, changed: Motion) -> None:
    def part(begin: int, end: int) -> Motion:
        return replace(changed, q=changed.q[begin:end], u=changed.u[begin:end])

    pieces = [part(0, 500), part(503, 520), part(523, 1400), part(1401, 2000)]
    asked = adapter()
    assert asked.enough(pieces)
    candidate = asked.propose(model, pieces).candidate
    truth = CartPoleModel(CartPoleParameters(cart_mass=1.5)).linearise(*ORIGIN)
    np.testing.assert_allclose(candidate.linearise(*ORIGIN).by_input, truth.by_input, rtol=0.03)
    assert not asked.enough([])
    assert not asked.enough([part(0, 1000), part(1001, 1300)])  # too little at the end
    assert not asked.enough([part(0, 800)])


def test_left_and_right_stay_the_same(model: MechanicalModel, changed: Motion) -> None:
    x, u = np.array([0.2, 0.0, -0.5, 0.4]), np.array([3.0])
    for mirror, bound in ((True, 1e-9), (False, np.inf)):
        candidate = adapter(mirror=mirror).propose(model, [changed]).candidate
        one, other = (candidate.linearise(s * x, s * u).acceleration for s in (1.0, -1.0))
        gap = np.abs(one + other).max()
        assert gap <= bound
        assert mirror or gap > 1e-6


def test_what_is_no_better_is_turned_down(model: MechanicalModel) -> None:
    same = balanced_runs(6, seconds=10.0, runs=1, force=5.0)[0]
    proposal = adapter().propose(model, [same])
    assert proposal.rejection is Rejection.NO_BETTER
    assert proposal.error == pytest.approx(proposal.candidate_error, rel=0.2)


def test_the_shadow_decides_not_the_fit(model: MechanicalModel, changed: Motion) -> None:
    """The cart is heavier in what is fitted and as it was in the newest part."""
    same = balanced_runs(6, seconds=10.0, runs=1, force=5.0)[0]
    mixed = replace(
        changed,
        q=np.concatenate([changed.q[:1600], same.q[1600:]]),
        u=np.concatenate([changed.u[:1600], same.u[1600:]]),
    )
    proposal = adapter(shadow=1.9).propose(model, [mixed])
    assert proposal.rejection is Rejection.NO_BETTER
    assert proposal.candidate_error > 2 * proposal.error


def test_slopes_may_not_leave_what_is_believable(model: MechanicalModel, changed: Motion) -> None:
    assert adapter(slopes=0.05).propose(model, [changed]).rejection is Rejection.SLOPES


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match=r"adaptation.window: 4.0 s hold no 4 blocks"):
        adapter(window=4.0)
    with pytest.raises(ConfigError, match=r"adaptation.shadow: 0.8 s is shorter"):
        adapter(shadow=0.8)
    with pytest.raises(ConfigError, match=r"adaptation.answer"):
        adapter(answer=2.0)
