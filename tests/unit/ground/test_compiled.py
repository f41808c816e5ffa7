"""Machine code on disk is found again, and never that of other sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hil.compiled import digest

KERNELS = {
    "inner.py": "from hil.compiled import compiled\n@compiled\ndef inner(x):\n    return x + 1.0\n",
    "outer.py": (
        "from hil.compiled import compiled\nfrom room.inner import inner\n"
        "@compiled\ndef outer(x):\n    return 10.0 * inner(x)\n"
        "if __name__ == '__main__':\n"
        "    print(outer(1.0), sum(outer.stats.cache_hits.values()))\n"
    ),
    "plain.py": "said = 1\n",
}


def test_the_digest_is_that_of_the_kernels_alone(tmp_path: Path) -> None:
    for name, text in KERNELS.items():
        (tmp_path / name).write_text(text)
    before = digest(tmp_path)
    (tmp_path / "plain.py").write_text("said = 2\n")
    assert digest(tmp_path) == before
    (tmp_path / "inner.py").write_text(KERNELS["inner.py"].replace("1.0", "2.0"))
    changed = digest(tmp_path)
    assert changed != before
    (tmp_path / "inner.py").rename(tmp_path / "core.py")
    assert digest(tmp_path) not in (before, changed)


def test_a_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    for name, text in KERNELS.items():
        (room / name).write_text(text)
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-m", "room.outer"],
            env=environ, capture_output=True, text=True, check=True, timeout=120,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert said == [["20.0", "0"], ["20.0", "1"]]
