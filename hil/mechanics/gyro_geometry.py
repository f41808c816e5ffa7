"""Where gyroscopes rest and which springs join them; a triangular lattice, wrapped or not.

A lattice may be wrapped like a torus: a spring that leaves at one edge comes back at the
other. Such a spring carries an offset: it sees its far end moved by a whole width or height.

Arrays count from 0; files count from 1.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil.errors import MechanicsError
from hil.types import AnyArray, Array, IntArray

SPACING = 1.0  # m
Wrap = Literal["none", "x", "y", "both"]


@dataclass(frozen=True, eq=False)
class GyroGeometry:
    """Rest positions and springs of a network in the plane.

    nodes: (n, 2), m. springs: (s, 2), the two gyroscopes of each, from 0. offsets: (s, 2),
    m, added to the far end of a wrapped spring; default 0. lengths: (s,), ℓ in m; default as
    long as at rest, so that rest is in equilibrium. Raises MechanicsError.
    """

    nodes: Array
    springs: IntArray
    offsets: Array = None  # type: ignore[assignment]  # arrays from __post_init__ on
    lengths: Array = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check every entry; keep read-only arrays."""
        nodes = np.array(self.nodes, dtype=np.float64)
        if nodes.ndim != 2 or nodes.shape[1] != 2 or not len(nodes):
            raise MechanicsError(f"nodes: expected [[x, y], …] in m, found shape {nodes.shape}")
        springs = np.array(self.springs, dtype=np.int64).reshape(-1, 2)
        count = len(springs)
        offsets = _or(self.offsets, np.zeros((count, 2)))
        if offsets.shape != (count, 2):
            raise MechanicsError(f"offsets: expected ({count}, 2), found {offsets.shape}")
        for entry in np.flatnonzero(((springs < 0) | (springs >= len(nodes))).any(axis=1))[:1]:
            raise MechanicsError(
                f"springs[{entry + 1}]: no such gyroscope; there are 1 to {len(nodes)}"
            )
        between = nodes[springs[:, 1]] + offsets - nodes[springs[:, 0]]
        distance = np.sqrt((between**2).sum(1))
        for entry in np.flatnonzero(~(distance > 1e-9) | (springs[:, 0] == springs[:, 1]))[:1]:
            raise MechanicsError(
                f"springs[{entry + 1}]: joins a gyroscope to itself or two at one place"
            )
        lengths = _or(self.lengths, distance)
        if lengths.shape != (count,) or not (lengths >= 0).all():
            raise MechanicsError(f"lengths: expected ({count},) numbers from 0 on, m")
        for name, value in (("nodes", nodes), ("springs", springs), ("offsets", offsets),
                            ("lengths", lengths)):  # fmt: skip
            if not np.isfinite(value).all():
                raise MechanicsError(f"{name}: not finite; give every entry a number")
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @cached_property
    def between(self) -> Array:
        """From the near end of each spring to its far end, at rest: (s, 2), m."""
        near, far = self.springs.T
        return np.asarray(self.nodes[far] + self.offsets - self.nodes[near])


def lattice(rows: int, columns: int, spacing: float = SPACING, wrap: Wrap = "both") -> GyroGeometry:
    """Return a triangular lattice: rows of gyroscopes, every other one half a step aside.

    Counted row by row from the bottom, each from the left; springs node by node: to the
    right, up left, up right. 10 × 10 has 261 springs, 280 wrapped in x or y, 300 in both.
    Raises MechanicsError for fewer than 2 rows or columns, for fewer than 3 that are
    wrapped, and for an odd number of rows wrapped in y (they would not fit together).
    """
    wrap_x, wrap_y = wrap in ("x", "both"), wrap in ("y", "both")
    if min(rows, columns) < 2 or (wrap_x and columns < 3) or (wrap_y and (rows < 3 or rows % 2)):
        raise MechanicsError(
            f"lattice: {rows} rows × {columns} columns, wrap {wrap!r}: at least 2 × 2, 3 where "
            "it is wrapped, and an even number of rows to wrap in y"
        )
    size = np.array([columns * spacing, rows * spacing * np.sqrt(3) / 2])
    nodes = [
        (spacing * (column + row % 2 / 2), row * spacing * np.sqrt(3) / 2)
        for row in range(rows)
        for column in range(columns)
    ]
    springs, offsets = [], []
    for row in range(rows):
        for column in range(columns):
            aside = row % 2
            for over, up in ((1, 0), (aside - 1, 1), (aside, 1)):
                beyond_y, to_row = divmod(row + up, rows)
                beyond_x, to_column = divmod(column + over, columns)
                if (beyond_x and not wrap_x) or (beyond_y and not wrap_y):
                    continue
                springs.append((row * columns + column, to_row * columns + to_column))
                offsets.append(size * (beyond_x, beyond_y))
    # Rest lengths are equal by construction; not to the last bit by subtraction.
    return GyroGeometry(
        np.array(nodes), np.array(springs), np.array(offsets), np.full(len(springs), spacing)
    )


class GyroGeometrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A triangular lattice, or any geometry from a file."""

    rows: Annotated[int, Meta(ge=2, le=256)] = 10
    columns: Annotated[int, Meta(ge=2, le=256)] = 10
    spacing: Annotated[float, Meta(gt=0, description="between neighbours, m")] = SPACING
    wrap: Annotated[Wrap, Meta(description="edges that are joined")] = "both"
    file: Annotated[str, Meta(description="TOML: nodes, springs; replaces the lattice")] = ""


def make_geometry(settings: GyroGeometrySettings) -> GyroGeometry:
    """Return the geometry that settings describe; raises MechanicsError."""
    if settings.file:
        return read_geometry(settings.file)
    return lattice(settings.rows, settings.columns, settings.spacing, settings.wrap)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A geometry as it stands in a file; gyroscopes are counted from 1."""

    nodes: list[tuple[float, float]]
    springs: list[tuple[int, int]]
    offsets: list[tuple[float, float]] | None = None
    lengths: list[float] | None = None


def read_geometry(path: str | Path) -> GyroGeometry:
    """Read a geometry from a TOML file; raises MechanicsError naming file and entry."""
    path = Path(path)
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
        springs = np.array(found.springs, dtype=np.int64).reshape(-1, 2) - 1
        more: dict[str, Any] = {"offsets": found.offsets, "lengths": found.lengths}
        return GyroGeometry(np.array(found.nodes), springs, **more)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MechanicsError(f"{path}: not readable as TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise MechanicsError(
            f"{path}: {error}; a geometry has nodes = [[x, y], …] in m and "
            "springs = [[1, 2], …], counted from 1; offsets and lengths in m where needed"
        ) from None
    except (MechanicsError, OverflowError) as error:
        raise MechanicsError(f"{path}: {error}") from None


def _or(values: Any, default: Array) -> Array:
    """Return a new array of `values`, or of the default where there are none."""
    return np.array(default if values is None else values, dtype=np.float64)


def write_geometry(geometry: GyroGeometry, path: str | Path) -> None:
    """Write a geometry so that `read_geometry` returns the same, bit for bit."""
    rows: dict[str, AnyArray] = {
        "nodes": geometry.nodes, "springs": geometry.springs + 1,
        "offsets": geometry.offsets, "lengths": geometry.lengths,
    }  # fmt: skip
    text = "".join(
        f"{name} = [\n" + "".join(f"    {row},\n" for row in values.tolist()) + "]\n"
        for name, values in rows.items()
    )
    Path(path).write_text(text, encoding="utf-8")
