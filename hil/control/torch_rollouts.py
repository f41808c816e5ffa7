"""Rollouts by PyTorch, all samples at once, on a device of its choice.

On a GPU the period is compiled into few kernels (`compile`), since starting one takes longer than
what it does for a small model. PyTorch is no dependency of this package: without it, making these
rollouts is a ConfigError that says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.control.rollouts import About, AbstractRollouts, BatchedRollouts, Charges, NoSettings
from hil.errors import ConfigError
from hil.mechanics.cart_pole import accelerations
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.fnode import FnodeModel, FnodeSettings, layout
from hil.models.mechanical import MechanicalModel
from hil.models.stored import StoredModel
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
    """Follows samples with the model rebuilt in PyTorch; one trajectory is followed by the model.

    Raises ConfigError for a model it cannot rebuild, a device that is not there, or where PyTorch
    is not installed.
    """

    Settings: ClassVar[type[TorchRolloutsSettings]] = TorchRolloutsSettings

    def __init__(
        self, settings: TorchRolloutsSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
        except ImportError:
            raise ConfigError(
                "control.rollouts: PyTorch is not installed; pip install torch, or leave "
                "control.rollouts out"
            ) from None
        self._type = getattr(self._torch, settings.precision)
        self._device = settings.device
        try:
            self._torch.zeros(1, device=settings.device)
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ConfigError(f"control.rollouts.device: {settings.device!r}: {said}") from None
        model = dynamics.model if isinstance(dynamics, StoredModel) else dynamics
        self._acceleration = _rebuilt(model, self._torch, self._tensor)
        self._one = BatchedRollouts(NoSettings(), dynamics=dynamics, charges=charges)
        self._nq = dynamics.nq
        self._charges = charges._replace(
            **{
                name: self._tensor(np.asarray(getattr(charges, name)))
                for name in charges._fields
                if name != "dt"
            }
        )
        period = self._period
        self._step: Callable[..., Any] = (
            self._torch.compile(period, dynamic=False) if settings.compile else period
        )

    def costs(self, about: About, samples: Array) -> Array:
        """Return what samples (n, N, nu) cost, (n,); one copy there and one back."""
        torch, c = self._torch, self._charges
        with torch.inference_mode():
            given: Any = About(*(self._tensor(part) for part in about))
            v = self._tensor(samples)
            x = given.start.expand(len(samples), -1)
            total = torch.zeros(len(samples), dtype=self._type, device=self._device)
            free = torch.zeros_like(c.penalties)
            for k in range(samples.shape[1]):
                penalties = c.penalties if k else free  # the start cannot be helped
                x, total = self._step(x, total, v[:, k], given.states[k], given, penalties)
            error = self._error(x - given.target)
            total = total + ((error @ c.end) * error).sum(1) + self._beyond(x, c.penalties)
            return np.asarray(total.cpu().numpy(), dtype=float)

    def trace(self, about: About, sample: Array) -> tuple[Array, Array]:
        """Return inputs (N, nu) and states (N + 1, nx) of one sample (N, nu)."""
        return self._one.trace(about, sample)

    def _period(self, x: Any, total: Any, v: Any, middle: Any, about: About, rho: Any) -> Any:
        """Return states and costs (n,) one period on."""
        c, nq, dt = self._charges, self._nq, self._charges.dt
        u = self._torch.clamp(v - (x - middle) @ about.gain.T, about.low, about.high)
        error = self._error(x - about.target)
        total = total + (error * error) @ c.q + (u * u) @ c.r + self._beyond(x, rho)

        def slope(state: Any) -> Any:
            velocity = state[:, nq:]
            return self._torch.cat([velocity, self._acceleration(state[:, :nq], velocity, u)], 1)

        k1 = slope(x)
        k2 = slope(x + 0.5 * dt * k1)
        k3 = slope(x + 0.5 * dt * k2)
        k4 = slope(x + dt * k3)
        return x + (dt / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4), total

    def _error(self, gap: Any) -> Any:
        turn = self._charges.turn
        whole = self._torch.where(turn > 0, turn, self._torch.ones_like(turn))
        return gap - turn * self._torch.round(gap / whole)

    def _beyond(self, x: Any, penalties: Any) -> Any:
        c, torch = self._charges, self._torch
        beyond = torch.clamp(torch.maximum(c.low - x, x - c.high), min=0.0)
        return torch.where(penalties > 0, penalties * beyond * beyond, 0.0 * x).sum(1)

    def _tensor(self, values: Array) -> Any:
        return self._torch.as_tensor(np.asarray(values), dtype=self._type).to(self._device)


def _rebuilt(
    model: AbstractDynamics, torch: Any, tensor: Callable[[Array], Any]
) -> Callable[[Any, Any, Any], Any]:
    """Return q̈ of q, v (n, nq) and u (n, nu) in PyTorch; raises ConfigError."""
    if isinstance(model, CartPoleModel):
        return _equations(model, torch)
    if isinstance(model, FnodeModel):
        return _fnode(model, torch, tensor)
    if isinstance(model, MechanicalModel):
        return _mechanical(model, torch, tensor)
    raise ConfigError(
        f"control.rollouts: {type(model).__name__} cannot be rebuilt in PyTorch; it takes the "
        "cart-pole's equations or an FNODE"
    )


def _equations(model: CartPoleModel, torch: Any) -> Callable[[Any, Any, Any], Any]:
    p = model.parameters

    def acceleration(q: Any, v: Any, u: Any) -> Any:
        omega = v[:, 0]
        force = u[:, 0] - p.cart_viscous * v[:, 1]
        sine, cosine = torch.sin(q[:, 0]), torch.cos(q[:, 0])
        return torch.stack(
            accelerations(p, sine, cosine, omega, -p.pivot_viscous * omega, force), 1
        )

    return acceleration


def _features(settings: FnodeSettings, torch: Any) -> Callable[[Any, Any, Any], Any]:
    """Return `hil.models.fnode.features` in PyTorch, without scaling."""
    at = layout(settings)
    sines = dict(zip(at.angles, at.sines, strict=True))
    used = sorted([*at.angles, *at.positions])

    def features(q: Any, v: Any, u: Any) -> Any:
        columns: list[Any] = []
        for index in used:  # in the order of the layout, which is that of the positions
            if index in sines:
                columns += [torch.sin(q[:, index]), torch.cos(q[:, index])]
            else:
                columns.append(q[:, index])
        return torch.cat([torch.stack(columns, 1), v, u], 1)

    return features


def _fnode(
    model: FnodeModel, torch: Any, tensor: Callable[[Array], Any]
) -> Callable[[Any, Any, Any], Any]:
    w, features = model.weights, _features(model.settings, torch)
    mean, scale = tensor(w.input_mean), tensor(w.input_scale)
    hidden = [(tensor(weight).T, tensor(bias)) for weight, bias in w.hidden]
    last, skip, offset = tensor(w.last).T, tensor(w.skip).T, tensor(w.offset)
    out_mean, out_scale = tensor(w.output_mean), tensor(w.output_scale)

    def acceleration(q: Any, v: Any, u: Any) -> Any:
        z = (features(q, v, u) - mean) / scale
        h = z
        for weight, bias in hidden:
            h = torch.tanh(h @ weight + bias)
        return out_mean + out_scale * (h @ last + z @ skip + offset)

    return acceleration


def _mechanical(
    model: MechanicalModel, torch: Any, tensor: Callable[[Array], Any]
) -> Callable[[Any, Any, Any], Any]:
    w, settings, at = model.weights, model.settings, layout(model.settings)
    features = _features(settings, torch)
    mean, scale = tensor(w.input_mean), tensor(w.input_scale)
    hidden = [(tensor(weight).T, tensor(bias)) for weight, bias in w.hidden]
    last, constant = tensor(w.last), tensor(w.constant)
    pairs = list(zip(*np.triu_indices(settings.nq), strict=True))

    def acceleration(q: Any, v: Any, u: Any) -> Any:
        z = features(q, v, u)
        h = ((z - mean) / scale)[:, : at.velocities]
        for weight, bias in hidden:
            h = torch.tanh(h @ weight + bias)
        v, u = v / scale[at.velocities : at.inputs], u / scale[at.inputs :]
        products = torch.stack([v[:, int(i)] * v[:, int(k)] for i, k in pairs], 1)
        terms = torch.cat([torch.ones_like(v[:, :1]), u, v, products], 1)
        coefficients = torch.einsum("nh,qth->nqt", h, last) + constant
        return (coefficients * terms[:, None]).sum(2)

    return acceleration
