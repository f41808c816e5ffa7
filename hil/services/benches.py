"""The benchmarks there are: a file `bench_<name>.py` beside this one is `hil bench <name>`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import hil.services
from hil.errors import InputError

PREFIX = "bench_"


def names() -> list[str]:
    """Return the names of all benchmarks."""
    found = [entry.name for entry in pkgutil.iter_modules(hil.services.__path__)]
    return sorted(name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX))


def find(name: str) -> Any:
    """Return the module of a benchmark; raises InputError where there is none."""
    if name not in names():
        raise InputError(f"bench {name}: no such benchmark; known: {', '.join(names())}")
    return importlib.import_module(f"hil.services.{PREFIX}{name}")
