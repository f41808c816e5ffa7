"""Compiling the firmware: once, atomically, and one line when it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hil.errors import InputError
from sim.boards import build
from sim.boards.build import build_firmware, find_compiler, firmware_folder


def counting_compiler(folder: Path) -> tuple[str, Path]:
    """Return a compiler that writes a line per call, and where it writes it."""
    calls, script = folder / "calls", folder / "counted-cc"
    script.write_text(f'#!/bin/sh\necho call >> "{calls}"\nexec cc "$@"\n')
    script.chmod(0o755)
    return str(script), calls


def test_it_is_compiled_once_and_then_cached(tmp_path: Path) -> None:
    compiler, calls = counting_compiler(tmp_path)
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "CC": compiler}
    first = build_firmware(environ)
    assert build_firmware(environ) == first
    assert calls.read_text() == "call\n"
    assert list(first.parent.iterdir()) == [first]
    usage = subprocess.run([first], capture_output=True, text=True)
    assert (usage.returncode, usage.stderr.split(":")[0]) == (2, "usage")


def test_a_changed_source_is_compiled_again_from_the_package_s_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "sim"
    shutil.copytree(
        firmware_folder(), packaged / "firmware", ignore=shutil.ignore_patterns("build")
    )
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    original = build_firmware(environ)
    monkeypatch.setattr(build, "HERE", packaged)
    assert firmware_folder() == packaged / "firmware"
    assert build_firmware(environ) == original  # the same sources, wherever they lie
    with (packaged / "firmware" / "app" / "core.h").open("a") as header:
        header.write("\n/* changed */\n")
    assert build_firmware(environ) != original


def test_no_compiler_is_one_line_that_names_the_package(tmp_path: Path) -> None:
    for environ in ({"PATH": str(tmp_path)}, {"PATH": os.environ["PATH"], "CC": "no-such-cc"}):
        with pytest.raises(InputError) as caught:
            find_compiler(environ)
        assert "apt install gcc libc6-dev" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_compiler_may_come_with_options() -> None:
    assert find_compiler({"PATH": os.environ["PATH"], "CC": "cc -g"}) == ["cc", "-g"]


def test_sources_that_do_not_compile_are_one_line_and_a_log(tmp_path: Path) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text("#!/bin/sh\necho no such instruction >&2\nexit 1\n")
    compiler.chmod(0o755)
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "c"), "CC": str(compiler)}
    with pytest.raises(InputError) as caught:
        build_firmware(environ)
    text = str(caught.value)
    assert "\n" not in text
    log = Path(text.rpartition("see ")[2])
    assert "no such instruction" in log.read_text()
    assert list(log.parent.iterdir()) == [log]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        build_firmware({**os.environ, "XDG_CACHE_HOME": str(in_the_way)})


def test_no_sources_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path / "sim")
    with pytest.raises(InputError, match="firmware sources"):
        firmware_folder()
