"""Fits an FNODE to accelerations taken from poses, by second-order steps in function space.

The plain way of Wang, Wang & Negrut (arXiv 2509.00183): differentiate, then regress; no
integrator is trained through. For clean poses and up to some thousand samples; for quantised
poses and long recordings `hil.training.fit` is the better choice.

How the network is built (spread of its first weights, linear path, velocities that enter by
their products) is chosen from a list by a rule that was fixed before: each candidate learns
the first part of every motion and is let loose on its last part (`held`). The first of the
list, which stands in the order of preference, that comes within a factor of two of the closest
learns all of it: less is told apart by the seed. Nothing but the motions given is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.fnode import FnodeModel, FnodeSettings, features, layout
from hil.training.differentiation import (
    differences,
    disagreement,
    reconstruction,
)
from hil.training.fit import FitProgress, FitResult, Motion, check_motions, digest
from hil.training.function_space import LARGEST, Descent, NetworkProblem, descend
from hil.training.network import Blocks, Network
from hil.training.rollout import rollout, rollout_error
from hil.types import Array


class Variant(Settings, frozen=True, kw_only=True):
    """How a network is built and begins."""

    scale: Annotated[
        float, msgspec.Meta(gt=0, description="of the first layer's Xavier weights")
    ] = 1.0
    skip: bool = False
    velocities: Annotated[
        Literal["plain", "even", "none"] | None, msgspec.Meta(description="none: the network's")
    ] = None
    ridge: Annotated[
        float, msgspec.Meta(ge=0, description="on the mean square of the scaled misfit, per w²")
    ] = 0.0
    mirror: Annotated[
        bool, msgspec.Meta(description="of every second label its mirror image is learned, too")
    ] = False

    @property
    def words(self) -> str:
        """What it is, in short."""
        found = [f"scale {self.scale:g}"] + ["skip"] * self.skip + ["mirror"] * self.mirror
        found += [f"velocities {self.velocities}"] * (self.velocities is not None)
        return ", ".join(found + [f"ridge {self.ridge:g}"] * (self.ridge > 0))


SCALES = tuple(Variant(scale=scale) for scale in (0.03, 0.1, 0.3, 1.0))
"""Of first weights; the smallest, which begins with the smoothest function, is preferred."""

TIE = 2.0  # errors that are less apart are alike


class FlowSettings(Settings, frozen=True, kw_only=True):
    """How a network is fitted to labels."""

    network: FnodeSettings
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)] = SCALES
    points: Annotated[
        int, msgspec.Meta(ge=3, description="of the differences that give the labels, odd")
    ] = 11
    every: Annotated[int, msgspec.Meta(ge=1, description="of so many labels one is used")] = 1
    held: Annotated[
        float, msgspec.Meta(gt=0, lt=1, description="last part of a motion, to choose on, 1")
    ] = 0.2
    iterations: Annotated[int, msgspec.Meta(ge=1, le=1000, description="at most")] = 50


class Samples(NamedTuple):
    """Where the network is asked, and what it should answer."""

    q: Array  # (n, nq)
    v: Array  # (n, nq)
    u: Array  # (n, nu)
    a: Array  # (n, nq)


class Choice(NamedTuple):
    """A variant and how it did where it was chosen."""

    variant: Variant
    error: float  # mean square over the held part, positions and velocities over their spread


def learn(
    network: FnodeSettings,
    variant: Variant,
    samples: Samples,
    *,
    seed: int,
    iterations: int = 50,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[FnodeModel, Descent]:
    """Return a network fitted to samples, and how that went; raises ConfigError for too many."""
    if samples.a.size > LARGEST:
        raise ConfigError(
            f"flow: {samples.a.size} labels; at most {LARGEST} fit, thin the samples out or "
            "use hil.training.fit:Fit"
        )
    settings = built(network, variant)
    samples = mirrored(samples) if variant.mirror else samples
    random, width = np.random.default_rng(seed), layout(settings).width
    z = features(settings, samples.q, samples.v, samples.u)
    spread = variant.scale * np.sqrt(2 / (width + settings.hidden[0]))
    net = Network.start(settings, Blocks(z[None], samples.a[None], np.eye(1)), spread, random)
    limit = np.sqrt(6 / (settings.hidden[-1] + settings.nq))
    net.last[:] = random.uniform(-limit, limit, net.last.shape)
    z = (z - net.input_mean) / net.input_scale
    goal = (samples.a - net.output_mean) / net.output_scale
    done = descend(
        NetworkProblem(net, z, goal), iterations=iterations, ridge=variant.ridge, progress=progress
    )
    return FnodeModel(settings, net.weights(z)), done


def mirrored(samples: Samples) -> Samples:
    """Return every second sample and its mirror image, f(−q, −v, −u) = −f(q, v, u)."""
    return Samples(*(np.concatenate([part[::2], -part[::2]]) for part in samples))


def built(network: FnodeSettings, variant: Variant) -> FnodeSettings:
    """Return the architecture of a variant."""
    velocities = variant.velocities or network.velocities
    return msgspec.structs.replace(network, skip=variant.skip, velocities=velocities)


def choose(settings: FlowSettings, motions: Sequence[Motion], seed: int) -> list[Choice]:
    """Return the variants, the chosen one first, by the rule of this module."""
    if len(settings.variants) == 1:
        return [Choice(settings.variants[0], np.nan)]
    parts = [round((1 - settings.held) * len(motion.q)) for motion in motions]
    known = [
        Motion(m.period, m.q[:n], m.u[:n], m.delay) for m, n in zip(motions, parts, strict=True)
    ]
    samples = label(known, settings.points, settings.every)
    found = []
    for variant in settings.variants:
        model, _ = learn(
            settings.network, variant, samples, seed=seed, iterations=settings.iterations
        )
        errors = []
        for motion, n in zip(motions, parts, strict=True):
            moved = differences(motion.q, motion.period, settings.points)
            truth = np.concatenate([moved.position, moved.velocity], axis=1)
            states = rollout(model, truth[n - 1], motion.u[n - 1 : -1], motion.period)
            scale = np.maximum(truth.std(axis=0), 1e-300)
            error = rollout_error(states / scale, truth[n - 1 :] / scale, 0, motion.period)
            errors.append(error.full)
        found.append(Choice(variant, float(np.mean(errors))))
    best = min(choice.error for choice in found)
    # A stable order: who is alike stays in the order of preference.
    return sorted(found, key=lambda choice: max(choice.error, TIE * best))


def label(motions: Sequence[Motion], points: int, every: int = 1) -> Samples:
    """Return states and accelerations of motions by central differences, one of `every`."""
    moved = [differences(motion.q, motion.period, points) for motion in motions]
    # At a sample a held input jumps; what a centred label sees is the mean.
    inputs = [(m.u + np.concatenate([m.u[:1], m.u[:-1]])) / 2 for m in motions]
    q, v, a = (
        np.concatenate([part[::every] for part in parts]) for parts in zip(*moved, strict=True)
    )
    return Samples(q, v, np.concatenate([u[::every] for u in inputs]), a)


class FlowFit:
    """Fits networks to labels; equal seed, settings and motions give the same model."""

    Settings = FlowSettings

    def __init__(self, settings: FlowSettings, *, seed: int = 0) -> None:
        layout(settings.network)  # refuses positions that are not there
        self.settings = settings
        self.seed = seed

    def run(
        self, motions: Sequence[Motion], progress: Callable[[FitProgress], None] | None = None
    ) -> FitResult[FnodeModel]:
        """Return the model that fits the motions; progress: called after every step.

        Raises ConfigError when the motions do not belong together or do not fit the network.
        """
        begin, settings = time.process_time(), self.settings
        check_motions(motions, settings.network)
        best = choose(settings, motions, self.seed)[0]
        samples = label(motions, settings.points, settings.every)

        def report(step: int, loss: float) -> None:
            if progress is not None:
                spent = time.process_time() - begin
                progress(FitProgress(step, settings.iterations, loss, best.error, spent))

        model, done = learn(
            settings.network, best.variant, samples, seed=self.seed,
            iterations=settings.iterations, progress=report,
        )  # fmt: skip
        left = model.acceleration(samples.q, samples.v, samples.u) - samples.a
        rest = [
            reconstruction(
                motion.q,
                label([motion], settings.points).a,
                motion.period,
                min(1.0, len(motion.q) * motion.period),
            )
            for motion in motions
        ]
        return FitResult(
            model=model,
            epochs=done.updates,
            best_epoch=done.updates,
            train_loss=done.loss,
            validation_loss=best.error,
            residual_rms=np.sqrt((left**2).mean(axis=0)),
            ridge=0.0,
            disagreement=np.mean([disagreement(m.q, m.period) for m in motions], axis=0),
            reconstruction=np.sqrt(np.mean(np.square(rest), axis=0)),
            cpu_seconds=time.process_time() - begin,
            metadata={
                "fit": msgspec.to_builtins(settings),
                "variant": msgspec.to_builtins(best.variant),
                "seed": self.seed,
                "data_sha256": digest(motions),
                "data_seconds": sum(len(m.q) * m.period for m in motions),
            },
        )
