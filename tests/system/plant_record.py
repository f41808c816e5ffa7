"""What a simulated cart-pole truly did, from its own record, and how well a model foretold it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hil.mechanics.integrate import rk4
from hil.models.base import AbstractDynamics
from hil.types import Array
from tests.system.rigs import events

DELAY, LAG = 0.001, 0.002  # s, of the shipped cart-pole's motor


class Truth(NamedTuple):
    """The plant at every command: in lock-step one a period, else whenever it came."""

    time: Array  # (n,), s, device time
    states: Array  # (n, nx)
    inputs: Array  # (n, nu), mean of what acts until the next one


def truth_of(record: Path, period: float | None = None) -> Truth:
    """Return the commands of a run, from the first to the last.

    period: s, from each to the next, where it has to be the same.
    """
    found = [event for event in events(record) if event["values"][0] != 0]
    time = np.array([event["time_us"] for event in found]) * 1e-6
    if period is not None and np.abs(np.diff(time) - period).max() > 1e-9:
        raise AssertionError("a period without a new command: it left no state in the record")
    commands = np.array([event["values"] for event in found])
    states = np.array([event["state"] for event in found])
    return Truth(time, states, acting(commands, np.diff(time, append=np.inf)))


def acting(commands: Array, spans: Array) -> Array:
    """Return the mean of what acts from each command (n, nu) until the next, spans s later."""
    force = old = commands[0]
    found = np.empty_like(commands)
    for k, (new, span) in enumerate(zip(commands, spans, strict=True)):
        found[k] = new
        if np.isfinite(span):
            total = 0.0 * new
            for drive, lasts in ((old, min(DELAY, span)), (new, max(span - DELAY, 0.0))):
                after = drive + (force - drive) * np.exp(-lasts / LAG)
                total += drive * lasts + (force - after) * LAG
                force = after
            found[k] = total / span
        old = new
    return found


def one_step_error(model: AbstractDynamics, truth: Truth, begin: float, end: float) -> float:
    """Return the rms over time of |x⁺ − x̂⁺|, x̂⁺ one RK4 step of a model from the true x.

    x = (q, v) in SI, unweighted: velocities make nearly all of it. begin, end: s of device time.
    """
    at = np.flatnonzero((truth.time[:-1] >= begin) & (truth.time[:-1] < end))
    spans: Any = np.diff(truth.time)[at, None]
    foretold = rk4(model.acceleration, truth.states[at], truth.inputs[at], spans)
    gap = foretold - truth.states[at + 1]
    return float(np.sqrt((gap**2).sum(axis=1).mean()))
