"""The inference table of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hil.config import Config, Settings, Table, check
from hil.errors import ConfigError
from hil.inference.queue import QueueLimits
from hil.links.zeromq import Address, Keys
from hil.realtime import RealTimeSettings

Rows = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0)]
MIB = 1024 * 1024


class SwapSettings(Settings, frozen=True, kw_only=True):
    """The rule by which a candidate is accepted after a shadow run."""

    batches: Annotated[int, Meta(ge=0, le=100_000, description="to compare; 0: none")] = 20
    deviation: Annotated[Share, Meta(description="largest relative rms of any output")] = 0.1
    slowdown: Annotated[Share, Meta(description="time over that of the present model")] = 3.0
    patience: Annotated[float, Meta(gt=0, le=86400, description="for those batches, s")] = 60.0


class ModelSettings(Settings, frozen=True, kw_only=True):
    """One model that is served: a file of the store, or a part that is made without one."""

    path: Annotated[str, Meta(description="<SHA-256>.safetensors of the store")] = ""
    model: Annotated[Table | None, Meta(description="instead: `kind` and its settings")] = None
    device: Annotated[str, Meta(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    dtype: Annotated[
        Literal["float64", "float32", "bfloat16"],
        Meta(description="to compute in; float64 on cpu is NumPy's, all else torch's"),
    ] = "float64"
    threads: Annotated[int, Meta(ge=1, le=256, description="of the worker's arithmetic")] = 1
    max_batch_size: Annotated[Rows, Meta(description="rows")] = 64
    batch_sizes: Annotated[dict[str, Rows], Meta(description="of single operations, rows")] = (
        msgspec.field(default_factory=dict)
    )
    max_queue_delay_us: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    max_queue_size: Annotated[int, Meta(ge=1, le=100_000, description="per priority")] = 256
    direct_us: Annotated[
        int,
        Meta(ge=0, le=10_000_000, description="so short work the front computes"),
    ] = 200
    default_timeout_us: Annotated[int, Meta(ge=0, description="0: none")] = 0
    slot_mib: Annotated[int, Meta(ge=1, le=4096, description="largest batch, in and out")] = 64
    stall: Annotated[float, Meta(gt=0, le=3600, description="for a batch, then: killed, s")] = 10.0
    start: Annotated[float, Meta(gt=0, le=3600, description="for a worker to be warm, s")] = 120.0
    swap: SwapSettings = SwapSettings()

    @property
    def slot_bytes(self) -> int:
        """Memory of one batch, inputs and outputs, bytes."""
        return self.slot_mib * MIB

    @property
    def limits(self) -> QueueLimits:
        """What the queue keeps to."""
        return QueueLimits(
            self.max_batch_size,
            self.max_queue_delay_us * 1000,
            self.max_queue_size,
            self.slot_bytes,
            self.batch_sizes,
        )


class InferenceSettings(Settings, frozen=True, kw_only=True):
    """The inference table."""

    models: Annotated[dict[str, ModelSettings], Meta(min_length=1)]
    address: Annotated[str, Meta(description="'ipc' or tcp://host:port (three ports)")] = "ipc"
    keys: Annotated[str, Meta(description="directory of CURVE keys")] = ""
    metrics: Annotated[
        int, Meta(ge=0, le=65535, description="port on 127.0.0.1 for Prometheus; 0: none")
    ] = 0
    realtime: RealTimeSettings = RealTimeSettings()  # of the front and of its workers


def inference_settings(config: Config) -> tuple[Address, Keys | None, InferenceSettings]:
    """Return where inference of a configuration is served, the keys to it, and all settings.

    Raises ConfigError.
    """
    if not config.inference:
        raise ConfigError("inference: missing; `hil infer` needs an [inference] with models")
    settings = check(config.inference, InferenceSettings, "inference")
    for name, model in settings.models.items():
        if bool(model.path) == (model.model is not None):
            raise ConfigError(
                f"inference.models.{name}: expected one of path, a file of the store, and model, "
                "a table with a kind"
            )
    keys = Keys(Path(settings.keys)) if settings.keys else None
    return Address(settings.address, config.name, "inference"), keys, settings


class WorkerJob(Settings, frozen=True, kw_only=True):
    """What a worker is told: its model, and the numbers of its descriptors."""

    name: str
    model: ModelSettings
    socket: int
    memory: int

    @property
    def where(self) -> str:
        """Its table in the configuration."""
        return f"inference.models.{self.name}"
