from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from hil.config import build
from hil.control.base import AbstractController
from hil.environment import EnvironmentSettings, Rebuilt, RigEnvironment, make
from hil.errors import ConfigError, LimitError, StateError
from hil.models.analytic import CartPoleModel
from hil.rigs.base import RigState
from hil.safety.deadman import Minting
from hil.tasks.balance import Balance, BalanceSettings
from hil.types import Array
from sim.rigs.cart_pole import SimCartPole
from tests.unit.sim.cart_pole import double_of, shipped

IDS = ("hil/CartPoleBalance-v0", "hil/CartPoleSwingUp-v0")
REGION = ((-0.8, 0.8), (-1.05, 1.05), (-12.0, 12.0), (-6.0, 6.0))
SETTINGS = EnvironmentSettings(start=(0.05, 0.0, 0.0, 0.0), region=REGION, cost_scale=600.0)


class Bench:
    """An environment on doubles that a test can look into."""

    def __init__(self, life_us: int = 200_000, **settings: Any) -> None:
        self.rigs: list[SimCartPole] = []
        model = CartPoleModel()
        table = {
            "kind": "hil.control.estimator:PoseEstimator",
            "pose_noise": [5e-4, 3e-5],
            "acceleration_noise": [1.0, 0.5],
            "dt": 0.02,
        }

        def rig(seed: int, start: Array) -> SimCartPole:
            config = shipped(
                board__plant__start=tuple(start.tolist()), board__plant__held=False, seed=seed
            )
            self.rigs.append(double_of(config, Minting(life_us)))
            return self.rigs[-1]

        fields = {name: getattr(SETTINGS, name) for name in SETTINGS.__struct_fields__} | settings
        self.environment = RigEnvironment(
            Rebuilt(rig),
            Balance(BalanceSettings()),
            build(table, "estimator", dynamics=model),
            EnvironmentSettings(**fields),
            nu=1,
            period_s=0.02,
        )

    @property
    def rig(self) -> SimCartPole:
        return self.rigs[-1]

    @property
    def forces(self) -> list[float]:
        assert self.rig.plant is not None
        return [event.force for event in self.rig.plant.events]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.environment.close()


def law() -> AbstractController:
    table = {
        "kind": "hil.control.lqr:Lqr",
        "state_weights": [10.0, 10.0, 1.0, 1.0],
        "input_weights": [0.1],
        "input_limits": [[-20.0, 20.0]],
        "dt": 0.02,
    }
    controller: AbstractController = build(table, "control", dynamics=CartPoleModel())
    return controller


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_has_nothing_to_say(name: str) -> None:
    made = gymnasium.make(f"hil.environment:{name}")
    check_env(made.unwrapped)
    made.close()


