"""Training a gyro classifier: its physics and the two linear layers around it, end to end.

Adam on all of it at once, with a warm-up, a cosine down to zero and a clipped gradient.
What must be positive (masses, lengths, springs) is exp θ; freed, 1/m and K are θ itself and
may pass zero. No mass becomes lighter than the time step can follow. Every epoch is a
function of the seed and its number, so that a run that was interrupted goes on as if it had
not been.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError, RunError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.mechanics.gyro_geometry import make_geometry
from hil.mechanics.gyro_network import GyroNetwork
from hil.models.gyro_classifier import (
    GyroClassifier,
    GyroClassifierSettings,
    GyroClassifierWeights,
    nodes,
)
from hil.tasks.sequences import AbstractSequenceTask
from hil.training.adam import Adam, AdamState
from hil.types import Array, IntArray

STREAM_START, STREAM_EPOCH = 211, 212  # of the random numbers of a seed
CHUNK = 512  # samples that are evaluated at a time

Positive = Annotated[float, Meta(gt=0)]


class GyroTrainingSettings(Settings, frozen=True, kw_only=True):
    """Where training starts and how it goes."""

    network: GyroClassifierSettings = GyroClassifierSettings()
    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 40
    batch: Annotated[int, Meta(ge=1, le=4096, description="samples per step")] = 32
    rate: Annotated[float, Meta(gt=0, le=1, description="of the decoder")] = 3e-3
    encoder_rate: Annotated[float, Meta(ge=0, le=1, description="of the encoder")] = 1.5e-2
    physics_rate: Annotated[float, Meta(ge=0, le=1, description="0 freezes the physics")] = 1.5e-2
    warm_up: Annotated[int, Meta(ge=0, description="steps over which the rates rise")] = 50
    clip: Annotated[float, Meta(gt=0, description="longest gradient, 1")] = 1.0
    mass: Annotated[float, Meta(gt=0, description="at the start, kg")] = 1.0
    length: Annotated[float, Meta(gt=0, description="at the start, m")] = 1.0
    gamma: Annotated[float, Meta(ge=0, description="spread of γ at the start, kg/s")] = 1.0
    stiffness: Annotated[float, Meta(ge=0, description="at the start, N/m")] = 20.0
    force: Annotated[float, Meta(gt=0, description="nudge of a signal of size 1, N")] = 6.0
    coupled: Annotated[bool, Meta(description="false: springs stay 0, the control")] = True
    barrier: Annotated[
        float, Meta(ge=0, description="penalty on |q|²/L² above `free_reach`, 1")
    ] = 0.0
    free_reach: Annotated[float, Meta(ge=0, le=1, description="|q|²/L² that costs nothing")] = 0.8
    evaluate_every: Annotated[int, Meta(ge=1, description="epochs")] = 1
    threads: Annotated[int, Meta(ge=1, le=64)] = 1


class Score(msgspec.Struct, frozen=True):
    """What a part of the data gave."""

    accuracy: float
    loss: float


class GyroTrainingState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a run stands after an epoch; with settings, task and seed all that it needs."""

    epoch: int
    variable: list[float]
    adam_first: list[float]
    adam_second: list[float]
    steps: int
    scale: float  # of the readout, fixed at the start


@dataclass(frozen=True)
class EpochOfGyros:
    """All training samples were taken once."""

    epoch: int  # from 1
    loss: float  # mean over the mini-batches, each before its step
    accuracy: float  # of the same, on varied signals
    validation: Score | None
    reach: float  # largest |q|/L of the last mini-batch
    state: GyroTrainingState


