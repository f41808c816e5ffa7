"""Where a model is computed: by itself, in NumPy and compiled code, or by torch on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from hil.config import build
from hil.errors import ConfigError
from hil.inference.operations import operations
from hil.inference.settings import ModelSettings
from hil.models.operation import Operation
from hil.models.store import read
from hil.types import AnyArray

WARM_ROWS = (1, 2)  # one row may be computed another way than many


class Backend(Protocol):
    """Computes the operations of one model."""

    operations: dict[str, Operation]
    dtype: str  # of the arrays that go in and out

    def run(self, operation: Operation, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Return the outputs of a batch."""


class NumpyBackend:
    """The model as it is: float64, on the processor."""

    dtype = "<f8"

    def __init__(self, model: Any, where: str) -> None:
        self.operations = operations(model, where)

    def run(self, operation: Operation, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Return the outputs of a batch."""
        return operation.run(*inputs)


def load(settings: ModelSettings, where: str) -> tuple[Any, str]:
    """Return a model, and the version it is known by: its file's name, or its kind.

    Raises ConfigError.
    """
    if settings.model is not None:
        return build(settings.model, f"{where}.model"), str(settings.model["kind"])
    model: Any = read(settings.path, object)[0]
    return model, settings.path.rpartition("/")[2].partition(".")[0]


def make_backend(model: Any, settings: ModelSettings, where: str) -> Backend:
    """Return what computes a model on the device and in the type a configuration names.

    Raises ConfigError where torch, CUDA or this model on torch is not there.
    """
    if settings.device == "cpu" and settings.dtype == "float64":
        return NumpyBackend(model, where)
    try:
        from hil.inference.torch_backend import TorchBackend
    except ImportError:
        raise ConfigError(
            f"{where}: device {settings.device}, dtype {settings.dtype} are computed by torch, "
            "which is not installed; pip install 'hil[gpu]', or device cpu and dtype float64"
        ) from None
    return TorchBackend(model, settings, where)


def warm_up(backend: Backend, settings: ModelSettings, rows: Sequence[int] = ()) -> None:
    """Run every operation as it will be run: what is compiled or captured is, after this.

    rows: of the batches; empty: those that are computed another way each.
    """
    for operation in backend.operations.values():
        for count in rows or (*WARM_ROWS, settings.limits.rows(operation.name)):
            inputs = [
                np.zeros((count, *f.sized(operation.example)), backend.dtype)
                for f in operation.inputs
            ]
            backend.run(operation, inputs)
