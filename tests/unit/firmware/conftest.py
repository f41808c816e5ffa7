"""Builds the host board once, and ends every board a test started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.firmware.harness import Start, make


@pytest.fixture(scope="package")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host board with address and undefined-behaviour sanitizers."""
    build = tmp_path_factory.mktemp("firmware")
    made = make("host", "SANITIZE=1", "DEFINES=-DPLANT_TIMEOUT_MS=2000", f"BUILD={build}")
    assert made.returncode == 0, made.stderr
    return build / "hil-firmware"


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    made = Start(program)
    yield made
    for board in made.boards:
        board.close()
