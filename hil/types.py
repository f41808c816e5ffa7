"""Array aliases; the shape stands in the margin where an array is made."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Real array in float64: what the mechanics and the learning compute in."""

IntArray = NDArray[np.int64]
"""Indices and labels."""

BoolArray = NDArray[np.bool_]
"""Which of several."""

AnyArray = NDArray[Any]
"""An array of any numeric type, as it comes off a wire."""

ClockKind = Literal["virtual", "wall"]
"""Whose time a run keeps: the plant's own, or the wall's."""
