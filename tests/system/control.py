"""A control loop on a simulated rig behind a mirror, and what its plant wrote down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.config import Config, build, check, load, merge
from hil.control.base import AbstractController, AbstractEstimator
from hil.errors import RunError
from hil.loop import ControlLoop, ControlStep, LoopSettings
from hil.messages import bus
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics, Linearisation
from hil.rigs.base import RigState
from hil.rigs.remote import RemoteDynamicRig
from hil.safety.deadman import Minting
from hil.services import owner
from hil.types import AnyArray, Array
from tests.system.rigs import ROOT, address, events

BALANCE = ROOT / "configs/balance.toml"
PERIOD_US = 20_000
WATCHDOG_US = 200_000


def balance(tmp_path: Path, **overrides: object) -> tuple[Config, Path]:
    """Return the shipped task on a simulated rig and the file of the plant's record."""
    record = tmp_path / "plant.jsonl"
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    config = load(BALANCE, sim=True, overrides={"board.record": str(record), **dotted})
    return config, record


def estimator_of(config: Config, dynamics: AbstractDynamics) -> AbstractEstimator:
    assert config.estimator is not None
    table = merge({"dt": PERIOD_US / 1e6}, config.estimator)
    made: AbstractEstimator = build(table, "estimator", dynamics=dynamics)
    return made


def controller_of(config: Config, dynamics: AbstractDynamics) -> AbstractController:
    assert config.control is not None
    table = merge({"dt": PERIOD_US / 1e6}, config.control)
    made: AbstractController = build(table, "control", dynamics=dynamics)
    made.solve(np.zeros(4), np.zeros(4), np.zeros(1))  # what it does once is done
    made.reset()
    return made


def loop_of(
    config: Config,
    rig: RemoteDynamicRig,
    controller: AbstractController | None = None,
    estimator: AbstractEstimator | None = None,
) -> ControlLoop:
    model = CartPoleModel()
    return ControlLoop(
        rig,
        estimator or estimator_of(config, model),
        controller or controller_of(config, model),
        check(config.loop, LoopSettings, "loop"),
        period_s=PERIOD_US / 1e6,
        reference=lambda time: np.zeros(4),
    )


def run(loop: ControlLoop, at_40: Callable[[], None] = lambda: None) -> list[ControlStep]:
    """Run a loop to its end, with something that happens after 40 periods."""
    steps = []
    for step in loop.run():
        steps.append(step)
        if len(steps) == 40:
            at_40()
    return steps


@contextlib.contextmanager
def active(config: Config, client: str = "test") -> Iterator[RemoteDynamicRig]:
    with RemoteDynamicRig(address(config), mint=Minting, client=client) as rig:
        rig.configure()
        rig.activate()
        yield rig


def report(config: Config) -> bus.StatusReport:
    found = owner.status(config)
    assert found is not None
    return found


def forces(record: Path) -> list[tuple[int, float]]:
    """Return every change of the commanded force: device time, us, and N."""
    return [(event["time_us"], event["values"][0]) for event in events(record)]


def ended(record: Path) -> bool:
    return forces(record)[-1][1] == 0


def end_after(record: Path) -> int:
    """Return the time from the last force to the zero that ended it, us, device time."""
    return zero_at(record) - max(at for at, force in forces(record) if force)


def assert_in_time(record: Path) -> None:
    """The force ended with its token: the device never looked again while it was on.

    A device that is a process of a busy machine may oversleep; what it does first then is
    to make the force zero. The bound is exact and knows no margin.
    """
    zero = next(event for event in events(record) if event["time_us"] == zero_at(record))
    last = zero_at(record) - end_after(record)
    assert last <= zero["before_us"] < last + WATCHDOG_US


def zero_at(record: Path) -> int:
    """Return the device time, us, of the zero after the last force; none came after it."""
    changes = forces(record)
    last = max(i for i, (_, force) in enumerate(changes) if force)
    return changes[last + 1][0]


def assert_latched(config: Config, record: Path, rig: RemoteDynamicRig, why: str) -> None:
    """The mirror says fault and why; nothing but clear() leads out; no force since."""
    seen = report(config)
    assert seen.state == "fault"
    assert why.lower() in seen.fault.lower()
    for call in (rig.read, rig.activate, lambda: rig.write(np.ones(1))):
        with pytest.raises(RunError):
            call()
    assert ended(record)


def assert_cleared(config: Config, rig: RemoteDynamicRig) -> None:
    rig.clear()
    assert rig.state is RigState.INACTIVE
    assert (report(config).state, report(config).fault) == ("inactive", "")


class Poisoned(AbstractDynamics):
    """The equations, and what is not a number while `poison` is set."""

    def __init__(self) -> None:
        self._inner = CartPoleModel()
        self.poison = False

    @property
    def nq(self) -> int:
        return 2

    @property
    def nu(self) -> int:
        return 1

    def acceleration(self, q: Array, v: Array, u: Array) -> AnyArray:
        found = self._inner.acceleration(q, v, u)
        return found * np.nan if self.poison else found

    def linearise(self, x: Array, u: Array) -> Linearisation:
        found = self._inner.linearise(x, u)
        return Linearisation(*(part * np.nan for part in found)) if self.poison else found
