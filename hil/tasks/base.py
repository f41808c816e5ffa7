"""The contracts of tasks: what is to be learned on a static rig, or done on a dynamic one.

    data ──loads()──▶ forces ──rig──▶ displacement ──loss()──▶ one number per sample
                                           └───adjoint_loads()──▶ −∂loss/∂displacement

    time ──reference()──▶ r ──loop──▶ states, inputs ──cost(), figures()──▶ how well it was done

A static task knows a geometry and its data, a dynamic one what its states mean, and no task
a device. It draws nothing after it was made, so the same settings, geometry and seed are the
same task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from hil.types import Array, IntArray

STREAM_SPLIT = 101  # of the random numbers of a seed; training has 201 on, plants 1 on


class AbstractStaticTask(ABC):
    """A task learned from static equilibria: `Task(settings, geometry=…, seed=…)`.

    The constructor does no I/O beyond the data an installed package carries. The default
    settings of every task run on the 14-node lattice. A batch is an array of indices into
    the task's samples; `train` and `test` are such arrays. Degrees of freedom are counted
    as in `hil.mechanics.geometry.Geometry`.
    """

    @property
    @abstractmethod
    def train(self) -> IntArray:
        """The samples that are learned from: (n_train,)."""

    @property
    @abstractmethod
    def test(self) -> IntArray:
        """The samples that are not: (n_test,)."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels; empty where there are none."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[int, ...]:
        """Nodes that are loaded, from 0; for the picture."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[int, ...]:
        """Nodes that are read, from 0; for the picture."""

    @abstractmethod
    def labels(self, batch: IntArray) -> IntArray:
        """Return the right class of each sample: (batch,); zeros where there are none."""

    @abstractmethod
    def loads(self, batch: IntArray) -> Array:
        """Return the forces that present each sample: (batch, dof), N."""

    @abstractmethod
    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return the loss of each sample: (batch,), 1.

        displacement: (batch, dof), m, as measured under `loads(batch)`.
        """

    @abstractmethod
    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement of each sample: (batch, dof), 1/m.

        Applied as forces, they give the adjoint elongations (Li & Mao 2024, equation 6);
        whoever applies them scales them to forces and the answer back.
        displacement: (batch, dof), m.
        """

    @abstractmethod
    def predict(self, displacement: Array) -> IntArray:
        """Return the class each equilibrium stands for: (batch,); zeros where there are none.

        displacement: (batch, dof), m.
        """

    @abstractmethod
    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return how good each answer is, 0 to 1: (batch,). Its mean is the accuracy.

        displacement: (batch, dof), m.
        """

    def figures(self, displacement: Array, batch: IntArray) -> dict[str, float]:
        """Return what else there is to say of answers, by names that carry their unit.

        displacement: (batch, dof), m, of all samples that are judged together.
        """
        return {}

    @property
    def n_train(self) -> int:
        """Number of samples that are learned from."""
        return len(self.train)

    @property
    def n_test(self) -> int:
        """Number of samples that are not."""
        return len(self.test)


class AbstractMeasuredTask(AbstractStaticTask):
    """A static task without classes: how far displacements go, and nothing to be told apart."""

    @property
    def classes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def labels(self, batch: IntArray) -> IntArray:
        """Return zeros: (batch,)."""
        return np.zeros(len(batch), dtype=np.int64)

    def predict(self, displacement: Array) -> IntArray:
        """Return zeros: (batch,)."""
        return np.zeros(len(displacement), dtype=np.int64)


class AbstractDynamicTask(ABC):
    """Something to be done with a dynamic rig: `Task(settings)`; every setting has a default."""

    @abstractmethod
    def reference(self, time: float) -> Array:
        """Return the state to be in at `time` s after the start, (nx,)."""

    @abstractmethod
    def cost(self, states: Array, inputs: Array) -> float:
        """Return what a run cost, ≥ 0 and summed over its steps.

        states: (steps, nx); inputs: (steps, nu); SI.
        """

    @abstractmethod
    def error_norm(self, state: Array) -> float:
        """Return how far one state (nx,) is from where it is to be in the end, ≥ 0."""

    @abstractmethod
    def figures(self, time: Array, states: Array, inputs: Array) -> dict[str, float]:
        """Return what else there is to say of a run, by names that carry their unit.

        time: (steps,), device time since the start, s; states: (steps, nx); inputs:
        (steps, nu); SI. What did not come about is inf.
        """
