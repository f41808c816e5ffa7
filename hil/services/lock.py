"""A lock file: one process at a time, however the last one ended."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from hil.errors import LeaseError


@contextlib.contextmanager
def hold(path: Path, content: str, taken: str) -> Iterator[None]:
    """Hold a lock file with something written in it; raises LeaseError saying `taken`."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseError(taken) from None
        file.truncate(0)
        file.write(content)
        file.flush()
        yield
