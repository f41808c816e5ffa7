"""How numerical kernels are compiled, and where their machine code is kept between runs.

Numba looks at the file of a function to tell whether its code on disk is still right, not at
the files of what it calls. So the place on disk is named by all sources that have kernels: what
was compiled from other sources is never found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import njit
from platformdirs import user_cache_path

F = TypeVar("F", bound=Callable[..., Any])
MARK = b"hil.compiled"  # what imports this names it


def digest(package: Path) -> str:
    """Return the SHA-256 of every source below a folder that imports this one, in hexadecimal."""
    found = hashlib.sha256(numba.__version__.encode())
    for source in sorted(package.rglob("*.py")):
        content = source.read_bytes()
        if MARK in content:
            found.update(f"{source.relative_to(package).as_posix()} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()


def compiled(function: F) -> F:
    """Return `function` compiled at its first call; the machine code is cached on disk.

    Sums may be reordered (vectorised), NaN and infinity are honoured: a NaN must come out
    as a NaN, not as a plan.
    """
    return _njit(function, reorder=True)


def in_order(function: F) -> F:
    """Return the same with every sum as it is written."""
    return _njit(function, reorder=False)


def threaded(function: F) -> F:
    """Return the same as `in_order`, run without the interpreter's lock: for long kernels.

    Who gives the lock up waits for it afterwards; a period of a loop has no time for that.
    """
    return _njit(function, reorder=False, nogil=True)


def inlined(function: F) -> F:
    """Return `function` compiled to be copied into the compiled functions that call it.

    Sizes that are constant in a caller are constant in the copy: loops over them are unrolled.
    """
    return _njit(function, reorder=True, forceinline=True)


def _njit(function: F, *, reorder: bool, **options: Any) -> F:
    fastmath = {"reassoc", "contract"} if reorder else False
    made = njit(cache=True, error_model="numpy", fastmath=fastmath, **options)
    return cast(F, made(function))


def _place() -> Path:
    base = os.environ.get("NUMBA_CACHE_DIR") or user_cache_path("hil") / "compiled"
    return Path(base) / digest(Path(__file__).parent)[:16]


numba.config.CACHE_DIR = str(_place())  # type: ignore[attr-defined]
