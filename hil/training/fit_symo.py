"""Fits a discrete Lagrangian to poses: SyMo by the residual, E2E-SyMo through its own step.

SyMo makes the momenta of consecutive segments agree. E2E-SyMo makes the step, solved by Newton's
method, find the next pose; its slopes are those of the implicit function, ∂q₂/∂θ =
(∂p⁻/∂q₂)⁻¹ ∂ρ/∂θ. H = V = 0 would leave no residual but for the inputs: where they are zero
throughout, nothing fixes the scale, and such data are refused.

Second-order (Levenberg–Marquardt) by default: with a thousand weights it needs tens of steps
where Adam needs thousands. A ridge on the weights is lowered decade by decade, each fit beginning
where the last one ended; motions kept back choose it, and all motions then join. First-order
(Adam, a rate that falls on the training loss's plateaus) is that of Santos, Ekal & Ventura.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError, RunError
from hil.models.fnode import Domain
from hil.models.lagrangian import motion_features
from hil.models.lagrangian_weights import LagrangianSettings
from hil.models.symo import SymoModel
from hil.training.adam import Adam, AdamState
from hil.training.differentiation import disagreement
from hil.training.fit import FitProgress, FitResult, Motion, applied, check_motions, digest
from hil.training.lagrangian_network import LagrangianNetwork, Triples
from hil.training.levenberg import SquaresProgress, minimise
from hil.types import Array

RIDGES = tuple(10.0**-power for power in range(7, 16))  # largest first
ROUGH = 1e-7  # of Newton's last step: a gradient of five digits will do for a batch
KEPT = 4_000_000  # numbers, 32 MB: the most that glibc learns from
BLOCK = 256  # samples whose slopes are held at once


class FitSymoSettings(Settings, frozen=True, kw_only=True):
    """How a discrete Lagrangian is fitted."""

    network: LagrangianSettings
    loss: Annotated[Literal["residual", "prediction"], Meta(description="SyMo's or E2E-SyMo's")] = (
        "residual"
    )
    method: Literal["second-order", "first-order"] = "second-order"
    validation: Annotated[
        float, Meta(gt=0, lt=1, description="part of the motions that chooses the ridge, 1")
    ] = 0.25
    stride: Annotated[
        int, Meta(ge=1, description="samples from a pose to the next; all offsets are used")
    ] = 1
    delay: Annotated[float, Meta(ge=0, description="s, from a command to its effect")] = 0.0
    lag: Annotated[float, Meta(ge=0, description="s, time constant of the actuator")] = 0.0
    choosing: Annotated[int, Meta(ge=2, description="motions that choose the ridge, at most")] = 32
    iterations: Annotated[
        int, Meta(ge=1, le=10_000, description="of second order, at most, per ridge")
    ] = 40
    first_layer: Annotated[
        float | None, Meta(description="spread of its weights at the start, 1; none: Xavier")
    ] = None
    epochs: Annotated[int, Meta(ge=1, le=100_000, description="of first order")] = 2000
    batch: Annotated[int, Meta(ge=1, description="samples per step of first order")] = 128
    rate: Annotated[float, Meta(gt=0, le=1, description="of Adam, at the start")] = 1e-3
    plateau: Annotated[int, Meta(ge=1, description="epochs without progress")] = 50
    fall: Annotated[float, Meta(gt=0, lt=1, description="of the rate on a plateau, 1")] = 0.7


class FitSymo:
    """Fits discrete Lagrangians; equal seed, settings and motions give the same model."""

    Settings = FitSymoSettings

    def __init__(self, settings: FitSymoSettings, *, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed

    def run(
        self, motions: Sequence[Motion], progress: Callable[[FitProgress], None] | None = None
    ) -> FitResult[SymoModel]:
        """Return the model that fits the motions; of each, only poses and inputs are used.

        progress: called after every iteration or epoch. Raises ConfigError when the motions
        do not belong together or do not fit the network, RunError when no step has an answer.
        """
        begin, settings = time.process_time(), self.settings
        random = np.random.default_rng(self.seed)
        given = motions
        period = check_motions(motions, settings.network) * settings.stride
        check_inputs(motions, settings.network)
        motions = felt(motions, settings.delay, settings.lag)
        parts = [part for motion in motions for part in offsets(motion, settings.stride)]
        data = joined(parts)
        tell = _Teller(progress, begin, settings)
        if settings.method == "first-order":
            net = LagrangianNetwork.start(
                settings.network, data, period, random, settings.first_layer
            )
            net, updates = descend(net, data, settings, random, tell)
            validation, ridge = np.nan, 0.0
        else:
            order = random.permutation(len(parts))[: settings.choosing]
            held = min(len(order) - 1, max(1, round(settings.validation * len(order))))
            if not held:
                raise ConfigError("fit: one motion; at least 2 are needed, to validate on one")
            kept = joined([parts[i] for i in np.sort(order[held:])])
            back = joined([parts[i] for i in np.sort(order[:held])])
            net = LagrangianNetwork.start(
                settings.network, kept, period, random, settings.first_layer
            )
            net, ridge, validation, updates = self._path(net, kept, back, tell)
            net, more = refine(net, data, settings, ridge, tell)
            updates += more
        errors = Squares(net, data, settings.loss, 0.0).errors(net, data)[0]
        if errors is None:
            raise RunError("fit: the model found no next pose for some of the data")
        v = (data.second - data.first) / period
        z = motion_features(settings.network, net.weights, data.second, v, data.u_second)
        weights = net.finished(Domain.around(z))
        metadata: dict[str, Any] = {
            "fit": msgspec.to_builtins(settings),
            "seed": self.seed,
            "data_sha256": digest(given),
            "data_seconds": sum(len(m.q) * m.period for m in given),
        }
        return FitResult(
            model=SymoModel(settings.network, weights),
            epochs=updates,
            best_epoch=updates,
            train_loss=float((errors**2).mean()),
            validation_loss=float(validation),
            residual_rms=np.sqrt((errors**2).mean(axis=0)),
            ridge=ridge,
            disagreement=np.mean(
                [disagreement(m.q[:: settings.stride], period) for m in motions], axis=0
            ),
            reconstruction=None,
            cpu_seconds=time.process_time() - begin,
            metadata=metadata,
        )

    def _path(
        self, net: LagrangianNetwork, kept: Triples, back: Triples, tell: _Teller
    ) -> tuple[LagrangianNetwork, float, float, int]:
        """Return the weights, the ridge and the validation loss of the best ridge, and updates."""
        best, found, updates = (net, RIDGES[0], np.inf), net, 0
        if self.settings.loss == "prediction":  # of random weights a step may have no answer
            ahead = msgspec.structs.replace(self.settings, loss="residual")
            found, updates = refine(net, kept, ahead, RIDGES[0], tell)
        for ridge in RIDGES:
            found, more = refine(found, kept, self.settings, ridge, tell)
            updates += more
            loss = Squares(found, back, self.settings.loss, 0.0).loss(found.flat)
            if loss < best[2]:
                best = (found, ridge, loss)
            elif loss > 10 * best[2]:
                break  # it follows what the other motions do not share
        if not np.isfinite(best[2]):
            raise RunError("fit: no ridge gave a model that steps through the motions kept back")
        return (*best, updates)


class Squares:
    """½ mean e² + ½ ridge |θ|² of poses: e is the residual, or the miss of the next pose."""

    def __init__(self, net: LagrangianNetwork, data: Triples, loss: str, ridge: float) -> None:
        self.net, self.data, self.kind, self.ridge = net, data, loss, ridge

    def errors(self, net: LagrangianNetwork, data: Triples) -> tuple[Array | None, Triples, Array]:
        """Return e (n, nq), where its slopes are taken, and the μ (n, nq, nq) they are along.

        e is None where a step has no answer.
        """
        nq = net.settings.nq
        if self.kind == "residual":
            return net.residual(data), data, np.broadcast_to(np.eye(nq), (len(data), nq, nq))
        found = net.prediction(data, data.third)
        if not found.solved.all():
            return None, data, found.slope
        at = replace(data, third=found.q)
        return found.q - data.third, at, np.asarray(np.linalg.inv(found.slope))

    def loss(self, theta: Array) -> float:
        """Return the loss; infinite where a step has no answer."""
        with np.errstate(over="ignore", invalid="ignore"):
            errors, *_ = self.errors(self.net.with_flat(theta), self.data)
        if errors is None or not np.isfinite(errors).all():
            return np.inf
        return 0.5 * float((errors**2).mean()) + 0.5 * self.ridge * float(
            theta @ (self.net.stiffness * theta)
        )

    def normal(self, theta: Array) -> tuple[Array, Array]:
        """Return curvature (p, p) and slope (p,) of the loss, without second slopes of e."""
        net = self.net.with_flat(theta)
        curvature, slope = np.zeros((len(theta), len(theta))), np.zeros(len(theta))
        for first in range(0, len(self.data), BLOCK):
            errors, at, along = self.errors(net, self.data.some(slice(first, first + BLOCK)))
            assert errors is not None, "the loss was finite here"
            rows = net.rows(at, along)
            curvature += rows.T @ rows
            slope += errors.ravel() @ rows
        size = len(self.data) * net.settings.nq
        curvature, slope = curvature / size, slope / size + self.ridge * net.stiffness * theta
        curvature.flat[:: len(theta) + 1] += self.ridge * net.stiffness
        return curvature, np.where(net.trained, slope, 0.0)


def refine(
    net: LagrangianNetwork, data: Triples, settings: FitSymoSettings, ridge: float, tell: _Teller
) -> tuple[LagrangianNetwork, int]:
    """Return the network after Levenberg–Marquardt with one ridge, and the steps it took."""
    problem = Squares(net, data, settings.loss, ridge)
    tell.ridge = ridge
    theta, state = minimise(problem, net.flat.copy(), settings.iterations, progress=tell)
    return net.with_flat(theta), state.iteration


def descend(
    net: LagrangianNetwork, data: Triples, settings: FitSymoSettings,
    random: np.random.Generator, tell: _Teller,
) -> tuple[LagrangianNetwork, int]:  # fmt: skip
    """Return the network after Adam, and the steps it took; samples without answer rest."""
    keep_pages()
    adam, state = Adam(settings.rate), AdamState.start(len(net.flat))
    net, best, since = net.with_flat(net.flat.copy()), np.inf, 0
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        order = random.permutation(len(data))
        for first in range(0, len(data), settings.batch):
            some = data.some(order[first : first + settings.batch])
            loss, gradient = batch_gradient(net, some, settings.loss)
            total += loss * len(some)
            change, state = adam.step(gradient, state)
            net.flat += change
        total /= len(data)
        tell.epoch(epoch, total)
        if total < best * (1 - 1e-4):
            best, since = total, 0
        else:
            since += 1
        if since > settings.plateau:
            adam, since = replace(adam, rate=adam.rate * settings.fall), 0
    return net, state.steps


def keep_pages() -> None:
    """Let the allocator keep the memory of large arrays from one batch to the next.

    glibc gives an array above a threshold pages of its own, and returns them with it; the
    threshold is the largest such array that was freed (mallopt(3), M_MMAP_THRESHOLD). A step
    with the published networks spends a third of its time on fresh pages otherwise.
    """
    np.empty(KEPT)


def batch_gradient(net: LagrangianNetwork, some: Triples, loss: str) -> tuple[float, Array]:
    """Return mean e² of a batch and its gradient (p,); a sample without answer counts nothing."""
    if loss == "residual":
        errors = net.residual(some)
        return float((errors**2).mean()), net.gradient(some, errors * (2 / errors.size))
    found = net.prediction(some, close=ROUGH)
    answered = found.solved[:, None]
    if answered.all():
        at, layers = replace(some, third=found.at), found.layers
    else:
        at, layers = replace(some, third=np.where(answered, found.q, some.third)), None
    errors = np.where(answered, found.q - some.third, 0.0)
    mu = np.asarray(np.linalg.solve(found.slope.swapaxes(1, 2), errors[..., None])[..., 0])
    return float((errors**2).mean()), net.gradient(at, mu * (2 / errors.size), layers)


def felt(motions: Sequence[Motion], delay: float, lag: float) -> list[Motion]:
    """Return motions with the inputs that acted, in place of those that were commanded.

    delay, lag: s; a motion's own delay counts before. What was commanded before the first pose
    is unknown, and as much of the motion is left out.
    """
    found = []
    for motion in motions:
        late = delay if motion.delay is None else motion.delay
        if late or lag:
            skipped = int(np.ceil((late + 5 * lag) / motion.period))
            u = applied(motion.u, motion.period, late, lag)
            motion = replace(motion, q=motion.q[skipped:], u=u[skipped:])
        found.append(motion)
    return found


def triples(motions: Sequence[Motion], stride: int = 1) -> Triples:
    """Return every three poses in a row, `stride` samples apart, and the inputs between them."""
    return joined([part for motion in motions for part in offsets(motion, stride)])


def offsets(motion: Motion, stride: int) -> list[Triples]:
    """Return the triples of every stride-th pose, from each offset: with those before it, all.

    At a high rate the noise of a pose outweighs what it moves in a period. A second difference
    of poses is the acceleration under a hat; what pushed meanwhile is to be seen under the same
    hat, which rises over the first span and falls over the second.
    """
    n, found = len(motion.q), []
    ramp = (2 * np.arange(stride) + 1) / stride**2
    for offset in range(min(stride, n)):
        q = motion.q[offset::stride]
        u = motion.u[offset : offset + stride * (len(q) - 1)].reshape(-1, stride, motion.u.shape[1])
        if len(q) > 2:
            rising, falling = (np.einsum("kjo,j->ko", u, w) for w in (ramp, ramp[::-1]))
            found.append(Triples(q[:-2], q[1:-1], q[2:], rising[:-1], falling[1:]))
    return found


def joined(parts: Sequence[Triples]) -> Triples:
    """Return all samples; raises ConfigError where there is none."""
    if not parts:
        raise ConfigError("fit: no motion of three poses or more")
    columns = ([getattr(part, f.name) for part in parts] for f in fields(Triples))
    return Triples(*(np.concatenate(column) for column in columns))


def check_inputs(motions: Sequence[Motion], network: LagrangianSettings) -> None:
    """Raise ConfigError where nothing fixes the scale of the Lagrangian."""
    if not network.nu or not any(np.abs(m.u).max(initial=0.0) > 0 for m in motions):
        raise ConfigError(
            "fit: no motion has an input; without one, any multiple of a Lagrangian fits as "
            "well: record with inputs, and name the positions they act on in network.driven"
        )


@dataclass
class _Teller:
    """Tells how a fit goes on."""

    progress: Callable[[FitProgress], None] | None
    begin: float
    settings: FitSymoSettings
    ridge: float = 0.0
    count: int = 0

    def __call__(self, state: SquaresProgress) -> None:
        self.count += 1
        self._say(self.count, self.settings.iterations * (len(RIDGES) + 1), 2 * state.loss)

    def epoch(self, epoch: int, loss: float) -> None:
        self._say(epoch, self.settings.epochs, loss)

    def _say(self, done: int, most: int, loss: float) -> None:
        if self.progress is not None:
            spent = time.process_time() - self.begin
            self.progress(FitProgress(done, most, loss, np.nan, spent))