@pytest.mark.parametrize("name", IDS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    def run(environment: gymnasium.Env[Array, Array], seed: int) -> bytes:
        said = [environment.reset(seed=seed)[0]]
        for share in np.random.default_rng(1).uniform(-0.1, 0.1, (30, 1)):
            observation, reward, terminated, _, _ = environment.step(share)
            said.append(np.append(observation, float(reward)))
            if terminated:
                break
        assert len(said) > 10
        return b"".join(part.tobytes() for part in said)

    first, second = gymnasium.make(name), gymnasium.make(name)
    again = run(first, 5)
    assert run(second, 5) == again
    assert run(second, 6) != again
    assert run(second, 5) == again
    first.close()
    second.close()


def test_a_controller_keeps_it_upright_and_the_rewards_add_up_to_the_tasks_cost(
    bench: Bench,
) -> None:
    environment, controller = bench.environment, law()
    observation, _ = environment.reset(seed=1)
    states, inputs, rewards, errors = [], [], [], []
    truncated = False
    while not truncated:
        states.append(observation)
        u = controller.solve(observation, np.zeros(4)).inputs[0]
        observation, reward, terminated, truncated, info = environment.step(environment.action(u))
        assert not terminated
        np.testing.assert_allclose(info["input"], u, atol=1e-5)  # float32 on the wire
        inputs.append(info["input"])
        rewards.append(reward)
        assert bench.rig.plant is not None
        truth = np.array(bench.rig.plant.state(round(info["time"] * 1e6)))
        errors.append(np.abs(observation - truth))
    assert (len(rewards), info["time"], info["ended"]) == (500, 10.0, "duration")
    assert np.abs(np.array(states)[250:, :2]).max() < 0.05  # dry friction makes it hunt
    assert np.array(errors)[50:, :2].max() < 2e-3
    assert np.array(errors)[50:, 2:].max() < 0.1
    total = Balance(BalanceSettings()).cost(np.array(states), np.array(inputs))
    assert sum(rewards) == pytest.approx(500 - total / 600, rel=1e-12)
    assert bench.rig.state is RigState.INACTIVE
    assert bench.forces[-1] == 0.0


def test_an_action_is_clipped_or_refused_before_the_rig(bench: Bench) -> None:
    environment = bench.environment
    environment.reset(seed=1)
    for share, force in ((0.1, 2.0), (5.0, 20.0), (-1e300, -20.0)):
        _, _, terminated, _, info = environment.step(np.array([share]))
        assert not terminated
        assert info["input"] == pytest.approx([force], rel=1e-6)
    written = list(bench.forces)
    for refused in ([np.nan], [np.inf], [0.1, 0.1], 0.1):
        with pytest.raises(LimitError, match="nothing was applied"):
            environment.step(np.array(refused))
    assert bench.forces == written
    assert max(np.abs(written)) == 20.0
    assert not environment.step(np.array([0.0]))[2]


def test_it_ends_when_the_pole_falls_and_the_force_is_off_then(bench: Bench) -> None:
    environment = bench.environment
    environment.reset(seed=1)
    terminated, steps = False, 0
    while not terminated:
        observation, _, terminated, truncated, info = environment.step(np.array([0.2]))
        steps += 1
        assert not truncated
        assert observation in environment.observation_space
    assert abs(info["state"][0]) > 0.8
    assert info["ended"].startswith("outside: angle -0.8")
    assert bench.rig.state is RigState.INACTIVE
    assert bench.forces[-1] == 0.0
    with pytest.raises(StateError, match=r"call reset\(\) first"):
        environment.step(np.array([0.0]))
    environment.reset()
    assert not environment.step(np.array([0.0]))[2]


def test_no_force_does_not_hold_the_pole_up(bench: Bench) -> None:
    bench.environment.reset(seed=1)
    assert any(bench.environment.step(np.zeros(1))[2] for _ in range(40))


def test_a_fault_ends_the_episode_and_says_why(bench: Bench) -> None:
    environment = bench.environment
    environment.reset(seed=1)
    environment.step(np.array([0.1]))
    bench.rig.stop("hand on the button")
    observation, _, terminated, truncated, info = environment.step(np.array([0.1]))
    assert (terminated, truncated, info["ended"]) == (True, False, "fault: hand on the button")
    assert observation in environment.observation_space
    assert info["input"] == 0.0
    environment.reset()
    assert not environment.step(np.array([0.1]))[2]


def test_who_does_not_keep_it_alive_loses_it() -> None:
    bench = Bench(life_us=10_000)  # half a period
    bench.environment.reset(seed=1)
    _, _, terminated, _, info = bench.environment.step(np.array([0.5]))
    assert terminated
    assert info["ended"] == "fault: deadman: the token expired before the next command"
    assert bench.forces[-1] == 0.0
    bench.environment.close()


def test_leaving_the_rail_is_a_fault_of_the_rig() -> None:
    bench = Bench(region=((-7.0, 7.0), (-1.5, 1.5), (-40.0, 40.0), (-20.0, 20.0)))
    bench.environment.reset(options={"start": [0.0, 0.9, 0.0, 5.0]})
    terminated = False
    while not terminated:
        _, _, terminated, _, info = bench.environment.step(np.zeros(1))
    assert info["ended"] == "fault: device fault TRAVEL"
    bench.environment.close()


def test_closing_or_forgetting_it_leaves_the_rig_safe() -> None:
    for forgotten in (False, True):
        bench = Bench()
        bench.environment.reset(seed=1)
        bench.environment.step(np.array([0.5]))
        assert bench.forces[-1] == 10.0
        if forgotten:
            del bench.environment
        else:
            bench.environment.close()
            bench.environment.close()
        assert bench.forces[-1] == 0.0
        assert bench.rig.state is RigState.UNCONFIGURED


def test_an_episode_begins_where_it_is_told_or_near_the_start() -> None:
    bench = Bench(spread=(0.02, 0.3, 0.0, 0.0))
    environment = bench.environment
    begun = np.array([environment.reset(seed=seed)[0] for seed in range(40)])
    away = np.abs(begun - SETTINGS.start)
    assert (away.max(0) < [0.022, 0.301, 1e-9, 1e-9]).all()
    assert (away.max(0)[:2] > [0.015, 0.2]).all()
    observation, info = environment.reset(options={"start": [-0.1, 0.5, 0.0, 0.0]})
    np.testing.assert_allclose(info["y"], [-0.1, 0.5], atol=1e-3)
    np.testing.assert_array_equal(observation[:2], info["y"])
    for start in ([0.0], [3.0, 0.0, 0.0, 0.0], [np.nan, 0.0, 0.0, 0.0]):
        with pytest.raises(ConfigError, match="a state in the region is needed"):
            environment.reset(options={"start": start})
    with pytest.raises(ConfigError, match=r"options \['strat'\]: only start is known"):
        environment.reset(options={"strat": 1})
    environment.close()


@pytest.mark.parametrize("name", ["balance", "swing_up"])
def test_to_fail_never_pays(name: str) -> None:
    made = make(f"environment_{name}.toml")
    region = np.array(made.settings.region)
    worst = np.abs(region).max(1)
    assert (worst**2).sum() + 20.0**2 < made.settings.cost_scale
    made.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"region": REGION[:3]}, r"environment\.region: the model has 4 states, found 3"),
        ({"spread": (0.1,)}, r"environment\.spread: the model has 4 states, found 1"),
        ({"start": (0.9, 0.0, 0.0, 0.0)}, "state 0: .*around the start"),
        ({"spread": (0.1, 1.05, 0.0, 0.0)}, "state 1"),
        ({"region": (*REGION[:3], (-np.inf, 1.0))}, "state 3: .*finite"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Bench(**settings)


def test_a_configuration_that_is_no_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs \[environment\]"):
        make("balance.toml")
    with pytest.raises(ConfigError, match="expected 'process', 'firmware' or 'rig'"):
        make("environment_balance.toml", through="thoughts")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no such configuration file"):
        make("nowhere.toml")


def test_without_gymnasium_hil_works_and_the_extra_is_named() -> None:
    words = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import hil, hil.cli, hil.services.control\n"
        "try:\n    import hil.environment\n"
        "except ImportError as error:\n    print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'hil[gym]'" in said.stdout
