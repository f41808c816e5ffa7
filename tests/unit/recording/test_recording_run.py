"""The run directory: names, parts, and files that are whole or absent."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hil.errors import InputError, RunError
from hil.recording.run import CHECKPOINT, CONFIG, Run

DATE = datetime(2026, 11, 21, 14, 30, 5)


def test_runs_of_one_second_get_numbers(tmp_path: Path) -> None:
    names = [Run.create(tmp_path / "runs", "iris", DATE).path.name for _ in range(3)]
    stem = "2026-11-21-143005-iris"
    assert names == [stem, f"{stem}-2", f"{stem}-3"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "../up", "a b", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="run name"):
        Run.create(tmp_path, name, DATE)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="not a directory"):
        Run.create(tmp_path / "runs", "iris", DATE)
    with pytest.raises(InputError, match="cannot be made"):
        Run.create(tmp_path / "runs" / "deeper", "iris", DATE)


def test_open_finds_a_run_and_refuses_anything_else(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "iris", DATE)
    with pytest.raises(InputError, match=r"no config\.toml"):
        Run.open(run.path)
    with pytest.raises(InputError, match="no such directory"):
        Run.open(tmp_path / "nowhere")
    run.write_json(CONFIG, {"name": "iris"})
    assert Run.open(str(run.path)).path == run.path


def test_parts_come_in_the_order_of_the_processes(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "iris", DATE)
    made = []
    for _ in range(11):
        part = run.next_part()
        part.touch()
        made.append(part)
    (run.path / "recording-old.mcap").touch()
    assert [part.name for part in made[:2]] == ["recording.mcap", "recording-2.mcap"]
    assert made[-1].name == "recording-11.mcap"
    assert run.parts() == made


def test_json_comes_back_bit_for_bit(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "iris", DATE)
    values = np.random.default_rng(1).standard_normal(50) * 10.0 ** np.arange(-25, 25)
    run.write_json(CHECKPOINT, {"theta": values, "step": np.int64(7), "nan": float("nan")})
    back = run.read_json(CHECKPOINT)
    assert np.array_equal(np.array(back["theta"]), values)
    assert back["step"] == 7
    assert back["nan"] is None
    assert run.checkpoint == run.path / CHECKPOINT


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, "iris", DATE)
    run.write_json(CHECKPOINT, {"step": 1})
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(NotImplementedError):
        run.write_json(CHECKPOINT, {"step": object()})

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hil.recording.run.os.replace", refuse)
    with pytest.raises(RunError, match="No space left"):
        run.write_json(CHECKPOINT, {"step": 2})
    assert run.read_json(CHECKPOINT) == {"step": 1}
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_missing_damaged_and_misshapen_files_are_told_apart(tmp_path: Path) -> None:
    class Checkpoint(msgspec.Struct):
        step: int

    run = Run.create(tmp_path, "iris", DATE)
    with pytest.raises(InputError, match="cannot be read"):
        run.read_json(CHECKPOINT)
    path = run.write_json(CHECKPOINT, {"step": "one"})
    with pytest.raises(InputError, match="not what was expected"):
        run.read_json(CHECKPOINT, Checkpoint)
    run.write_json(CHECKPOINT, {"step": 1})
    assert run.read_json(CHECKPOINT, Checkpoint) == Checkpoint(1)
    path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match="damaged"):
        run.read_json(CHECKPOINT)
    path.write_bytes(b'{"step": "\xff"}')
    with pytest.raises(InputError, match="damaged"):
        run.read_json(CHECKPOINT)
