"""Two rings of pushes, one inside the other: told apart by one displacement."""

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

Radius = Annotated[float, Meta(gt=0, le=1)]


class RingsSettings(Settings, frozen=True, kw_only=True):
    """Where it is pushed and read, and where the rings are."""

    inputs: Annotated[
        tuple[ChannelName, ChannelName], Meta(description="pushed by the two coordinates")
    ] = ("8x", "11x")
    output: Annotated[ChannelName, Meta(description="far on the outer ring")] = "13y"
    threshold: Annotated[
        float, Meta(ge=0, le=0.1, description="displacement between the two rings, m")
    ] = 1e-4
    force: Annotated[float, Meta(gt=0, le=10, description="of a coordinate of 1, N")] = 0.2
    scale: Annotated[float, Meta(gt=0, le=0.1, description="of the logistic loss, m")] = 1e-4
    inner: Annotated[tuple[Radius, Radius], Meta(description="radii of the inner ring, 1")] = (
        0.2,
        0.5,
    )
    outer: Annotated[tuple[Radius, Radius], Meta(description="radii of the outer ring, 1")] = (
        0.8,
        1.0,
    )
    train: Annotated[int, Meta(ge=4, description="points that are learned from, 1")] = 200
    test: Annotated[int, Meta(ge=4, description="points that are not, 1")] = 100

    def __post_init__(self) -> None:
        """Refuse rings that overlap."""
        low, high = self.inner
        near, far = self.outer
        if not low < high < near < far:
            raise ValueError(
                f"`inner` {list(self.inner)} and `outer` {list(self.outer)}: "
                "radii must grow from the first to the last"
            )


class Rings(AbstractSignTask):
    """Points of two rings, drawn from the seed: 1 on the outer one."""

    Settings: ClassVar[type[RingsSettings]] = RingsSettings

    def __init__(self, settings: RingsSettings, *, geometry: Geometry, seed: int = 0) -> None:
        random = np.random.default_rng([seed, STREAM_SPLIT])

        def drawn(count: int) -> tuple[Array, IntArray]:
            bits = np.arange(count, dtype=np.int64) % 2
            low, high = np.array([settings.inner, settings.outer])[bits].T
            radius, angle = random.uniform(low, high), random.uniform(0.0, 2 * np.pi, count)
            points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            return points, bits[:, None]

        self._data = SignData.of(
            geometry,
            settings.inputs,
            (settings.output,),
            drawn(settings.train),
            drawn(settings.test),
            force=settings.force,
            scale=settings.scale,
            threshold=settings.threshold,
        )

    @property
    def data(self) -> SignData:
        """The points."""
        return self._data
