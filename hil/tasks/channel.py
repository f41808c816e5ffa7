"""One component of one node, by a short name: "11y", "-14x"."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from msgspec import Meta

from hil.errors import ConfigError
from hil.mechanics.geometry import Geometry

NAME = r"^[+-]?[1-9][0-9]*[xyz]$"
ChannelName = Annotated[
    str, Meta(pattern=NAME, description='node, from 1, axis, and a sign: "11y", "-14x"')
]


class Channel(NamedTuple):
    """A force or a displacement of one node along one axis."""

    node: int  # from 0
    dof: int
    sign: float  # of the force or the displacement that counts as positive

    @classmethod
    def of(cls, name: str, geometry: Geometry) -> Channel:
        """Return what a name stands for; raises MechanicsError where it cannot move."""
        if not re.match(NAME, name):
            raise ConfigError(f'{name!r} is no channel; expected a node and an axis, as "11y"')
        node, axis = int(name[:-1].lstrip("+-")) - 1, "xyz".index(name[-1])
        return cls(node, geometry.dof(node, axis), -1.0 if name[0] == "-" else 1.0)
