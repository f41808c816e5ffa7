"""The vehicle data set: a grid of parameters, one trajectory each, in Parquet shards.

Nine parameters at four levels are 4⁹ = 262144 combinations of 2000 steps (the FNODE paper's
vehicle). A shard is a point of the sweep: it is computed, written and forgotten, so that
memory holds one shard per worker whatever the grid. One row is one trajectory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from hil import __version__
from hil.config import Config, Settings, Table
from hil.errors import ConfigError
from hil.mechanics.multibody.vehicle import (
    INPUTS,
    PARAMETERS,
    STATES,
    drive,
    levels,
    middle,
)
from hil.plots.sweep import draw_vehicles
from hil.recording.run import Run
from hil.sweep.base import AbstractJob, Done, Ending, Figures, Point, Say
from hil.types import Array, IntArray

SHARD = "trajectories.parquet"
MANIFEST = "manifest.json"
DATA = "data"  # the shards of a finished sweep, numbered, for whoever reads a folder
WHOLE = f"all 4⁹ = {4 ** len(PARAMETERS)}"
STREAM_VEHICLE = 401  # of the random numbers of a seed
Range = tuple[float, float]


class VehicleDataSettings(Settings, frozen=True, kw_only=True):
    """Which vehicles are driven, and how."""

    levels: Annotated[int, Meta(ge=2, le=100, description="values of a parameter")] = 4
    vary: Annotated[
        int,
        Meta(ge=1, le=len(PARAMETERS), description="parameters in the grid; the rest: mid-range"),
    ] = len(PARAMETERS)
    steps: Annotated[int, Meta(ge=1, le=1_000_000, description="of a trajectory")] = 2000
    dt: Annotated[float, Meta(gt=0, le=10, description="step, s")] = 0.01
    knot: Annotated[float, Meta(gt=0, description="between two corners of the inputs, s")] = 1.0
    throttle: Annotated[Range, Meta(description="of the corners, [lo, hi], 1")] = (0.0, 1.0)
    steering: Annotated[Range, Meta(description="of the corners, [lo, hi], 1")] = (-0.2, 0.2)
    speed: Annotated[Range, Meta(description="at the start, [lo, hi], m/s")] = (0.0, 20.0)
    precision: Literal["float32", "float64"] = "float64"
    shard: Annotated[int, Meta(ge=1, le=65536, description="trajectories in a file")] = 256

    def __post_init__(self) -> None:
        """Refuse what a range cannot say."""
        for name in ("throttle", "steering", "speed"):
            low, high = getattr(self, name)
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"`{name}` must be [lo, hi] with lo ≤ hi, found [{low}, {high}]")
        gain = PARAMETERS[1].high
        if self.throttle[0] < 0.0 or gain * max(map(abs, self.steering)) >= np.pi / 2:
            raise ValueError(
                f"`throttle` must not be below zero and |steering| below {np.pi / 2 / gain:.2f}, "
                f"found {list(self.throttle)} and {list(self.steering)}"
            )


class Shard(Settings, frozen=True, kw_only=True):
    """The combinations `first` to `end` − 1 of a grid."""

    grid: VehicleDataSettings
    seed: int
    first: int
    end: int


class VehicleData(AbstractJob):
    """The job: trajectories of vehicles over a grid of their parameters."""

    Settings: ClassVar[type[VehicleDataSettings]] = VehicleDataSettings
    unit: ClassVar[str] = "trajectory"

    def __init__(self, settings: VehicleDataSettings, *, config: Config) -> None:
        _parquet()
        self.settings = settings
        self.seed = config.seed
        self.count = settings.levels**settings.vary

    def points(self) -> list[Point]:
        """Return one point a shard."""
        size = self.settings.shard
        found = []
        for number, first in enumerate(range(0, self.count, size)):
            end = min(first + size, self.count)
            shard = Shard(grid=self.settings, seed=self.seed, first=first, end=end)
            found.append(
                Point(
                    label=f"{number:05d}",
                    settings={"first": first, "end": end},
                    work=msgspec.to_builtins(shard),
                    units=end - first,
                )
            )
        return found

    @staticmethod
    def prepare() -> None:
        """Compile the steps."""
        drive(middle()[None], np.zeros((1, 4)), np.zeros((1, 1, 2)), 1.0)

    @staticmethod
    def run(work: Table, directory: Path, say: Say) -> Figures:
        """Drive a shard's vehicles and write them down; see the base."""
        shard = msgspec.convert(work, Shard)
        combinations = np.arange(shard.first, shard.end)
        parameters = grid(shard.grid, combinations)
        start, inputs = drives(shard.grid, shard.seed, combinations)
        states = drive(parameters, start, inputs, shard.grid.dt)
        path = directory / SHARD
        _write(path, shard.grid, combinations, parameters, inputs, states)
        say(f"{path}: {len(combinations)} trajectories")
        return {
            "trajectories": len(combinations),
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "speed_mean": float(states[..., 3].mean()),
            "speed_max": float(states[..., 3].max()),
        }

    def forecast(self, first: Done) -> list[str]:
        """Return what the first shard foretells of this grid and of the whole one."""
        made, spent = first.point.units, first.cost.cpu_seconds
        figures = self._projection(spent / made, first.result.figures["bytes"] / made)
        return [
            f"first shard: {made / spent:.0f} trajectories/s per core, "
            f"{self.settings.steps} steps each",
            _cost_line(f"these {self.count}", figures["grid"]),
            _cost_line(WHOLE, figures["whole"]),
        ]

    def finish(self, path: Path, done: Sequence[Done]) -> Ending:
        """Write the manifest, gather the shards under their numbers, draw the first."""
        run = Run(path)
        manifest = run.write_json(MANIFEST, self._manifest(done))
        _gather(path / DATA, done)
        if not done:
            return Ending()
        made = sum(one.point.units for one in done)
        size = sum(one.result.figures["bytes"] for one in done)
        spent = sum(one.cost.cpu_seconds for one in done)
        figures = self._projection(spent / made, size / made)
        return Ending(
            figures={
                "trajectories": made, "bytes": size, "manifest": str(manifest),
                "projected": figures,
            },
            lines=[
                f"data       {made} trajectories, {size / 1e9:.3f} GB in {path / DATA}",
                _cost_line(WHOLE, figures["whole"]),
            ],
            plots=[str(self._draw(run.plots / "vehicles.png", done[0]))],
        )  # fmt: skip

    def _projection(self, seconds: float, size: float) -> dict[str, dict[str, float]]:
        """Return core hours and bytes of this grid and of 4⁹, from those of a trajectory."""
        return {
            name: {
                "trajectories": count,
                "core_hours": count * seconds / 3600,
                "bytes": count * size,
            }
            for name, count in (("grid", self.count), ("whole", 4 ** len(PARAMETERS)))
        }

    def _manifest(self, done: Sequence[Done]) -> dict[str, Any]:
        """Return what the data is; nothing in it tells when or where it was made."""
        values = levels(self.settings.levels).tolist()
        values[self.settings.vary :] = middle()[self.settings.vary :, None].tolist()
        return {
            "what": "vehicle with four degrees of freedom of FNODE (arXiv 2509.00183)",
            "hil": __version__,
            "pyarrow": _parquet().__version__,
            "seed": self.seed,
            "settings": self.settings,
            "combinations": self.count,
            "parameters": {
                p.name: {"meaning": p.meaning, "unit": p.unit, "values": values[i]}
                for i, p in enumerate(PARAMETERS)
            },
            "inputs": INPUTS,
            "states": STATES,
            "shards": [
                {"file": f"{DATA}/{_number(one.point)}"}
                | one.point.settings
                | {"sha256": one.result.figures["sha256"]}
                for one in done
            ],
        }

    def _draw(self, path: Path, first: Done) -> Path:
        table = _parquet().parquet.read_table(first.directory / SHARD).slice(0, 12)
        columns = {name: np.array(table.column(name).to_pylist()) for name in (*INPUTS, *STATES)}
        title = f"The first {table.num_rows} trajectories"
        draw_vehicles(self.settings.dt, columns, path, title=title)
        return path


