"""The analog machine as equations: the gyro network's ODE, with what real parts do to it.

**Lag.** An integrator whose op-amp has the gain-bandwidth f_t lags by δ = 1/(2π f_t τ) in
the time of the system, an inverter by 2 δ (its noise gain is 2), a multiplier with a pole f_m
by δ_m = 1/(2π f_m τ). Where inputs of a total gain G (1/s) reach it through resistors, an
integrator is slower by δ G as well (`sim.circuits.netlist.loading`); currents do not load it.
The inverter makes v_x for the spin that acts on y. To first order in δ,

    q̇ = (1 − δ G_q) v(t − δ)    v̇ = (1 − δ G_v) a(t − δ − δ_m) − 2 δ (γ/m) (0, a_x)

and over one step ∫ẋ(t − δ) dt − ∫ẋ dt = −δ (ẋ₁ − ẋ₀): that is what is taken away after it.
ẋ₀ is 0 where OP begins. A smooth clamp at S makes an op-amp slower by 1/(1 − (x/S)²).
`tests/unit/circuits` holds all this against ngspice.
An oscillation of frequency ω grows at about δ ω² then, which is why 1 % over ten
seconds asks for GBW·τ in the thousands.

**The rest.** Coefficients are off by a factor each (mismatch, and drift with the hours);
integrators drift with their op-amps' offset, clip beyond full scale, and carry noise.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Annotated

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import MechanicsError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import Array
from sim.circuits.netlist import loading
from sim.imperfections import spread
from sim.instruments.machine import AbstractMachine, Batch, MachineError

STREAM_MISMATCH, STREAM_OFFSET, STREAM_NOISE, STREAM_DRIFT = 11, 12, 13, 14
NOISE_STEP = 0.05  # s of the system, the step for which `noise` is stated
REACH = 0.8  # |ω| h that one RK4 step may span: what is simulated is not to be the error
SUBSTEPS_MAX = 64
BENT = 0.9  # of the clamp squared: where it is no small correction any more
TRIMMED = 0.02  # of an offset is left after it was trimmed
NAMES = ("mass", "length", "gamma", "stiffness")


class AnalogErrors(Settings, frozen=True, kw_only=True):
    """How far the machine is from the equations; every default is ideal."""

    mismatch: Annotated[
        float, Meta(ge=0, le=0.5, description="relative, one draw per coefficient")
    ] = 0.0
    gain_bandwidth: Annotated[float, Meta(ge=0, description="of op-amps, Hz; 0: ideal")] = 0.0
    multiplier_pole: Annotated[float, Meta(ge=0, description="Hz; 0: ideal")] = 0.0
    loading: Annotated[
        bool, Meta(description="terms are voltages behind resistors; False: currents, no inverter")
    ] = True
    trimmed: Annotated[
        bool, Meta(description="resistors make up for what loading takes, but for the inverter's")
    ] = False
    saturation: Annotated[
        float, Meta(ge=1, le=100, description="where integrators clip, machine units")
    ] = 1.2
    offset: Annotated[
        float, Meta(ge=0, le=1, description="of op-amps, standard deviation, machine units")
    ] = 0.0
    noise: Annotated[float, Meta(ge=0, le=1, description="on states per 0.05 s, machine units")] = (
        0.0
    )
    drift: Annotated[float, Meta(ge=0, le=1, description="of coefficients, relative, per hour")] = (
        0.0
    )

    def ideal(self) -> AnalogErrors:
        """Return a machine without errors that clips where this one does."""
        return AnalogErrors(saturation=self.saturation)


class GyroMachine(AbstractMachine):
    """Plays the equations; the same seed, run and device time give the same trajectories."""

    def __init__(self, errors: AnalogErrors, seed: int, ideal: bool = False) -> None:
        _compile()  # now, and not in the middle of the first run
        self.errors = errors.ideal() if ideal else errors
        self._seed = seed
        self._trimmed = False
        self._network: GyroNetwork | None = None

    def wire(self, geometry: GyroGeometry) -> None:
        """Connect gyroscopes and springs; draw what each element's parts are like."""
        self._network = network = GyroNetwork(geometry)
        errors, seed, n = self.errors, self._seed, network.n
        counts = [n, n, n, network.spring_count]
        total = sum(counts)
        cuts = np.cumsum(counts)[:-1]
        self._factors = np.split(spread(seed, STREAM_MISMATCH, errors.mismatch, total), cuts)
        draws = np.random.default_rng([seed, STREAM_DRIFT]).standard_normal(total)
        self._rates = np.split(errors.drift / 3600.0 * draws, cuts)  # 1/s
        offsets = np.random.default_rng([seed, STREAM_OFFSET]).standard_normal((n, 4))
        self._offset = errors.offset * offsets  # (n, 4), machine units per s of the system

    def begin(self, batch: Batch) -> None:
        """Set the initial conditions and the coefficients as they really are."""
        network, scales, errors = self._network, batch.scales, self.errors
        if network is None:
            raise MachineError("no network is wired")
        try:
            self._real = self._effective(batch.parameters, batch.device_us)
            fastest = network.fastest(self._real)
        except MechanicsError as error:
            raise MachineError(str(error)) from None
        self._substeps = max(1, int(np.ceil(fastest * batch.step / REACH)))
        if self._substeps > SUBSTEPS_MAX:
            raise MachineError(
                f"motions of {fastest:.3g} rad/s are too fast for inputs every {batch.step} s"
            )
        self._solver = GyroAdjoint(
            network, batch.step / self._substeps, inputs=batch.driven, dtype=np.float64
        )
        self._batch, self._step = batch, 0
        unit = [scales.position, scales.position, scales.velocity, scales.velocity]
        self._unit = np.array(unit)  # SI per machine unit
        self._state = batch.initial * self._unit
        self._lag = lag = _lag(errors.gain_bandwidth, scales.time)
        self._lag_multiplier = _lag(errors.multiplier_pole, scales.time)
        self._before = np.zeros(self._state.shape)  # slopes: OP begins from rest
        self._slow = np.zeros((network.n, 4))
        self._inverter = np.zeros(network.n)
        if errors.loading:
            load = loading(network, self._real, scales, batch.driven)
            self._slow[:, :2] = lag * scales.velocity / scales.position
            self._slow[:, 2:] = lag * load[:, None]
            self._inverter = 2.0 * lag * np.asarray(self._real.gamma / self._real.mass)
        self._noise = np.random.default_rng([self._seed, STREAM_NOISE, batch.run, batch.first])

    def advance(self) -> Array:
        """Integrate one step, then apply what the parts did to it meanwhile."""
        batch, errors, solver = self._batch, self.errors, self._solver
        nudges = batch.nudges[:, self._step] * batch.scales.force  # (cases, k, 2), N
        self._step += 1
        held = np.repeat(nudges[:, None], self._substeps, axis=1)
        state = solver.forward(self._real, held, self._state).at(-1)
        if self._lag or self._lag_multiplier:
            self._delay(state, nudges)
        if errors.offset:
            left = TRIMMED if self._trimmed else 1.0
            state += left * batch.step * self._offset * self._unit
        if errors.noise:
            std = errors.noise * np.sqrt(batch.step / NOISE_STEP)
            state += std * self._unit * self._noise.standard_normal(state.shape)
        clip = errors.saturation * self._unit
        self._state = np.clip(np.nan_to_num(state), -clip, clip)
        return np.asarray(self._state / self._unit)

    def trim(self) -> None:
        """Trim the offsets of the integrators."""
        self._trimmed = True

    def close(self) -> None:
        """Do nothing: equations hold on to nothing."""

    def _delay(self, state: Array, nudges: Array) -> None:
        """Take away what a step of a state (cases, n, 4) loses to lag and loading, in place."""
        assert self._network is not None
        force = np.zeros((*state.shape[:2], 2))
        force[:, self._batch.driven] = nudges
        moved = state - self._state
        now = self._network.acceleration(self._real, state[..., :2], state[..., 2:], force)
        slope = np.concatenate((state[..., 2:], now), axis=-1)
        level = (0.5 * (state + self._state) / (self.errors.saturation * self._unit)) ** 2
        bend = 1.0 / (1.0 - np.minimum(level, BENT))  # op-amps are slower near their clamp
        lost = (bend - self.errors.trimmed) * self._slow * moved  # trimmed at small signals
        lost += bend * self._lag * (slope - self._before)
        lost[..., 2:] += self._lag_multiplier * (now - self._before[..., 2:])
        lost[..., 3] += bend[..., 2] * self._inverter * moved[..., 2]
        state -= lost
        self._before = slope

    def _effective(self, p: GyroParameters, device_us: int) -> GyroParameters:
        """Return what the coefficients really are at a device time."""
        assert self._network is not None
        network, hours = self._network, device_us / 1e6
        held = p.broadcast(network.n, network.spring_count)
        real = {
            name: getattr(held, name) * factor * (1.0 + rate * hours)
            for name, factor, rate in zip(NAMES, self._factors, self._rates, strict=True)
        }
        return replace(held, **real)


@cache
def _compile() -> None:
    """Have the kernel compiled, or loaded from disk: seconds, once in a process."""
    pair = GyroGeometry(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[0, 1]]))
    solver = GyroAdjoint(GyroNetwork(pair), 0.05, dtype=np.float64)
    solver.forward(GyroParameters(), np.zeros((1, 1, 2, 2)))


def _lag(frequency: float, time_scale: float) -> float:
    """Return the lag of a pole, s of the system; a frequency of 0 is none."""
    return 1.0 / (2.0 * np.pi * frequency * time_scale) if frequency else 0.0
