"""A network of gyroscopes that names what moved it: encoder → network → readout.

A signal s(t) becomes nudges, f = W s + b, on a few gyroscopes; when it is over, positions
and velocities of others are read, scaled by one number, and a linear layer gives one score
per class. Everything between the two linear layers is physics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.mechanics.gyro_adjoint import GyroAdjoint, Tape
from hil.mechanics.gyro_geometry import GyroGeometrySettings, make_geometry
from hil.mechanics.gyro_network import DRAG, GRAVITY, GyroNetwork, GyroParameters
from hil.models.operation import Field, Operation
from hil.models.store import read
from hil.types import Array, IntArray

Node = Annotated[int, msgspec.Meta(ge=1, description="gyroscope, from 1")]
CHUNK = 512  # samples that are run at a time: 100 steps of 100 gyroscopes are 80 MB


class GyroClassifierSettings(Settings, frozen=True, kw_only=True):
    """Architecture: the lattice, where it is nudged and read, and for how long."""

    geometry: GyroGeometrySettings = GyroGeometrySettings()
    inputs: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)] = (1, 21, 41, 61, 81)
    outputs: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)] = (10, 30, 50, 70, 90)
    channels: Annotated[int, msgspec.Meta(ge=1)] = 2
    classes: Annotated[int, msgspec.Meta(ge=2)] = 10
    dt: Annotated[float, msgspec.Meta(gt=0, description="a step of the signal, s")] = 0.05
    gravity: Annotated[float, msgspec.Meta(ge=0, description="m/s²")] = GRAVITY
    drag: Annotated[float, msgspec.Meta(ge=0, description="c, kg/m")] = DRAG
    free: Annotated[
        bool, msgspec.Meta(description="masses and springs may be negative, as in a circuit")
    ] = False


@dataclass(frozen=True)
class GyroClassifierWeights:
    """What training finds, SI."""

    mass: Array  # (n,)
    length: Array  # (n,)
    gamma: Array  # (n,)
    stiffness: Array  # (springs,)
    encoder: Array  # (2k, channels), N
    encoder_bias: Array  # (2k,), N
    decoder: Array  # (classes, 4 outputs)
    decoder_bias: Array  # (classes,)
    scale: Array  # (), positions and velocities are divided by it, m and m/s

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class GyroClassifier:
    """A trained network; raises ConfigError for settings and weights that do not fit.

    network: the one the settings describe, where it has been made already.
    """

    Settings: ClassVar[type[GyroClassifierSettings]] = GyroClassifierSettings

    def __init__(
        self,
        settings: GyroClassifierSettings,
        weights: GyroClassifierWeights,
        network: GyroNetwork | None = None,
    ) -> None:
        self.settings = settings
        self.weights = weights
        self.network = network or GyroNetwork(make_geometry(settings.geometry))
        self.inputs = nodes(settings.inputs, self.network.n, "inputs")
        self.outputs = nodes(settings.outputs, self.network.n, "outputs")
        for name, shape in _shapes(settings, self.network).items():
            found = getattr(weights, name).shape
            if found != shape:
                raise ConfigError(f"gyro classifier: {name}: expected {shape}, found {found}")

    @classmethod
    def from_arrays(
        cls, settings: GyroClassifierSettings, arrays: Mapping[str, Array]
    ) -> GyroClassifier:
        """Return the classifier of named arrays.

        Raises ConfigError where they do not fit, MechanicsError where they are not physical
        and `free` does not say that this is meant.
        """
        names = {f.name for f in fields(GyroClassifierWeights)}
        if names != arrays.keys():
            odd = ", ".join(sorted(names ^ arrays.keys()))
            raise ConfigError(f"gyro classifier: arrays missing or unknown: {odd}")
        found = cls(settings, GyroClassifierWeights(**arrays))
        if not settings.free:
            found.parameters.check_physical()
        return found

    @property
    def parameters(self) -> GyroParameters:
        """The physics."""
        w = self.weights
        return GyroParameters(
            w.mass, w.length, w.gamma, w.stiffness, self.settings.gravity, self.settings.drag
        )

    def nudges(self, signals: Array) -> Array:
        """Return the forces signals (batch, steps, channels) make, (batch, steps, k, 2), N."""
        w = self.weights
        forces = signals @ w.encoder.T + w.encoder_bias
        return np.asarray(forces.reshape(*signals.shape[:2], len(self.inputs), 2))

    def features(self, final: Array) -> Array:
        """Return what is read of states (batch, n, 4) at the end, (batch, 4 outputs), 1."""
        return np.asarray(final[:, self.outputs].reshape(len(final), -1) / self.weights.scale)

    def scores(self, features: Array) -> Array:
        """Return one score per class, (batch, classes); softmax gives probabilities."""
        return np.asarray(features @ self.weights.decoder.T + self.weights.decoder_bias)

    def run(self, signals: Array, threads: int = 1) -> Array:
        """Return the last states under signals (batch, steps, channels), (batch, n, 4)."""
        return np.concatenate([tape.at(-1) for tape in self._tapes(signals, threads)])

    def largest_reach(self, signals: Array, threads: int = 1) -> float:
        """Return the largest |q|/L on the way; from 0.98 on a gyroscope has left its rod."""
        return max(tape.largest_reach() for tape in self._tapes(signals, threads))

    def _tapes(self, signals: Array, threads: int) -> Iterator[Tape]:
        runner = GyroAdjoint(self.network, self.settings.dt, inputs=self.inputs, threads=threads)
        try:
            for k in range(0, len(signals), CHUNK):
                yield runner.forward(self.parameters, self.nudges(signals[k : k + CHUNK]))
        finally:
            runner.close()

    def operations(self) -> tuple[Operation, ...]:
        """Return what a classifier can be asked for: one score per class of every signal."""
        s = self.settings
        signals = Field("signals", ("steps", s.channels))
        scores = Field("scores", (s.classes,))

        def run(given: Array) -> list[Array]:
            return [self.scores(self.features(self.run(given)))]

        return (Operation("scores", (signals,), (scores,), run, example=(("steps", 2),)),)

    def predict(self, signals: Array) -> IntArray:
        """Return the class of each signal (batch, steps, channels): (batch,)."""
        found = self.scores(self.features(self.run(signals))).argmax(1)
        return np.asarray(found, dtype=np.int64)


def load(path: str | Path) -> GyroClassifier:
    """Return a stored classifier; raises ConfigError where the file is none."""
    return read(path, GyroClassifier)[0]


def nodes(from_one: tuple[int, ...], count: int, where: str) -> IntArray:
    """Return gyroscopes counted from 0; raises ConfigError for one that is not there."""
    if max(from_one) > count or len(set(from_one)) < len(from_one):
        raise ConfigError(
            f"{where}: expected different gyroscopes from 1 to {count}, found {list(from_one)}"
        )
    return np.array(from_one, dtype=np.int64) - 1


def _shapes(s: GyroClassifierSettings, network: GyroNetwork) -> dict[str, tuple[int, ...]]:
    n, k, read_out = network.n, 2 * len(s.inputs), 4 * len(s.outputs)
    return {
        "mass": (n,), "length": (n,), "gamma": (n,), "stiffness": (network.spring_count,),
        "encoder": (k, s.channels), "encoder_bias": (k,),
        "decoder": (s.classes, read_out), "decoder_bias": (s.classes,), "scale": (),
    }  # fmt: skip