class GyroTraining:
    """Trains; equal settings, task and seed give the same classifier on the same machine."""

    Settings: ClassVar[type[GyroTrainingSettings]] = GyroTrainingSettings

    def __init__(self, settings: GyroTrainingSettings, *, seed: int = 0) -> None:
        self.settings = settings
        self.seed = seed
        self.network = GyroNetwork(make_geometry(settings.network.geometry))
        nodes(settings.network.outputs, self.network.n, "training.network.outputs")
        self.inputs = nodes(settings.network.inputs, self.network.n, "training.network.inputs")
        self._shapes = self._layout()
        ends = np.cumsum([math.prod(shape) for shape in self._shapes.values()])
        self._slices = {
            name: slice(end - math.prod(shape), end)
            for (name, shape), end in zip(self._shapes.items(), ends.tolist(), strict=True)
        }
        self.variables = int(ends[-1])
        self._rates = self._rate_of_each(self.variables)

    def run(
        self, task: AbstractSequenceTask, state: GyroTrainingState | None = None
    ) -> Iterator[EpochOfGyros]:
        """Train epoch by epoch from the start, or on from a state.

        Raises ConfigError where task and network do not fit, MechanicsError where parameters
        leave what dt can follow, and RunError where numbers stop being finite.
        """
        s = self.settings
        self.check(task)
        runner = GyroAdjoint(
            self.network, s.network.dt, inputs=self.inputs, threads=s.threads,
            barrier=s.barrier, free_reach=s.free_reach,
        )  # fmt: skip
        try:
            state = state or self.start(task, runner)
            for epoch in range(state.epoch, s.epochs):
                done = self._epoch(task, runner, state, epoch)
                state = done.state
                yield done
        finally:
            runner.close()

    def model(self, state: GyroTrainingState) -> GyroClassifier:
        """Return the classifier of a state."""
        return self._model(_array(state), state.scale)

    def evaluate(self, model: GyroClassifier, task: AbstractSequenceTask, part: IntArray) -> Score:
        """Return accuracy and loss of a part of the data, as it is."""
        right = loss = 0.0
        for first in range(0, len(part), CHUNK):
            some = part[first : first + CHUNK]
            final = model.run(task.signals(some), self.settings.threads)
            scores = model.scores(model.features(final))
            losses, _ = cross_entropy(scores, task.labels(some))
            loss += float(losses.sum())
            right += float((scores.argmax(1) == task.labels(some)).sum())
        return Score(right / len(part), loss / len(part))

    def start(self, task: AbstractSequenceTask, runner: GyroAdjoint) -> GyroTrainingState:
        """Return the state before the first step; the readout is scaled once, here."""
        s, random = self.settings, np.random.default_rng([self.seed, STREAM_START])
        k, channels = self._shapes["encoder"]
        classes, read = self._shapes["decoder"]
        values = {
            "mass": np.full(self.network.n, 1 / s.mass if s.network.free else math.log(s.mass)),
            "length": np.full(self.network.n, math.log(s.length)),
            "gamma": s.gamma * random.standard_normal(self.network.n),
            "stiffness": np.full(
                self.network.spring_count,
                s.stiffness if s.network.free else math.log(max(s.stiffness, 1e-12)),
            ),
            "encoder": s.force / math.sqrt(channels) * random.standard_normal((k, channels)),
            "encoder_bias": np.zeros(k),
            "decoder": random.standard_normal((classes, read)) / math.sqrt(read),
            "decoder_bias": np.zeros(classes),
        }
        flat = np.concatenate([values[name].ravel() for name in self._shapes])
        model = self._model(flat, 1.0)
        some = task.train[: 4 * s.batch]
        final = runner.forward(model.parameters, model.nudges(task.signals(some))).at(-1)
        scale = float(np.sqrt((model.features(final) ** 2).mean())) or 1.0
        zeros = [0.0] * len(flat)
        return GyroTrainingState(0, flat.tolist(), zeros, zeros, 0, scale)

    def start_from(self, model: GyroClassifier) -> GyroTrainingState:
        """Return the state before the first step of training a classifier further."""
        w, free = model.weights, self.settings.network.free
        values = w.arrays() | {
            "mass": 1.0 / w.mass if free else np.log(w.mass),
            "length": np.log(w.length),
            "stiffness": w.stiffness if free else np.log(np.maximum(w.stiffness, 1e-12)),
        }
        flat = np.concatenate([values[name].ravel() for name in self._shapes])
        zeros = [0.0] * len(flat)
        return GyroTrainingState(0, flat.tolist(), zeros, zeros, 0, float(w.scale))

    def _epoch(
        self, task: AbstractSequenceTask, runner: GyroAdjoint, state: GyroTrainingState, epoch: int
    ) -> EpochOfGyros:
        s, random = self.settings, np.random.default_rng([self.seed, STREAM_EPOCH, epoch])
        order = random.permutation(task.train)
        per_epoch = -(-len(order) // s.batch)
        total_loss = right = reach = 0.0
        self.network.check_step(self.model(state).parameters, s.network.dt)
        for first in range(0, len(order), s.batch):
            some = order[first : first + s.batch]
            loss, correct, gradient, reach = self.gradient(
                self.model(state), runner, task.signals(some, random), task.labels(some)
            )
            state = self.step(state, gradient, s.epochs * per_epoch)
            total_loss += loss * len(some)
            right += correct
        after = msgspec.structs.replace(state, epoch=epoch + 1)
        due = (epoch + 1) % s.evaluate_every == 0 or epoch + 1 == s.epochs
        validation = None
        if due and len(task.validation):
            validation = self.evaluate(self.model(after), task, task.validation)
        count = len(order)
        return EpochOfGyros(epoch + 1, total_loss / count, right / count, validation, reach, after)

    def step(self, state: GyroTrainingState, gradient: Array, total: int) -> GyroTrainingState:
        """Return the state one step of the optimiser further, of `total` in the whole run.

        Raises RunError where the gradient is not finite.
        """
        s, length = self.settings, float(np.sqrt(gradient @ gradient))
        if not math.isfinite(length):
            raise RunError(
                f"training: the gradient is not finite in epoch {state.epoch + 1}; "
                "take smaller rates or a smaller force"
            )
        adam = AdamState(np.array(state.adam_first), np.array(state.adam_second), state.steps)
        change, adam = Adam(1.0).step(gradient * min(1.0, s.clip / max(length, 1e-30)), adam)
        rate = schedule(adam.steps, s.warm_up, total)
        variable = self._held(_array(state) + rate * self._rates * change)
        return GyroTrainingState(
            state.epoch, variable.tolist(), adam.first.tolist(), adam.second.tolist(), adam.steps,
            state.scale,
        )  # fmt: skip

    def gradient(
        self,
        model: GyroClassifier,
        runner: GyroAdjoint,
        signals: Array,
        labels: IntArray,
        measured: Array | None = None,
    ) -> tuple[float, int, Array, float]:
        """Return mean loss, right answers, slope by the variables (n,) and largest |q|/L.

        measured: what an instrument did under the same signals, in the place of the model's
        own motion, SI: the last states of the outputs (batch, outputs, 4), or every state
        (batch, steps + 1, n, 4). The loss is then the instrument's, the way back the model's.
        """
        w, batch = model.weights, len(signals)
        tape = runner.forward(model.parameters, model.nudges(signals))
        if measured is not None and measured.ndim == 4:
            tape = runner.along(tape, measured)
        final = tape.at(-1)
        if measured is not None and measured.ndim == 3:
            final[:, model.outputs] = measured
        features = model.features(final)
        scores = model.scores(features)
        losses, by_scores = cross_entropy(scores, labels)
        by_scores /= batch
        adjoint = np.zeros_like(final)
        by_features = by_scores @ w.decoder
        adjoint[:, model.outputs] = by_features.reshape(batch, -1, 4) / w.scale
        g = runner.backward(tape, adjoint)
        forces = g.nudges.reshape(-1, len(w.encoder))
        slopes = {
            "mass": -g.mass * w.mass**2 if self.settings.network.free else g.mass * w.mass,
            "length": g.length * w.length,
            "gamma": g.gamma,
            "stiffness": g.stiffness * (1.0 if self.settings.network.free else w.stiffness),
            "encoder": forces.T @ signals.reshape(len(forces), -1),
            "encoder_bias": forces.sum(0),
            "decoder": by_scores.T @ features,
            "decoder_bias": by_scores.sum(0),
        }
        flat = np.concatenate([slopes[name].ravel() for name in self._shapes])
        flat[self._rates == 0] = 0.0  # what is frozen must not use up the clipped length
        reach = float(self.network.reach(model.parameters, final).max())
        right = int((scores.argmax(1) == labels).sum())
        return float(losses.mean()) + runner.barrier_cost(tape), right, flat, reach

    def _held(self, variable: Array) -> Array:
        """Return the variables with no mass lighter than dt can follow."""
        p = self._model(variable, 1.0).parameters
        least, part = self.network.lightest(p, self.settings.network.dt), self._slices["mass"]
        held = variable.copy()
        if self.settings.network.free:
            held[part] = np.clip(variable[part], -1.0 / least, 1.0 / least)
        else:
            held[part] = np.maximum(variable[part], np.log(least))
        return held

    def _model(self, variable: Array, scale: float) -> GyroClassifier:
        weights = self._weights(variable, scale)
        return GyroClassifier(self.settings.network, weights, self.network)

    def _weights(self, flat: Array, scale: float) -> GyroClassifierWeights:
        part = {n: flat[self._slices[n]].reshape(shape) for n, shape in self._shapes.items()}
        part["length"] = np.exp(part["length"])
        if self.settings.network.free:
            part["mass"] = 1.0 / part["mass"]
        else:
            part["mass"] = np.exp(part["mass"])
            part["stiffness"] = np.exp(part["stiffness"])
        if not self.settings.coupled:
            part["stiffness"] = np.zeros_like(part["stiffness"])
        return GyroClassifierWeights(scale=np.asarray(scale), **part)

    def _layout(self) -> dict[str, tuple[int, ...]]:
        s, n = self.settings.network, self.network.n
        k = 2 * len(s.inputs)
        return {
            "mass": (n,), "length": (n,), "gamma": (n,), "stiffness": (self.network.spring_count,),
            "encoder": (k, s.channels), "encoder_bias": (k,),
            "decoder": (s.classes, 4 * len(s.outputs)), "decoder_bias": (s.classes,),
        }  # fmt: skip

    def _rate_of_each(self, count: int) -> Array:
        s, rates = self.settings, np.empty(count)
        for name, part in self._slices.items():
            physics = name in ("mass", "length", "gamma", "stiffness")
            encoder = name.startswith("encoder")
            rates[part] = s.physics_rate if physics else s.encoder_rate if encoder else s.rate
        return rates

    def check(self, task: AbstractSequenceTask) -> None:
        """Raise ConfigError where the task has other channels or classes than the network."""
        s = self.settings.network
        if task.channels != s.channels or len(task.classes) != s.classes:
            raise ConfigError(
                f"training.network: {s.channels} channels and {s.classes} classes; the task has "
                f"{task.channels} and {len(task.classes)}"
            )


def schedule(step: int, warm_up: int, total: int) -> float:
    """Return the share of the rates at a step, from 1: up in a line, down in a cosine."""
    if step <= warm_up:
        return step / warm_up
    done = (step - warm_up) / max(total - warm_up, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def cross_entropy(scores: Array, labels: IntArray) -> tuple[Array, Array]:
    """Return −log softmax at the labels, (batch,), and its slope by scores (batch, classes)."""
    shifted = scores - scores.max(1, keepdims=True)
    shares = np.exp(shifted)
    total = shares.sum(1)
    rows = np.arange(len(labels))
    slope = shares / total[:, None]
    slope[rows, labels] -= 1.0
    return np.log(total) - shifted[rows, labels], slope


def _array(state: GyroTrainingState) -> Array:
    return np.array(state.variable)
