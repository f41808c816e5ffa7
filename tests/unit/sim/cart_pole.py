"""The shipped cart-pole, and the simplest loop that balances it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import expm, solve_discrete_are

from hil.config import Config, build, load
from hil.rigs.base import AbstractDynamicRig, AbstractTokens, DynamicSample
from hil.safety.deadman import Minting
from hil.types import Array
from sim.boards.host import HostBoard
from sim.rigs.cart_pole import SimCartPole

CONFIG = Path(__file__).parents[3] / "configs" / "cart_pole.toml"
LIFE_US = 100_000  # of a token


def shipped(**overrides: Any) -> Config:
    """Return the simulated rig's configuration; `__` in a name stands for a dot."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load(CONFIG, sim=True, overrides=dotted)


def board_of(config: Config) -> HostBoard:
    """Return the board of a configuration, closed."""
    assert config.board is not None
    board: HostBoard = build(
        config.board,
        "board",
        rig=config.rig,
        clock=config.clock,
        seed=config.seed,
        ideal=config.ideal,
    )
    return board


def rig_of(config: Config, port: str, tokens: AbstractTokens | None = None) -> AbstractDynamicRig:
    """Return the rig of a configuration on a board's port."""
    rig: AbstractDynamicRig = build(
        config.rig, "rig", tokens=tokens or Minting(LIFE_US), clock=config.clock, port=port
    )
    return rig


def double_of(config: Config, tokens: AbstractTokens | None = None) -> SimCartPole:
    """Return the rig of a configuration in process."""
    assert config.board is not None
    kind = "sim.rigs.cart_pole:SimCartPole"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    rig: SimCartPole = build(
        table, "rig", tokens=tokens or Minting(LIFE_US), seed=config.seed, ideal=config.ideal
    )
    return rig


def balancing_gain(dt: float) -> Array:
    """Return K of u = −K (θ, x, θ̇, ẋ), linear-quadratic, for M = m = 1 kg and l = 0.5 m."""
    gravity, length = 9.81, 0.5
    slopes = np.zeros((5, 5))
    slopes[0, 2] = slopes[1, 3] = 1.0
    slopes[2, 0], slopes[3, 0] = 2 * gravity / length, -gravity
    slopes[2, 4], slopes[3, 4] = -1 / length, 1.0
    step = expm(slopes * dt)
    a, b = step[:4, :4], step[:4, 4:]
    p = solve_discrete_are(a, b, np.diag([10.0, 10.0, 1.0, 1.0]), np.eye(1))
    return np.asarray(np.linalg.solve(1 + b.T @ p @ b, b.T @ p @ a))


def balance(
    rig: AbstractDynamicRig,
    seconds: float,
    dt: float = 0.02,
    seen: Callable[[DynamicSample], None] = lambda sample: None,
) -> list[DynamicSample]:
    """Balance an active rig from its next sample on; return every sample, `seen` as they come."""
    gain = balancing_gain(dt)
    sample = rig.read()
    samples, velocity = [sample], np.zeros(2)
    for _ in range(round(seconds / dt)):
        u = np.clip(-gain @ np.concatenate([sample.y, velocity]), -20.0, 20.0)
        rig.write(u)
        before, sample = sample, rig.read()
        velocity = 0.3 * velocity + 0.7 * (sample.y - before.y) / dt
        samples.append(sample)
        seen(sample)
    return samples
