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

HALF = 0.5  # a gap above this is none
NOTHING = 1e-12  # a singular value below this part of the largest is zero


class DictionaryResult(NamedTuple):
    """A fitted dictionary and what is to be said about it."""

    model: DictionaryModel
    gap: float  # least singular value over the next; with inputs, over the largest
    cpu_seconds: float


def fit_dictionary(settings: DictionarySettings, samples: Samples) -> DictionaryResult:
    """Return the Lagrangian of samples; raises RunError when they do not determine one."""
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
        gap = float(values[-1] / values[-2])
        if gap > HALF or values[-2] < NOTHING * values[0]:
            raise RunError(_indistinct(settings, gap))
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
        raise RunError(_indistinct(settings, gap))
    return DictionaryResult(model, gap, time.process_time() - begin)


def _indistinct(settings: DictionarySettings, gap: float) -> str:
    count = sum(terms(settings)[-3:])
    return (
        f"dictionary: the data do not tell its {count} terms apart: two fit almost equally well, "
        f"or the mass found is not positive (gap {gap:.1e}); move more freely, push, or take a "
        "lower order"
    )
