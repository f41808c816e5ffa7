from __future__ import annotations

import numpy as np
import pytest

from hil.config import build
from hil.environment import EnvironmentSettings, RigEnvironment, Waited
from hil.errors import ConfigError, FaultError, RunError
from hil.mechanics.cart_pole_motion import CartPoleState
from hil.models.analytic import CartPoleModel
from hil.rigs.base import RigState
from hil.tasks.balance import Balance, BalanceSettings
from sim.rigs.cart_pole import SimCartPole
from tests.unit.sim.cart_pole import double_of, shipped


def one_rig(rig: SimCartPole, said: list[str]) -> RigEnvironment:
    table = {
        "kind": "hil.control.estimator:PoseEstimator",
        "pose_noise": [5e-4, 3e-5],
        "acceleration_noise": [1.0, 0.5],
        "dt": 0.02,
    }
    settings = EnvironmentSettings(
        start=(0.0, 0.0, 0.0, 0.0),
        region=((-0.8, 0.8), (-1.05, 1.05), (-12.0, 12.0), (-6.0, 6.0)),
        spread=(0.1, 0.1, 0.0, 0.0),  # no part of a rig that nobody can put anywhere
    )
    episodes = Waited(lambda: rig, tolerance=np.array([0.05, 0.05]), wait=5.0, say=said.append)
    return RigEnvironment(
        episodes,
        Balance(BalanceSettings()),
        build(table, "estimator", dynamics=CartPoleModel()),
        settings,
        nu=1,
        period_s=0.02,
    )


def state_of(rig: SimCartPole) -> RigState:
    """Return where it is; a call, so that mypy does not believe it stays there."""
    return rig.state


def test_one_rig_is_waited_for_and_whole_turns_do_not_count() -> None:
    said: list[str] = []
    rig = double_of(shipped(board__plant__start=(0.01, 0.0, 0.0, 0.0)))  # held by a hand
    environment = one_rig(rig, said)
    with pytest.raises(ConfigError, match="is put somewhere by hand"):
        environment.reset(options={"start": [0.0, 0.0, 0.0, 0.0]})
    _, info = environment.reset(seed=1)
    assert "waiting for angle, position" in said[0]
    assert info["y"] == pytest.approx([0.01, 0.0], abs=1e-3)
    assert info["sequence"] >= 25  # it was watched for half a second
    terminated = False
    while not terminated:
        _, _, terminated, _, info = environment.step(np.array([0.05]))
    assert state_of(rig) is RigState.INACTIVE
    with pytest.raises(RunError, match=r"not at its start within 5 s: .*hold it"):
        environment.reset()
    assert state_of(rig) is RigState.INACTIVE
    rig.place(CartPoleState(2 * np.pi - 0.02, 0.03, 0.0, 0.0))  # once round, and held
    observation, info = environment.reset()
    assert info["y"][0] == pytest.approx(2 * np.pi - 0.02, abs=1e-3)
    np.testing.assert_allclose(observation, [-0.02, 0.03, 0.0, 0.0], atol=1e-3)
    assert not environment.step(np.array([0.0]))[2]
    environment.close()
    assert state_of(rig) is RigState.UNCONFIGURED


def test_a_fault_stays_until_it_is_cleared_on_purpose() -> None:
    rig = double_of(shipped(board__plant__start=(0.01, 0.0, 0.0, 0.0)))
    environment = one_rig(rig, [])
    environment.reset(seed=1)
    rig.stop("hand on the button")
    assert environment.step(np.array([0.1]))[4]["ended"] == "fault: hand on the button"
    with pytest.raises(FaultError, match="hand on the button; look at it"):
        environment.reset()
    assert state_of(rig) is RigState.FAULT
    environment.reset(options={"clear": True})
    assert state_of(rig) is RigState.ACTIVE
    environment.close()
