"""Serving models as a process: its lock, its metrics, its signals; and asking it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

from hil.config import Config
from hil.errors import InputError
from hil.inference.backend import load
from hil.inference.client import InferenceClient, model_of
from hil.inference.front import Front
from hil.inference.metrics import metrics
from hil.inference.operations import operations
from hil.inference.settings import inference_settings
from hil.links.zeromq import runtime_directory
from hil.messages.inference import Described, SwapReport
from hil.realtime import RealTime
from hil.services.lock import hold

Say = Callable[[str], None]
LOOK_S = 0.2  # between two looks at a swap


def describe(config: Config) -> dict[str, str]:
    """Return what a configuration serves, every model loaded; raises ConfigError."""
    address, keys, settings = inference_settings(config)
    parts = {"inference": f"{address.endpoint('command')}{' with keys' if keys else ''}"}
    for name, wanted in settings.models.items():
        model, version = load(wanted, f"inference.models.{name}")
        asked = ", ".join(operations(model, f"inference.models.{name}"))
        parts[f"inference.models.{name}"] = f"{type(model).__name__} {version[:12]}: {asked}"
    return parts


def serve(config: Config, say: Say) -> Described:
    """Serve until ctrl-C or SIGTERM; return how it was at the end.

    Raises ConfigError for what cannot be served, LeaseError while another process serves it.
    """
    end = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: end.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return serve_until(config, end, say)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve_until(config: Config, end: threading.Event, say: Say) -> Described:
    """Serve until `end` is set; return how it was at the end."""
    front = Front(config)
    last: list[Described] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            hold(
                runtime_directory() / f"{config.name}.inference",
                front.address.where,
                f"inference {config.name}: another process serves it already; end that one first",
            )
        )
        for answer in stack.enter_context(RealTime(front.settings.realtime)).answers:
            say(answer.line)
        if front.settings.metrics:
            stack.enter_context(metrics(front, front.settings.metrics))
            say(f"metrics: http://127.0.0.1:{front.settings.metrics}/metrics")
        say(f"inference: warming up {', '.join(front.settings.models)}")

        def ready() -> None:
            say(summary(front.describe()))
            say(f"inference: ready at {front.address.endpoint('command')}; ctrl-C ends it")

        front.serve(end, ready, lambda: last.append(front.describe()))
    return last[0]


def status(config: Config) -> Described:
    """Return how the process that serves a configuration is; raises LinkError without one."""
    with contextlib.closing(_client(config)) as client:
        return client.describe()


def swap(config: Config, asked: str, say: Say) -> SwapReport:
    """Have a stored model tried, and wait for what becomes of it.

    asked: `MODEL=PATH`. Raises InputError, LinkError without a process that serves.
    """
    name, equals, path = asked.partition("=")
    if not equals or not path:
        raise InputError(f"--swap {asked}: expected MODEL=PATH")
    with contextlib.closing(_client(config)) as client:
        model_of(client.describe(), name)
        client.swap(name, path)
        said = ""
        while True:
            model = model_of(client.describe(), name)
            report = model.swap
            if report.state != said:
                said = report.state
                say(f"swap of {name}: {said} {report.reason}".rstrip())
            taken = report.state == "accepted" and path.endswith(f"{model.version}.safetensors")
            if taken or report.state == "refused":
                return report
            time.sleep(LOOK_S)


def _client(config: Config) -> InferenceClient:
    address, keys, _ = inference_settings(config)
    return InferenceClient(address, keys)


def summary(report: Described) -> str:
    """Return what is served as lines for a person."""
    lines = []
    for m in report.models:
        c = m.counts
        lines.append(
            f"{m.name}: {m.kind.partition(':')[2] or 'not ready'} {m.version[:12]}, {m.dtype} on "
            f"{m.device}, process {m.pid}; {', '.join(o.name for o in m.operations)}"
        )
        lines.append(
            f"  {c.results} results in {c.batches} batches, {c.late} late, {c.busy} busy, "
            f"{c.rejected} rejected, {c.failed} failed, {c.vanished} to clients that were gone; "
            f"{c.restarts} restarts, {c.swaps} swaps" + (f"; {m.trouble}" if m.trouble else "")
        )
    return "\n".join(lines)


def swap_summary(report: SwapReport) -> str:
    """Return what became of a swap as a line for a person."""
    return (
        f"{report.state}: {report.reason}; {report.batches} batches, deviation "
        f"{report.deviation:.3g}, time {report.slowdown:.2f} of the present model's"
    )
