"""A recording as CSV: what becomes a column, what stays in one cell."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from hil.config import Config
from hil.errors import InputError
from hil.recording.run import Run
from hil.recording.writer import Recorder
from hil.services.export import export


class Step(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    t_ns: int
    stiffness: list[float]
    samples: list[int]
    table: list[list[float]]
    twin: float | None


def test_lists_of_one_length_are_columns_and_the_rest_is_json(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "springs", datetime(2026, 11, 25))
    run.write_config(Config(name="springs"))
    for part in range(2):  # as after a resume
        with Recorder(run.next_part(), {"rig/step": Step}, {}) as recorder:
            step = Step(
                seq=part + 1, t_ns=part, stiffness=[1.5, 2.5], samples=[7] * (part + 1),
                table=[[0.5], [1.0]], twin=None if part else 0.25,
            )  # fmt: skip
            recorder.write("rig/step", step, part)
    said: list[str] = []
    outcome = export(run.path, said.append)
    (name,) = outcome.files
    assert (outcome.rows, outcome.damage, said) == ({"rig/step": 2}, [], [])
    with Path(name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Path(name).name == "rig.step.csv"
    assert [row["stiffness.2"] for row in rows] == ["2.5", "2.5"]
    assert [row["samples"] for row in rows] == ["[7]", "[7, 7]"]
    assert [row["table"] for row in rows] == ["[[0.5], [1.0]]"] * 2
    assert [row["twin"] for row in rows] == ["0.25", ""]


def test_what_a_kill_left_is_written_and_said(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "springs", datetime(2026, 11, 25))
    run.write_config(Config(name="springs"))
    with pytest.raises(InputError, match="holds no recording to export"):
        export(run.path, print)
    path = run.next_part()
    with Recorder(path, {"step": Step}, {}) as recorder:
        for seq in range(1, 3):
            recorder.write(
                "step", Step(seq=seq, t_ns=seq, stiffness=[1.0], samples=[], table=[], twin=None), 1
            )
    path.write_bytes(path.read_bytes()[:-20])
    said: list[str] = []
    outcome = export(run.path, said.append)
    assert outcome.rows == {"step": 2}
    assert len(said) == len(outcome.damage) == 1
    assert "read up to the damage" in said[0]
