"""Serving a rig from a terminal, and asking the mirrors of this machine."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from hil.config import Config
from hil.errors import LinkError
from hil.links.zeromq import Address
from hil.messages import bus
from hil.rigs.session import MirrorSession, enquire, stop_rig
from hil.services import owner
from hil.services.mirror import Mirror, bus_address


def serve(config: Config, say: Callable[[str], None]) -> bus.StatusReport:
    """Own a rig until ctrl-C or SIGTERM; return how it was at the end."""
    end = threading.Event()
    mirrors: list[Mirror] = []

    def ready(mirror: Mirror) -> None:
        mirrors.append(mirror)
        report = mirror.report()
        trouble = f", {report.fault}" if report.fault else ""
        say(f"mirror: {report.name} is {report.state}{trouble}, device on {report.port}")
        for socket, endpoint in mirror.endpoints().items():
            say(f"  {socket:9} {endpoint}")
        say("ctrl-C ends it")

    def leave(*_: object) -> None:
        end.set()
        for mirror in mirrors:
            mirror.interrupt()

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        owner.serve(owner.MirrorJob(config), end, ready)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return mirrors[0].report()


def reports(config: Config | None) -> list[bus.StatusReport]:
    """Return how the rig of a configuration is, or every rig served by this user."""
    if config is not None:
        served = owner.status(config)
        return [served] if served else []
    found = []
    for name in owner.served_rigs():
        report = enquire(Address(owner.served_at(name), name), bus.StatusRequest)
        assert isinstance(report, bus.StatusReport)
        found.append(report)
    return found


def stop(config: Config | None, reason: str) -> dict[str, str]:
    """Stop the rig of a configuration, or every rig served by this user.

    Raises LinkError where there is none to stop.
    """
    if config is not None:
        address, keys, _ = bus_address(config)
        return {address.name: stop_rig(address, reason, keys)}
    addresses = [Address(owner.served_at(name), name) for name in owner.served_rigs()]
    if not addresses:
        raise LinkError("no mirror is running on this machine as this user; nothing to stop")
    return {address.name: stop_rig(address, reason) for address in addresses}


def clear(config: Config) -> str:
    """Lead a rig out of its fault; return the state it is in then.

    Raises LinkError without a mirror, LeaseError while somebody commands the rig.
    """
    address, keys, _ = bus_address(config)
    session = MirrorSession(address, "hil clear", keys)
    try:
        session.connect()
        session.change(bus.Clear)
        return str(session.life.state)
    finally:
        session.close()


def describe(report: bus.StatusReport) -> str:
    """Return a status as lines for a person."""
    counters = report.counters
    rows = {
        "state": report.state + (f" ({report.fault})" if report.fault else ""),
        "device": f"{report.info.get('device_id', 'unknown')} on {report.port}",
        "lease": f"{report.holder}, {report.lease_left_s:.1f} s left" if report.holder else "free",
        "work": f"{report.commands} commands, {report.measurements} load cases",
        "clock": f"{report.clock}, device time {report.device_us / 1e6:.3f} s",
        "link": f"{counters.requests} requests, {counters.retransmits} retransmitted, "
        f"{counters.bad_frames_host + counters.bad_frames_device} bad frames, "
        f"{counters.reconnects} reconnects",
        "refused": f"{counters.refused_mirror} by the mirror, {counters.refused_device} by the "
        f"device, {counters.tokens_expired} tokens expired",
    }
    if report.clock_offset_us is not None:
        rows["offset"] = (
            f"device − host {report.clock_offset_us / 1e6:.6f} s, "
            f"round trip {report.round_trip_us:.0f} us"
        )
    if report.twin_residual is not None:
        rows["twin"] = f"measured − predicted elongation {report.twin_residual:.2%}"
    if report.info.get("details", {}).get("calibration"):
        rows["calib."] = report.info["details"]["calibration"]
    if report.recalibrate:
        rows["ASKS"] = report.recalibrate
    lines = [f"{report.name} (process {report.pid})"]
    return "\n".join([*lines, *(f"  {key:8} {text}" for key, text in rows.items())])
