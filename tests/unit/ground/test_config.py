"""TOML to checked parts: precedence, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from msgspec import Meta

from hil import config
from hil.errors import ConfigError

BASE = """
name = "base"
[rig]
kind = "hil.rigs.spring_network:SpringNetworkRig"
port = "/dev/x"
"""
TASK = """
base = "rig.toml"
name = "task"
preset = "wide"
[training]
epochs = 100
rate = 0.1
[presets.wide.training]
rate = 0.2
[presets.narrow.training]
rate = 0.3
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "rig.toml").write_text(BASE)
    (tmp_path / "rig.sim.toml").write_text('clock = "virtual"\n[board]\nkind = "sim.x:Y"\n')
    (tmp_path / "task.toml").write_text(TASK)
    return tmp_path / "task.toml"


def test_a_file_builds_on_its_base_and_its_preset(task: Path) -> None:
    found = config.load(task)
    assert found.name == "task"
    assert found.rig["port"] == "/dev/x"
    assert found.training == {"epochs": 100, "rate": 0.2}
    assert found.board is None


def test_a_path_is_meant_from_the_file_it_stands_in(task: Path) -> None:
    (task.parent / "own.toml").write_text(BASE + '[rig.geometry]\nfile = "./net/work.toml"\n')
    found = config.load(task.parent / "own.toml")
    assert found.rig["geometry"]["file"] == str(task.parent / "net/work.toml")


def test_the_overlay_counts_only_when_simulated(task: Path) -> None:
    assert config.load(task, sim=True).board == {"kind": "sim.x:Y"}
    assert config.load(task, sim=True).clock == "virtual"
    assert config.load(task).clock == "wall"


def test_command_line_over_environment_over_preset(task: Path) -> None:
    environ = {"HIL_TRAINING__RATE": "0.4", "HIL_TRAINING__EPOCHS": "7", "HIL_RUNS": "elsewhere"}
    found = config.load(task, overrides={"training.rate": 0.5}, environ=environ)
    assert found.training == {"epochs": 7, "rate": 0.5}
    narrow = config.load(task, overrides={"preset": "narrow"})
    assert narrow.training == {"epochs": 100, "rate": 0.3}


def test_a_table_that_is_set_replaces_and_another_kind_does_too(task: Path) -> None:
    found = config.load(task, overrides={"training": {"epochs": 1}})
    assert found.training == {"epochs": 1}
    merged = config.merge({"rig": {"kind": "a", "port": 1}}, {"rig": {"kind": "b", "host": 2}})
    assert merged == {"rig": {"kind": "b", "host": 2}}
    merged = config.merge({"rig": {"kind": "a", "port": 1}}, {"rig": {"port": 2}})
    assert merged == {"rig": {"kind": "a", "port": 2}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense = 1\n" + BASE, "unknown field `nonsense`"),
        (BASE.replace('"base"', "3"), "name: Expected `str`, got `int`"),
        ('clock = "sun"\n' + BASE, "clock: Invalid enum value 'sun'"),
        ("[rig\n", "not readable as TOML"),
        ("base = 4\n", "base: expected the path"),
        ('base = "none.toml"\n', "no such configuration file"),
        ('preset = "deep"\n' + BASE, "'deep' is not defined here; known: none"),
    ],
)
def test_mistakes_are_one_line_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load(path)
    assert complaint in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


class PartSettings(config.Settings, frozen=True, kw_only=True):
    """Settings of a part made for this test."""

    width: Annotated[float, Meta(gt=0, description="m")]


class Part:
    """A part made for this test."""

    Settings: ClassVar[type[PartSettings]] = PartSettings

    def __init__(self, settings: PartSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed


def test_kinds_outside_the_project_are_refused() -> None:
    for kind in ("os:system", "hil", "hil.clock", "hil.clock:make_clock", "hil.none:X", 3, None):
        with pytest.raises(ConfigError, match=r"rig\.kind"):
            config.build({"kind": kind}, "rig")


def test_a_part_is_checked_and_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.clock.Part", Part, raising=False)
    part = config.build({"kind": "hil.clock:Part", "width": 2}, "part", seed=5)
    assert (part.settings.width, part.seed) == (2.0, 5)
    with pytest.raises(ConfigError, match=r"part\.width: Expected `float` > 0.0"):
        config.build({"kind": "hil.clock:Part", "width": -1}, "part", seed=5)
    with pytest.raises(ConfigError, match=r"part: .*unknown field `depth`"):
        config.build({"kind": "hil.clock:Part", "width": 1, "depth": 1}, "part", seed=5)


def test_set_words() -> None:
    assert config.parse_overrides(["a.b=3", "c=[1, 2]", "d=text", "e="]) == {
        "a.b": 3, "c": [1, 2], "d": "text", "e": "",
    }  # fmt: skip
    for word in ("a", "=3", "a..b=3", ".a=3"):
        with pytest.raises(ConfigError, match=r"expected key\.path=value"):
            config.parse_overrides([word])


@pytest.mark.parametrize("preset", ["narrow", ""])
def test_a_resolved_configuration_is_written_and_loaded_unchanged(
    task: Path, tmp_path: Path, preset: str
) -> None:
    """Also with limits that have no end and with values that nobody gave."""
    wide = {"control.limits": [[float("-inf"), float("inf")]], "preset": preset}
    found = config.load(task, sim=True, overrides=wide)
    path = tmp_path / "resolved.toml"
    path.write_bytes(config.dump(found))
    assert config.parse(path.read_bytes(), path) == found
    assert config.load(path) == found
    with pytest.raises(ConfigError, match="'other' is not defined"):
        config.load(path, overrides={"preset": "other"})
    with pytest.raises(ConfigError, match="name: Expected"):
        config.parse(b"name = 3", path)
    with pytest.raises(ConfigError, match="not readable as TOML"):
        config.parse(b"name", path)
