"""Linear feedback about a state at rest."""

from __future__ import annotations

import numpy as np
import pytest

from hil.config import build
from hil.control.lqr import Lqr
from hil.errors import ConfigError
from hil.models.analytic import CartPoleModel
from tests.unit.control.loops import plant

TABLE = {
    "kind": "hil.control.lqr:Lqr",
    "state_weights": [1.0, 10.0, 0.1, 1.0],
    "input_weights": [0.1],
    "input_limits": [[-20.0, 20.0]],
    "dt": 0.02,
}


def lqr(about: list[float]) -> Lqr:
    made: Lqr = build({**TABLE, "about": about}, "control", dynamics=CartPoleModel())
    return made


@pytest.mark.parametrize("about", [[0.0, 0.0, 0.0, 0.0], [np.pi, 0.3, 0.0, 0.0]])
def test_it_comes_to_rest_where_it_was_computed_for(about: list[float]) -> None:
    controller, goal = lqr(about), np.array(about)
    x = goal + np.array([0.2, -0.1, 0.0, 0.0])
    for _ in range(600):
        x = plant(x, float(controller.solve(x, np.zeros(4)).inputs[0, 0]), dt=0.02)
    np.testing.assert_allclose(x, goal, atol=1e-3)


def test_upright_and_hanging_want_other_gains() -> None:
    upright, hanging = lqr([]), lqr([np.pi, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(upright.gain, lqr([0.0] * 4).gain)
    assert abs(hanging.gain[0, 0]) < 0.5 * abs(upright.gain[0, 0])


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"control\.about: the model has 4, found 2"):
        lqr([np.pi, 0.0])
