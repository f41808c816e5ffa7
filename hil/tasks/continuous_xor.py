"""XOR of forces of any size: which of four quadrants two pushes lie in."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.mechanics.geometry import Geometry
from hil.tasks.base import STREAM_SPLIT
from hil.tasks.channel import ChannelName
from hil.tasks.signs import AbstractSignTask, SignData
from hil.types import Array, IntArray


class ContinuousXorSettings(Settings, frozen=True, kw_only=True):
    """Where it is pushed and read, and how many points there are."""

    inputs: Annotated[
        tuple[ChannelName, ChannelName], Meta(description="pushed by the two coordinates")
    ] = ("3x", "11y")
    output: Annotated[ChannelName, Meta(description="above zero where the signs differ")] = "14x"
    force: Annotated[float, Meta(gt=0, le=10, description="of a coordinate of 1, N")] = 0.2
    scale: Annotated[float, Meta(gt=0, le=0.1, description="of the logistic loss, m")] = 1e-4
    gap: Annotated[float, Meta(ge=0, lt=1, description="no coordinate is smaller than this, 1")] = (
        0.2
    )
    train: Annotated[int, Meta(ge=4, description="points that are learned from, 1")] = 400
    test: Annotated[int, Meta(ge=4, description="points that are not, 1")] = 200


class ContinuousXor(AbstractSignTask):
    """Points of the square, drawn from the seed: 1 where the two coordinates differ in sign."""

    Settings: ClassVar[type[ContinuousXorSettings]] = ContinuousXorSettings

    def __init__(
        self, settings: ContinuousXorSettings, *, geometry: Geometry, seed: int = 0
    ) -> None:
        random = np.random.default_rng([seed, STREAM_SPLIT])

        def drawn(count: int) -> tuple[Array, IntArray]:
            size = random.uniform(settings.gap, 1.0, (count, 2))
            points = size * random.choice([-1.0, 1.0], (count, 2))
            return points, (points[:, :1] * points[:, 1:] < 0).astype(np.int64)

        self._data = SignData.of(
            geometry,
            settings.inputs,
            (settings.output,),
            drawn(settings.train),
            drawn(settings.test),
            force=settings.force,
            scale=settings.scale,
        )

    @property
    def data(self) -> SignData:
        """The points."""
        return self._data
