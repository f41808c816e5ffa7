"""Looking before leaping: a configuration, the ports, the machine."""

from __future__ import annotations

import grp
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import zmq
from serial.tools import list_ports

from hil.config import Config, build, check, environment, settings_of
from hil.errors import HilError
from hil.inference.settings import InferenceSettings
from hil.links.serial import SerialLink
from hil.links.zeromq import runtime_directory
from hil.messages import wire
from hil.rigs.device import board_name
from hil.rigs.emulator import EmulatorRig
from hil.rigs.manual import ManualRig
from hil.rigs.spring_network import SpringNetworkRig
from hil.safety.deadman import Forwarded
from hil.services import infer, sweep, train_model
from hil.services.mirror import MirrorSettings, bus_address
from hil.services.owned import own
from hil.services.verbs import Verbs
from hil.sweep.vehicle_data import VehicleData
from hil.tasks.iris import Iris
from hil.tasks.pendigits import Pendigits
from hil.training.adapt import AdaptSettings
from hil.training.calibration import SpringNetworkCalibration
from hil.training.gyro import GyroTraining
from hil.training.gyro_insitu import GyroInSituTraining
from hil.training.insitu import InSituTraining


def validate(config: Config) -> dict[str, str]:
    """Check every part of a configuration and say what it is.

    Raises ConfigError, or MechanicsError for a network without a unique equilibrium.
    """
    parts = {"name": config.name, "clock": config.clock, "seed": str(config.seed)}
    if config.preset:
        parts["preset"] = config.preset
    if config.sweep is not None:
        return parts | sweep.describe(config)
    if config.inference:
        return parts | infer.describe(config)
    if not config.rig:
        return parts | train_model.describe(config)
    address, keys, _ = bus_address(config)
    parts["mirror"] = f"{address.endpoint('command')}{' with keys' if keys else ''}"
    kind, settings = settings_of(config.rig, "rig")
    network = None
    if issubclass(kind, SpringNetworkRig | ManualRig):
        network = kind(settings, tokens=Forwarded(), clock=config.clock).network
        parts["rig"] = (
            f"{settings.name}: {network.dof} degrees of freedom, {network.bond_count} bonds, "
            f"{network.self_stresses} self-stresses"
        )
    elif issubclass(kind, EmulatorRig):
        gyros = EmulatorRig(settings, clock=config.clock).network
        parts["rig"] = f"{settings.name}: {gyros.n} gyroscopes, {gyros.spring_count} springs"
    else:
        own(config, "")
        parts["rig"] = f"{settings.name}: {config.rig['kind']}"
    for where in ("board", "model", "estimator", "control", "excitation", "training"):
        table = getattr(config, where)
        if table is not None:
            rest = dict(table)
            if where == "estimator" and "model" in rest:
                settings_of(rest.pop("model"), "estimator.model")
            settings_of(rest, where)
            parts[where] = table["kind"]
    if config.calibration is not None and network is not None:
        build(config.calibration, "calibration", network=network)
        parts["calibration"] = config.calibration["kind"]
    if config.adaptation is not None:
        adapt = check(config.adaptation, AdaptSettings, "adaptation")
        parts["adaptation"] = f"every {adapt.every} s, from {adapt.window} s of motion"
    if config.task is not None and network is None:
        settings_of(config.task, "task")
        parts["task"] = config.task["kind"]
    elif config.task is not None and network is not None:
        task = build(config.task, "task", geometry=network.geometry, seed=config.seed)
        parts["task"] = (
            f"{config.task['kind']}: {len(task.train)} to train, {len(task.test)} to test"
        )
    return parts


def schema() -> dict[str, Any]:
    """Return a JSON Schema: the frame of every configuration, and its shipped parts."""
    kinds = (
        Config,
        MirrorSettings,
        InferenceSettings,
        *(
            k.Settings
            for k in (
                SpringNetworkRig,
                ManualRig,
                EmulatorRig,
                Iris,
                InSituTraining,
                Pendigits,
                GyroTraining,
                GyroInSituTraining,
                SpringNetworkCalibration,
                VehicleData,
                Verbs,
            )
        ),
    )
    (root, *_), parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": parts}


class PortFound(msgspec.Struct, frozen=True):
    """A serial port of this machine, and who answered on it."""

    port: str
    what: str
    serial_number: str
    answer: str


def devices(probe: bool) -> list[PortFound]:
    """Return the serial ports; `probe` asks each one INFO, which may reset some boards."""
    return [
        PortFound(
            port=port.device,
            what=port.description or "",
            serial_number=port.serial_number or "",
            answer=_probe(port.device) if probe else "",
        )
        for port in sorted(list_ports.comports(), key=lambda p: p.device)
    ]


def _probe(port: str) -> str:
    link = SerialLink(port)
    try:
        link.open()
        (info,) = link.exchange([wire.InfoRequest(wire.SCHEMA_CRC)], timeout=0.1, retries=2)
    except HilError as error:
        return str(error)
    finally:
        link.close()
    if not isinstance(info, wire.Info):
        return f"answered {type(info).__name__}"
    match = "same schema" if info.schema == wire.SCHEMA_CRC else "another schema"
    return f"{board_name(info)} {info.device_id:016x}, application {info.application}, {match}"


def device_table(found: list[PortFound]) -> str:
    """Return ports as lines for a person."""
    if not found:
        return "no serial ports on this machine; a simulated rig needs none (--sim)"
    return "\n".join(
        "  ".join(
            filter(None, (f.port, f.what, f.serial_number and f"USB {f.serial_number}", f.answer))
        )
        for f in found
    )


class Finding(msgspec.Struct, frozen=True):
    """One thing this machine has or lacks."""

    what: str
    ok: bool
    found: str
    todo: str = ""


def doctor() -> list[Finding]:
    """Return what this machine has of what hil needs, and what to do where it lacks."""
    compiler = environment().get("CC") or shutil.which("cc") or shutil.which("gcc") or ""
    findings = [
        Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0], ""),
        Finding(
            "C compiler (for --sim)",
            bool(compiler),
            compiler or "none",
            "" if compiler else "apt install gcc libc6-dev",
        ),
        Finding("ZeroMQ", True, zmq.zmq_version()),
        Finding(
            "CURVE (for other machines)",
            zmq.has("curve"),
            "yes" if zmq.has("curve") else "no",
            "" if zmq.has("curve") else "install a pyzmq wheel with libsodium",
        ),
        _runtime(),
        _serial_rights(),
        Finding("processors", True, str(os.cpu_count())),
    ]
    return findings


def _runtime() -> Finding:
    try:
        path = runtime_directory()
        writable = os.access(path, os.W_OK)
        return Finding(
            "runtime directory", writable, str(path), "" if writable else "set HIL_RUNTIME"
        )
    except (HilError, OSError) as error:
        return Finding("runtime directory", False, str(error), "set HIL_RUNTIME")


def _serial_rights() -> Finding:
    ports = [Path(p.device) for p in list_ports.comports()]
    closed = [p for p in ports if p.exists() and not os.access(p, os.R_OK | os.W_OK)]
    if not closed:
        return Finding("serial ports", True, f"{len(ports)} found, all of them yours to open")
    group = grp.getgrgid(closed[0].stat().st_gid).gr_name
    todo = f"add yourself to the group {group}: sudo usermod -aG {group} $USER, then log in again"
    return Finding("serial ports", False, f"no right to open {closed[0]}", todo)
