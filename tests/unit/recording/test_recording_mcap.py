"""Recorder and reader together: what is written comes back, whatever happens to the file."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from mcap.reader import make_reader
from mcap.records import Chunk
from mcap.stream_reader import StreamReader, breakup_chunk

from hil.errors import InputError, StateError
from hil.recording.reader import Record, read, read_as, read_metadata
from hil.recording.writer import CHUNK_NS, Recorder, json_schema, versions


class Detail(msgspec.Struct, frozen=True):
    name: str
    level: int


class Step(msgspec.Struct, frozen=True):
    number: int
    values: list[float]
    detail: Detail | None = None


class Event(msgspec.Struct, frozen=True):
    text: str


CHANNELS: dict[str, type[msgspec.Struct]] = {"step": Step, "event": Event}
METADATA = {"config": {"json": '{"name": "iris"}'}, "schema": {"crc": "0x1234"}}
CHILD_ENV = {"PYTHONPATH": ":".join(sys.path)}
Item = tuple[str, msgspec.Struct, int]


def messages(count: int = 40, seed: int = 0, dt_ns: int = 70_000_000) -> list[Item]:
    rng = random.Random(seed)
    found: list[Item] = []
    for number in range(count):
        step = Step(number, [rng.random() for _ in range(28)], Detail("å", number))
        found.append(("step", step, number * dt_ns))
        if number % 7 == 3:
            found.append(("event", Event(f"event {number}"), number * dt_ns + 1))
    return found


def record(path: Path, items: Sequence[Item]) -> Path:
    with Recorder(path, CHANNELS, METADATA) as recorder:
        for topic, message, t_ns in items:
            recorder.write(topic, message, t_ns)
    return path


def expected(items: Sequence[Item]) -> list[Record]:
    return [Record(topic, t_ns, msgspec.to_builtins(message)) for topic, message, t_ns in items]


def chunks(path: Path) -> list[list[int]]:
    """Return the message times of every chunk."""
    with path.open("rb") as file:
        return [
            [r.log_time for r in breakup_chunk(chunk) if hasattr(r, "log_time")]
            for chunk in StreamReader(file, emit_chunks=True).records
            if isinstance(chunk, Chunk)
        ]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    items = messages()
    path = record(tmp_path / "a.mcap", items)
    recording = read(path)
    assert list(recording) == expected(items)
    assert recording.complete
    assert recording.messages == len(items)
    assert list(recording) == expected(items), "a recording can be read again"
    steps = list(read_as(path, "step", Step))
    assert steps == [(t_ns, message) for topic, message, t_ns in items if topic == "step"]
    assert read_metadata(path) == METADATA


def test_a_recording_left_half_read_is_not_called_complete(tmp_path: Path) -> None:
    recording = read(record(tmp_path / "a.mcap", messages()))
    assert not recording.complete
    assert next(iter(recording)).t_ns == 0
    assert not recording.complete


def test_the_file_is_what_other_mcap_readers_expect(tmp_path: Path) -> None:
    items = messages()
    path = record(tmp_path / "a.mcap", items)
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        header = reader.get_header()
        rows = [(c.topic, s.encoding, s.name) for s, c, _ in reader.iter_messages() if s]
        assert {m.name: m.metadata for m in reader.iter_metadata()} == METADATA
    assert (header.profile, header.library) == ("", "hil")
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(items)
    assert set(rows) == {("step", "jsonschema", "Step"), ("event", "jsonschema", "Event")}
    assert all(index.compression == "zstd" for index in summary.chunk_indexes)


def test_the_schema_is_an_object_whose_references_are_inside() -> None:
    schema = json.loads(json_schema(Step))
    assert schema["type"] == "object"
    assert set(schema["properties"]) == {"number", "values", "detail"}
    references = [
        kind["$ref"] for kind in schema["properties"]["detail"]["anyOf"] if "$ref" in kind
    ]
    assert references == ["#/$defs/Detail"]
    assert schema["$defs"]["Detail"]["required"] == ["name", "level"]


def test_same_messages_same_bytes_in_another_process(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mcap", messages())
    code = f"import {__name__} as t; t.record(t.Path('b.mcap'), t.messages())"
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=CHILD_ENV | {"PYTHONHASHSEED": seed},
            check=True,
        )
        assert (tmp_path / "b.mcap").read_bytes() == path.read_bytes()
        (tmp_path / "b.mcap").unlink()


def test_no_chunk_holds_half_a_second_of_message_time_back(tmp_path: Path) -> None:
    times = [0, 1, CHUNK_NS - 1, CHUNK_NS, CHUNK_NS + 1, 10 * CHUNK_NS, 30 * CHUNK_NS]
    items: list[Item] = [("event", Event("x"), t_ns) for t_ns in times]
    path = tmp_path / "a.mcap"
    with Recorder(path, CHANNELS, {}) as recorder:
        for topic, message, t_ns in items:
            recorder.write(topic, message, t_ns)
            on_disk = [t for _, t, _ in read(path).raw()]
            assert all(t_ns - t < CHUNK_NS for t in times[len(on_disk) : times.index(t_ns) + 1])
    assert chunks(path) == [times[:4], times[4:6], times[6:]]


def test_flush_puts_everything_on_disk_and_due_flush_follows_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with Recorder(path, CHANNELS, METADATA) as recorder:
        assert read_metadata(path) == METADATA
        recorder.write("event", Event("one"), 0)
        recorder.flush_if_due(CHUNK_NS - 1)
        assert [r.t_ns for r in read(path)] == []
        recorder.flush_if_due(CHUNK_NS)
        assert [r.t_ns for r in read(path)] == [0]
        recorder.write("event", Event("two"), CHUNK_NS + 1)
        recorder.flush()
        recording = read(path)
        assert [r.t_ns for r in recording] == [0, CHUNK_NS + 1]
        assert "without being closed" in recording.damage
    assert [r.t_ns for r in recording] == [0, CHUNK_NS + 1]
    assert recording.complete


def test_a_clock_that_was_set_back_does_not_hold_chunks_open(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    with Recorder(path, CHANNELS, {}) as recorder:
        recorder.write("event", Event("late"), 100 * CHUNK_NS)
        recorder.write("event", Event("early"), 0)
        assert [r.t_ns for r in read(path)] == [100 * CHUNK_NS, 0]


def test_calls_out_of_order_and_wrong_messages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, CHANNELS, {})
    recorder.close()
    assert not path.exists()
    recorder = Recorder(path, CHANNELS, {})
    with pytest.raises(StateError, match="not open yet"):
        recorder.write("event", Event("x"), 0)
    recorder.open()
    with pytest.raises(StateError, match="opened before"):
        recorder.open()
    with pytest.raises(InputError, match="'other' is not declared; declared: step, event"):
        recorder.write("other", Event("x"), 0)
    with pytest.raises(InputError, match="takes Step, got Event"):
        recorder.write("step", Event("x"), 0)
    with pytest.raises(InputError, match="t_ns = -1"):
        recorder.write("event", Event("x"), -1)
    recorder.write("event", Event("good"), 5)
    recorder.close()
    recorder.close()
    for call in (recorder.flush, lambda: recorder.write("event", Event("x"), 6)):
        with pytest.raises(StateError, match="closed"):
            call()
    assert [r.data for r in read(path)] == [{"text": "good"}]
    with pytest.raises(InputError, match="never written over"):
        Recorder(path, CHANNELS, {}).open()
    with pytest.raises(InputError, match="cannot be made"):
        Recorder(tmp_path / "no" / "a.mcap", CHANNELS, {}).open()


FULL_DISK = """
import resource, sys
from hil.errors import RunError
import {module} as t
recorder = t.Recorder(t.Path(sys.argv[1]), t.CHANNELS, t.METADATA).open()
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
try:
    for topic, message, t_ns in t.messages(400):
        recorder.write(topic, message, t_ns)
