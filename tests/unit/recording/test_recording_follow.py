"""A recording read while it is written: every message once, and none before its chunk is whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hil.errors import InputError, RunError
from hil.recording.follow import Follower
from hil.recording.reader import read
from hil.recording.writer import Recorder


class Step(msgspec.Struct, frozen=True):
    number: int


class Event(msgspec.Struct, frozen=True):
    text: str


def test_it_sees_what_is_on_disk_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "recording.mcap"
    seen: list[tuple[str, int, bytes]] = []
    with Recorder(path, {"step": Step, "event": Event}, {"config": {"json": "{}"}}) as recorder:
        follower = Follower(path)
        assert list(follower.fresh()) == []
        for number in range(200):
            recorder.write("step", Step(number), number * 10_000_000)
            if number % 50 == 7:
                recorder.write("event", Event(f"at {number}"), number * 10_000_000)
            if number % 33 == 0:
                recorder.flush()
                seen += follower.fresh()
                assert msgspec.json.decode(seen[-1][2], type=Step).number == number
    seen += follower.fresh()
    whole = list(read(path).raw())
    assert seen == whole[: len(seen)]
    assert len(whole) == 204
    assert len(seen) >= 200


def test_half_a_record_is_left_until_it_is_whole(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mcap"
    with Recorder(whole, {"step": Step}, {}) as recorder:
        for number in range(5):
            recorder.write("step", Step(number), number)
            recorder.flush()
    content, grows = whole.read_bytes(), tmp_path / "grows.mcap"
    follower, counts, numbers = Follower(grows), set(), []
    for end in range(8, len(content), 7):
        grows.write_bytes(content[:end])
        numbers += [msgspec.json.decode(text)["number"] for _, _, text in follower.fresh()]
        counts.add(len(numbers))
    assert numbers == [0, 1, 2, 3, 4]
    assert counts == {0, 1, 2, 3, 4, 5}


def test_damage_and_absence_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(Follower(tmp_path / "none.mcap").fresh())
    path = tmp_path / "damaged.mcap"
    with Recorder(path, {"step": Step}, {}) as recorder:
        for number in range(50):
            recorder.write("step", Step(number), number)
    content = bytearray(path.read_bytes())
    at = content.index(b"zstd") + 60
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        list(Follower(path).fresh())
