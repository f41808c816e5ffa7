"""Penguins: which birds, how they are scaled, and what is said without the package."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from hil.config import check
from hil.errors import ConfigError
from hil.mechanics.geometry import triangular_lattice
from hil.tasks import penguins
from hil.tasks.penguins import FEATURES, Penguins, PenguinsSettings

GEOMETRY = triangular_lattice(4)
ALL = np.arange(342)


def make(seed: int = 0, **over: object) -> Penguins:
    return Penguins(check(over, PenguinsSettings, "task"), geometry=GEOMETRY, seed=seed)


def test_all_birds_that_were_measured_and_no_other() -> None:
    """Against the published table itself, read without pandas."""
    spec = importlib.util.find_spec("palmerpenguins")
    assert spec is not None
    assert spec.origin is not None
    table = Path(spec.origin).parent / "data" / "penguins.csv"
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    whole = [row for row in rows if all(row[name] not in ("", "NA") for name in FEATURES)]
    assert (len(rows), len(whole)) == (344, 342)
    task = make(scale_with="all")
    assert [task.classes[i] for i in task.labels(ALL)] == [row["species"] for row in whole]
    values = np.array([[float(row[name]) for name in FEATURES] for row in whole])
    pulled = [GEOMETRY.dof(node - 1, 1) for node in (12, 7, 8, 13)]
    low, high = values.min(0), values.max(0)
    expected = -0.049 * (values - low) / (high - low)
    assert np.allclose(task.loads(ALL)[:, pulled], expected, rtol=1e-13, atol=1e-18)
    assert not np.delete(task.loads(ALL), pulled, axis=1).any()


def test_the_range_is_that_of_the_training_part() -> None:
    outside = 0
    for seed in range(3):
        task = make(seed)
        loads = task.loads(task.train)
        assert loads.min() == pytest.approx(-0.049)
        assert loads.max() == 0.0
        outside += (task.loads(ALL) > 0).sum() + (task.loads(ALL) < -0.049 - 1e-12).sum()
    assert outside > 0  # some bird is larger or smaller than all that trained


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "palmerpenguins", None)
    penguins._data.cache_clear()
    with pytest.raises(ConfigError, match="pip install"):
        make()
