"""Lagrangians found by linear algebra against the equations that made the motion."""

from __future__ import annotations

import numpy as np
import pytest

from hil.errors import ConfigError, RunError
from hil.mechanics.integrate import adaptive, held_inputs
from hil.mechanics.multibody.double_pendulum import DoublePendulum
from hil.mechanics.multibody.rod_cart_pole import RodCartPole, RodCartPoleParameters
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.models.dictionary import DictionaryModel, DictionarySettings, terms
from hil.training.differentiation import differences
from hil.training.fit_dictionary import fit_dictionary
from hil.training.flow import Samples
from hil.training.rollout import rollout, rollout_error
from hil.types import Array

DT = 0.01


def pendulum_motion(samples: int) -> Array:
    """Return the double pendulum from the published start."""
    start = np.array([3 * np.pi / 7, 3 * np.pi / 4, 0.0, 0.0])
    times = np.arange(samples, dtype=np.float64) * DT
    return adaptive(DoublePendulum().acceleration, start, np.zeros(2), times)


def test_the_published_double_pendulum_is_found_and_followed() -> None:
    """35 terms from 300 poses; the last 100 poses lie outside the data and are followed."""
    truth = pendulum_motion(400)
    moved = differences(truth[:300, :2], DT, 11)
    settings = DictionarySettings(nq=2, angles=(0, 1))
    at = terms(settings)
    assert at.kinetic + at.potential == 35
    found = fit_dictionary(settings, Samples(moved[0], moved[1], np.zeros((300, 0)), moved[2]))
    assert found.gap < 1e-3
    states = rollout(found.model, truth[0], np.zeros((399, 0)), DT, steps=4)
    error = rollout_error(states, truth, 300, DT)
    assert error.test < 1e-9
    energy = found.model.energy(states[:, :2], states[:, 2:])
    assert np.ptp(energy) < 1e-6 * np.ptp(
        energy - found.model.energy(states[:, :2], 0 * states[:, 2:])
    )


def test_masses_gravity_and_damping_are_found_with_an_input() -> None:
    p = RodCartPoleParameters(cart_viscous=0.3, pivot_viscous=0.02)
    plant, random = RodCartPole(p), np.random.default_rng(3)
    q, v = random.normal(0.0, 1.5, (200, 2)), random.normal(0.0, 2.0, (200, 2))
    u = random.normal(0.0, 3.0, (200, 1))
    samples = Samples(q, v, u, plant.acceleration(q, v, u))
    settings = DictionarySettings(nq=2, angles=(0,), driven=(1,), damping=True)
    model = fit_dictionary(settings, samples).model
    np.testing.assert_allclose(model.mass_matrix(q), plant.mass_matrix(q), atol=1e-10)
    kinds = terms(settings)
    drag = model.weights.coefficients[-kinds.damping :]
    np.testing.assert_allclose(drag, [0.02, 0.0, 0.3], atol=1e-10)
    energy = model.energy(q, v) - plant.energy(q, v)
    np.testing.assert_allclose(energy, energy[0], atol=1e-9)
    inputs = np.sin(np.arange(200) * 0.1)[:, None] * 4
    start = np.array([0.3, 0.0, 0.0, 0.5])
    truth = held_inputs(plant.acceleration, start, inputs, DT, 2)
    np.testing.assert_allclose(rollout(model, start, inputs, DT), truth, atol=1e-8)
    again = DictionaryModel.from_arrays(settings, model.weights.arrays())
    np.testing.assert_array_equal(again.acceleration(q, v, u), model.acceleration(q, v, u))
    assert (
        model.domain(samples.q.mean(0).repeat(2), u[0]) < 1 < model.domain(np.full(4, 50.0), u[0])
    )


def test_data_that_do_not_tell_the_terms_apart_are_refused() -> None:
    """Damped and never pushed: many masses and dampings give one free motion."""
    size = (1.0, 1.0, 1.0)
    chain = SpringChain(SpringChainParameters(masses=(100, 10, 1), stiffness=size, damping=size))
    truth = chain.motion(np.array([1.0, 2, 3, 0, 0, 0]), np.arange(300, dtype=np.float64) * DT)
    q, v, u = truth[:, :3], truth[:, 3:], np.zeros((300, 0))
    samples = Samples(q, v, u, chain.acceleration(q, v, np.zeros(3)))
    with pytest.raises(RunError, match="do not tell its 21 terms apart"):
        fit_dictionary(DictionarySettings(nq=3, damping=True), samples)
    with pytest.raises(ConfigError, match="expected"):
        DictionaryModel.from_arrays(DictionarySettings(nq=1), {})
