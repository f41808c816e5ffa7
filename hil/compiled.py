"""How the solvers of this room are compiled: ahead of a loop, kept on disk between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function` compiled at its first call; the machine code is cached on disk.

    Sums may be reordered (vectorised), NaN and infinity are honoured: a NaN must come out
    as a NaN, not as a plan.
    """
    return cast(
        F, njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})(function)
    )
