"""Iris: four features pull at a spring network, three displacements name the species.

Li & Mao, Nat. Commun. 15:10528 (2024), figure 4; data: Fisher 1936, from scikit-learn.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.mechanics.geometry import Geometry
from hil.tasks.classification import (
    AbstractClassification,
    ClassificationSettings,
    DataSet,
    Node,
    Presented,
    present,
)


class IrisSettings(ClassificationSettings, frozen=True, kw_only=True):
    """Where the features pull, where the species is read, and how a miss is weighed."""

    inputs: Annotated[
        tuple[Node, Node, Node, Node],
        Meta(description="nodes loaded downwards by sepal length, width, petal length, width"),
    ] = (14, 12, 13, 10)
    outputs: Annotated[
        tuple[Node, Node, Node],
        Meta(description="nodes whose |u_x| stand for setosa, versicolor, virginica"),
    ] = (8, 2, 3)


class Iris(AbstractClassification):
    """150 flowers of three species, told apart by the largest |u_x| of three nodes."""

    Settings: ClassVar[type[IrisSettings]] = IrisSettings

    def __init__(self, settings: IrisSettings, *, geometry: Geometry, seed: int = 0) -> None:
        self._presented = present(_data(), settings, geometry, seed)

    @property
    def presented(self) -> Presented:
        """The flowers as this network is shown them."""
        return self._presented


@cache
def _data() -> DataSet:
    """Return the features in cm and the species."""
    from sklearn.datasets import load_iris  # takes a second: only who needs it pays

    found = load_iris()
    return DataSet(
        np.asarray(found.data, dtype=np.float64),
        np.asarray(found.target, dtype=np.int64),
        tuple(str(name) for name in found.target_names),
    )
