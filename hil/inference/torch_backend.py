"""Dynamics computed by torch: float32, or bfloat16 in the network's layers, on CPU or CUDA.

States are float32 throughout. On CUDA every batch is padded to a power of two of rows, and each
such shape is captured once as a CUDA graph: a replay is one launch, whatever it holds. Numbers
go over pinned memory. What is padded is cut off again and seen by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hil.errors import ConfigError
from hil.inference.operations import of_dynamics
from hil.inference.settings import ModelSettings
from hil.models.fnode import FnodeModel, FnodeSettings, layout
from hil.models.mechanical import MechanicalModel, terms
from hil.models.operation import Operation
from hil.models.stored import StoredModel
from hil.types import AnyArray

Tensor = Any  # torch is no dependency: its types are not known where it is not installed
Acceleration = Callable[[Tensor, Tensor], Tensor]
"""(n, nq) from x (n, nx) and u (n, nu)."""


class TorchBackend:
    """Computes the operations of an FNODE, free or of mechanical form.

    fixed: pad to fixed shapes and keep their buffers; None: on CUDA. Raises ConfigError where
    CUDA is absent or the model is another.
    """

    dtype = "<f4"

    def __init__(
        self, model: Any, settings: ModelSettings, where: str, *, fixed: bool | None = None
    ) -> None:
        self._device = torch.device(settings.device)
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"{where}.device: {settings.device}: this machine has no CUDA device torch can "
                "use; set device = 'cpu'"
            )
        if settings.dtype == "float64":
            raise ConfigError(
                f"{where}.dtype: float64 is computed on the processor alone; float32 or bfloat16"
            )
        torch.set_num_threads(settings.threads)
        inner = model.model if isinstance(model, StoredModel) else model
        inner_type = getattr(torch, settings.dtype)
        if isinstance(inner, FnodeModel):
            self._acceleration = _free(inner, self._device, inner_type)
        elif isinstance(inner, MechanicalModel):
            self._acceleration = _mechanical(inner, self._device, inner_type)
        else:
            raise ConfigError(
                f"{where}: {type(inner).__name__} is computed with device cpu, dtype float64 only"
            )
        self._fixed = self._device.type == "cuda" if fixed is None else fixed
        self._shapes: dict[Any, FixedShape] = {}
        self.operations = {operation.name: operation for operation in of_dynamics(inner)}
        self._functions: dict[str, Callable[..., Sequence[Tensor]]] = {
            "acceleration": lambda x, u: [self._acceleration(x, u)],
            "linearise": self._linearise,
            "rollout": self._rollout,
            "rollout_cost": self._rollout_cost,
        }

    def run(self, operation: Operation, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Return the outputs of a batch."""
        function = self._functions.get(operation.name)
        if function is None:  # the distance from the data is a small product: not worth a copy
            return operation.run(*(array.astype(float) for array in inputs))
        if not self._fixed:
            tensors = [torch.tensor(array, device=self._device) for array in inputs]
            with torch.set_grad_enabled(operation.name == "linearise"):
                return [t.detach().cpu().numpy() for t in function(*tensors)]
        rows = len(inputs[0])
        key = operation.name, padded(rows), tuple(array.shape[1:] for array in inputs)
        shape = self._shapes.get(key)
        if shape is None:
            grads = operation.name == "linearise"
            shape = self._shapes[key] = FixedShape(
                function, inputs, padded(rows), self._device, grads
            )
        return shape.run(inputs)

    def _linearise(self, x: Tensor, u: Tensor) -> Sequence[Tensor]:
        x, u = x.detach().requires_grad_(True), u.detach().requires_grad_(True)
        value = self._acceleration(x, u)
        slopes = [
            torch.autograd.grad(value[:, i].sum(), (x, u), retain_graph=True)
            for i in range(value.shape[1])
        ]
        by_x, by_u = (torch.stack(column, dim=1) for column in zip(*slopes, strict=True))
        return value.detach(), by_x, by_u

    def _rollout(self, x: Tensor, inputs: Tensor, dt: Tensor) -> Sequence[Tensor]:
        states = []
        for k in range(inputs.shape[1]):
            x = self._step(x, inputs[:, k], dt[:, None])
            states.append(x)
        return [torch.stack(states, dim=1)]

    def _rollout_cost(
        self, x: Tensor, inputs: Tensor, dt: Tensor, reference: Tensor,
        state_weights: Tensor, input_weights: Tensor, end_weights: Tensor,
    ) -> Sequence[Tensor]:  # fmt: skip
        cost = torch.zeros(x.shape[0], device=x.device)
        for k in range(inputs.shape[1]):
            u, error = inputs[:, k], x - reference
            cost = cost + (state_weights * error**2).sum(1) + (input_weights * u**2).sum(1)
            x = self._step(x, u, dt[:, None])
        error = x - reference
        return [cost + torch.einsum("ni,nij,nj->n", error, end_weights, error)]

    def _step(self, x: Tensor, u: Tensor, dt: Tensor) -> Tensor:
        nq = x.shape[1] // 2

        def slope(state: Tensor) -> Tensor:
            return torch.cat([state[:, nq:], self._acceleration(state, u)], dim=1)

        k1 = slope(x)
        k2 = slope(x + 0.5 * dt * k1)
        k3 = slope(x + 0.5 * dt * k2)
        k4 = slope(x + dt * k3)
        return x + (dt / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def padded(rows: int) -> int:
    """Return the rows of the shape a batch is padded to: the next power of two."""
    return 1 << (rows - 1).bit_length()


class FixedShape:
    """One function at one shape: buffers that stay, and on CUDA its graph."""

    def __init__(
        self,
        function: Callable[..., Sequence[Tensor]],
        example: Sequence[AnyArray],
        rows: int,
        device: Any,
        grads: bool,
    ) -> None:
        on_cuda = device.type == "cuda"
        shapes = [(rows, *array.shape[1:]) for array in example]
        self._host = [torch.zeros(shape, pin_memory=on_cuda) for shape in shapes]
        self._inputs = [torch.zeros(shape, device=device) for shape in shapes]
        self._call: Callable[[], list[Tensor]] = lambda: self._compute(function, grads)
        self._graph: Any = None
        for host, array in zip(self._host, example, strict=True):
            host.numpy()[: len(array)] = array
        self._copy_in()
        if on_cuda:
            side = torch.cuda.Stream()  # what is lazy is done before the capture
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._call()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._outputs = self._call()
        else:
            self._outputs = self._call()
        self._back = [torch.zeros(o.shape, pin_memory=on_cuda) for o in self._outputs]

    def _compute(self, function: Callable[..., Sequence[Tensor]], grads: bool) -> list[Tensor]:
        with torch.set_grad_enabled(grads):
            return list(function(*self._inputs))

    def _copy_in(self) -> None:
        for host, there in zip(self._host, self._inputs, strict=True):
            there.copy_(host, non_blocking=True)

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """Return the outputs of a batch that is no longer than the shape."""
        rows = len(inputs[0])
        for host, array in zip(self._host, inputs, strict=True):
            host.numpy()[:rows] = array
        self._copy_in()
        if self._graph is None:
            self._outputs = self._call()
        else:
            self._graph.replay()
        for back, output in zip(self._back, self._outputs, strict=True):
            back.copy_(output, non_blocking=True)
        if self._graph is not None:
            torch.cuda.current_stream().synchronize()
        return [back.numpy()[:rows] for back in self._back]


def _tensor(array: AnyArray, device: Any, dtype: Any = torch.float32) -> Tensor:
    return torch.tensor(np.ascontiguousarray(array), device=device).to(dtype)


def _features(settings: FnodeSettings, device: Any) -> Acceleration:
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


def _free(model: FnodeModel, device: Any, inner: Any) -> Acceleration:
    w, features = model.weights, _features(model.settings, device)
    mean, scale = _tensor(w.input_mean, device), _tensor(w.input_scale, device)
    layers = [(_tensor(a, device, inner).T, _tensor(b, device, inner)) for a, b in w.hidden]
    last, skip = _tensor(w.last, device, inner).T, _tensor(w.skip, device).T
    offset = _tensor(w.offset, device)
    out_mean, out_scale = _tensor(w.output_mean, device), _tensor(w.output_scale, device)

    def acceleration(x: Tensor, u: Tensor) -> Tensor:
        z = (features(x, u) - mean) / scale
        h = z.to(inner)
        for weight, bias in layers:
            h = torch.tanh(torch.addmm(bias, h, weight))
        return out_mean + out_scale * ((h @ last).float() + z @ skip + offset)

    return acceleration


def _mechanical(model: MechanicalModel, device: Any, inner: Any) -> Acceleration:
    w, settings, features = model.weights, model.settings, _features(model.settings, device)
    at, nq = layout(settings), settings.nq
    positions = slice(0, at.velocities)
    mean, scale = (
        _tensor(w.input_mean[positions], device),
        _tensor(w.input_scale[positions], device),
    )
    of_v, of_u = w.input_scale[at.velocities : at.inputs], w.input_scale[at.inputs :]
    gain = 1.0 / terms(of_v[None], of_u[None])[0]  # (T,)
    layers = [(_tensor(a, device, inner).T, _tensor(b, device, inner)) for a, b in w.hidden]
    last = _tensor((w.last * gain[:, None]).reshape(-1, w.last.shape[2]), device, inner).T
    constant = _tensor(w.constant * gain, device)
    first, second = (torch.tensor(i, device=device) for i in np.triu_indices(nq))

    def acceleration(x: Tensor, u: Tensor) -> Tensor:
        h = ((features(x, u)[:, positions] - mean) / scale).to(inner)
        for weight, bias in layers:
            h = torch.tanh(torch.addmm(bias, h, weight))
        v = x[:, nq:]
        found = torch.cat([torch.ones_like(v[:, :1]), u, v, v[:, first] * v[:, second]], dim=1)
        coefficients = (h @ last).float().reshape(len(x), nq, -1) + constant
        return (coefficients * found[:, None]).sum(2)

    return acceleration
