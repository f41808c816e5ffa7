"""Rates count periods by whole seconds of the clock they are given."""

from __future__ import annotations

import pytest

from hil.services.rates import ControlProgress, RateMeter, Rates, line


def metered(times: list[float], missed: int = 0) -> Rates:
    meter = RateMeter()
    for at in times:
        meter.count(at, missed)
    return meter.rates


def test_now_mean_and_worst_second() -> None:
    first = [5.0 + k / 100 for k in range(100)]
    second = [6.0 + k / 50 for k in range(50)]
    third = [7.0 + k / 80 for k in range(81)]  # the last one begins the fourth
    rates = metered(first + second + third)
    assert (rates.now, rates.worst) == (80.0, 50.0)
    assert rates.mean == pytest.approx(230 / 3)


def test_a_second_without_a_period_is_the_worst() -> None:
    assert metered([0.0, 0.5, 3.2]).worst == 0.0


def test_before_a_second_is_over_the_mean_stands_for_all() -> None:
    rates = metered([1.0, 1.1, 1.2, 1.3], missed=2)
    assert rates.now == rates.worst == rates.mean == pytest.approx(10.0)
    assert rates.missed == 8
    assert metered([]).mean == metered([1.0]).mean == 0.0


def test_lines_come_every_two_seconds_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    said: list[str] = []
    rates = Rates(50.0, 49.5, 40.0, 3)
    with ControlProgress(500, said.append) as progress:
        for done in range(1, 501):
            progress.show(100.0 + done / 50, done, lambda: rates)
    assert [words.split(":")[0] for words in said] == [
        "period 100/500", "period 200/500", "period 300/500", "period 400/500", "period 500/500",
    ]  # fmt: skip
    assert said[0].endswith(line(rates))
    assert line(rates) == "50 Hz now, 50 mean, 40 in the worst second, 3 missed"
