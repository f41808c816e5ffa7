"""Logic gates of two forces: a network computes with the signs of pushes and displacements."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import STREAM_SPLIT
from hil.tasks.channel import ChannelName
from hil.tasks.signs import AbstractSignTask, SignData
from hil.types import Array, IntArray

CASES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
TRUTH: dict[str, tuple[int, int, int, int]] = {  # of the cases in that order
    "xor": (0, 1, 1, 0),
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "nand": (1, 1, 1, 0),
    "nor": (1, 0, 0, 0),
    "xnor": (1, 0, 0, 1),
}


class GatesSettings(Settings, frozen=True, kw_only=True):
    """Which gate, where it is pushed and where it is read."""

    gate: Annotated[
        Literal["xor", "and", "or", "nand", "nor", "xnor"], Meta(description="truth table")
    ] = "xor"
    inputs: Annotated[
        tuple[ChannelName, ChannelName], Meta(description="pushed forward for 1, back for 0")
    ] = ("3x", "11y")
    output: Annotated[ChannelName, Meta(description="displacement above zero stands for 1")] = "14x"
    force: Annotated[float, Meta(gt=0, le=10, description="of each input, N")] = 0.2
    scale: Annotated[float, Meta(gt=0, le=0.1, description="of the logistic loss, m")] = 1e-4
    weakest: Annotated[
        float, Meta(gt=0, le=1, description="share of the force down to which inputs are tested")
    ] = 0.9
    tests: Annotated[int, Meta(ge=5, description="tested inputs per case, 1")] = 6


class Gates(AbstractSignTask):
    """The four cases of a truth table are learned; weaker pushes of the same signs are the test."""

    Settings: ClassVar[type[GatesSettings]] = GatesSettings

    def __init__(self, settings: GatesSettings, *, geometry: Geometry, seed: int = 0) -> None:
        train, test = truth_table(settings.weakest, settings.tests, seed)
        truth = bits_of(settings.gate)
        self._data = SignData.of(
            geometry,
            settings.inputs,
            (settings.output,),
            (train, truth),
            (test, np.tile(truth, (settings.tests, 1))),
            force=settings.force,
            scale=settings.scale,
        )

    @property
    def data(self) -> SignData:
        """The cases."""
        return self._data


def truth_table(weakest: float, tests: int, seed: int) -> tuple[Array, Array]:
    """Return the four cases as ±1, (4, 2), and weaker ones of the same signs, (4·tests, 2)."""
    cases = 2.0 * CASES - 1.0
    random = np.random.default_rng([seed, STREAM_SPLIT])
    return cases, np.tile(cases, (tests, 1)) * random.uniform(weakest, 1.0, (4 * tests, 2))


def bits_of(*gates: str) -> IntArray:
    """Return the truth tables of gates side by side: (4, gates)."""
    return np.array([TRUTH[gate] for gate in gates], dtype=np.int64).T
