"""The equations, actuators and sensors of a simulated spring network."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings, check
from hil.errors import ConfigError, FaultError, MechanicsError
from hil.mechanics.factorisation import AbstractFactorisation
from hil.mechanics.finite_springs import FiniteSpringNetwork, Regime
from hil.mechanics.geometry import GeometrySettings, make_geometry
from hil.mechanics.spring_network import Equilibrium, SpringNetwork
from hil.messages.wire import Target
from hil.rigs.settings import pruned_bonds
from hil.types import Array
from sim.imperfections import (
    STREAM_GAIN,
    STREAM_MISMATCH,
    Imperfections,
    Measured,
    TimeNoise,
    drift_rates,
    quantise,
    spread,
)

Range = Annotated[float, Meta(gt=0, description="sensor full scale is plus and minus this, m")]
Positive = Annotated[float, Meta(gt=0)]
REST = 1e-6  # of full scale: a residual below this is taken for none
EVENTS_KEPT = 65536


@dataclass(frozen=True)
class PlantEvent:
    """One change of an actuator, as the plant itself saw it."""

    time_us: int
    target: Target
    offset: int
    values: tuple[float, ...]  # what was applied from `offset` on, N/m or N
    largest: float  # magnitude over the whole array after the change, N/m or N

    def line(self) -> dict[str, Any]:
        """Return the event as a line of the plant's own record."""
        return {
            "time_us": self.time_us,
            "target": self.target.name.lower(),
            "max": self.largest,
            "offset": self.offset,
            "values": self.values,
        }


class PlantRig(Settings, frozen=True, kw_only=True):
    """What a plant needs to know of the rig it plays."""

    geometry: GeometrySettings
    stiffness: Annotated[tuple[Positive, Positive], Meta(description="[lowest, highest], N/m")]
    force_max: Annotated[float, Meta(gt=0, description="on one degree of freedom, N")]
    pruned: tuple[int, ...] = ()  # bonds that are cut, from 1


class SpringNetworkPlantSettings(Settings, frozen=True, kw_only=True):
    """The plant table of a simulated spring network."""

    settling_time: Annotated[float, Meta(ge=0, le=60, description="of the relaxation, s")]
    displacement_range: (
        Range | Annotated[tuple[Range, ...], Meta(description="one per axis, x first, m")]
    )
    elongation_range: Range
    regime: Annotated[
        Regime, Meta(description="linear: small displacements; exact: true lengths of springs")
    ] = "linear"
    imperfections: Imperfections = Imperfections()
    measured: Measured | None = None  # of a rig that this one is to be like


