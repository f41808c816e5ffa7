"""What a model can be asked for, as data: named arrays in, named arrays out, row by row.

A model of any kind is served by the inference process once it has a method `operations`.
Rows are independent: what many ask may be computed together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from hil.errors import InputError
from hil.types import AnyArray, Array

Shape = tuple[int | str, ...]
Sizes = tuple[tuple[str, int], ...]
"""Free sizes of a request, by name: how many steps its rollouts have, for instance."""
KNOWN = 1024  # shapes of requests that are not looked at again
ALIGNED = 64  # bytes to which an array is moved up in a buffer: a line of the cache


class Field(NamedTuple):
    """One array of an operation: the shape of a row; a text is a size the request chooses."""

    name: str
    shape: Shape

    def sized(self, sizes: Sizes) -> tuple[int, ...]:
        """Return the shape of a row, free sizes put in."""
        free = dict(sizes)
        return tuple(n if isinstance(n, int) else free[n] for n in self.shape)


class Place(NamedTuple):
    """Where an array lies in a buffer."""

    offset: int  # bytes
    shape: tuple[int, ...]

    def view(self, buffer: memoryview, dtype: str) -> AnyArray:
        """Return the array there, not copied."""
        return np.ndarray(self.shape, dtype, buffer, self.offset)


class Asked(NamedTuple):
    """A request that fits its operation."""

    rows: int
    sizes: Sizes


@dataclass(frozen=True)
class Operation:
    """One thing a model can be asked for.

    run: arrays with leading rows, in the order of `inputs` → those of `outputs`; float64.
    example: free sizes to warm up with.
    """

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    run: Callable[..., Sequence[Array]] = field(repr=False, compare=False)
    example: Sizes = field(default=(), compare=False)
    _known: dict[Any, Asked] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fit(self, arrays: Sequence[AnyArray]) -> Asked:
        """Return rows and free sizes of a request.

        An array with one row counts for all rows. Raises InputError naming the array that
        does not fit, is no floating-point array or holds what is not finite.
        """
        asked = self._asked(tuple((array.shape, array.dtype.char) for array in arrays))
        for array in arrays:
            # The sum of squares tells in one pass; it may also overflow: then each is looked at.
            if not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
                wanted = self.inputs[[a is array for a in arrays].index(True)]
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise InputError(f"{self.name}: {wanted.name}: {array[at]} at {list(at)}")
        return asked

    def _asked(self, found: tuple[tuple[tuple[int, ...], str], ...]) -> Asked:
        """Return rows and free sizes of arrays of these shapes and types."""
        known = self._known.get(found)
        if known is not None:
            return known
        if len(found) != len(self.inputs):
            names = ", ".join(f.name for f in self.inputs)
            raise InputError(f"{self.name}: expected {names}, found {len(found)} arrays")
        rows = 1
        free: dict[str, int] = {}
        for wanted, (shape, kind) in zip(self.inputs, found, strict=True):
            if len(shape) != len(wanted.shape) + 1 or shape[0] < 1:
                raise self._misfit(wanted, shape)
            for size, n in zip(wanted.shape, shape[1:], strict=True):
                if size != n and (isinstance(size, int) or free.setdefault(size, n) != n or n < 1):
                    raise self._misfit(wanted, shape)
            if shape[0] != 1:
                if rows not in (1, shape[0]):
                    raise self._misfit(wanted, shape, f" of {rows} rows")
                rows = shape[0]
            if kind not in "df":
                raise InputError(
                    f"{self.name}: {wanted.name}: expected float32 or float64, found "
                    f"{np.dtype(kind)}"
                )
        if len(self._known) >= KNOWN:
            self._known.clear()
        asked = self._known[found] = Asked(rows, tuple(sorted(free.items())))
        return asked

    def _misfit(self, wanted: Field, found: tuple[int, ...], rows: str = "") -> InputError:
        shape = ", ".join(map(str, ("rows", *wanted.shape)))
        return InputError(f"{self.name}: {wanted.name}: expected ({shape}){rows}, found {found}")

    def places(self, asked: Asked, itemsize: int) -> tuple[list[Place], list[Place], int]:
        """Return where inputs and outputs lie in one buffer, and how many bytes that is."""
        found, size = _places((*self.inputs, *self.outputs), asked, itemsize)
        return found[: len(self.inputs)], found[len(self.inputs) :], size


@functools.lru_cache(maxsize=4096)
def _places(fields: tuple[Field, ...], asked: Asked, itemsize: int) -> tuple[list[Place], int]:
    offset, found = 0, []
    for f in fields:
        shape = (asked.rows, *f.sized(asked.sizes))
        found.append(Place(offset, shape))
        offset += -(-math.prod(shape) * itemsize // ALIGNED) * ALIGNED
    return found, offset


class Askable(Protocol):
    """A model that says what it can be asked for."""

    def operations(self) -> tuple[Operation, ...]:
        """Return everything."""
