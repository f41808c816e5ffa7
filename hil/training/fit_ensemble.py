"""Fits an ensemble and calibrates its intervals on samples that no member saw."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.ensemble import EnsembleModel
from hil.models.fnode import FnodeSettings
from hil.training.flow import Samples, Variant, learn
from hil.types import Array


class EnsembleSettings(Settings, frozen=True, kw_only=True):
    """How many members, and what their interval is to cover."""

    network: FnodeSettings
    variant: Variant = Variant(scale=0.3)
    members: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5
    coverage: Annotated[float, msgspec.Meta(gt=0, lt=1, description="of the interval, 1")] = 0.9
    calibration: Annotated[
        float, msgspec.Meta(gt=0, lt=1, description="part of the samples to calibrate on, 1")
    ] = 0.3
    iterations: Annotated[int, msgspec.Meta(ge=1)] = 20


def fit_ensemble(settings: EnsembleSettings, samples: Samples, *, seed: int) -> EnsembleModel:
    """Return members that each learned from their own draw of samples, with their factor.

    Samples are taken to be exchangeable: neighbours in time are not, thin them out first.
    Raises ConfigError when too few are left to calibrate at that coverage.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(samples.q))
    held = round(settings.calibration * len(order))
    # The quantile of so many needs at least this: otherwise the interval would be infinite.
    level = np.ceil((held + 1) * settings.coverage) / max(held, 1)
    if level > 1 or held >= len(order) - 1:
        raise ConfigError(
            f"ensemble: {len(order)} samples, {held} of them to calibrate on, are too few for an "
            f"interval of {settings.coverage:.0%}"
        )
    known, kept = order[held:], order[:held]
    members, left = [], []
    for number in range(settings.members):
        drawn = random.choice(known, len(known))  # with repetition: a bootstrap
        part = Samples(*(column[np.unique(drawn)] for column in samples))
        model, _ = learn(
            settings.network, settings.variant, part, seed=seed * 1000 + number,
            iterations=settings.iterations,
        )  # fmt: skip
        members.append(model)
        out = np.setdiff1d(known, drawn)
        q, v, u, a = (column[out] for column in samples)
        left.append((model.acceleration(q, v, u) - a) ** 2)
    # What is left where a member did not learn is noise and its own error; half of it is floor.
    floor: Array = np.sqrt(np.concatenate(left).mean(axis=0) / 2)
    plain = EnsembleModel(members, np.ones(len(floor)), floor)
    q, v, u, a = (column[kept] for column in samples)
    score = np.abs(plain.acceleration(q, v, u) - a) / plain.deviation(q, v, u)
    factor = np.quantile(score, level, axis=0, method="higher")
    return EnsembleModel(members, factor, floor)


def coverage(model: EnsembleModel, samples: Samples) -> Array:
    """Return which part of the accelerations lies in its interval, (nq,)."""
    low, high = model.interval(samples.q, samples.v, samples.u)
    found: Array = ((samples.a >= low) & (samples.a <= high)).mean(axis=0)
    return found
