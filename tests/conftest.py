"""What every test gets: a runtime directory of its own, and a watch over what it leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program does; before NumPy is loaded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rig", default=None, help="configuration of the rig for `-m hardware`")


def _children() -> set[int]:
    """Return the processes whose parent is this one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def _sockets() -> set[str]:
    """Return the sockets this process holds open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test that leaves a thread, a socket or a process behind."""
    runtime = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("HIL_RUNTIME", str(runtime))
    monkeypatch.setenv("HIL_CALIBRATIONS", str(runtime / "calibrations"))
    threads, sockets, children = set(threading.enumerate()), _sockets(), _children()
    yield
    left_threads = [t for t in threading.enumerate() if t not in threads and t.is_alive()]
    left_children = _children() - children
    assert not left_threads, f"threads left behind: {left_threads}"
    assert not left_children, f"processes left behind: {left_children}"
    assert not _sockets() - sockets, "sockets left behind"
