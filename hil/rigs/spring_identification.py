"""What a spring network's springs and sensors really are, from readings under known forces.

The model of one reading at time t, of channel c and load case F:

    y_c = g_c · x_c + o_c + r_c · t + noise,    x = [u; e],  at rest under F at stiffness k

with a gain g, a zero o and a drift r per channel, and a stiffness per bond that follows its
command as k = command + Σ_p correction_p · basis_p(command). Sought are the values that make
the weighted sum of squares smallest (Gauss-Newton; the slopes are exact: ∂u/∂k_i = −T⁻¹
(∂e_i/∂u)ᵀ e_i with the tangent stiffness T, which is D in the linear regime). Nothing is
regressed on a reading, so noise biases nothing.

What can be known. Displacement and elongation overlap, e = compat u, so the gains of all
channels are tied to each other; forces are known, compatᵀ(k ∘ e) = F, so k/g is known
absolutely. One number is left: lengths multiplied by s with all gains divided by s and all
stiffness divided by s give the same readings. Only a length that is known can settle it: a
dial gauge at one node (`Reference`), or loads at which springs turn, for in the exact regime
the distances between the nodes are such a length. Without one the makers' tolerances do, as
a prior on every gain and on every bond, to about
1/√(channels / gain_spread² + bonds / stiffness_spread²).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hil.errors import RunError
from hil.mechanics.finite_springs import AbstractStatics
from hil.mechanics.spring_network import Equilibrium, SpringNetwork
from hil.types import Array, BoolArray

ITERATIONS = 30  # of Gauss-Newton, at most
DONE = 1e-10  # largest relative change after which the search ends
FLOOR = 1e-7  # of the largest reading: noise below this is rounding
GUESS = 1e-3  # of the largest reading: noise that nobody knows, to begin with
REWEIGHTED = 2  # times the weights are taken from what the fit left
WIDE = 1e3  # of the largest reading: a zero and a drift are as good as free

Basis = Callable[[Array], Array]  # command (bonds,), N/m → (terms, bonds), N/m


@dataclass(frozen=True)
class Readings:
    """Load cases measured at one setting of the stiffness."""

    command: Array  # (bonds,), N/m, as the actuators were set to
    loads: Array  # (cases, dof), N
    reading: Array  # (cases, dof + bonds), m: displacements, then elongations
    time: Array  # (cases,), s, device time


@dataclass(frozen=True)
class Reference:
    """The gain of one displacement channel that was found by other means: a dial gauge."""

    channel: int
    gain: float
    deviation: float  # standard deviation of `gain`


@dataclass(frozen=True)
class Prior:
    """What is expected before anything is measured."""

    gain_spread: float = 0.1  # standard deviation of a gain about one
    stiffness_spread: float = 0.05  # of a bond's stiffness about its command, relative
    reference: Reference | None = None
    drifts: bool = True  # zeros move; otherwise no drift is sought


@dataclass(frozen=True)
class Identified:
    """What was found; every deviation is a standard deviation."""

    gain: Array  # (channels,), reading per length
    gain_deviation: Array
    correction: Array  # (terms, bonds), 1
    correction_deviation: Array
    zero: Array  # (channels,), m, at `since`
    zero_deviation: Array
    drift: Array  # (channels,), m/s
    drift_deviation: Array
    since: float  # s, device time the zeros belong to
    noise: Array  # (channels,), m, of one load case, as the fit leaves it
    covariance: Array  # of ln gain, correction, zero and drift, one after the other
    scale_deviation: float  # relative, of the one length scale all gains share
    chi_square: float  # per degree of freedom, with the noise that repeats showed
    used: int  # readings that were used


def powers(low: float, high: float, order: int) -> Basis:
    """Return the curve k = command + middle · Σ c_p x^p, x from −1 at `low` to 1 at `high`."""
    middle, half = (low + high) / 2, (high - low) / 2

    def basis(command: Array) -> Array:
        x = (command - middle) / half
        return middle * x ** np.arange(order + 1)[:, None]

    return basis


def levels(values: Array) -> Basis:
    """Return a curve with one number per command level: k = command · (1 + c_level)."""

    def basis(command: Array) -> Array:
        nearest = np.abs(command[None] - values[:, None]).argmin(axis=0)
        return np.where(np.arange(len(values))[:, None] == nearest, command, 0.0)

    return basis


def identify(
    network: AbstractStatics,
    measured: Sequence[Readings],
    basis: Basis,
    noise: Array | None,
    largest: Array,
    prior: Prior,
) -> Identified:
    """Return the parameters that explain the readings.

    noise: (channels,), m, standard deviation of a load case as repeats showed it, None where
    nothing was repeated and what the fit leaves is the noise; largest:
    (channels,), m: readings beyond it are left out, the sensor may have met its end.
    Raises RunError where the search does not end, or nothing is left to go by.
    """
    search = _Search(network, measured, basis, largest, prior)
    known = np.zeros(len(largest)) if noise is None else noise
    sigma = GUESS * largest if noise is None else np.maximum(known, FLOOR * largest)
    point = search.start()
    for _ in range(REWEIGHTED + 1):
        point = search.solved(point, sigma)
        left = search.residual_noise(point)
        sigma = np.maximum(np.maximum(known, left), FLOOR * largest)
    matrix = search.normal(point, sigma)[0]
    unit = 1.0 / np.sqrt(np.diag(matrix))  # numbers of one size, whatever their units
    inverse = unit[:, None] * np.linalg.inv(unit[:, None] * matrix * unit) * unit
    spread = np.sqrt(np.diag(inverse))
    channels, terms = len(known), len(point.correction)
    at = np.cumsum([channels, terms * network.bond_count, channels, channels])
    g, c, o, r = np.split(spread, at[:-1])
    mean = np.full(channels, 1.0 / channels)
    scale = float(np.sqrt(mean @ inverse[:channels, :channels] @ mean))
    honest = np.maximum(left if noise is None else noise, FLOOR * largest)
    return Identified(
        gain=np.exp(point.log_gain),
        gain_deviation=np.exp(point.log_gain) * g,
        correction=point.correction,
        correction_deviation=c.reshape(point.correction.shape),
        zero=point.zero,
        zero_deviation=o,
        drift=point.drift,
        drift_deviation=r if prior.drifts else np.zeros(channels),
        since=search.since,
        noise=left,
        covariance=inverse,
        scale_deviation=scale,
        chi_square=search.chi_square(point, honest),
        used=search.used,
    )


@dataclass(frozen=True)
class Prediction:
    """How well readings that took no part in it are predicted."""

    z: Array  # (used,), residual in units of the noise of a load case
    chi: Array  # (channels,), mean square of z; NaN where a channel has no reading
    chi_square: float  # over all
    expected: float  # of `chi_square`: 1, and what the parameters do not know
    spread: float  # standard deviation of `chi_square` about `expected`
    used: int


def predict(
    network: AbstractStatics, found: Identified, measured: Sequence[Readings], basis: Basis,
    largest: Array,
) -> Prediction:  # fmt: skip
    """Return how what was found predicts other readings.

    The noise is that of the readings it was found on; so `spread` holds the chance of both.
    """
    search = _Search(network, measured, basis, largest, Prior())
    shift = found.drift * (search.since - found.since)
    point = _Point(np.log(found.gain), found.correction, found.zero + shift, found.drift)
    noise = np.maximum(found.noise, FLOOR * largest)
    z, good = search.in_units(point, noise)
    count = good.sum(0)
    chi = np.divide((good * z**2).sum(0), count, out=np.full(len(count), np.nan), where=count > 0)
    of_readings = search.normal(point, noise, expect=False)[0]
    # Zeros are those at another time now: what is not known of the drift adds to them.
    channels = len(noise)
    back = np.eye(len(of_readings))
    rows = np.arange(len(of_readings) - 2 * channels, len(of_readings) - channels)
    back[rows, rows + channels] = search.since - found.since
    covariance = back @ found.covariance @ back.T
    return Prediction(
        z=z[good],
        chi=chi,
        chi_square=float((z[good] ** 2).mean()),
        expected=1.0 + float((covariance * of_readings).sum()) / search.used,
        spread=float(np.sqrt(2.0 / search.used + 2.0 / found.used)),
        used=search.used,
    )


def ideal(network: AbstractStatics, terms: int, noise: Array) -> Identified:
    """Return ideal springs and sensors, to be compared with."""
    channels, bonds = len(noise), network.bond_count
    size = 3 * channels + terms * bonds
    none, flat = np.zeros(channels), np.zeros((terms, bonds))
    return Identified(
        gain=np.ones(channels), gain_deviation=none, correction=flat, correction_deviation=flat,
        zero=none, zero_deviation=none, drift=none, drift_deviation=none, since=0.0, noise=noise,
        covariance=np.zeros((size, size)), scale_deviation=0.0, chi_square=np.nan, used=1,
    )  # fmt: skip


@dataclass(frozen=True)
class _Point:
    """Where the search is."""

    log_gain: Array  # (channels,)
    correction: Array  # (terms, bonds)
    zero: Array  # (channels,), m
    drift: Array  # (channels,), m/s


class _Search:
    """The sum of squares, its slope and its curvature."""

    def __init__(
        self, network: AbstractStatics, measured: Sequence[Readings], basis: Basis,
        largest: Array, prior: Prior,
    ) -> None:  # fmt: skip
        self._network, self._prior = network, prior
        self._largest = largest
        compat = network.linear.compat
        self._compat = compat if isinstance(compat, np.ndarray) else compat.toarray()
        times = np.concatenate([group.time for group in measured])
        self.since = float(times.mean())
        # The mean time of the readings parts zero from drift as well as can be.
        self._groups = [replace(group, time=group.time - self.since) for group in measured]
        self._bases = [basis(group.command) for group in measured]
        self._good = [(np.abs(group.reading) <= largest).astype(float) for group in measured]
        self.used = int(sum(good.sum() for good in self._good))
        if not self.used:
            raise RunError("calibration: no reading is inside its range; load the network less")
        self._gain_mean = np.zeros(len(largest))
        self._gain_weight = np.full(len(largest), prior.gain_spread**-2.0)
        if prior.reference is not None:
            known = prior.reference
            self._gain_mean[known.channel] = np.log(known.gain)
            self._gain_weight[known.channel] = (known.deviation / known.gain) ** -2.0

    def start(self) -> _Point:
        """Return ideal springs and sensors."""
        channels = len(self._largest)
        terms = len(self._bases[0])
        return _Point(
            self._gain_mean.copy(), np.zeros((terms, self._network.bond_count)),
            np.zeros(channels), np.zeros(channels),
        )  # fmt: skip

    def solved(self, point: _Point, noise: Array) -> _Point:
        """Return the point at which the weighted sum of squares is smallest."""
        for _ in range(ITERATIONS):
            matrix, slope = self.normal(point, noise)
            unit = 1.0 / np.sqrt(np.diag(matrix))
            step = unit * np.linalg.solve(unit[:, None] * matrix * unit, unit * slope)
            channels = len(noise)
            parts = np.split(step, np.cumsum([channels, point.correction.size, channels]))
            change = max(np.abs(parts[0]).max(), np.abs(parts[1]).max())
            shrink = min(1.0, 0.3 / change)  # a bond or a gain moves by 30 % at most
            point = _Point(
                point.log_gain + shrink * parts[0],
                point.correction + shrink * parts[1].reshape(point.correction.shape),
                point.zero + shrink * parts[2],
                point.drift + shrink * parts[3],
            )
            if change < DONE:
                return point
        if change < 1e-6:  # rounding keeps it from ending: close enough by far
            return point
        raise RunError(
            f"calibration: the search for gains and stiffness does not end (a step of {change:.1g} "
            "is left); are the forces the ones that were asked for, is the geometry right?"
        )

    def residual_noise(self, point: _Point) -> Array:
        """Return what is left unexplained per channel, standard deviation, (channels,), m."""
        total, count = np.zeros(len(self._largest)), np.zeros(len(self._largest))
        for i, good in enumerate(self._good):
            total += (good * self._left(point, i)[0] ** 2).sum(0)
            count += good.sum(0)
        # Every channel pays for its own gain, zero and drift and its share of the stiffness.
        paid = 3.0 + point.correction.size / len(count)
        return np.asarray(np.sqrt(total / np.maximum(count - paid, 1.0)))

    def chi_square(self, point: _Point, noise: Array) -> float:
        """Return the sum of squares per degree of freedom, in units of `noise`."""
        total = sum(
            float((good * (self._left(point, i)[0] / noise) ** 2).sum())
            for i, good in enumerate(self._good)
        )
        return total / max(1, self.used - 3 * len(noise) - point.correction.size)

    def in_units(self, point: _Point, noise: Array) -> tuple[Array, BoolArray]:
        """Return residuals in units of noise, and which count; both (cases, channels)."""
        z = [self._left(point, i)[0] / noise for i in range(len(self._groups))]
        return np.concatenate(z), np.concatenate(self._good) > 0

    def normal(self, point: _Point, noise: Array, expect: bool = True) -> tuple[Array, Array]:
        """Return curvature (size, size) and right-hand side (size,) of a Gauss-Newton step.

        expect: with the prior; otherwise of the readings alone.
        """
        channels, (terms, bonds) = len(noise), point.correction.shape
        g = slice(0, channels)
        c = slice(channels, channels + terms * bonds)
        o = slice(c.stop, c.stop + channels)
        r = slice(o.stop, o.stop + channels)
        matrix, right = np.zeros((r.stop, r.stop)), np.zeros(r.stop)
        diagonal = np.arange(channels)
        for i, (group, good) in enumerate(zip(self._groups, self._good, strict=True)):
            left, x, slopes = self._left(point, i)
            weight = good / noise**2  # (cases, channels)
            x = x * np.exp(point.log_gain)  # ∂y/∂ln g
            time = group.time[:, None]
            basis = self._bases[i]  # (terms, bonds)
            weighted = weight[..., None] * slopes  # (cases, channels, bonds)
            flat = slopes.reshape(-1, bonds)
            block = weighted.reshape(-1, bonds).T @ flat
            # A term of the curve acts on k through its basis, bond by bond.
            spread = np.einsum("pi,qk,ik->piqk", basis, basis, block)
            matrix[c, c] += spread.reshape(terms * bonds, terms * bonds)
            for rows, column in ((g, x), (o, np.ones_like(x)), (r, np.broadcast_to(time, x.shape))):
                cross = np.einsum("cji,cj->ji", weighted, column)  # (channels, bonds)
                matrix[rows, c] += (cross[:, None] * basis).reshape(channels, -1)
                right[rows] += (weight * column * left).sum(0)
                for others, other in ((g, x), (o, 1.0), (r, time)):
                    at = (diagonal + rows.start, diagonal + others.start)
                    matrix[at] += (weight * column * other).sum(0)
            right[c] += (basis * np.einsum("cji,cj->i", weighted, left)).ravel()
        for rows in (g, o, r):
            matrix[c, rows] = matrix[rows, c].T
        if expect:
            self._expect(point, matrix, right, (g, c, o, r))
        return matrix, right

    def _expect(self, point: _Point, matrix: Array, right: Array, parts: tuple[slice, ...]) -> None:
        """Add what is expected beforehand."""
        g, c, o, r = parts
        stiffness = np.full(point.correction.size, self._prior.stiffness_spread**-2.0)
        zero = (WIDE * self._largest) ** -2.0
        span = max(1.0, *(float(np.abs(group.time).max()) for group in self._groups))
        drift = zero * span**2 if self._prior.drifts else np.full(len(zero), 1e30)
        for rows, weight, away in (
            (g, self._gain_weight, point.log_gain - self._gain_mean),
            (c, stiffness, point.correction.ravel()),
            (o, zero, point.zero),
            (r, drift, point.drift),
        ):
            at = np.arange(rows.start, rows.stop)
            matrix[at, at] += weight
            right[rows] -= weight * away

    def _left(self, point: _Point, i: int) -> tuple[Array, Array, Array]:
        """Return measured less predicted, the motion, and ∂y/∂k of a group.

        (cases, channels), (cases, channels) and (cases, channels, bonds).
        """
        group = self._groups[i]
        k = group.command + (point.correction * self._bases[i]).sum(0)
        if not (k > 0).all():
            raise RunError(
                f"calibration: bond {int(np.argmin(k)) + 1} would have to be softer than nothing; "
                "are the forces the ones that were asked for, is the geometry right?"
            )
        found, reach = self._reach(k, group.loads)
        x = np.concatenate([found.displacement, found.elongation], axis=1)
        gain = np.exp(point.log_gain)
        predicted = gain * x + point.zero + point.drift * group.time[:, None]
        slopes = -(gain[:, None] * reach) * found.elongation[:, None, :]
        return group.reading - predicted, x, slopes

    def _reach(self, k: Array, loads: Array) -> tuple[Equilibrium, Array]:
        """Return the equilibria and ∂x by a tension of each bond, (cases or 1, channels, bonds)."""
        if isinstance(self._network, SpringNetwork):  # the same at every load
            factorisation = self._network.factorise(k)
            answer = self._network.settle(factorisation, self._compat)  # D⁻¹ compatᵀ, in rows
            reach = np.concatenate([answer.displacement, answer.elongation], axis=1).T
            return self._network.settle(factorisation, loads), reach[None]
        found = self._network.settle(k, loads)
        stretch = np.stack([self._network.stretch(u) for u in found.displacement])
        tangent = np.stack([self._network.tangent(k, u) for u in found.displacement])
        moved = np.linalg.solve(tangent, np.swapaxes(stretch, 1, 2))  # (cases, dof, bonds)
        return found, np.concatenate([moved, stretch @ moved], axis=1)
