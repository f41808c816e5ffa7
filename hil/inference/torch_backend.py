"""Dynamics computed by torch: float32, or bfloat16 in the network's layers, on CPU or CUDA.

States are float32 throughout. On CUDA every batch is padded to a power of two of rows, and each
such shape is captured once as a CUDA graph: a replay is one launch, whatever it holds. Numbers
go over pinned memory. What is padded is cut off again and seen by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hil.errors import ConfigError
from hil.inference.operations import of_dynamics, problem
from hil.inference.settings import ModelSettings
from hil.models.operation import Operation
from hil.models.torch_dynamics import Policies, Tensor, rebuilt, rk4
from hil.types import AnyArray


class TorchBackend:
    """Computes the operations of the cart-pole's equations or an FNODE, free or mechanical.

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
        inner = getattr(torch, settings.dtype)
        self._acceleration = rebuilt(model, self._device, where, inner=inner)
        self._policies = Policies(self._acceleration)
        self._fixed = self._device.type == "cuda" if fixed is None else fixed
        self._shapes: dict[Any, FixedShape] = {}
        self.operations = {operation.name: operation for operation in of_dynamics(model)}
        self._functions: dict[str, Callable[..., Sequence[Tensor]]] = {
            "acceleration": lambda x, u: [self._acceleration(x, u)],
            "linearise": self._linearise,
            "rollout": self._rollout,
            "follow": self._follow,
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
            x = rk4(self._acceleration, x, inputs[:, k], dt[:, None])
            states.append(x)
        return [torch.stack(states, dim=1)]

    def _follow(self, *given: Tensor) -> Sequence[Tensor]:
        each = [self._policies.follow(*problem(row)) for row in zip(*given, strict=True)]
        costs, inputs, states = (torch.stack(column) for column in zip(*each, strict=True))
        return costs, inputs, states[:, 1:]


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
