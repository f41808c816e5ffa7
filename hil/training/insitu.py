"""A physical network learns in place: measurements give the gradient, one write a step.

Li & Mao, Nat. Commun. 15:10528 (2024). The rig may be a device, a simulation or another
process's; nothing here reads a file, a clock or a random number that is not a function of
seed, epoch and step. So a run taken up from any `TrainingState` goes on as if it had
never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings, build
from hil.errors import InputError, RunError
from hil.mechanics.finite_springs import AbstractStatics
from hil.rigs.base import AbstractStaticRig, MeasuredEquilibrium
from hil.tasks.base import AbstractStaticTask
from hil.training.adam import Adam, AdamState
from hil.training.bounded import BoundedStiffness
from hil.training.events import EpochDone, Evaluation, Event, Started, StepDone
from hil.training.gradient_check import (
    GradientCheck,
    GradientCheckSettings,
    compare,
    differences,
    draw,
)
from hil.training.gradients.base import AbstractGradientMethod
from hil.training.state import Agreement, TrainingState
from hil.types import Array, IntArray

STREAM_ORDER = 201  # of the random numbers of a seed: in which order an epoch takes samples
STREAM_START = 203  # where every bond starts
SEPARATE = "hil.training.gradients.separate:SeparateStates"

Stiffness = Annotated[float, Meta(gt=0, le=1e6)]
Momentum = Annotated[float, Meta(ge=0, lt=1, description="share of a running mean kept, 1")]


class InSituSettings(Settings, frozen=True, kw_only=True):
    """How a network is trained in place."""

    stiffness: Annotated[
        tuple[Stiffness, Stiffness], Meta(description="[lowest, highest] of a bond, N/m")
    ] = (89.375, 185.625)
    start: (
        Annotated[float, Meta(gt=0, description="of every bond, N/m; none: midway")]
        | Annotated[tuple[float, ...], Meta(description="of each bond, held in the bounds, N/m")]
        | Literal["found"]  # as the rig stands: what it learned last
        | None
    ) = None
    start_spread: Annotated[
        float, Meta(ge=0, description="bonds start at random within ± this, by the seed, N/m")
    ] = 0.0
    epochs: Annotated[int, Meta(ge=1, le=1_000_000, description="passes over the data, 1")] = 100
    batch: Annotated[int, Meta(ge=1, le=1024, description="samples in a step, 1")] = 16
    rate: Annotated[float, Meta(gt=0, le=10, description="length of a step of s, 1")] = 0.006
    decay: Annotated[
        float, Meta(gt=0, le=1, description="factor on the step length after every epoch, 1")
    ] = 1.0
    beta: Annotated[
        float, Meta(gt=0, le=1000, description="slope β in k = lo + (hi − lo)·σ(β·s), 1")
    ] = 10.0
    saturation: Annotated[float, Meta(ge=0, le=30, description="largest |β·s|; 0: no end, 1")] = 5.0
    chain_factor: Annotated[
        bool, Meta(description="learn from ∂L/∂s = ∂L/∂k·∂k/∂s; false: from ∂L/∂k, as published")
    ] = True
    adam_beta1: Momentum = 0.9
    adam_beta2: Momentum = 0.999
    adam_epsilon: Annotated[
        float, Meta(gt=0, le=1, description="keeps the division finite, unit of the gradient")
    ] = 1e-8
    adjoint_force: (
        Annotated[float, Meta(gt=0, le=10, description="largest of every adjoint load case, N")]
        | None
    ) = None  # what the method takes by itself
    gradient: Annotated[
        dict[str, Any], Meta(description="table of the gradient's method, a part of its own")
    ] = msgspec.field(default_factory=lambda: {"kind": SEPARATE})
    short_batch: Annotated[
        Literal["mean", "published"],
        Meta(description="published: the loss reported for a short batch is its sum / `batch`"),
    ] = "mean"
    rounding: Annotated[
        float, Meta(ge=0, description="applied − asked taken for rounding, N/m; more is a limit")
    ] = 0.5
    evaluate_every: Annotated[
        int, Meta(ge=0, description="epochs between two looks at all samples; 0: only the last")
    ] = 5
    check: GradientCheckSettings = GradientCheckSettings()

    def __post_init__(self) -> None:
        """Refuse bounds in the wrong order and a start outside of them."""
        low, high = self.stiffness
        if low >= high:
            raise ValueError(f"`stiffness`: [{low}, {high}] N/m: lowest must be below highest")
        if isinstance(self.start, float) and not low < self.start < high:
            raise ValueError(f"`start`: {self.start} N/m is not inside ({low}, {high}) N/m")
        if self.start_spread >= high - low:
            raise ValueError(
                f"`start_spread`: {self.start_spread} N/m is more than [{low}, {high}] N/m holds"
            )


class InSituTraining:
    """Trains the stiffness of a rig in place.

    network: the model the measured gradient is compared with. seed: of order and checks.
    """

    Settings: ClassVar[type[InSituSettings]] = InSituSettings

    def __init__(
        self, settings: InSituSettings, *, network: AbstractStatics, seed: int = 0
    ) -> None:
        self.settings = settings
        self.network = network
        self.seed = seed
        self.bounded = BoundedStiffness(
            *settings.stiffness, settings.beta, settings.saturation or None
        )
        self.optimizer = Adam(
            settings.rate, settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon
        )
        self.method: AbstractGradientMethod = build(
            settings.gradient, "training.gradient", adjoint_force=settings.adjoint_force
        )

    def run(
        self, rig: AbstractStaticRig, task: AbstractStaticTask, state: TrainingState | None = None
    ) -> Iterator[Event]:
        """Train an active rig from a state, or from the start, to the last epoch.

        Every event holds the state after it; going on from any of them repeats exactly what
        followed, given a rig that does. Raises InputError for a state of another network,
        RunError when the rig cannot be brought back to it, and what the rig raises.
        """
        started = self._start(rig) if state is None else self._resume(rig, state)
        yield started
        state = started.state
        while state.epoch < self.settings.epochs:
            while state.step < self.steps(task):
                done = self._step(rig, task, state)
                state = done.state
                yield done
            ended = self._end_epoch(rig, task, state)
            state = ended.state
            yield ended

    def steps(self, task: AbstractStaticTask) -> int:
        """Return the number of steps in an epoch."""
        return -(-task.n_train // self.settings.batch)

    def batch(self, task: AbstractStaticTask, epoch: int, step: int) -> IntArray:
        """Return the samples of a step, a pure function of seed, epoch and step, from 0."""
        order = np.random.default_rng([self.seed, STREAM_ORDER, epoch]).permutation(task.train)
        size = self.settings.batch
        return order[step * size : (step + 1) * size]

    def _step(
        self, rig: AbstractStaticRig, task: AbstractStaticTask, state: TrainingState
    ) -> StepDone:
        meter = _Meter(rig, state)
        batch = self.batch(task, state.epoch, state.step)
        measured = self.method.measure(meter, task, batch)
        gradient = measured.gradient
        slope = self._slope(gradient, state)
        change, adam = self.optimizer.step(slope, state.adam)
        change *= self.settings.decay**state.epoch
        variable = self.bounded.clip(state.variable + change)
        applied = rig.set_stiffness(self.bounded.stiffness(variable))

        displacement = measured.forward.displacement
        loss = self._reported(task.loss(displacement, batch))
        after = replace(
            meter.read(state),
            step=state.step + 1,
            variable=self._followed(variable, applied),
            adam=adam,
            applied=applied,
            cost=state.cost + loss,
        )
        return StepDone(
            epoch=state.epoch + 1,
            step=state.step + 1,
            batch=batch,
            loss=loss,
            correct=round(float(task.score(displacement, batch).sum())),
            gradient=gradient,
            forward=measured.forward,
            adjoint=measured.adjoint,
            measured=measured.measured,
            jumps=int(measured.jumped.sum()),
            applied=applied,
            state=after,
        )

    def _slope(self, gradient: Array, state: TrainingState) -> Array:
        """Return what Adam is given, (bonds,): ∂L/∂s, or ∂L/∂k as published."""
        if not np.isfinite(gradient).all():
            raise RunError(
                f"training: epoch {state.epoch + 1}, step {state.step + 1}: the gradient of bond "
                f"{int(np.flatnonzero(~np.isfinite(gradient))[0]) + 1} is not a finite number; "
                "look at the measured displacements and elongations"
            )
        if not self.settings.chain_factor:
            return gradient
        return gradient * self.bounded.derivative(state.applied)

    def _followed(self, variable: Array, applied: Array) -> Array:
        """Return the variable, moved to what was applied where a limit stopped it.

        Rounding to the levels of an actuator stays out of it, so that steps smaller than a
        level add up.
        """
        asked = self.bounded.stiffness(variable)
        stopped = np.abs(applied - asked) > self.settings.rounding
        return np.where(stopped, self.bounded.variable(applied), variable)

    def _reported(self, loss: Array) -> float:
        """Return the loss of a mini-batch from those of its samples, (batch,)."""
        published = self.settings.short_batch == "published"
        return float(loss.sum()) / (self.settings.batch if published else len(loss))

    def _end_epoch(
        self, rig: AbstractStaticRig, task: AbstractStaticTask, state: TrainingState
    ) -> EpochDone:
        settings, epoch = self.settings, state.epoch + 1
        meter = _Meter(rig, state)
        train = test = None
        every = settings.evaluate_every
        if epoch == settings.epochs or (every and epoch % every == 0):
            train = self._evaluate(meter, task, task.train)
            test = self._evaluate(meter, task, task.test)
        checks: tuple[GradientCheck, ...] = ()
        if settings.check.due(epoch, settings.epochs):
            checks = self._check(meter, task, state)
        after = replace(
            meter.read(state),
            epoch=epoch,
            step=0,
            cost=0.0,
            model=_pooled(state.model, checks, "model"),
            differences=_pooled(state.differences, checks, "differences"),
        )
        loss = state.cost / self.steps(task)
        return EpochDone(epoch, loss, train, test, checks, after)

    def _evaluate(self, meter: _Meter, task: AbstractStaticTask, samples: IntArray) -> Evaluation:
        size = self.settings.batch
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        measured = [meter.settle(task.loads(part)) for part in parts]
        found = np.concatenate([part.displacement for part in measured])
        stretched = np.array([np.abs(part.elongation).max(axis=0) for part in measured])
        return Evaluation(
            loss=float(task.loss(found, samples).mean()),
            accuracy=float(task.score(found, samples).mean()),
            predicted=task.predict(found),
            actual=task.labels(samples),
            strain=float((stretched / self.network.geometry.lengths).max()),
            figures=task.figures(found, samples),
        )

    def _check(
        self, meter: _Meter, task: AbstractStaticTask, state: TrainingState
    ) -> tuple[GradientCheck, ...]:
        settings, count = self.settings.check, len(state.applied)
        batch, bonds = draw(settings, task.train, count, self.seed, state.epoch)
        bonds = bonds[state.applied[bonds] > 0]  # one that is cut answers to nothing
        measured = self.method.measure(meter, task, batch)
        kept = batch[~measured.jumped]
        checks = []
        if len(kept):
            predicted = exact_gradient(self.network, state.applied, task, kept)
            checks.append(GradientCheck("model", np.arange(count), measured.gradient, predicted))
        if len(bonds):
            quotients = differences(meter, task, batch, bonds, settings.step)
            checks.append(compare(measured.products, quotients, bonds))
        return tuple(checks)

    def _start(self, rig: AbstractStaticRig) -> Started:
        found = rig.read_stiffness()
        random = np.random.default_rng([self.seed, STREAM_START])
        spread = self.settings.start_spread * random.uniform(-1.0, 1.0, len(found))
        variable = self.bounded.variable(self._first(found) + spread)
        applied = rig.set_stiffness(self.bounded.stiffness(variable))
        state = TrainingState(
            epoch=0,
            step=0,
            variable=self._followed(variable, applied),
            adam=AdamState.start(len(found)),
            applied=applied,
            cost=0.0,
            measurements=0,
            device_us=0,
            model=Agreement(),
            differences=Agreement(),
        )
        return Started(state, found, matched=False)

    def _first(self, found: Array) -> Array:
        """Return the stiffness to start from, (bonds,), N/m; found: of the rig, read back."""
        start = self.settings.start
        if start == "found":
            return found
        if isinstance(start, tuple):
            if len(start) != len(found):
                raise InputError(
                    f"training.start: {len(start)} values, the rig has {len(found)} bonds; "
                    "start from a run on the same network"
                )
            return np.array(start)
        return np.full(len(found), sum(self.settings.stiffness) / 2 if start is None else start)

    def _resume(self, rig: AbstractStaticRig, state: TrainingState) -> Started:
        found = rig.read_stiffness()
        if len(found) != len(state.applied):
            raise InputError(
                f"training: the state to go on from has {len(state.applied)} bonds, the rig has "
                f"{len(found)}; resume on the rig the run was started on"
            )
        matched = bool(np.array_equal(found, state.applied))
        if not matched:
            rig.set_stiffness(state.applied)
            now = rig.read_stiffness()
            if not np.array_equal(now, state.applied):
                bond = int(np.abs(now - state.applied).argmax())
                raise RunError(
                    f"training: bond {bond + 1} was at {state.applied[bond]} N/m when the run "
                    f"was interrupted and reads {now[bond]} N/m after being set again; resume "
                    "on the rig and the limits the run was started with"
                )
        return Started(state, found, matched)


class _Meter:
    """A rig as a bench: counts the load cases it measures and notes its time."""

    def __init__(self, rig: AbstractStaticRig, state: TrainingState) -> None:
        self._rig = rig
        self._measurements, self._device_us = state.measurements, state.device_us

    def settle(self, loads: Array) -> MeasuredEquilibrium:
        """Measure a batch of load cases."""
        measured = self._rig.settle(loads)
        self._measurements += len(loads)
        self._device_us = measured.device_us
        return measured

    def set_stiffness(self, stiffness: Array) -> Array:
        """Set every bond; return what was applied: (bonds,), N/m."""
        return self._rig.set_stiffness(stiffness)

    def read_stiffness(self) -> Array:
        """Read back what the actuators are set to: (bonds,), N/m."""
        return self._rig.read_stiffness()

    def read(self, state: TrainingState) -> TrainingState:
        """Return the state with the present counts."""
        return replace(state, measurements=self._measurements, device_us=self._device_us)


def exact_gradient(
    statics: AbstractStatics, stiffness: Array, task: AbstractStaticTask, batch: IntArray
) -> Array:
    """Return ∂L/∂k of the mean loss of a batch by the equations: (bonds,), m/N."""

    def slope(displacement: Array) -> Array:
        return -task.adjoint_loads(displacement, batch)

    return statics.backpropagate(stiffness, task.loads(batch), slope).gradient


def _pooled(pool: Agreement, checks: tuple[GradientCheck, ...], reference: str) -> Agreement:
    for check in checks:
        if check.reference == reference:
            pool = pool.add(check.measured, check.expected)
    return pool