except RunError as error:
    print(error)
try:
    recorder.write(topic, message, t_ns)
except t.StateError as error:
    print(error)
recorder.close()
"""


def test_a_full_disk_is_one_clear_error_and_ends_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(module=__name__), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=CHILD_ENV,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert "a.mcap: the recording cannot be written: File too large" in first
    assert "write() refused, the recording is closed" in second
    recording = read(path)
    found = list(recording)
    assert found == expected(messages(400))[: len(found)]
    assert len(found) > 20
    assert not recording.complete


def test_an_empty_recording_is_complete(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mcap", [])
    recording = read(path)
    assert list(recording) == []
    assert recording.complete


def test_not_a_recording_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    for call in (lambda: list(read(path)), lambda: read_metadata(path)):
        path.unlink(missing_ok=True)
        with pytest.raises(InputError, match="cannot be read"):
            call()
        path.write_text("a text file")
        with pytest.raises(InputError, match="not a recording"):
            call()
        path.write_bytes(b"")  # a process killed before its first write
        assert not call()


def test_a_message_of_another_shape_is_an_input_error(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mcap", messages(3))
    with pytest.raises(InputError, match="'step' at 0 ns is not a Event"):
        list(read_as(path, "step", Event))


def test_a_file_cut_anywhere_gives_its_whole_chunks(tmp_path: Path) -> None:
    items = messages()
    path = record(tmp_path / "a.mcap", items)
    data, want = path.read_bytes(), expected(items)
    rng = random.Random(3)
    counts = []
    for size in sorted({0, 1, 7, 8, 9, len(data) - 1, *rng.sample(range(len(data)), 50)}):
        path.write_bytes(data[:size])
        recording = read(path)
        found = list(recording)
        assert found == want[: len(found)]
        assert not recording.complete
        assert recording.damage
        assert set(read_metadata(path)) <= set(METADATA)
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == len(want)
    assert len(set(counts)) > 3


def test_no_flipped_bit_is_passed_on_or_overlooked(tmp_path: Path) -> None:
    items = messages(12)
    path = record(tmp_path / "a.mcap", items)
    data, want = path.read_bytes(), expected(items)
    rng = random.Random(4)
    for offset in range(8, len(data), 3):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        recording = read(path)
        found = list(recording)
        assert found == want[: len(found)], offset
        assert not recording.complete, offset
        read_metadata(path)


@pytest.mark.parametrize("value", [2**63 - 1, 2**63, 2**64 - 1, 2**40])
def test_absurd_lengths_are_damage_not_crashes(tmp_path: Path, value: int) -> None:
    items = messages()
    path = record(tmp_path / "a.mcap", items)
    data, want = path.read_bytes(), expected(items)
    # Behind the word zstd lies the length of a chunk's data; 28 bytes before the end of the
    # file, where the summary starts (MCAP specification: chunk, footer).
    chunk, footer = data.index(b"zstd") + 4, len(data) - 28
    for offset, survivors in ((chunk, 0), (footer, len(want))):
        path.write_bytes(data[:offset] + value.to_bytes(8, "little") + data[offset + 8 :])
        recording = read(path)
        assert list(recording) == want[:survivors]
        assert recording.damage


def test_a_lost_chunk_in_a_killed_file_ends_the_reading(tmp_path: Path) -> None:
    items = messages()
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, CHANNELS, METADATA).open()
    starts = []
    for number, (topic, message, t_ns) in enumerate(items):
        recorder.write(topic, message, t_ns)
        if number in (9, 19, 29):
            recorder.flush()
            starts.append(path.stat().st_size)
    whole = path.read_bytes()
    recorder.close()
    # The second stretch vanishes as a block of a bad disk would: nothing else is wrong.
    path.write_bytes(whole[: starts[0]] + whole[starts[1] :])
    recording = read(path)
    assert list(recording) == expected(items[:10])
    assert "missing" in recording.damage


WRITE_FOR_EVER = """
import sys
import {module} as t
path, seed = t.Path(sys.argv[1]), int(sys.argv[2])
rng = t.random.Random(seed)
t_ns = 0
recorder = t.Recorder(path, t.CHANNELS, t.METADATA).open()
for number in range(10**9):
    t_ns += rng.choice((1, 20, 200, 600)) * 1_000_000
    recorder.write("step", t.Step(number, [rng.random()] * 28), t_ns)
    print(t_ns, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_process_loses_less_than_half_a_second(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.mcap"
    lines = random.Random(seed).randrange(1, 1500)
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER.format(module=__name__), str(path), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env=CHILD_ENV,
    )
    with child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    assert child.returncode == -signal.SIGKILL
    recording = read(path)
    found = list(recording)
    assert [r.data["number"] for r in found] == list(range(len(found)))
    lost = acknowledged[len(found) :]
    assert all(acknowledged[-1] - t_ns < CHUNK_NS for t_ns in lost)
    assert [r.t_ns for r in found][: len(acknowledged)] == acknowledged[: len(found)]
    assert not recording.complete
    assert read_metadata(path) == METADATA


def test_versions_name_what_a_result_depends_on() -> None:
    found = versions()
    assert found["python"] == sys.version.split()[0]
    assert found["msgspec"] == msgspec.__version__
    assert all(isinstance(value, str) for value in found.values())
