"""Accelerations and policy rollouts in PyTorch, rebuilt of a model's numbers.

PyTorch is no dependency of this package: who imports this file says what to do without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hil.errors import ConfigError
from hil.mechanics.cart_pole import accelerations
from hil.models.analytic import CartPoleModel
from hil.models.fnode import FnodeModel, FnodeSettings, layout
from hil.models.mechanical import MechanicalModel, terms
from hil.models.stored import StoredModel
from hil.types import AnyArray

Tensor = Any  # its types are not known where it is not installed
Acceleration = Callable[[Tensor, Tensor], Tensor]
"""(n, nq) from x (n, nx) and u (n, nu)."""


def rebuilt(
    model: Any, device: Any, where: str, dtype: Any = torch.float32, inner: Any = None
) -> Acceleration:
    """Return the acceleration of the cart-pole's equations or of an FNODE.

    dtype: of states; inner: of a network's layers, None: the same. Raises ConfigError, beginning
    with `where`, for another model.
    """
    model = model.model if isinstance(model, StoredModel) else model
    inner = dtype if inner is None else inner

    def tensor(array: AnyArray, kind: Any = dtype) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), device=device).to(kind)

    if isinstance(model, CartPoleModel):
        return _equations(model)
    if isinstance(model, FnodeModel):
        return _free(model, tensor, inner)
    if isinstance(model, MechanicalModel):
        return _mechanical(model, tensor, inner)
    raise ConfigError(
        f"{where}: {type(model).__name__} cannot be rebuilt in PyTorch; it takes the cart-pole's "
        "equations or an FNODE"
    )


def rk4(acceleration: Acceleration, x: Tensor, u: Tensor, dt: Any) -> Tensor:
    """Return the states (n, nx) after one step of dt, u (n, nu) held."""
    nq = x.shape[1] // 2

    def slope(state: Tensor) -> Tensor:
        return torch.cat([state[:, nq:], acceleration(state, u)], dim=1)

    k1 = slope(x)
    k2 = slope(x + 0.5 * dt * k1)
    k3 = slope(x + 0.5 * dt * k2)
    k4 = slope(x + dt * k3)
    return x + (dt / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


class Policies:
    """Follows samples as `hil.models.rollouts` has it; all that is given and returned are tensors.

    compile: the period into few kernels, at the first call (minutes).
    """

    def __init__(self, acceleration: Acceleration, *, compile: bool = False) -> None:
        self._acceleration = acceleration
        self._step: Callable[..., Any] = (
            torch.compile(self._period, dynamic=False) if compile else self._period
        )

    def follow(self, c: Any, about: Any, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return costs (n,), and inputs (N, nu) and states (N + 1, nx) of the cheapest.

        c, about: Charges and About, of tensors.
        """
        x = about.start.expand(len(samples), -1)
        costs = torch.zeros_like(samples[:, 0, 0])
        inputs, states = [], [x]
        free = torch.zeros_like(c.penalties)
        for k in range(samples.shape[1]):
            penalties = c.penalties if k else free  # the start cannot be helped
            x, u, costs = self._step(x, costs, samples[:, k], about.states[k], c, about, penalties)
            inputs.append(u)
            states.append(x)
        error = _error(x - about.target, c.turn)
        costs = costs + ((error @ c.end) * error).sum(1) + _beyond(x, c, c.penalties)
        lost = torch.full_like(costs, torch.inf)
        best = torch.where(torch.isfinite(costs), costs, lost).argmin()[None]
        return costs, _one(inputs, best), _one(states, best)

    def _period(
        self, x: Tensor, costs: Tensor, v: Tensor, middle: Tensor, c: Any, about: Any,
        penalties: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return states (n, nx) one period on, what was applied (n, nu), and costs (n,)."""
        u = torch.clamp(v - (x - middle) @ about.gain.T, about.low, about.high)
        error = _error(x - about.target, c.turn)
        costs = costs + (error * error) @ c.q + (u * u) @ c.r + _beyond(x, c, penalties)
        return rk4(self._acceleration, x, u, c.dt), u, costs


def _one(each: list[Tensor], best: Tensor) -> Tensor:
    """Return of tensors (n, m) the rows that `best` says, (len(each), m)."""
    return torch.stack(each).index_select(1, best)[:, 0]


def _error(gap: Tensor, turn: Tensor) -> Tensor:
    whole = torch.where(turn > 0, turn, torch.ones_like(turn))
    return gap - turn * torch.round(gap / whole)


def _beyond(x: Tensor, c: Any, penalties: Tensor) -> Tensor:
    beyond = torch.clamp(torch.maximum(c.low - x, x - c.high), min=0.0)
    return torch.where(penalties > 0, penalties * beyond * beyond, 0.0 * x).sum(1)


def _equations(model: CartPoleModel) -> Acceleration:
    p = model.parameters

    def acceleration(x: Tensor, u: Tensor) -> Tensor:
        omega = x[:, 2]
        force = u[:, 0] - p.cart_viscous * x[:, 3]
        sine, cosine = torch.sin(x[:, 0]), torch.cos(x[:, 0])
        torque = -p.pivot_viscous * omega
        return torch.stack(accelerations(p, sine, cosine, omega, torque, force), 1)

    return acceleration


def _features(settings: FnodeSettings) -> Acceleration:
    """Return what makes the unscaled inputs of the network, (n, width)."""
    at = layout(settings)
    turning = dict(zip(at.angles, at.sines, strict=True))
    order = sorted(
        [*turning.items(), *zip(at.positions, at.plain, strict=True)], key=lambda p: p[1]
    )

    def found(x: Tensor, u: Tensor) -> Tensor:
        columns = []
        for index, _ in order:
            q = x[:, index : index + 1]
            columns += [torch.sin(q), torch.cos(q)] if index in turning else [q]
        return torch.cat([*columns, x[:, settings.nq :], u], dim=1)

    return found


def _free(model: FnodeModel, tensor: Callable[..., Tensor], inner: Any) -> Acceleration:
    w, features = model.weights, _features(model.settings)
    mean, scale = tensor(w.input_mean), tensor(w.input_scale)
    layers = [(tensor(a, inner).T, tensor(b, inner)) for a, b in w.hidden]
    last, skip, offset = tensor(w.last, inner).T, tensor(w.skip).T, tensor(w.offset)
    out_mean, out_scale = tensor(w.output_mean), tensor(w.output_scale)

    def acceleration(x: Tensor, u: Tensor) -> Tensor:
        z = (features(x, u) - mean) / scale
        h = z.to(inner)
        for weight, bias in layers:
            h = torch.tanh(torch.addmm(bias, h, weight))
        return out_mean + out_scale * ((h @ last).to(z.dtype) + z @ skip + offset)

    return acceleration


def _mechanical(model: MechanicalModel, tensor: Callable[..., Tensor], inner: Any) -> Acceleration:
    w, settings, features = model.weights, model.settings, _features(model.settings)
    at, nq = layout(settings), settings.nq
    positions = slice(0, at.velocities)
    mean, scale = tensor(w.input_mean[positions]), tensor(w.input_scale[positions])
    of_v, of_u = w.input_scale[at.velocities : at.inputs], w.input_scale[at.inputs :]
    gain = 1.0 / terms(of_v[None], of_u[None])[0]  # (T,)
    layers = [(tensor(a, inner).T, tensor(b, inner)) for a, b in w.hidden]
    last = tensor((w.last * gain[:, None]).reshape(-1, w.last.shape[2]), inner).T
    constant = tensor(w.constant * gain)
    pairs = [tensor(i, torch.long) for i in np.triu_indices(nq)]

    def acceleration(x: Tensor, u: Tensor) -> Tensor:
        h = ((features(x, u)[:, positions] - mean) / scale).to(inner)
        for weight, bias in layers:
            h = torch.tanh(torch.addmm(bias, h, weight))
        v = x[:, nq:]
        products = v[:, pairs[0]] * v[:, pairs[1]]
        found = torch.cat([torch.ones_like(v[:, :1]), u, v, products], dim=1)
        coefficients = (h @ last).to(x.dtype).reshape(len(x), nq, -1) + constant
        return (coefficients * found[:, None]).sum(2)

    return acceleration
