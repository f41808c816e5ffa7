"""The environment on the firmware: C code, mirror and bus give the bits of the double."""

from __future__ import annotations

import numpy as np

from hil.environment import RigEnvironment, make
from hil.types import Array


def episode(environment: RigEnvironment, seed: int) -> Array:
    _, info = environment.reset(seed=seed)
    rows = [np.concatenate([info["state"], info["y"], [info["time"]], info["input"]])]
    terminated = False
    actions = iter(np.random.default_rng(2).uniform(-0.1, 0.1, (100, 1)))
    while not terminated:
        _, _, terminated, _, info = environment.step(next(actions))
        rows.append(np.concatenate([info["state"], info["y"], [info["time"]], info["input"]]))
    assert info["ended"].startswith("outside")
    return np.array(rows)


def test_firmware_and_double_are_the_same_environment() -> None:
    firmware = make("environment_balance.toml", through="firmware")
    double = make("environment_balance.toml")
    for seed in (5, 6):
        np.testing.assert_array_equal(episode(firmware, seed), episode(double, seed))
    firmware.close()
    double.close()
