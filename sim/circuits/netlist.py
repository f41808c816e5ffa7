"""A gyro network as an analog computer: its netlist for ngspice.

Four inverting integrators per gyroscope: accelerations are summed into −v, −v into q. A
voltage of `UNIT` is one machine unit; a second of the system takes τ = `scales.time`.

**Full**: what a board would be. Every term of v̇ (rod, drag, spin, nudge, one per spring) is a
voltage of its own, one multiplier-class part, and reaches the integrator through a resistor;
an inverter makes v_x, which the spin of y needs. Gains are set so that a term at one machine
unit is the rod at |q| = 1, the spring stretched by 1, the drag at |v| = 1, |v| = 1 or a nudge of 1.

**Lumped**: for larger networks. Integrators of capacitance m take forces as currents: one
source per gyroscope and axis, and one per spring and axis, from the one gyroscope to the other.

An op-amp is a transconductance into one pole (A₀, f_t) and a smooth clamp; where a resistor
network of total gain G loads it, its integrator is slower by G/(2π f_t τ) and lags by
1/(2π f_t τ), in the time of the system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import MechanicsError
from hil.mechanics.gyro_geometry import GyroGeometry
from hil.mechanics.gyro_network import CLAMP, GyroNetwork, GyroParameters
from hil.types import Array, IntArray
from sim.instruments.machine import Scales

UNIT = 10.0  # V per machine unit
RESISTANCE = 1e5  # Ω of an input whose gain is 1/s of the system
POLE_RESISTANCE = 1e3  # Ω, of the low-pass behind a multiplier
STATE = ("qx", "qy", "wx", "wy")  # outputs of the integrators, w being −v
SMALLEST = 1e-12  # under a root, so that its slope is finite at rest
Kind = Literal["full", "lumped"]


class CircuitParts(Settings, frozen=True, kw_only=True):
    """What the machine is soldered from."""

    kind: Annotated[Kind, Meta(description="every term a part, or one source per element")] = "full"
    gain_bandwidth: Annotated[float, Meta(gt=0, description="of op-amps, Hz")] = 1e6
    open_loop_gain: Annotated[float, Meta(gt=1, description="of op-amps at rest, 1")] = 1e5
    clamp: Annotated[float, Meta(gt=1, le=100, description="where op-amps end, machine units")] = (
        1.2
    )
    multiplier_pole: Annotated[float, Meta(ge=0, description="Hz; 0: ideal")] = 0.0
    trimmed: Annotated[
        bool, Meta(description="resistors make up for what loading takes, by the op-amps' f_t")
    ] = False


@dataclass(frozen=True, eq=False)
class Netlist:
    """A circuit without its stimuli and its analysis."""

    lines: tuple[str, ...]
    saved: tuple[str, ...]  # expressions of the state, gyroscope by gyroscope: q_x q_y −v_x −v_y
    sources: tuple[str, ...]  # names of the voltage sources of the nudges, x then y of each
    nodes: tuple[tuple[str, str], ...]  # that they stand between
    initial: Array  # (n, 4), machine units

    def states(self, volts: Array) -> Array:
        """Return states (…, n, 4), machine units, of the saved voltages (…, 4 n)."""
        found = volts.reshape(*volts.shape[:-1], -1, 4) / UNIT
        return np.asarray(found * (1.0, 1.0, -1.0, -1.0))


def netlist(
    geometry: GyroGeometry,
    parameters: GyroParameters,
    scales: Scales,
    parts: CircuitParts,
    *,
    driven: IntArray,
    initial: Array,
) -> Netlist:
    """Return the circuit of a network.

    driven: (k,), gyroscopes that are nudged. initial: (n, 4), machine units.
    Raises MechanicsError for what this kind of circuit cannot be made for.
    """
    p = parameters.broadcast(len(geometry.nodes), len(geometry.springs))
    if max(np.ndim(a) for a in (p.mass, p.length, p.gamma, p.stiffness)) > 1:
        raise MechanicsError("circuit: one set of parameters at a time")
    if parts.kind == "lumped" and (np.asarray(p.mass) < 0).any():
        raise MechanicsError("circuit: a lumped one has capacitors for masses; none below 0")
    limit = 0.99 * parts.clamp
    if not (np.abs(initial) < limit).all():
        raise MechanicsError(f"circuit: initial states beyond {limit:g} machine units")
    board = _Board(p, scales, parts, loading(GyroNetwork(geometry), p, scales, driven))
    for node in range(len(geometry.nodes)):
        board.gyroscope(node, initial[node], node in driven)
    for spring, (near, far) in enumerate(geometry.springs.tolist()):
        board.spring(spring, near, far, geometry)
    each = driven.tolist()
    return Netlist(
        tuple(board.lines),
        tuple(f"v({name}{i})" for i in range(len(geometry.nodes)) for name in STATE),
        tuple(f"vu{axis}{i}" for i in each for axis in "xy"),
        tuple((f"u{axis}{i}", "0") for i in each for axis in "xy"),
        initial.copy(),
    )  # fmt: skip


def loading(network: GyroNetwork, p: GyroParameters, scales: Scales, driven: IntArray) -> Array:
    """Return the total gain into −v of the full circuit, (n,), 1/s of the system.

    That is what slows its integrators; 1/τ of it in the time of the machine.
    """
    p = p.broadcast(network.n, network.spring_count)
    nudged = np.zeros(network.n)
    nudged[driven] = scales.force / scales.velocity
    ends = np.zeros(network.n)
    pull = np.abs(np.asarray(p.stiffness)) * scales.position / scales.velocity
    for column in network.geometry.springs.T:
        np.add.at(ends, column, pull)
    tangent = _tangent(np.asarray(p.length), scales)
    around = np.abs(p.gamma) + p.drag * scales.velocity + nudged + ends
    return np.asarray(p.gravity * tangent / scales.velocity + around / np.abs(p.mass))


def _made_up(loss: Array) -> Array:
    """Return the factor f on all gains with which f (1 − loss f) = 1; a loss beyond 1/4 stays."""
    loss = np.minimum(loss, 0.25)
    return np.asarray(2.0 / (1.0 + np.sqrt(1.0 - 4.0 * loss)))


def _tangent(length: Array, scales: Scales) -> Array:
    """Return |q|/√(L² − |q|²) at one machine unit, with the clamp."""
    left = np.maximum(length**2 - scales.position**2, (CLAMP * length) ** 2)
    return np.asarray(scales.position / np.sqrt(left))


class _Board:
    """Writes parts, one gyroscope and one spring at a time."""

    def __init__(self, p: GyroParameters, scales: Scales, parts: CircuitParts, load: Array) -> None:
        self.p, self.scales, self.parts = p, scales, parts
        lag = 1.0 / (2.0 * np.pi * parts.gain_bandwidth * scales.time)
        self.up = _made_up(lag * load) if parts.trimmed else np.ones(len(load))  # of v
        rate = scales.velocity / scales.position
        self.up_q = float(_made_up(np.array(lag * rate))) if parts.trimmed else 1.0
        self.lines: list[str] = []
        self.farads = scales.time / RESISTANCE  # an integrator's, for 1 kg where lumped

    def gyroscope(self, i: int, initial: Array, driven: bool) -> None:
        """Write the integrators of a gyroscope and what acts on it alone."""
        p, s, add = self.p, self.scales, self.lines.append
        lumped = self.parts.kind == "lumped"
        mass, length, gamma = (float(a[i]) for a in (p.mass, p.length, p.gamma))
        x, y, vx, vy = (
            f"v({name}{i})*{scale / UNIT:.12g}"
            for name, scale in (
                ("qx", s.position), ("qy", s.position), ("wx", -s.velocity), ("wy", -s.velocity)
            )
        )  # fmt: skip
        volts = initial * (UNIT, UNIT, -UNIT, -UNIT)
        inertia = self.farads * mass if lumped else self.farads
        for name, start, farads in zip(
            STATE, volts.tolist(), (self.farads,) * 2 + (inertia,) * 2, strict=True
        ):  # fmt: skip
            self._integrator(f"{name}{i}", start, farads)
        lowest = (CLAMP * length) ** 2
        add(f"bh{i} h{i} 0 v=sqrt(max({length**2:.12g}-({x})**2-({y})**2,{lowest:.12g}))")
        add(f"bs{i} s{i} 0 v=sqrt(({vx})**2+({vy})**2+{SMALLEST})")
        rate = s.velocity / s.position
        spin = {"x": f"-({vy})", "y": vx}
        if lumped:
            for axis, q, v in (("x", x, vx), ("y", y, vy)):
                add(f"g{axis}{i} 0 mq{axis}{i} w{axis}{i} 0 {rate / RESISTANCE:.12g}")
                force = (
                    f"{-mass * p.gravity:.12g}*({q})/v(h{i})-{p.drag:.12g}*v(s{i})*({v})"
                    f"+{gamma:.12g}*({spin[axis]})"
                )
                if driven:
                    force += f"+{s.force / UNIT:.12g}*v(u{axis}{i})"
                self._current(f"f{axis}{i}", "0", f"mw{axis}{i}", force)
            return
        self._inverter(f"wx{i}", f"vx{i}", -volts[2])
        sign = np.sign(mass)
        tangent = float(_tangent(np.array(length), s))
        turned = {"x": f"v(wy{i})", "y": f"v(vx{i})"}
        for axis, q, v in (("x", x, vx), ("y", y, vy)):
            add(f"rq{axis}{i} w{axis}{i} mq{axis}{i} {RESISTANCE / (rate * self.up_q):.12g}")
            into = f"mw{axis}{i}"
            self._term(f"r{axis}{i}", into, f"{-UNIT / tangent:.12g}*({q})/v(h{i})",
                       p.gravity * tangent / s.velocity)  # fmt: skip
            self._term(f"d{axis}{i}", into,
                       f"{-sign * UNIT / s.velocity**2:.12g}*v(s{i})*({v})",
                       p.drag * s.velocity / abs(mass))  # fmt: skip
            self._term(f"g{axis}{i}", into, f"{sign * np.sign(gamma):g}*{turned[axis]}",
                       abs(gamma / mass))  # fmt: skip
            if driven:
                self._term(f"n{axis}{i}", into, f"{sign:g}*v(u{axis}{i})",
                           s.force / (abs(mass) * s.velocity))  # fmt: skip

    def spring(self, number: int, near: int, far: int, geometry: GyroGeometry) -> None:
        """Write what a spring does to the gyroscopes at its ends."""
        p, s = self.p, self.scales
        k = float(p.stiffness[number])
        metre = s.position / UNIT
        between = {
            axis: f"({rest:.12g}+{metre:.12g}*(v(q{axis}{far})-v(q{axis}{near})))"
            for axis, rest in zip("xy", geometry.between[number].tolist(), strict=True)
        }
        self.lines.append(
            f"bk{number} k{number} 0 v=1-{geometry.lengths[number]:.12g}"
            f"/sqrt({between['x']}**2+{between['y']}**2+{SMALLEST})"
        )
        for axis in "xy":
            pull = f"v(k{number})*{between[axis]}"
            if self.parts.kind == "lumped":
                self._current(f"p{axis}{number}", f"mw{axis}{far}", f"mw{axis}{near}",
                              f"{k:.12g}*{pull}")  # fmt: skip
                continue
            for end, node, sign in (("a", near, 1.0), ("b", far, -1.0)):
                mass = float(p.mass[node])
                level = sign * np.sign(mass * k) * UNIT / s.position
                self._term(f"p{end}{axis}{number}", f"mw{axis}{node}", f"{level:.12g}*{pull}",
                           abs(k / mass) * s.position / s.velocity)  # fmt: skip

    def _integrator(self, name: str, start: float, farads: float) -> None:
        """Write an op-amp whose output `name` integrates the current into m`name`, inverting."""
        self._op_amp(name, start)
        self.lines.append(f"c{name} m{name} {name} {farads:.12g} ic={-start:.12g}")

    def _inverter(self, source: str, name: str, start: float) -> None:
        self._op_amp(name, start)
        self.lines.append(f"ra{name} {source} m{name} {RESISTANCE:g}")
        self.lines.append(f"rb{name} m{name} {name} {RESISTANCE:g}")

    def _op_amp(self, name: str, start: float) -> None:
        """Write an op-amp with its inverting input at m`name`; the other is grounded."""
        gain, clamp = self.parts.open_loop_gain, self.parts.clamp * UNIT
        farads = 1e-3 / (2 * np.pi * self.parts.gain_bandwidth)  # of a stage of 1 mS
        inner = clamp * float(np.arctanh(start / clamp))
        self.lines += (
            f"g{name} 0 i{name} 0 m{name} 1m",
            f"ri{name} i{name} 0 {gain / 1e-3:.12g}",
            f"ci{name} i{name} 0 {farads:.12g} ic={inner:.12g}",
            f"bo{name} {name} 0 v={clamp:g}*tanh(v(i{name})/{clamp:g})",
        )

    def _term(self, name: str, into: str, volts: str, gain: float) -> None:
        """Write a voltage and the resistor that adds it to an integrator, `gain` in 1/s."""
        if not gain:
            return
        self.lines.append(f"bt{name} t{name} 0 v={volts}")
        behind = self._pole(f"t{name}")
        gain *= float(self.up[int(into[3:])])
        self.lines.append(f"rt{name} {behind} {into} {RESISTANCE / gain:.12g}")

    def _current(self, name: str, out_of: str, into: str, newton: str) -> None:
        """Write a force as a current into one integrator, and out of another."""
        ampere = UNIT / (RESISTANCE * self.scales.velocity)  # for 1 N
        if not self.parts.multiplier_pole:
            self.lines.append(f"bt{name} {out_of} {into} i={ampere:.12g}*({newton})")
            return
        self.lines.append(f"bt{name} t{name} 0 v={newton}")
        self.lines.append(f"gt{name} {out_of} {into} {self._pole(f't{name}')} 0 {ampere:.12g}")

    def _pole(self, node: str) -> str:
        """Write the pole of a multiplier behind `node`; return where its output is."""
        pole = self.parts.multiplier_pole
        if not pole:
            return node
        farads = 1.0 / (2 * np.pi * pole * POLE_RESISTANCE)
        self.lines += (
            f"rp{node} {node} l{node} {POLE_RESISTANCE:g}",
            f"cp{node} l{node} 0 {farads:.12g} ic=0",
            f"ep{node} o{node} 0 l{node} 0 1",
        )
        return f"o{node}"
