"""MBD-NODE: a network whose Runge–Kutta steps are those of the motion."""

from __future__ import annotations

import numpy as np
import pytest

from hil.mechanics.integrate import rk4
from hil.mechanics.multibody.spring_chain import SpringChain, SpringChainParameters
from hil.models.fnode import FnodeSettings
from hil.training.through_integrator import learn_through_integrator

DT = 0.02


@pytest.mark.parametrize("every", [1, 3])
def test_its_steps_lead_from_each_state_to_the_next(every: int) -> None:
    """Thinned out, the steps are still of one period; their end is exact, not to order h²."""
    chain = SpringChain(SpringChainParameters(damping=(2.0,)))
    truth = chain.motion(np.array([1.0, 0.0]), np.arange(120, dtype=np.float64) * DT)
    model, done = learn_through_integrator(
        FnodeSettings(nq=1, nu=0, hidden=(16, 16)), truth[:, :1], truth[:, 1:], DT, seed=0,
        every=every,
    )  # fmt: skip
    assert done.loss < 1e-7
    ahead = rk4(model.acceleration, truth[:-1], np.zeros((119, 0)), DT)
    change = np.abs(truth[1:, 1] - truth[:-1, 1]).max()
    assert np.abs(ahead - truth[1:]).max() < 1e-3 * change
