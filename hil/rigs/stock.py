"""What lies in the drawer of a bench: weights to hang on strings, struts to mount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from hil.errors import ConfigError
from hil.types import Array, IntArray

GRAVITY = 9.80665  # m/s², standard
GRAM = 1e-3 * GRAVITY  # N
PIECES_MAX = 12  # of a set: 4096 sums

Piece = Annotated[float, Meta(gt=0, le=10_000)]
Width = Annotated[float, Meta(gt=0, le=1000)]


class Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set of weights as it comes in a box; every string has a box of its own."""

    pieces: Annotated[
        tuple[Piece, ...], Meta(min_length=1, max_length=PIECES_MAX, description="of one box, g")
    ] = (0.1, 0.2, 0.2, 0.5, 1.0, 2.0, 2.0, 5.0, 10.0)

    def sums(self) -> tuple[Array, IntArray]:
        """Return every mass a string can carry, (n,), g, rising, and its pieces as bits."""
        bits = np.arange(2 ** len(self.pieces), dtype=np.int64)
        chosen = (bits[:, None] >> np.arange(len(self.pieces))) & 1
        mass = np.round(chosen @ np.array(self.pieces), 6)
        order = np.lexsort([chosen.sum(1), mass])  # of equal masses the one of fewest pieces
        masses, first = np.unique(mass[order], return_index=True)
        return masses, bits[order][first]


class Struts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Printed struts: k = Y w t / a (Li & Mao 2024), w the width, a the distance of the nodes."""

    widths: Annotated[
        tuple[Width, ...],
        Meta(min_length=1, description="that can be had, mm"),
    ] = tuple(round(1.0 + 0.05 * i, 2) for i in range(41))
    start: Annotated[float, Meta(gt=0, description="of every strut of a new network, mm")] = 2.0
    young: Annotated[float, Meta(gt=0, description="modulus of the rubber, Pa")] = 5.5e5
    thickness: Annotated[float, Meta(gt=0, description="of the sheet, mm")] = 2.0


@dataclass(frozen=True)
class String:
    """What hangs at a node."""

    node: int  # from 0
    way: str  # "down", "up", "left", "right"
    grams: float
    pieces: tuple[float, ...]  # g

    def words(self) -> str:
        """Return it as a person is told."""
        how = "" if self.way == "down" else ", over a pulley"
        sums = "" if len(self.pieces) < 2 else f" ({' + '.join(f'{p:g}' for p in self.pieces)})"
        return f"{self.grams:g} g{sums} at node {self.node + 1}, pulling {self.way}{how}"


class Drawer:
    """Rounds forces and stiffness to what there is."""

    def __init__(self, weights: Weights, struts: Struts, lengths: Array) -> None:
        self._pieces = weights.pieces
        self._masses, self._bits = weights.sums()
        self.widths = np.array(sorted(struts.widths))  # mm
        self._per_mm = struts.young * 1e-3 * struts.thickness * 1e-3 / lengths  # (bonds,), N/m

    def nearest_load(self, load: Array) -> Array:
        """Return the forces the weights there are can pull with: of any shape, N."""
        grams = np.abs(load) / GRAM
        return np.asarray(np.sign(load) * self._masses[self._nearest(self._masses, grams)] * GRAM)

    def strings(self, load: Array, table: IntArray) -> tuple[String, ...]:
        """Return what hangs where for a load that can be pulled with.

        load: (dof,), N. table: degree of freedom of every node and axis, -1 where fixed.
        """
        found = []
        for node, axis in zip(*np.nonzero(table >= 0), strict=True):
            force = float(load[table[node, axis]])
            at = int(self._nearest(self._masses, np.array(abs(force) / GRAM)))
            if not self._masses[at]:
                continue
            way = (("left", "right"), ("down", "up"))[int(axis)][force > 0]
            pieces = tuple(p for i, p in enumerate(self._pieces) if self._bits[at] >> i & 1)
            grams = float(self._masses[at])
            found.append(String(int(node), way, grams, tuple(sorted(pieces, reverse=True))))
        return tuple(found)

    def nearest_width(self, stiffness: Array) -> Array:
        """Return the width of each strut there is that comes nearest: (bonds,), mm."""
        return np.asarray(self.widths[self._nearest(self.widths, stiffness / self._per_mm)])

    def stiffness(self, widths: Array) -> Array:
        """Return the stiffness of struts: (bonds,), mm → N/m."""
        return np.asarray(self._per_mm * widths)

    @staticmethod
    def _nearest(levels: Array, values: Array) -> IntArray:
        middle = (levels[1:] + levels[:-1]) / 2
        return np.asarray(np.searchsorted(middle, values), dtype=np.int64)


def check_widths(struts: Struts) -> None:
    """Raise ConfigError unless a new network can be built of these struts."""
    if struts.start not in struts.widths:
        raise ConfigError(
            f"rig.struts.start: {struts.start} mm is not one of rig.struts.widths; there are "
            f"{min(struts.widths)} to {max(struts.widths)} mm"
        )
