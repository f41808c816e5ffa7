"""What is counted of every model, cheap where it is counted and summed up when asked for."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from hil.inference.lane import Lane
from hil.messages.inference import Counts

# Upper ends of the buckets of every histogram, s.
BUCKETS = (
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 5.0
)  # fmt: skip
STAGES = ("queue", "compute", "total")


@dataclass
class Histogram:
    """How many were as long as this."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0  # s

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass
class Tally:
    """What became of the requests to one model."""

    results: int = 0
    late: int = 0
    busy: int = 0
    rejected: int = 0
    failed: int = 0
    vanished: int = 0
    times: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram() for stage in STAGES}
    )

    def counts(self, lane: Lane) -> Counts:
        """Return all of it as it is said, with what its lane counts."""
        return Counts(
            results=self.results,
            late=self.late,
            busy=self.busy,
            rejected=self.rejected,
            failed=self.failed,
            vanished=self.vanished,
            batches=lane.batches,
            rows=lane.rows,
            restarts=lane.restarts,
            swaps=lane.swaps,
        )
