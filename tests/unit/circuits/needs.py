"""What circuits are checked with, and what they need to be there."""

from __future__ import annotations

import shutil

import pytest

from hil.errors import ConfigError
from sim.circuits.live import need_library


def library_is_here() -> bool:
    try:
        need_library()
    except ConfigError:
        return False
    return True


needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed (apt-get install ngspice)"
)
needs_library = pytest.mark.skipif(
    not library_is_here(), reason="libngspice is not installed (apt-get install libngspice0)"
)
