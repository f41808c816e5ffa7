"""Penguins: four measurements of a bird pull at a spring network, three displacements name it.

Data: Gorman, Williams & Fraser, PLoS ONE 9:e90081 (2014), in the package `palmerpenguins`
(Horst, Hill & Gorman 2020, CC0). Of 344 birds 342 were measured; the sex, which is missing
for more of them, is not used.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.errors import ConfigError
from hil.mechanics.geometry import Geometry
from hil.tasks.classification import (
    AbstractClassification,
    ClassificationSettings,
    DataSet,
    Node,
    Presented,
    present,
)

FEATURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
SPECIES = ("Adelie", "Chinstrap", "Gentoo")


class PenguinsSettings(ClassificationSettings, frozen=True, kw_only=True):
    """Where the measurements pull, where the species is read, and how a miss is weighed."""

    inputs: Annotated[
        tuple[Node, Node, Node, Node],
        Meta(description="nodes loaded downwards by bill length, depth, flipper length, mass"),
    ] = (12, 7, 8, 13)
    outputs: Annotated[
        tuple[Node, Node, Node],
        Meta(description="nodes whose |u_x| stand for Adelie, Chinstrap, Gentoo"),
    ] = (4, 2, 11)
    scaling: Annotated[
        Literal["max", "min_max"],
        Meta(description="a feature as a share of its largest value, or of its range"),
    ] = "min_max"


class Penguins(AbstractClassification):
    """342 birds of three species, told apart by the largest |u_x| of three nodes."""

    Settings: ClassVar[type[PenguinsSettings]] = PenguinsSettings

    def __init__(self, settings: PenguinsSettings, *, geometry: Geometry, seed: int = 0) -> None:
        self._presented = present(_data(), settings, geometry, seed)

    @property
    def presented(self) -> Presented:
        """The birds as this network is shown them."""
        return self._presented


@cache
def _data() -> DataSet:
    """Return the features in mm and g and the species; raises ConfigError without the package."""
    try:
        from palmerpenguins import load_penguins
    except ImportError as error:
        raise ConfigError(
            f"task: the penguins are not here ({error}); install them with: "
            "pip install 'hil[penguins]'"
        ) from None
    table = load_penguins().dropna(subset=FEATURES)
    return DataSet(
        table[FEATURES].to_numpy(dtype=np.float64),
        np.array([SPECIES.index(name) for name in table["species"]], dtype=np.int64),
        SPECIES,
    )
