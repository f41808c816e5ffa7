"""Sensors that fail: what an encoder says instead of where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from hil.config import Settings

Pose = tuple[float, float]  # angle, rad, and position, m


class Channel(StrEnum):
    """One of the encoders of a cart-pole."""

    ANGLE = "angle"
    POSITION = "position"


class FaultKind(StrEnum):
    """How a sensor fails."""

    OFF = "off"  # no reading at all
    STUCK = "stuck"  # the last reading for ever, to the bit


class SensorFault(Settings, frozen=True, kw_only=True):
    """One failure of one sensor, over a time."""

    channel: Channel
    kind: FaultKind
    begin: Annotated[float, Meta(ge=0, description="device time, s")] = 0.0
    end: Annotated[float, Meta(gt=0, description="device time, s")] = math.inf


def faulty(faults: Sequence[SensorFault], time_us: int, pose: Pose, shown: Pose | None) -> Pose:
    """Return what failing encoders say at a time.

    pose: what good ones would say; shown: what these said at the look before, None at the
    first, at which nothing can be stuck yet.
    """
    said = list(pose)
    for fault in faults:
        if not fault.begin * 1e6 <= time_us < fault.end * 1e6:
            continue
        i = 0 if fault.channel is Channel.ANGLE else 1
        if fault.kind is FaultKind.OFF:
            said[i] = math.nan
        elif shown is not None:
            said[i] = shown[i]
    return said[0], said[1]
