"""Fits a dictionary Lagrangian: one linear problem.

With inputs, least squares: A c = Bu. Without, A c = 0: the right singular vector of the least
singular value, its sign such that the kinetic energy is positive. Columns are scaled to one
length first. The gap between the last two singular values says whether the data told the
terms apart; one orbit of a system with one position never does.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from scipy.linalg import svd

from hil.errors import RunError
from hil.models.dictionary import (
    DictionaryModel,
    DictionarySettings,
    DictionaryWeights,
    equations,
    terms,
)
from hil.models.fnode import Domain
from hil.training.flow import Samples


class DictionaryResult(NamedTuple):
    """A fitted dictionary and what is to be said about it."""

    model: DictionaryModel
    gap: float  # least singular value over the next; with inputs, over the largest
    cpu_seconds: float


def fit_dictionary(settings: DictionarySettings, samples: Samples) -> DictionaryResult:
    """Return the Lagrangian of samples; raises RunError when its mass is not positive there."""
    begin = time.process_time()
    q, v, u, a = samples
    table = equations(settings, q, v, a).reshape(a.size, -1)
    size = np.sqrt((table**2).sum(axis=0))
    used = size > 1e-12 * size.max()  # a term that is nowhere different from 0 says nothing
    table = table[:, used] / size[used]
    _, values, right = svd(table, full_matrices=False, check_finite=False)
    drive = np.zeros((settings.nq, len(settings.driven)))
    drive[list(settings.driven), np.arange(len(settings.driven))] = 1.0
    pushed = bool(settings.driven) and bool(np.abs(u).max(initial=0.0) > 0)
    if pushed:
        found = np.linalg.lstsq(table, (u @ drive.T).ravel(), rcond=1e-12)[0]
        gap = float(values[-1] / values[0])
    else:
        found = right[-1]
        gap = float(values[-1] / values[-2]) if len(values) > 1 else 0.0
    coefficients = np.zeros(len(size))
    coefficients[used] = found / size[used]
    x = np.concatenate([q, v], axis=1)
    domain = Domain.around(x)
    model = DictionaryModel(settings, DictionaryWeights(coefficients, domain))
    if not pushed:
        # Without an input the size is free: a mean mass of 1 reads well.
        mean = float(np.trace(model.mass_matrix(q), axis1=1, axis2=2).mean()) / settings.nq
        model = DictionaryModel(settings, DictionaryWeights(coefficients / mean, domain))
    least = np.linalg.eigvalsh(model.mass_matrix(q)).min()
    if not least > 0:
        raise RunError(
            f"dictionary: the mass found is not positive (least eigenvalue {least:.1e}); the data "
            f"do not tell its {terms(settings).kinetic} terms apart (gap {gap:.1e}): move more "
            "freely, or take a lower order"
        )
    return DictionaryResult(model, gap, time.process_time() - begin)
