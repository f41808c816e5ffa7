"""The gyro network as one writes it down in eager torch; autograd does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import IntArray

NAMES = ("mass", "length", "gamma", "stiffness")


def torch_rollout(
    network: GyroNetwork, leaves: Mapping[str, Any], p: GyroParameters, nudges: Any, dt: float,
    inputs: IntArray, initial: Any,
) -> Any:  # fmt: skip
    """Return the last states, (batch, n, 4): the model as one writes it down in torch.

    leaves: the parameters as tensors. nudges: (batch, steps, k, 2). initial: (batch, n, 4).
    """
    import torch

    kind = nudges.dtype
    near, far = (torch.as_tensor(np.array(ends)) for ends in network.geometry.springs.T)
    between = torch.as_tensor(np.array(network.geometry.between)).to(kind)
    rest = torch.as_tensor(np.array(network.geometry.lengths)).to(kind)
    where = torch.as_tensor(np.array(inputs))
    m, length, gamma, k = (leaves[name] for name in NAMES)

    def acceleration(q: Any, v: Any, force: Any) -> Any:
        span = between + q[:, far] - q[:, near]
        distance = torch.linalg.vector_norm(span, dim=-1)
        pull = (k * (1 - rest / distance))[..., None] * span
        total = force.index_add(1, near, pull).index_add(1, far, -pull)
        height = torch.sqrt(torch.maximum(length**2 - (q**2).sum(-1), 0.04 * length**2))
        speed = torch.sqrt((v**2).sum(-1, keepdim=True) + 1e-30)
        turned = torch.stack((-v[..., 1], v[..., 0]), dim=-1)
        return (
            -p.gravity * q / height[..., None]
            + (gamma / m)[:, None] * turned
            + (total - p.drag * speed * v) / m[:, None]
        )

    q, v = initial[..., :2], initial[..., 2:]
    for step in range(nudges.shape[1]):
        force = torch.zeros_like(q).index_add(1, where, nudges[:, step])
        a1 = acceleration(q, v, force)
        v2 = v + dt / 2 * a1
        a2 = acceleration(q + dt / 2 * v, v2, force)
        v3 = v + dt / 2 * a2
        a3 = acceleration(q + dt / 2 * v2, v3, force)
        v4 = v + dt * a3
        a4 = acceleration(q + dt * v3, v4, force)
        q = q + dt / 6 * (v + 2 * v2 + 2 * v3 + v4)
        v = v + dt / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
    return torch.cat((q, v), dim=-1)
