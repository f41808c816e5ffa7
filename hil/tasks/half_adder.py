"""A half adder: two forces are added as bits, one displacement is the sum, one the carry."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.channel import ChannelName
from hil.tasks.gates import bits_of, truth_table
from hil.tasks.signs import AbstractSignTask, SignData


class HalfAdderSettings(Settings, frozen=True, kw_only=True):
    """Where it is pushed and where it is read."""

    inputs: Annotated[
        tuple[ChannelName, ChannelName], Meta(description="pushed forward for 1, back for 0")
    ] = ("3x", "13y")
    sum: Annotated[ChannelName, Meta(description="above zero where the bits differ")] = "13x"
    carry: Annotated[ChannelName, Meta(description="above zero where both are 1")] = "9y"
    force: Annotated[float, Meta(gt=0, le=10, description="of each input, N")] = 0.2
    scale: Annotated[float, Meta(gt=0, le=0.1, description="of the logistic loss, m")] = 1e-4
    weakest: Annotated[
        float, Meta(gt=0, le=1, description="share of the force down to which inputs are tested")
    ] = 0.9
    tests: Annotated[int, Meta(ge=5, description="tested inputs per case, 1")] = 6


class HalfAdder(AbstractSignTask):
    """XOR and AND of the same two pushes, at once, by one network."""

    Settings: ClassVar[type[HalfAdderSettings]] = HalfAdderSettings

    def __init__(self, settings: HalfAdderSettings, *, geometry: Geometry, seed: int = 0) -> None:
        train, test = truth_table(settings.weakest, settings.tests, seed)
        truth = bits_of("xor", "and")
        self._data = SignData.of(
            geometry,
            settings.inputs,
            (settings.sum, settings.carry),
            (train, truth),
            (test, np.tile(truth, (settings.tests, 1))),
            force=settings.force,
            scale=settings.scale,
        )

    @property
    def data(self) -> SignData:
        """The cases."""
        return self._data
