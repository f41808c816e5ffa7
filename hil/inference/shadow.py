"""Whether a candidate may take over: it answers the same batches, and a declared rule decides.

Its answers are compared with those of the present model and thrown away. Pure: no process.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from hil.inference.settings import SwapSettings
from hil.types import AnyArray


class Shadow:
    """Compares batches until there are enough, or the time for them is over.

    until_ns: when that is, on the clock `verdict` is told.
    """

    def __init__(self, rule: SwapSettings, until_ns: int) -> None:
        self._rule, self._until_ns = rule, until_ns
        self._squares: dict[str, tuple[float, float]] = {}  # of the difference, of the present
        self._slowdowns: list[float] = []
        self._refusal = ""

    @property
    def batches(self) -> int:
        """How many were compared."""
        return len(self._slowdowns)

    @property
    def deviation(self) -> float:
        """Largest relative rms difference of any output, over all batches."""
        return max((_ratio(*both) for both in self._squares.values()), default=0.0)

    @property
    def slowdown(self) -> float:
        """Time of the candidate over that of the present model, median of batches."""
        return statistics.median(self._slowdowns) if self._slowdowns else 0.0

    def add(
        self,
        names: Iterable[str],
        present: Sequence[AnyArray],
        candidate: Sequence[AnyArray],
        slowdown: float,
    ) -> None:
        """Compare one batch; outputs in the order of their names."""
        self._slowdowns.append(slowdown)
        for name, old, new in zip(names, present, candidate, strict=True):
            known = np.isfinite(old)
            if not np.isfinite(new[known]).all():
                self._refusal = f"{name}: the candidate's answer is not finite, the present one is"
                return
            difference, size = self._squares.get(name, (0.0, 0.0))
            old, new = old[known].astype(float), new[known].astype(float)
            difference += float(((new - old) ** 2).sum())
            self._squares[name] = difference, size + float((old**2).sum())

    def fail(self, reason: str) -> None:
        """Refuse the candidate, whatever the batches say."""
        self._refusal = reason

    def verdict(self, now_ns: int) -> tuple[bool, str] | None:
        """Return whether the candidate is accepted, and why; None: not decided yet."""
        rule = self._rule
        if self._refusal:
            return False, self._refusal
        if self.batches < rule.batches:
            if now_ns < self._until_ns:
                return None
            return False, f"{self.batches} of {rule.batches} batches within {rule.patience:g} s"
        if self.deviation > rule.deviation:
            return False, f"deviation {self.deviation:.3g}, allowed {rule.deviation:g}"
        if self.slowdown > rule.slowdown:
            return False, f"slowdown {self.slowdown:.3g}, allowed {rule.slowdown:g}"
        return True, f"{self.batches} batches compared"


def _ratio(difference: float, size: float) -> float:
    if size == 0.0:
        return math.inf if difference > 0.0 else 0.0
    return math.sqrt(difference / size)
