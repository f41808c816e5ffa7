"""What real converters, sensors and springs do to the numbers of an ideal plant.

Everything here is a pure function of the seed, of plant time and of its arguments: the
same plant time gives the same noise whatever was measured before, so that a run that is
taken up again in the middle sees the noise of the run that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.types import Array

Bits = Annotated[int, Meta(ge=0, le=24, description="resolution, bits; 0: ideal")]
Share = Annotated[float, Meta(ge=0, le=0.5, description="relative standard deviation, 1")]

# One stream of random numbers per purpose, so that adding one leaves the others alone.
STREAM_MISMATCH, STREAM_GAIN, STREAM_DRIFT = 1, 2, 3


class Imperfections(Settings, frozen=True, kw_only=True):
    """How far a simulated rig is from the ideal one; every default is ideal."""

    adc_bits: Bits = 0
    dac_bits: Bits = 0
    stiffness_mismatch: Share = 0.0  # per bond, one draw from the seed
    sensor_noise: Annotated[
        float, Meta(ge=0, le=1, description="standard deviation per sample, of full scale")
    ] = 0.0
    sensor_gain: Share = 0.0  # per channel, one draw from the seed
    drift: Annotated[
        float, Meta(ge=0, le=1, description="standard deviation over channels, full scale per hour")
    ] = 0.0

    def __post_init__(self) -> None:
        if 1 in (self.adc_bits, self.dac_bits):
            raise ValueError("a converter has 2 to 24 bits, or 0 for an ideal one; found 1")


class Measured(Settings, frozen=True, kw_only=True):
    """What was found on a rig, bond by bond and channel by channel, instead of draws.

    It takes the place of mismatch, gain, drift and noise of `Imperfections`; converters stay.
    """

    device_id: str  # of the rig it was found on
    source: str  # the recording or the calibration it is from
    stiffness_correction: Annotated[
        tuple[tuple[float, ...], ...],
        Meta(
            min_length=1,
            description="k = command + middle·Σ c_p x^p, x from −1 to 1; (terms, bonds), 1",
        ),
    ]
    gain: Annotated[tuple[float, ...], Meta(description="reading per length, (channels,), 1")]
    zero: Annotated[tuple[float, ...], Meta(description="at plant time 0, (channels,), m")]
    drift: Annotated[tuple[float, ...], Meta(description="of the zeros, (channels,), m/s")]
    noise: Annotated[tuple[float, ...], Meta(description="of one sample, (channels,), m")]

    def check(self, channels: int, bonds: int) -> None:
        """Raise ConfigError unless there is one number for every channel and bond."""
        for name in ("gain", "zero", "drift", "noise"):
            if len(getattr(self, name)) != channels:
                raise ConfigError(
                    f"board.plant.measured.{name}: {len(getattr(self, name))} values, the rig has "
                    f"{channels} channels"
                )
        if any(len(row) != bonds for row in self.stiffness_correction):
            raise ConfigError(
                f"board.plant.measured.stiffness_correction: expected {bonds} values in each row"
            )


def quantise(values: Array, low: float, high: float, bits: int) -> Array:
    """Return what a converter makes of `values`: the nearest of its levels, saturated.

    values: any shape, in the unit of `low` and `high`. bits: 0, which
    saturates and does not round, or at least 2.
    A range symmetric about zero has 2**bits − 1 levels, of which zero is one (two's
    complement without its lowest code): a zero command must be a zero output. Any other
    range has 2**bits levels from `low` to `high`.
    """
    saturated = np.minimum(np.maximum(values, low), high)
    if bits == 0:
        return saturated
    if low == -high:
        origin, span, steps = 0.0, high, 2 ** (bits - 1) - 1
    else:
        origin, span, steps = low, high - low, 2**bits - 1
    codes = np.rint((saturated - origin) * (steps / span))
    return np.asarray(origin + span * (codes / steps))


def spread(seed: int, stream: int, std: float, count: int) -> Array:
    """Return `count` positive factors about one, of relative standard deviation `std`.

    Log-normal, so that no draw turns a stiffness or a gain negative; for the few percent
    this is meant for it is 1 + std·N(0, 1) to first order.
    """
    return np.exp(std * np.random.default_rng([seed, stream]).standard_normal(count))


def drift_rates(seed: int, drift: float, channels: int) -> Array:
    """Return how fast the zero of each channel moves: (channels,), full scale per second."""
    draws = np.random.default_rng([seed, STREAM_DRIFT]).standard_normal(channels)
    return np.asarray(drift / 3600.0 * draws)


class TimeNoise:
    """Standard normal noise that depends on the seed and on plant time alone.

    Philox is a counter-based generator (Salmon et al., SC 2011): its counter is set from
    the plant time in microseconds, so every microsecond has a stream of its own, 2**64
    draws long, and nothing needs to be remembered from one sample to the next.
    """

    def __init__(self, seed: int, channels: int) -> None:
        self._bits = np.random.Philox(key=seed)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state  # fresh: nothing buffered, so a draw starts at the counter
        self._counter = self._state["state"]["counter"]  # lowest word: draws; next one: time
        self._values = np.empty(channels)

    def at(self, time_us: int) -> Array:
        """Return the noise at a plant time: (channels,), 1; overwritten by the next call."""
        self._counter[1] = time_us
        self._bits.state = self._state
        self._generator.standard_normal(out=self._values)
        return self._values

    def each(self, times_us: Iterable[int]) -> Array:
        """Return the noise at plant times: (times, channels), 1."""
        times = tuple(times_us)
        found = np.empty((len(times), len(self._values)))
        for time_us, row in zip(times, found, strict=True):
            self._counter[1] = time_us
            self._bits.state = self._state
            self._generator.standard_normal(out=row)
        return found
