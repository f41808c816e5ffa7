"""Rollouts by PyTorch, all samples at once, on a device of its choice.

On a GPU the period is compiled into few kernels (`compile`), since starting one takes longer than
what it does for a small model. PyTorch is no dependency of this package: without it, making these
rollouts is a ConfigError that says so.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError
from hil.models.base import AbstractDynamics
from hil.models.rollouts import About, AbstractRollouts, Charges, Followed
from hil.types import Array


class TorchRolloutsSettings(Settings, frozen=True, kw_only=True):
    """Where and how exactly."""

    device: Annotated[str, Meta(min_length=1, description="of PyTorch: cpu, cuda, cuda:1 …")] = (
        "cpu"
    )
    precision: Annotated[
        Literal["float64", "float32"], Meta(description="float32 is enough to sample, and faster")
    ] = "float64"
    compile: Annotated[
        bool, Meta(description="the period into few kernels, at the first solve (minutes)")
    ] = False


class TorchRollouts(AbstractRollouts):
    """Follows samples with the model rebuilt in PyTorch; one copy there and one back.

    Raises ConfigError for a model it cannot rebuild, a device that is not there, or where PyTorch
    is not installed.
    """

    Settings: ClassVar[type[TorchRolloutsSettings]] = TorchRolloutsSettings

    def __init__(
        self, settings: TorchRolloutsSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        try:
            import torch

            from hil.models.torch_dynamics import Policies, rebuilt
        except ImportError:
            raise ConfigError(
                "control.rollouts: PyTorch is not installed; pip install torch, or leave "
                "control.rollouts out"
            ) from None
        self._torch: Any = torch
        self._type, self._device = getattr(torch, settings.precision), settings.device
        try:
            torch.zeros(1, device=settings.device)
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(f"control.rollouts.device: {settings.device!r}: {said}") from None
        acceleration = rebuilt(dynamics, settings.device, "control.rollouts", self._type)
        self._policies = Policies(acceleration, compile=settings.compile)
        arrays = {name: self._tensor(part) for name, part in charges._asdict().items()}
        self._charges = Charges(**arrays)._replace(dt=charges.dt)

    def follow(self, about: About, samples: Array) -> Followed:
        """Return what samples (n, N, nu) cost, and the cheapest."""
        with self._torch.inference_mode():
            given: Any = About(*(self._tensor(part) for part in about))
            found = self._policies.follow(self._charges, given, self._tensor(samples))
            return Followed(*(np.asarray(part.cpu().numpy(), dtype=float) for part in found))

    def _tensor(self, values: Any) -> Any:
        return self._torch.as_tensor(np.asarray(values), dtype=self._type).to(self._device)
