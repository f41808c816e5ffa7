"""A training configuration on a double of its rig in this process: no link, no mirror, no bus.

The double takes the rig's table and the plant's, so it is the simulated rig of `--sim` without
what carries messages to it; the trainer is the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hil.config import Config, build
from hil.errors import ConfigError
from hil.mechanics.geometry import make_geometry
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import AbstractStaticRig
from hil.safety.limits import Limited
from hil.tasks.base import AbstractStaticTask
from hil.training.events import EpochDone, Evaluation
from hil.training.insitu import InSituTraining
from hil.types import Array, IntArray


class Rehearsal:
    """Trains and judges one configuration on one double.

    config: with [board], as loaded for a simulation. double: `module:Class` of a rig that
    takes the tables of the hardware rig and `plant`. Raises ConfigError for a configuration
    that is not that of a spring network with a task and a training.
    """

    def __init__(self, config: Config, double: str) -> None:
        if config.board is None or config.task is None or config.training is None:
            raise ConfigError(
                f"{config.name}: to rehearse it takes [board], [task] and [training]; "
                "is the simulation overlay (x.sim.toml) there?"
            )
        self.config = config
        self._table = config.rig | {"kind": double, "plant": config.board["plant"]}
        settings = build(self._table, "rig", seed=config.seed).settings
        self.network = SpringNetwork.from_geometry(make_geometry(settings.geometry, Path.cwd()))
        self.task: AbstractStaticTask = build(
            config.task, "task", geometry=self.network.geometry, seed=config.seed
        )
        self._training = config.training

    def train(self, start: Array | None = None, pruned: tuple[int, ...] = ()) -> EpochDone:
        """Return the last epoch of a training.

        start: stiffness to begin with, (bonds,), N/m; none: what the configuration says.
        pruned: bonds that are cut, from 1. Raises MechanicsError where that leaves a zero mode.
        """
        table = self._training if start is None else self._training | {"start": start.tolist()}
        training: InSituTraining = build(
            table, "training", network=self.network, seed=self.config.seed
        )
        with self._rig(pruned) as rig:
            *_, last = training.run(rig, self.task)
        assert isinstance(last, EpochDone)
        return last

    def judge(self, stiffness: Array, pruned: tuple[int, ...] = ()) -> Evaluation:
        """Return what the training samples give at a stiffness (bonds,), N/m."""
        samples = self.task.train
        with self._rig(pruned) as rig:
            rig.set_stiffness(stiffness)
            found = rig.settle(self.task.loads(samples)).displacement
        return _evaluation(self.task, found, samples)

    @contextlib.contextmanager
    def _rig(self, pruned: tuple[int, ...]) -> Iterator[AbstractStaticRig]:
        config = self.config
        bare = build(
            self._table | {"pruned": list(pruned)}, "rig", seed=config.seed, ideal=config.ideal
        )
        with Limited(bare) as rig:
            rig.configure()
            rig.activate()
            yield rig


def _evaluation(task: AbstractStaticTask, found: Array, samples: IntArray) -> Evaluation:
    return Evaluation(
        loss=float(task.loss(found, samples).mean()),
        accuracy=float(task.score(found, samples).mean()),
        predicted=task.predict(found),
        actual=task.labels(samples),
    )
