"""Signals that make a plant show its dynamics, added to a law that keeps it in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.control.base import AbstractController, Solution
from hil.types import Array

Amplitude = Annotated[float, Meta(gt=0, description="root mean square, unit of the input")]
Frequency = Annotated[float, Meta(gt=0, le=1000, description="Hz")]
STREAM_EXCITATION = 301  # of the random numbers of a seed


class AbstractExcitation(ABC):
    """A signal that is a pure function of time and seed."""

    @abstractmethod
    def at(self, time: float) -> float:
        """Return the signal at `time` s after the start, unit of the input."""


class MultisineSettings(Settings, frozen=True, kw_only=True):
    """Many tones at once."""

    amplitude: Amplitude
    low: Frequency
    high: Frequency
    tones: Annotated[int, Meta(ge=1, le=1000)] = 24


class Multisine(AbstractExcitation):
    """Tones of equal size, spaced evenly in log frequency, with random phases."""

    Settings: ClassVar[type[MultisineSettings]] = MultisineSettings

    def __init__(self, settings: MultisineSettings, *, seed: int = 0) -> None:
        random = np.random.default_rng([seed, STREAM_EXCITATION])
        self._rate = 2 * np.pi * np.geomspace(settings.low, settings.high, settings.tones)
        self._phase = random.uniform(0.0, 2 * np.pi, settings.tones)
        self._size = settings.amplitude * np.sqrt(2.0 / settings.tones)

    def at(self, time: float) -> float:
        """Return the sum of the tones."""
        return float(self._size * np.sin(self._rate * time + self._phase).sum())


class PrbsSettings(Settings, frozen=True, kw_only=True):
    """Plus or minus, changing at random."""

    amplitude: Amplitude
    hold: Annotated[float, Meta(gt=0, le=60, description="shortest time between changes, s")]


class Prbs(AbstractExcitation):
    """A pseudo-random binary signal: a new draw of the sign every `hold` seconds."""

    Settings: ClassVar[type[PrbsSettings]] = PrbsSettings

    def __init__(self, settings: PrbsSettings, *, seed: int = 0) -> None:
        self._settings, self._seed = settings, seed

    def at(self, time: float) -> float:
        """Return plus or minus the amplitude."""
        slot = int(time / self._settings.hold + 1e-9)
        random = np.random.default_rng([self._seed, STREAM_EXCITATION, slot])
        return self._settings.amplitude * (1.0 if random.random() < 0.5 else -1.0)


class ChirpSettings(Settings, frozen=True, kw_only=True):
    """One tone that rises."""

    amplitude: Amplitude
    low: Frequency
    high: Frequency
    sweep: Annotated[float, Meta(gt=0, le=3600, description="from low to high, s; then again")]


class Chirp(AbstractExcitation):
    """A sine whose frequency rises exponentially, over and over."""

    Settings: ClassVar[type[ChirpSettings]] = ChirpSettings

    def __init__(self, settings: ChirpSettings, *, seed: int = 0) -> None:
        self._settings = settings
        self._growth = np.log(settings.high / settings.low) / settings.sweep

    def at(self, time: float) -> float:
        """Return the sine; its phase is the integral of its frequency."""
        s = self._settings
        cycles = s.low * (np.exp(self._growth * (time % s.sweep)) - 1.0) / self._growth
        return float(np.sqrt(2.0) * s.amplitude * np.sin(2 * np.pi * cycles))


class Excited(AbstractController):
    """Adds an excitation to the first input of a controller's plans.

    Time goes on by dt with every solve; what the sum may be is up to the limits of the rig.
    """

    def __init__(
        self, controller: AbstractController, excitation: AbstractExcitation, dt: float
    ) -> None:
        self._controller, self._excitation, self._dt = controller, excitation, dt
        self._solved = 0

    @property
    def horizon(self) -> int:
        """That of the controller."""
        return self._controller.horizon

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        """Return the controller's plan with the signal added to its first period."""
        solution = self._controller.solve(x, r, disturbance)
        signal = self._excitation.at(self._solved * self._dt)
        self._solved += 1
        if not len(solution.inputs):
            return solution
        inputs = solution.inputs.copy()
        inputs[0, 0] += signal
        return replace(solution, inputs=inputs)

    def prepare(self, x: Array, r: Array) -> None:
        """Prepare the controller."""
        self._controller.prepare(x, r)

    def reset(self) -> None:
        """Reset the controller; the signal goes on."""
        self._controller.reset()