def grid(settings: VehicleDataSettings, combinations: IntArray) -> Array:
    """Return the parameters of combinations, (n, 9); the first parameter changes slowest."""
    place = np.unravel_index(combinations, (settings.levels,) * settings.vary)
    found = np.tile(middle(), (len(combinations), 1))
    found[:, : settings.vary] = levels(settings.levels)[np.arange(settings.vary), np.array(place).T]
    return found


def drives(settings: VehicleDataSettings, seed: int, combinations: IntArray) -> tuple[Array, Array]:
    """Return starts (n, 4) and inputs (n, steps, 2) of combinations.

    Each depends on the seed and its combination alone. Inputs run straight from corner to
    corner; the corners are uniform over their range. Starts at the origin, looking along x.
    """
    at = np.arange(settings.steps) * settings.dt / settings.knot
    before = at.astype(int)
    share = (at - before)[:, None]
    low, high = np.array([settings.throttle, settings.steering]).T
    start = np.zeros((len(combinations), len(STATES)))
    inputs = np.empty((len(combinations), settings.steps, len(INPUTS)))
    for row, combination in enumerate(combinations):
        random = np.random.default_rng([seed, STREAM_VEHICLE, combination])
        start[row, 3] = random.uniform(*settings.speed)
        corners = random.uniform(low, high, (before[-1] + 2, len(INPUTS)))
        inputs[row] = (1.0 - share) * corners[before] + share * corners[before + 1]
    return start, inputs


