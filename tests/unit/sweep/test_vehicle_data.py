"""The data set against the equations it says it holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hil.config import Config
from hil.errors import ConfigError
from hil.mechanics.multibody.vehicle import INPUTS, PARAMETERS, STATES, drive
from hil.recording.run import Run
from hil.services import sweep
from hil.sweep.base import AbstractExecutor, Task
from hil.sweep.local import LocalExecutor
from hil.sweep.vehicle_data import SHARD, VehicleData, VehicleDataSettings
from hil.sweep.worker import execute

parquet = pytest.importorskip("pyarrow.parquet")
KIND = "hil.sweep.vehicle_data:VehicleData"


def job(seed: int = 3, **settings: Any) -> VehicleData:
    small: dict[str, Any] = {"levels": 3, "vary": 2, "steps": 40, "knot": 0.1, "shard": 4}
    config = Config(name="vehicle", seed=seed)
    return VehicleData(VehicleDataSettings(**small | settings), config=config)


def shards(place: Path, made: VehicleData) -> list[Path]:
    """Make every shard, below `place`; return the files."""
    found = []
    for index, point in enumerate(made.points()):
        directory = place / point.label
        directory.mkdir(parents=True)
        figures = made.run(point.work, directory, lambda _: None)
        found.append(directory / SHARD)
        assert figures["sha256"] == hashlib.sha256(found[index].read_bytes()).hexdigest()
    return found


def rows(files: list[Path]) -> dict[str, np.ndarray[Any, Any]]:
    tables = [parquet.read_table(file).to_pydict() for file in files]
    return {name: np.concatenate([np.array(table[name]) for table in tables]) for name in tables[0]}


def test_it_holds_the_grid_and_trajectories_of_the_equations(tmp_path: Path) -> None:
    found = rows(shards(tmp_path, job()))
    assert found["combination"].tolist() == list(range(9))
    parameters = np.column_stack([found[p.name] for p in PARAMETERS])
    assert len({tuple(row) for row in parameters.tolist()}) == 9, "every combination once"
    assert sorted(set(parameters[:, 0])) == pytest.approx([2.7, 2.8, 2.9])
    assert set(parameters[:, 8]) == {1350.0}, "what is not varied stands mid-range"
    inputs = np.stack([found[name] for name in INPUTS], axis=-1)
    states = np.stack([found[name] for name in STATES], axis=-1)
    assert states.shape == (9, 41, 4)
    again = drive(parameters, states[:, 0], inputs, 0.01)
    assert again.tobytes() == np.ascontiguousarray(states).tobytes()
    assert (inputs[..., 0] >= 0).all()
    assert (inputs[..., 0] <= 1).all()
    assert np.abs(inputs[..., 1]).max() <= 0.2
    corners = inputs[:, ::10]
    np.testing.assert_allclose(
        inputs[:, 5::10][:, :3], (corners[:, :-1] + corners[:, 1:])[:, :3] / 2
    )
    assert len(set(corners[:, 0, 0])) == 9, "every vehicle has inputs of its own"


def test_a_trajectory_depends_on_seed_and_combination_alone(tmp_path: Path) -> None:
    """Not on the size of a shard; twice the same bytes."""
    first = shards(tmp_path / "a", job())
    again = shards(tmp_path / "b", job())
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    other = rows(shards(tmp_path / "c", job(shard=9)))
    for name, values in rows(first).items():
        assert values.tobytes() == other[name].tobytes(), name
    reseeded = rows(shards(tmp_path / "d", job(seed=4)))
    assert not np.array_equal(reseeded["throttle"], other["throttle"])
    single = rows(shards(tmp_path / "e", job(precision="float32")))
    np.testing.assert_allclose(single["x"], other["x"], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"throttle": [-0.1, 1.0]}, "must not be below zero"),
        ({"steering": [-3.0, 0.1]}, "below 2.09"),
        ({"speed": [3.0, 1.0]}, "lo ≤ hi"),
        ({"vary": 10}, "<= 9"),
        ({"colour": 1}, "colour"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    config = Config(name="vehicle", sweep={"kind": KIND, **settings})
    with pytest.raises(ConfigError, match=message):
        sweep.describe(config)


def test_a_worker_leaves_a_whole_point_or_none(tmp_path: Path) -> None:
    made = job()
    (tmp_path / "points").mkdir()
    directory = tmp_path / "points" / "one"
    directory.mkdir()
    (directory / "half").write_text("what a killed worker left")
    task = Task(0, KIND, made.points()[1], str(directory))
    assert not execute(task).error
    names = {"results.json", "cost.json", "log.txt", SHARD}
    assert {path.name for path in directory.iterdir()} == names
    broken = msgspec.structs.replace(task.point, work={**task.point.work, "end": "many"})
    failed = execute(msgspec.structs.replace(task, point=broken))
    assert "Expected `int`, got `str`" in failed.error
    assert "Traceback" in (directory / "log.txt").read_text()
    assert not (directory / "results.json").exists()
    unseen = execute(msgspec.structs.replace(task, directory=str(tmp_path / "nowhere" / "one")))
    assert "file system that all machines share" in unseen.error


def test_a_sweep_grows_with_its_configuration(tmp_path: Path) -> None:
    """Points that stay are not done again; the data set holds all."""
    said: list[str] = []

    def executor() -> AbstractExecutor:
        return LocalExecutor(1)

    table = {"kind": KIND, "levels": 2, "vary": 2, "steps": 20, "shard": 2, "knot": 0.1}
    config = Config(name="vehicle", sweep=table)
    first = sweep.sweep(config, None, tmp_path, executor, said.append)
    assert (first.points, first.kept, first.units) == (2, 0, 4)
    assert any("all 4⁹ = 262144" in line for line in said), "the cost is told on the first shard"
    run = Run.open(first.run)
    manifest = run.read_json("manifest.json")
    again = sweep.sweep(config, run.path, tmp_path, executor, said.append)
    assert (again.kept, again.executor) == (2, "nobody: all was done")
    assert run.read_json("manifest.json") == manifest
    for shard in manifest["shards"]:
        file = run.path / shard["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == shard["sha256"]
    more = msgspec.structs.replace(config, sweep={**table, "dt": 0.02})
    assert sweep.sweep(more, run.path, tmp_path, executor, said.append).kept == 0
    assert json.loads(run.results.read_text())["figures"]["trajectories"] == 4
    with pytest.raises(ConfigError, match="one and the same"):
        sweep.describe(twins())


def twins() -> Config:
    """Return a sweep whose two points are one."""
    table = {
        "kind": "hil.services.verbs:Verbs", "verb": "control", "sim": True, "metric": "cost",
        "configs": ["configs/balance.toml"], "axes": {"seed": [1, 1]},
    }  # fmt: skip
    return Config(name="twins", sweep=table)
