"""A response that is not proportional to its force, which no linear network has."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import STREAM_SPLIT, AbstractMeasuredTask
from hil.tasks.channel import Channel, ChannelName
from hil.tasks.linear_bound import best_slope
from hil.types import Array, IntArray


class ResponseSettings(Settings, frozen=True, kw_only=True):
    """Where it is pushed and read, and which response is wanted."""

    input: Annotated[ChannelName, Meta(description="pushed by x from −1 to 1")] = "11x"
    output: ChannelName = "11y"
    coefficients: Annotated[
        tuple[float, ...],
        Meta(min_length=1, description="of x, x², x³ … in the wanted displacement, m"),
    ] = (0.0, 3e-4)
    force: Annotated[float, Meta(gt=0, le=10, description="at x = 1, N")] = 0.2
    scale: Annotated[float, Meta(gt=0, le=0.1, description="of the squared loss, m")] = 1e-4
    train: Annotated[int, Meta(ge=3, description="forces that are learned from, evenly, 1")] = 9
    test: Annotated[int, Meta(ge=1, description="forces that are not, at random, 1")] = 32

    def __post_init__(self) -> None:
        """Refuse a response that is none."""
        if not any(self.coefficients):
            raise ValueError("`coefficients`: all are zero; give the response you want")


class Response(AbstractMeasuredTask):
    """u = c₁ x + c₂ x² + …, x the force in its unit; loss ½ ((u − wanted)/scale)²."""

    Settings: ClassVar[type[ResponseSettings]] = ResponseSettings

    def __init__(self, settings: ResponseSettings, *, geometry: Geometry, seed: int = 0) -> None:
        self._input = Channel.of(settings.input, geometry)
        self._output = Channel.of(settings.output, geometry)
        self._force, self._scale = settings.force, settings.scale
        self._dof = len(geometry.free_dofs)
        random = np.random.default_rng([seed, STREAM_SPLIT])
        drawn = random.uniform(-1.0, 1.0, settings.test)
        self._x = np.concatenate([np.linspace(-1.0, 1.0, settings.train), drawn])
        powers = self._x[:, None] ** np.arange(1, len(settings.coefficients) + 1)
        self._wanted = powers @ np.array(settings.coefficients)  # (samples,), m
        self._train = np.arange(settings.train)
        self._test = np.arange(settings.train, len(self._x))
        self._size = float(np.sqrt(np.mean(self._wanted[self._train] ** 2)))  # m

    @property
    def train(self) -> IntArray:
        """The samples that are learned from."""
        return self._train

    @property
    def test(self) -> IntArray:
        """The samples that are not."""
        return self._test

    @property
    def inputs(self) -> tuple[int, ...]:
        """The node that is pushed."""
        return (self._input.node,)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The node that is read."""
        return (self._output.node,)

    def loads(self, batch: IntArray) -> Array:
        """Return the force of each sample: (batch, dof), N."""
        loads = np.zeros((len(batch), self._dof))
        loads[:, self._input.dof] = self._input.sign * self._force * self._x[batch]
        return loads

    def loss(self, displacement: Array, batch: IntArray) -> Array:
        """Return half the squared error in scales: (batch,), 1."""
        return np.asarray(0.5 * (self._error(displacement, batch) / self._scale) ** 2)

    def adjoint_loads(self, displacement: Array, batch: IntArray) -> Array:
        """Return −∂loss/∂displacement, zero but at the output: (batch, dof), 1/m."""
        loads = np.zeros((len(batch), self._dof))
        error = self._error(displacement, batch)
        loads[:, self._output.dof] = -self._output.sign * error / self._scale**2
        return loads

    def score(self, displacement: Array, batch: IntArray) -> Array:
        """Return 1 − |error| over the rms of what is wanted, not below 0: (batch,)."""
        return np.maximum(0.0, 1.0 - np.abs(self._error(displacement, batch)) / self._size)

    def figures(self, displacement: Array, batch: IntArray) -> dict[str, float]:
        """Return the error and the least one a linear network can have of these samples."""
        wanted = self._wanted[batch]
        error = self._error(displacement, batch)
        return {
            "nrmse": float(np.sqrt(np.mean(error**2) / np.mean(wanted**2))),
            "largest_error_m": float(np.abs(error).max()),
            "linear_bound_nrmse": best_slope(self._x[batch], wanted),
        }

    def _error(self, displacement: Array, batch: IntArray) -> Array:
        read = self._output.sign * displacement[:, self._output.dof]
        return np.asarray(read - self._wanted[batch])