def _write(
    path: Path,
    settings: VehicleDataSettings,
    combinations: IntArray,
    parameters: Array,
    inputs: Array,
    states: Array,
) -> None:
    """Write a shard, whole or not at all; the same rows give the same bytes."""
    arrow = _parquet()
    number = arrow.float64() if settings.precision == "float64" else arrow.float32()

    def rows(values: Array) -> Any:
        flat = np.ascontiguousarray(values, settings.precision).ravel()
        return arrow.FixedSizeListArray.from_arrays(arrow.array(flat, number), values.shape[1])

    columns = {"combination": arrow.array(combinations)}
    columns |= {p.name: arrow.array(parameters[:, i]) for i, p in enumerate(PARAMETERS)}
    columns |= {name: rows(inputs[..., i]) for i, name in enumerate(INPUTS)}
    columns |= {name: rows(states[..., i]) for i, name in enumerate(STATES)}
    series = [f"{name}.list.element" for name in (*INPUTS, *STATES)]
    temporary = path.with_name(f".{path.name}")
    arrow.parquet.write_table(
        arrow.table(columns),
        temporary,
        compression="zstd",
        use_dictionary=False,
        use_byte_stream_split=series,  # bytes of one rank side by side: smooth curves pack
    )
    os.replace(temporary, path)


def _parquet() -> Any:
    """Return PyArrow; raises ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "sweep.kind: the data set needs PyArrow; install it with: pip install 'hil[parquet]'"
        ) from None
    return pyarrow


def _gather(folder: Path, done: Sequence[Done]) -> None:
    """Give the shards one folder; links, so that nothing is there twice."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for one in done:
        target = os.path.relpath(one.directory / SHARD, folder)
        (folder / _number(one.point)).symlink_to(target)


def _number(point: Point) -> str:
    return f"part-{point.label}.parquet"


def _cost_line(what: str, cost: Mapping[str, float]) -> str:
    return f"projected  {what}: {cost['core_hours']:.3g} core hours, {cost['bytes'] / 1e9:.3g} GB"
