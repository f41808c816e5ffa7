"""Fits an FNODE to recorded motion: positions and inputs in, a model out.

Two kinds of target. **labels**: accelerations by one of the methods in
`hil.training.differentiation`. **weak** (the default, for quantised positions): the network's
acceleration and the positions pass the same smooth kernel ψ, 100 to 200 ms long; two
integrations by parts move both derivatives to the kernel,

    ∫ ψ(t − c) f(q, v, u) dt = ∫ ψ''(t − c) q dt,

so that nothing measured is differentiated on the right. ψ = (1 − s²)⁴ is zero with its
first three derivatives at its ends. On the left f needs q and v: those come from cubics
fitted to a sliding window (`smooth_between`), half way between samples, where a held input
has one value. Their errors enter f only through its slopes.

The problem is linear in the last layer, which is solved exactly, with a ridge, from the
start on and again after every epoch; Adam moves the layers below it, on batches of blocks of
time. (Adam on all layers, 30 epochs, left slopes at the upright up to 30 % off.) With the
default size and small first weights the exact solve alone reaches the noise of quantised
positions, so that early stopping ends the training; a small network gains from it.

Everything is chosen on validation blocks cut from the same recordings; then the last layer
is solved once more with those blocks too. A test recording is never seen here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.polynomial import Polynomial
from scipy.signal import lfilter

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel, FnodeSettings, features, layout
from hil.training.adam import Adam, AdamState
from hil.training.differentiation import (
    Derivatives,
    differences,
    disagreement,
    fourier,
    reconstruction,
    smooth,
    smooth_between,
)
from hil.training.network import Blocks, Network
from hil.types import Array

M = TypeVar("M", bound=AbstractDynamics)

WORTH = 0.01  # less than this part of the validation loss is not progress


@dataclass(frozen=True)
class Motion:
    """One uninterrupted recording at even times, SI."""

    period: float  # s between samples
    q: Array  # (n, nq), measured positions; angles go on past a turn, they do not wrap
    u: Array  # (n, nu), inputs; row i is held from sample i to sample i + 1
    delay: float | None = None  # s, from a command to its effect; None: that of the fit

    def __post_init__(self) -> None:
        """Raise ConfigError for shapes that do not fit or values that are not numbers."""
        if self.q.ndim != 2 or self.u.ndim != 2 or len(self.q) != len(self.u):
            raise ConfigError(
                f"motion: expected q (n, nq) and u (n, nu), found {self.q.shape}, {self.u.shape}"
            )
        if not (self.period > 0 and np.isfinite(self.q).all() and np.isfinite(self.u).all()):
            raise ConfigError("motion: period, positions and inputs must be finite; cut the gaps")


class FitSettings(Settings, frozen=True, kw_only=True):
    """How a network is fitted."""

    network: FnodeSettings
    target: Literal["weak", "labels"] = "weak"
    labels: Literal["differences-3", "differences-5", "fourier", "smooth"] = "smooth"
    kernel: Annotated[float, msgspec.Meta(ge=0.01, le=1, description="length of ψ, s")] = 0.15
    smoother: Annotated[
        float, msgspec.Meta(ge=0.01, le=1, description="window of the smoother, s")
    ] = 0.06
    delay: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="from a command to its effect, s")
    ] = 0.0
    lag: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="time constant of the actuator, s")
    ] = 0.0
    block: Annotated[float, msgspec.Meta(ge=0.1, le=60, description="blocks of time, s")] = 1.5
    validation: Annotated[
        float, msgspec.Meta(gt=0, lt=1, description="part of the blocks that is not trained on, 1")
    ] = 0.15
    epochs: Annotated[int, msgspec.Meta(ge=0, le=10_000, description="at most")] = 30
    patience: Annotated[
        int, msgspec.Meta(ge=1, description="epochs without 1 % gained on validation, then stop")
    ] = 5
    batch: Annotated[int, msgspec.Meta(ge=1, description="blocks per step")] = 4
    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="of Adam; falls to 0")] = 1e-3
    mirror: Annotated[
        bool, msgspec.Meta(description="left and right are the same to the plant, and 0 is upright")
    ] = False
    first_layer: Annotated[
        float, msgspec.Meta(gt=0, le=10, description="spread of its weights at the start, 1")
    ] = 0.1


class FitProgress(NamedTuple):
    """Where a fit stands, after every epoch; epoch 0 is the start."""

    epoch: int
    epochs: int  # at most
    train_loss: float  # mean square of the residual, in scaled accelerations
    validation_loss: float
    seconds: float  # CPU time so far


@dataclass(frozen=True)
class FitResult(Generic[M]):
    """A fitted model and what is to be said about it."""

    model: M
    epochs: int  # trained
    best_epoch: int
    train_loss: float  # mean square, scaled, before validation blocks joined the solve
    validation_loss: float
    residual_rms: Array  # (nq,), filtered acceleration, on validation blocks, SI
    ridge: float
    disagreement: Array  # (nq,), η′ of the positions, mean over motions
    reconstruction: Array | None  # (nq,), η_z of the labels, unit of q; None for weak
    cpu_seconds: float
    metadata: dict[str, Any]  # JSON: settings, seed, data; for `hil.models.store.save`


class Fit:
    """Fits networks; equal seed, settings and motions give the same model."""

    Settings = FitSettings

    def __init__(self, settings: FitSettings, *, seed: int = 0) -> None:
        layout(settings.network)  # refuses positions that are not there
        self.settings = settings
        self.seed = seed

    def run(
        self, motions: Sequence[Motion], progress: Callable[[FitProgress], None] | None = None
    ) -> FitResult[FnodeModel]:
        """Return the model that fits the motions.

        progress: called after every epoch. Raises ConfigError when the motions do not
        belong together, do not fit the network or are too short.
        """
        begin = time.process_time()
        settings, random = self.settings, np.random.default_rng(self.seed)
        period = check_motions(motions, settings.network)
        blocks, residual = cut(motions, settings, period)
        training, validation = split(blocks, settings.validation, random)
        net = Network.start(
            settings.network, training, settings.first_layer, random, settings.mirror
        )
        training, validation = net.scaled(training), net.scaled(validation)
        ridge = net.solve(training, validation)
        best, best_loss, best_epoch = net.copy(), net.loss(validation), 0
        count, epoch = len(training.points), 0
        adam, state = Adam(settings.rate), AdamState.start(net.below)

        def report(now: float) -> None:
            if progress is not None:
                spent = time.process_time() - begin
                progress(FitProgress(epoch, settings.epochs, net.loss(training), now, spent))

        report(best_loss)
        steps = settings.epochs * -(-count // settings.batch)
        for epoch in range(1, settings.epochs + 1):
            order = random.permutation(count)
            for first in range(0, count, settings.batch):
                some = order[first : first + settings.batch]
                _, gradient = net.gradient(training, some)
                rate = settings.rate * (1 - state.steps / steps)
                change, state = replace(adam, rate=rate).step(net.tied(gradient), state)
                net.flat[: net.below] += change
            found = net.solve(training, validation)
            now = net.loss(validation)
            report(now)
            if now < best_loss * (1 - WORTH):
                best, best_loss, best_epoch, ridge = net.copy(), now, epoch, found
            elif epoch - best_epoch >= settings.patience:
                break
        train_loss = best.loss(training)
        left = best.residual(validation, slice(None)) * best.output_scale
        everything = Blocks(
            np.concatenate([training.points, validation.points]),
            np.concatenate([training.targets, validation.targets]),
            training.kernel,
        )
        best.solve(everything, validation, (ridge,))
        eta = np.mean([disagreement(m.q, m.period) for m in motions], axis=0)
        spent = time.process_time() - begin
        metadata = {
            "fit": msgspec.to_builtins(settings),
            "seed": self.seed,
            "data_sha256": digest(motions),
            "data_seconds": sum(len(m.q) * m.period for m in motions),
        }
        return FitResult(
            model=FnodeModel(settings.network, best.weights(everything.points)),
            epochs=epoch,
            best_epoch=best_epoch,
            train_loss=train_loss,
            validation_loss=best_loss,
            residual_rms=np.sqrt((left**2).mean(axis=(0, 1))),
            ridge=ridge,
            disagreement=eta,
            reconstruction=residual,
            cpu_seconds=spent,
            metadata=metadata,
        )


def kernels(period: float, length: float) -> tuple[Array, Array]:
    """Return ψ over each of K intervals and ψ'' at the K + 1 samples around them.

    period: s. length: s, made an even number K of periods. ψ is integrated exactly over each
    interval, in which an input is held; Σψ = 1. ψ'' times the period, mended (by 2e-4 for
    K = 30) so that a constant and a line give 0 and t²/2 gives 1. Raises ConfigError below
    K = 8.
    """
    half = round(length / period / 2)
    if half < 4:
        raise ConfigError(
            f"kernel: {length} s holds {length / period:.1f} samples of {period} s; "
            "at least 8 are needed"
        )
    s = Polynomial([0, 1])
    bump = (1 - s**2) ** 4
    bump = bump / (bump.integ()(1) - bump.integ()(-1))
    nodes = np.arange(-half, half + 1) / half
    over = np.diff(bump.integ()(nodes))
    second = bump.deriv(2)(nodes) / half
    second -= second.mean()
    moment = second @ (nodes**2) / 2
    return over, second / (moment * (half * period) ** 2)


def applied(u: Array, period: float, delay: float, lag: float) -> Array:
    """Return the mean of what acts over each period, (n, nu), in the unit of u.

    u: (n, nu), commanded, each row held for a period. delay: s, until a command begins to
    act. lag: s, time constant of the actuator after that (first order). Commands before the
    recording are taken to be the first one.
    """
    whole, part = divmod(delay / period, 1.0)
    rows = np.arange(len(u)) - int(whole)
    # A period begins with the command before, for this part of it, and ends with its own.
    old, new = u[np.maximum(rows - 1, 0)], u[np.maximum(rows, 0)]
    if lag == 0.0:
        return np.asarray(part * old + (1 - part) * new)
    kept = np.exp(-part * period / lag), np.exp(-(1 - part) * period / lag)
    drive = (1 - kept[0]) * kept[1] * old + (1 - kept[1]) * new
    begin = lfilter([0.0, 1.0], [1.0, -kept[0] * kept[1]], drive, axis=0, zi=u[:1])[0]
    middle = old + (begin - old) * kept[0]
    left = (begin - old) * (1 - kept[0]) + (middle - new) * (1 - kept[1])
    return np.asarray(part * old + (1 - part) * new + left * lag / period)


def cut(
    motions: Sequence[Motion], settings: FitSettings, period: float
) -> tuple[Blocks, Array | None]:
    """Return the motions in blocks of time, and η_z of the labels, (nq,), unless weak.

    Between blocks as much is left out as the smoother reaches over, so that no block knows
    its neighbour. Raises ConfigError when a motion is shorter than a block.
    """
    weak = settings.target == "weak"
    gap = 2 * round(settings.smoother / period / 2)
    length = round(settings.block / period)
    one = np.ones(1)
    over, second = kernels(period, settings.kernel) if weak else (one, one)
    if length < 2 * len(over):
        raise ConfigError(
            f"block: {settings.block} s is less than two kernels of {settings.kernel} s"
        )
    # Answers less than a sixth of the kernel apart say the same again.
    starts = np.arange(0, length - len(over) + 1, max(1, len(over) // 6))
    kernel = np.zeros((len(starts), length))
    for row, start in zip(kernel, starts, strict=True):
        row[start : start + len(over)] = over
    points, targets, left = [], [], []
    for number, motion in enumerate(motions):
        # Sums are taken in the order of memory: equal recordings must give equal bits.
        motion = replace(motion, q=np.ascontiguousarray(motion.q))
        delay = settings.delay if motion.delay is None else motion.delay
        u = applied(motion.u, period, delay, settings.lag)
        if weak:
            moved, first = smooth_between(motion.q, period, settings.smoother)
            u = u[first : first + len(moved.position)]
            views = np.lib.stride_tricks.sliding_window_view(motion.q[first:], len(second), axis=0)
            goal = views @ second
        else:
            moved, first = _labels(motion, settings), 0
            # At a sample the input jumps; what a centred label sees is the mean.
            u = (u + np.concatenate([u[:1], u[:-1]])) / 2
            goal = moved.acceleration
            left.append(reconstruction(motion.q, goal, period))
        skipped = int(np.ceil((delay + 5 * settings.lag) / period))  # commands unknown
        begins = np.arange(skipped, len(moved.position) - length + 1, length + gap)
        if not len(begins):
            raise ConfigError(
                f"motion {number + 1}: {len(motion.q) * period:.2f} s is shorter than a block of "
                f"{settings.block} s and what the smoother needs"
            )
        z = features(settings.network, moved.position, moved.velocity, u)
        points += [z[begin : begin + length] for begin in begins]
        targets += [goal[begin + starts] for begin in begins]
    eta = np.sqrt(np.mean(np.square(left), axis=0)) if left else None
    return Blocks(np.array(points), np.array(targets), kernel), eta


def digest(motions: Sequence[Motion]) -> str:
    """Return the SHA-256 of recordings: periods, shapes and values."""
    found = hashlib.sha256()
    for motion in motions:
        found.update(repr((motion.period, motion.q.shape, motion.u.shape)).encode())
        for values in (motion.q, motion.u):
            found.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return found.hexdigest()


def _labels(motion: Motion, settings: FitSettings) -> Derivatives:
    if settings.labels == "smooth":
        return smooth(motion.q, motion.period, settings.smoother)
    if settings.labels == "fourier":
        return fourier(motion.q, motion.period)
    return differences(motion.q, motion.period, int(settings.labels[-1]))


def split(data: Blocks, part: float, random: np.random.Generator) -> tuple[Blocks, Blocks]:
    """Return training and validation blocks, drawn at random."""
    count = len(data.points)
    if count < 2:
        raise ConfigError("fit: one block of time; at least 2 are needed, to validate on one")
    order = random.permutation(count)
    held = min(count - 1, max(1, round(part * count)))
    validation, training = np.sort(order[:held]), np.sort(order[held:])
    return (
        Blocks(data.points[training], data.targets[training], data.kernel),
        Blocks(data.points[validation], data.targets[validation], data.kernel),
    )


class Shape(Protocol):
    """What motions have to fit."""

    @property
    def nq(self) -> int:
        """Number of positions."""

    @property
    def nu(self) -> int:
        """Number of inputs."""

    @property
    def angles(self) -> tuple[int, ...]:
        """Positions that must not jump by a turn."""


def check_motions(motions: Sequence[Motion], network: Shape) -> float:
    """Return the common period; raises ConfigError."""
    if not motions:
        raise ConfigError("fit: no motions; record some first")
    period = motions[0].period
    for number, motion in enumerate(motions, 1):
        if abs(motion.period - period) > 1e-9 * period:
            raise ConfigError(
                f"motion {number}: sampled every {motion.period} s, the first every {period} s"
            )
        if motion.q.shape[1] != network.nq or motion.u.shape[1] != network.nu:
            raise ConfigError(
                f"motion {number}: {motion.q.shape[1]} positions and {motion.u.shape[1]} inputs; "
                f"the network has {network.nq} and {network.nu}"
            )
        for index in network.angles:
            jump = np.abs(np.diff(motion.q[:, index])).max(initial=0.0)
            if jump > np.pi:
                raise ConfigError(
                    f"motion {number}: angle {index} jumps by {jump:.2f} rad between two samples; "
                    "unwrap it first"
                )
    return period
