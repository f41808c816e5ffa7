"""What the front counts, for Prometheus: an HTTP server on loopback, a thread of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hil.errors import ConfigError
from hil.inference.front import Front
from hil.inference.tally import BUCKETS, STAGES

OUTCOMES = ("results", "late", "busy", "rejected", "failed", "vanished")
LANE = {
    "batches": "batches computed", "rows": "rows computed", "restarts": "deaths of the worker",
    "swaps": "models swapped",
}  # fmt: skip


class _Counted(Collector):
    """Reads the counters of a front when it is asked."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        tallies, lanes = self._front.tallies, dict(self._front.lanes)
        requests = CounterMetricFamily(
            "hil_inference_requests", "requests by outcome", labels=["model", "outcome"]
        )
        times = {
            stage: HistogramMetricFamily(
                f"hil_inference_{stage}_seconds", f"{stage} time of results", labels=["model"]
            )
            for stage in STAGES
        }
        queued = GaugeMetricFamily("hil_inference_queued", "requests waiting", labels=["model"])
        up = GaugeMetricFamily("hil_inference_ready", "1: the worker is warm", labels=["model"])
        totals = {
            name: CounterMetricFamily(f"hil_inference_{name}", text, labels=["model"])
            for name, text in LANE.items()
        }
        malformed = CounterMetricFamily("hil_inference_malformed", "messages that were none")
        malformed.add_metric([], self._front.malformed)
        for name, tally in tallies.items():
            for outcome in OUTCOMES:
                requests.add_metric([name, outcome], getattr(tally, outcome))
            for stage, histogram in tally.times.items():
                total, buckets = 0, []
                ends = (*map(str, BUCKETS), "+Inf")
                for end, count in zip(ends, histogram.counts, strict=True):
                    total += count
                    buckets.append((end, float(total)))
                times[stage].add_metric([name], buckets, histogram.total)
            if name in lanes:
                queued.add_metric([name], len(lanes[name].queue))
                up.add_metric([name], float(lanes[name].ready is not None))
                for key, family in totals.items():
                    family.add_metric([name], getattr(lanes[name], key))
        return [requests, *times.values(), queued, up, *totals.values(), malformed]


@contextlib.contextmanager
def metrics(front: Front, port: int) -> Iterator[None]:
    """Answer `http://127.0.0.1:<port>/metrics`; raises ConfigError where the port is taken."""
    registry = CollectorRegistry()
    registry.register(_Counted(front))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(f"inference.metrics: port {port}: {error.strerror}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
