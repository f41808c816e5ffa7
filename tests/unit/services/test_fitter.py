"""The fitter looks at what it was asked about, however much more is in the recording by then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.models import store
from hil.recording.writer import Recorder
from hil.services.fitter import Fitter, FitterJob, Request, stretches
from hil.services.outcome import ControlRecord
from hil.training.adapt import AdaptSettings
from tests.contract.test_models import untrained_mechanical
from tests.unit.training.cart_pole_runs import PERIOD, balanced_runs

PERIOD_US = round(PERIOD * 1e6)


def records(count: int, gap_after: int | None = None) -> list[ControlRecord]:
    motion = balanced_runs(2, seconds=count * PERIOD, runs=1)[0]
    found = []
    for number, (q, u) in enumerate(zip(motion.q, motion.u, strict=True)):
        sample = number + (gap_after is not None and number > gap_after)
        time_us = sample * PERIOD_US
        found.append(
            ControlRecord(
                seq=number + 1, t_ns=time_us * 1000, sample=sample, device_us=time_us, missed=0,
                y=q.tolist(), x_hat=[*q.tolist(), 0.0, 0.0], u=u.tolist(), status="optimal",
                answer="plan", flags=[],
            )
        )  # fmt: skip
    return found


def fitter(directory: Path, **changes: Any) -> Fitter:
    model = store.save(untrained_mechanical(), directory, {})
    settings = AdaptSettings(window=6.0, **changes)
    recording = str(directory / "recording.mcap")
    return Fitter(FitterJob(settings, str(model), recording, str(directory), PERIOD_US))


def test_what_came_after_the_time_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    """One fitter reads in time, one only when the loop is half a window further."""
    steps, at = records(2000), 1400
    quick, slow = fitter(tmp_path), fitter(tmp_path)
    with Recorder(tmp_path / "recording.mcap", {"step": ControlRecord}, {}) as recorder:
        for step in steps[: at + 1]:
            recorder.write("step", step, step.t_ns)
        recorder.flush()
        first = quick.answer(Request(steps[at].t_ns))
        for step in steps[at + 1 :]:
            recorder.write("step", step, step.t_ns)
    second = slow.answer(Request(steps[at].t_ns))
    assert first == second
    assert first.error is not None
    assert first.error > 0
    last = steps[-1].t_ns
    assert quick.answer(Request(last)).error != first.error  # nothing was lost to it


def test_a_gap_parts_the_window_and_too_little_is_said(tmp_path: Path) -> None:
    steps = records(1050, gap_after=700)
    first, second = stretches(steps, PERIOD_US)
    np.testing.assert_array_equal(first.q, [step.y for step in steps[:701]])
    np.testing.assert_array_equal(second.u, [step.u for step in steps[701:]])
    assert stretches([], PERIOD_US) == []
    with Recorder(tmp_path / "recording.mcap", {"step": ControlRecord}, {}) as recorder:
        for step in steps:
            recorder.write("step", step, step.t_ns)
    answer = fitter(tmp_path).answer(Request(steps[-1].t_ns))
    assert answer.rejection.startswith("5.25 s in 2 stretches, newest 1.75 s; needed: 2 s")
    assert (answer.error, answer.candidate) == (None, "")


@pytest.mark.parametrize("swap", [True, False])
def test_what_was_accepted_is_in_use_only_where_it_is_taken(tmp_path: Path, swap: bool) -> None:
    steps = records(2000)
    asked = fitter(tmp_path, swap=swap, slopes=100.0)
    with Recorder(tmp_path / "recording.mcap", {"step": ControlRecord}, {}) as recorder:
        for step in steps:
            recorder.write("step", step, step.t_ns)
    first = asked.answer(Request(steps[1600].t_ns))
    assert (first.rejection, Path(first.candidate).exists()) == ("", True)
    assert first.error is not None
    again = asked.answer(Request(steps[1999].t_ns)).error
    assert again is not None
    assert (again < first.error / 2) == swap
