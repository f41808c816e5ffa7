"""What a learned Lagrangian consists of: its architecture and its weights (see `lagrangian`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.fnode import Domain
from hil.types import Array, IntArray

Index = Annotated[int, msgspec.Meta(ge=0)]


class LagrangianSettings(Settings, frozen=True, kw_only=True):
    """Architecture of a learned Lagrangian; positions are counted from 0, as in q."""

    nq: Annotated[int, msgspec.Meta(ge=1, le=16, description="positions")]
    driven: tuple[Index, ...] = ()  # per input: the position it acts on, as a force or torque
    angles: tuple[Index, ...] = ()  # enter as (cos, sin)
    left_out: tuple[Index, ...] = ()  # do not enter at all
    hidden: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=4096)], ...],
        msgspec.Meta(min_length=1, description="units of each hidden layer"),
    ] = (32, 32)
    floor: Annotated[float, msgspec.Meta(gt=0, description="ε, least inertia, kg or kg·m²")] = 1e-3
    order: Literal[2, 4] = 2  # of the discrete Lagrangian in the period
    damping: Literal["none", "constant", "positions"] = "none"

    def __post_init__(self) -> None:
        """Refuse positions that are not there."""
        for name in ("driven", "angles", "left_out"):
            wrong = [index for index in getattr(self, name) if index >= self.nq]
            if wrong:
                raise ValueError(
                    f"`{name}` names position {wrong[0]} of a model with {self.nq} positions"
                )

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return len(self.driven)


class Outputs(NamedTuple):
    """Where the outputs of the network stand."""

    factor: slice  # entries of L, row by row of its lower triangle
    terms: slice  # c
    damping: slice  # entries of K, as those of L
    total: int


def outputs(settings: LagrangianSettings) -> Outputs:
    """Return where the outputs of the network stand."""
    triangle = settings.nq * (settings.nq + 1) // 2
    last = triangle + len(exponents(settings))
    count = last + (triangle if settings.damping != "none" else 0)
    return Outputs(slice(0, triangle), slice(triangle, last), slice(last, count), count)


@lru_cache(maxsize=64)
def exponents(settings: LagrangianSettings) -> IntArray:
    """Return the powers of v and u in each term τ, (T, nq + nu); the first is τ = 1."""
    nq, nu = settings.nq, settings.nu
    rows = [(0,) * (nq + nu)]
    if settings.order == 4:
        wanted = {(4, 0), (2, 1), (0, 2), (0, 1)}
        found = product(*[range(5)] * nq, *[range(3)] * nu)
        rows += [row for row in found if (sum(row[:nq]), sum(row[nq:])) in wanted]
    return np.array(rows, dtype=np.int64)


def width(settings: LagrangianSettings) -> int:
    """Return the number of inputs of the network."""
    return sum(1 + (i in settings.angles) for i in range(settings.nq) if i not in settings.left_out)


@dataclass(frozen=True)
class LagrangianWeights:
    """What training finds."""

    period: Array  # (), s, of the poses it was learned from
    position_mean: Array  # (nq,), of positions that are no angles; else 0
    position_scale: Array  # (nq,), else 1
    motion_scale: Array  # (nq + nu,), v and u in the terms τ are over this
    hidden: tuple[tuple[Array, Array], ...]  # per layer: (units, before), (units,)
    last: Array  # (outputs, units), SI
    constant: Array  # (outputs,), SI
    domain: Domain = field(repr=False)  # of (network's inputs, v, u)

    def arrays(self) -> dict[str, Array]:
        """Return everything as named arrays, for a file."""
        plain = ("period", "position_mean", "position_scale", "motion_scale", "last", "constant")
        named = {name: np.asarray(getattr(self, name)) for name in plain}
        for number, (weight, bias) in enumerate(self.hidden, 1):
            named[f"hidden.{number}.weight"] = weight
            named[f"hidden.{number}.bias"] = bias
        for name in ("mean", "factor", "edge"):
            named[f"domain.{name}"] = np.asarray(getattr(self.domain, name))
        return named

    @classmethod
    def from_arrays(
        cls, settings: LagrangianSettings, arrays: Mapping[str, Array]
    ) -> LagrangianWeights:
        """Return weights of named arrays.

        Raises ConfigError for an array that is missing, too many or of another shape.
        """
        nq, count, all_inputs = settings.nq, outputs(settings).total, settings.nq + settings.nu
        near = width(settings) + all_inputs
        shapes: dict[str, tuple[int, ...]] = {
            "period": (), "position_mean": (nq,), "position_scale": (nq,),
            "motion_scale": (all_inputs,), "last": (count, settings.hidden[-1]),
            "constant": (count,), "domain.mean": (near,), "domain.factor": (near, near),
            "domain.edge": (),
        }  # fmt: skip
        before = width(settings)
        for number, units in enumerate(settings.hidden, 1):
            shapes[f"hidden.{number}.weight"] = (units, before)
            shapes[f"hidden.{number}.bias"] = (units,)
            before = units
        found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        if found != {name: (shape, np.dtype(np.float64)) for name, shape in shapes.items()}:
            raise ConfigError(f"weights of a Lagrangian: expected {shapes}, found {found}")
        hidden = tuple(
            (arrays[f"hidden.{number}.weight"], arrays[f"hidden.{number}.bias"])
            for number in range(1, len(settings.hidden) + 1)
        )
        plain = ("period", "position_mean", "position_scale", "motion_scale")
        domain = Domain(*(arrays[f"domain.{name}"] for name in ("mean", "factor", "edge")))
        own = {name: arrays[name] for name in (*plain, "last", "constant")}
        return cls(hidden=hidden, domain=domain, **own)
