"""What a simulated cart-pole truly did, from its own record, and how well a model foretold it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hil.control.discretise import advance
from hil.models.base import AbstractDynamics
from hil.training.fit import applied
from hil.types import Array
from tests.system.rigs import events

DELAY, LAG = 0.001, 0.002  # s, of the shipped cart-pole's motor


class Truth(NamedTuple):
    """The plant at every sample at which it was commanded, in lock-step one a period."""

    time: Array  # (n,), s, device time
    states: Array  # (n, nx)
    inputs: Array  # (n, nu), mean of what acts until the next one


def truth_of(record: Path, period: float) -> Truth:
    """Return the commands of a run one period apart, from the first to the last."""
    found = [event for event in events(record) if event["values"][0] != 0]
    time = np.array([event["time_us"] for event in found]) * 1e-6
    if np.abs(np.diff(time) - period).max() > 1e-9:
        raise AssertionError("a period without a new command: it left no state in the record")
    commands = np.array([event["values"] for event in found])
    acting = applied(commands, period, DELAY, LAG)
    return Truth(time, np.array([event["state"] for event in found]), acting)


def one_step_error(model: AbstractDynamics, truth: Truth, begin: float, end: float) -> float:
    """Return the rms over time of |x⁺ − x̂⁺|, x̂⁺ one RK4 step of a model from the true x.

    x = (q, v) in SI, unweighted: velocities make nearly all of it. begin, end: s of device time.
    """
    at = np.flatnonzero((truth.time[:-1] >= begin) & (truth.time[:-1] < end))
    period = truth.time[1] - truth.time[0]
    foretold = advance(model, truth.states[at], truth.inputs[at], period, 4)
    gap = foretold - truth.states[at + 1]
    return float(np.sqrt((gap**2).sum(axis=1).mean()))