class SpringNetworkPlant:
    """Springs, force and stiffness actuators, displacement and elongation sensors.

    rig: table with `geometry`, `stiffness`, `force_max` and, if need be, `pruned`; other keys
    are not looked at. A cut bond has stiffness 0; its elongation is still the change of distance
    between its two nodes.
    ideal: no imperfection and sensors without an end; the relaxation stays.
    watch: called with every event, as it happens.

    After a change the displacement relaxes exponentially towards the new equilibrium, all
    of it with one time constant: an overdamped network that is only ever read at rest.
    Once the residual is below 1e-6 of full scale the network *is* at its equilibrium, bit
    for bit. So after an unload and a wait it carries no trace of earlier cases, and a run
    that is taken up again measures what the run that was never interrupted measured.

    In the exact regime the equilibrium is the one the network moves to from where it is, and
    elongations are those of the displacement it has. Where it had to leave its branch,
    `snaps` counts; it may then stay elsewhere when it is unloaded, as a real one does.
    """

    Settings: ClassVar[type[SpringNetworkPlantSettings]] = SpringNetworkPlantSettings

    def __init__(
        self,
        settings: SpringNetworkPlantSettings,
        *,
        rig: Mapping[str, Any],
        seed: int = 0,
        ideal: bool = False,
        watch: Callable[[PlantEvent], None] | None = None,
    ) -> None:
        known = {key: rig[key] for key in PlantRig.__struct_fields__ if key in rig}
        limits = check(known, PlantRig, "rig")
        if seed < 0:
            raise ConfigError(f"seed: {seed}: expected 0 or more")
        self.settings = settings
        geometry = make_geometry(limits.geometry, Path.cwd())
        self.network = SpringNetwork.from_geometry(geometry)
        self._finite: FiniteSpringNetwork | None = None
        if settings.regime == "exact":
            self._finite = FiniteSpringNetwork.from_geometry(geometry)
        self.snaps = 0  # how often the network left its branch
        self.events: deque[PlantEvent] = deque(maxlen=EVENTS_KEPT)
        self._watch = watch
        self._flaws = Imperfections() if ideal else settings.imperfections
        dof, bonds = self.network.dof, self.network.bond_count
        self.channels = dof + bonds

        low, high = limits.stiffness
        if low >= high:
            raise ConfigError(f"rig.stiffness: [{low}, {high}] N/m: lowest must be below highest")
        self._ranges = {
            Target.STIFFNESS: (low, high),
            Target.FORCE: (-limits.force_max, limits.force_max),
        }
        self._applied = {
            Target.STIFFNESS: np.full(bonds, (low + high) / 2),
            Target.FORCE: np.zeros(dof),
        }
        self._pruned = pruned_bonds(limits.pruned, self.network)
        self._applied[Target.STIFFNESS][self._pruned] = 0.0
        flaws = self._flaws
        self._full_scale = np.concatenate(  # (channels,), m
            [self._displacement_ranges(), np.full(bonds, settings.elongation_range)]
        )
        self._mismatch = spread(seed, STREAM_MISMATCH, flaws.stiffness_mismatch, bonds)
        self._correction = np.zeros((1, bonds))
        self._gain = spread(seed, STREAM_GAIN, flaws.sensor_gain, self.channels)
        self._zero = np.zeros(self.channels)
        self._drift = drift_rates(seed, flaws.drift, self.channels) * 1e-6  # per microsecond
        self._noise = TimeNoise(seed, self.channels)
        self._noise_size = np.full(self.channels, flaws.sensor_noise)
        if settings.measured is not None and not ideal:
            self._play(settings.measured)
        self._has_gain = bool((self._gain != 1.0).any())
        self._has_zero = bool(self._zero.any())
        self._has_drift = bool(self._drift.any())
        self._has_noise = bool(self._noise_size.any())
        self._saturates = not ideal
        # From here on readings are in units of full scale.
        self._factorisation: AbstractFactorisation | None = None  # None: stiffness has changed
        self._rest: Array | None = np.zeros(self.channels)  # equilibrium; None: to be found
        self._residual = np.zeros(self.channels)  # distance from it when it last changed
        self._peak = 0.0  # largest magnitude of the residual
        self._changed_us = 0
        self._tau_us = settings.settling_time * 1e6

    @property
    def unloaded(self) -> bool:
        """Whether every force is zero."""
        return not self._applied[Target.FORCE].any()

    def applied(self, target: Target) -> Array:
        """Return what the actuators are set to: (bonds,), N/m or (dof,), N."""
        return self._applied[target].copy()

    def release(self, time_us: int) -> None:
        """Make every force zero: nothing drives them any more."""
        self.write(time_us, Target.FORCE, 0, np.zeros(self.network.dof))

    def write(
        self, time_us: int, target: int, offset: int, values: Sequence[float] | Array
    ) -> Array:
        """Set actuators from `offset` on; return what they were set to, N/m or N.

        Raises FaultError for an actuator that is not there or a value that is no number.
        """
        wanted = np.asarray(values, dtype=np.float64)
        if target not in self._applied:
            raise FaultError(f"plant: no actuators of target {target}; known: stiffness, force")
        target = Target(target)
        array = self._applied[target]
        if offset < 0 or offset + len(wanted) > len(array):
            raise FaultError(
                f"plant: {target.name} {offset} to {offset + len(wanted) - 1} written, "
                f"it has 0 to {len(array) - 1}"
            )
        if not np.isfinite(wanted).all():
            raise FaultError(f"plant: {target.name} from {offset} on: not a finite number")
        if self._rest is not None or time_us != self._changed_us:
            self._residual = self._reading(time_us)
        applied = quantise(wanted, *self._ranges[target], self._flaws.dac_bits)
        array[offset : offset + len(wanted)] = applied
        if target is Target.STIFFNESS:
            array[self._pruned] = 0.0
            applied = array[offset : offset + len(wanted)].copy()
            self._factorisation = None
        # Where the new equilibrium lies is found when somebody looks: a write in several
        # pieces at one time costs one solution. Until then the residual is the position.
        self._rest, self._changed_us = None, time_us
        largest = float(np.abs(array).max())
        event = PlantEvent(time_us, target, offset, tuple(applied.tolist()), largest)
        self.events.append(event)
        if self._watch is not None:
            self._watch(event)
        return applied

    def sample(self, time_us: int) -> Array:
        """Return what the sensors say: displacements, then elongations, (channels,), m."""
        return np.asarray(self.samples((time_us,))[0])

    def samples(self, times_us: Sequence[int]) -> Array:
        """Return what the sensors say at times that do not decrease: (times, channels), m."""
        reading = self._readings(times_us)
        if self._has_gain:
            reading *= self._gain
        if self._has_zero:
            reading += self._zero
        if self._has_drift:
            reading += self._drift * np.array(times_us)[:, None]
        if self._has_noise:
            noise = self._noise.each(times_us)
            noise *= self._noise_size
            reading += noise
        if self._saturates:
            reading = quantise(reading, -1.0, 1.0, self._flaws.adc_bits)
        reading *= self._full_scale
        return reading

    def _play(self, measured: Measured) -> None:
        """Take the place of draws with what was found on a rig; raises ConfigError."""
        measured.check(self.channels, self.network.bond_count)
        self._mismatch = np.ones(self.network.bond_count)
        self._correction = np.array(measured.stiffness_correction)
        self._gain = np.array(measured.gain)
        self._zero = np.array(measured.zero) / self._full_scale
        self._drift = np.array(measured.drift) / self._full_scale * 1e-6
        self._noise_size = np.array(measured.noise) / self._full_scale

    def true_stiffness(self, command: Array) -> Array:
        """Return what the springs are where the actuators are set to `command`, (bonds,), N/m."""
        low, high = self._ranges[Target.STIFFNESS]
        middle, half = (low + high) / 2, (high - low) / 2
        powers = ((command - middle) / half) ** np.arange(len(self._correction))[:, None]
        found = command * self._mismatch + middle * (self._correction * powers).sum(0)
        return np.where(command > 0, np.maximum(found, 1e-3 * low), 0.0)  # 0: taken out

    @property
    def gain(self) -> Array:
        """What each sensor reads per length, (channels,), 1; nobody on a bench knows it."""
        return self._gain.copy()

    def _displacement_ranges(self) -> Array:
        """Return the full scale of every displacement sensor: (dof,), m."""
        axes = self.network.geometry.dimensions
        given = np.atleast_1d(self.settings.displacement_range)
        if len(given) not in (1, axes):
            raise ConfigError(
                f"board.plant.displacement_range: {len(given)} values; give one for all axes "
                f"or one for each of {axes}"
            )
        return np.tile(np.broadcast_to(given, axes), self.network.dof // axes)

    def _readings(self, times_us: Sequence[int]) -> Array:
        """Return where the network is at some times, (times, channels), of full scale."""
        first = self._reading(times_us[0])
        if first is self._rest:  # and stays there
            return np.repeat(first[None], len(times_us), axis=0)
        return np.array([first, *(self._reading(time_us) for time_us in times_us[1:])])

    def _reading(self, time_us: int) -> Array:
        """Return where the network is, without any sensor: (channels,), of full scale."""
        elapsed = time_us - self._changed_us
        if elapsed < 0:
            raise FaultError(
                f"plant: time runs backwards, from {self._changed_us} us to {time_us} us"
            )
        if self._rest is None:
            self._find_rest()
        assert self._rest is not None
        decay = math.exp(-elapsed / self._tau_us) if self._tau_us else 0.0
        if self._peak * decay < REST:
            return self._rest
        return self._consistent(self._residual * decay + self._rest)

    def _find_rest(self) -> None:
        """Solve the statics: one factorisation per stiffness, one solution per load."""
        solved = self._linear_rest() if self._finite is None else self._exact_rest(self._finite)
        rest = np.concatenate([solved.displacement, solved.elongation]) / self._full_scale
        self._rest = rest + 0.0  # turns -0 into 0: the same rest has the same bits
        self._residual = self._residual - rest
        self._peak = float(np.abs(self._residual).max())

    def _linear_rest(self) -> Equilibrium:
        if self._factorisation is None:
            stiffness = self.true_stiffness(self._applied[Target.STIFFNESS])
            self._factorisation = self.network.factorise(stiffness)
        return self.network.settle(self._factorisation, self._applied[Target.FORCE])

    def _exact_rest(self, finite: FiniteSpringNetwork) -> Equilibrium:
        """Move from where the network was when the actuators changed."""
        stiffness = self.true_stiffness(self._applied[Target.STIFFNESS])
        dof = self.network.dof
        start = self._residual[:dof] * self._full_scale[:dof]
        try:
            path = finite.follow(stiffness, self._applied[Target.FORCE], start)
        except MechanicsError as error:
            raise FaultError(f"plant: {error}") from None
        self.snaps += path.snapped
        back = np.abs(path.displacement / self._full_scale[:dof]).max() < REST
        if self.unloaded and back:
            return Equilibrium(np.zeros(dof), np.zeros(self.network.bond_count))
        return Equilibrium(path.displacement, path.elongation)

    def _consistent(self, reading: Array) -> Array:
        """Return a position on the way with the elongations it has: (channels,)."""
        if self._finite is None:
            return reading
        dof = self.network.dof
        elongation = self._finite.elongation(reading[:dof] * self._full_scale[:dof])
        return np.concatenate([reading[:dof], elongation / self._full_scale[dof:]])
