"""E2E-SyMo written plainly in torch, from its equations: every slope is autograd's."""

from __future__ import annotations

from typing import Any

import torch

from hil.training.lagrangian_network import LagrangianNetwork, Triples

TURNS = 10  # of Newton's method, at most
SMALL = 1e-9  # N·s or N·m·s, of the whole batch


class TorchSymo(torch.nn.Module):  # type: ignore[misc]
    """The network of a cart-pole: q = (θ, x), the force on x; float64."""

    def __init__(self, net: LagrangianNetwork) -> None:
        super().__init__()
        weights, self.floor = net.weights, net.settings.floor
        self.h = float(weights.period)
        self.mean = torch.tensor(weights.position_mean[1])
        self.scale = torch.tensor(weights.position_scale[1])
        layers: list[torch.nn.Module] = []
        for weight, bias in weights.hidden:
            layers += [_linear(weight, bias), torch.nn.Tanh()]
        self.net = torch.nn.Sequential(*layers, _linear(weights.last, weights.constant))

    def parts(self, q: Any) -> tuple[Any, Any]:
        """Return H (n, 2, 2) and V (n,)."""
        z = torch.stack([q[:, 0].cos(), q[:, 0].sin(), (q[:, 1] - self.mean) / self.scale], dim=1)
        o = self.net(z)
        zero = torch.zeros_like(o[:, 0])
        soft = torch.nn.functional.softplus
        factor = torch.stack([soft(o[:, 0]), zero, o[:, 1], soft(o[:, 2])], dim=1).view(-1, 2, 2)
        inertia = factor @ factor.transpose(1, 2) + self.floor * torch.eye(2, dtype=q.dtype)
        return inertia, -o[:, 3]

    def discrete(self, q0: Any, q1: Any) -> Any:
        """Return L_d, (n,)."""
        inertia, potential = self.parts(0.5 * (q0 + q1))
        v = (q1 - q0) / self.h
        kinetic = 0.5 * torch.einsum("ni,nij,nj->n", v, inertia, v)
        return self.h * (kinetic - potential)

    def residual(self, q0: Any, q1: Any, q2: Any, force: Any) -> Any:
        """Return D₂ L_d(q₀, q₁) + D₁ L_d(q₁, q₂) + forces, (n, 2)."""
        q1 = q1.detach().requires_grad_(True)
        total = (self.discrete(q0, q1) + self.discrete(q1, q2)).sum()
        (found,) = torch.autograd.grad(total, q1, create_graph=True)
        return found + force

    def jacobian(self, q0: Any, q1: Any, q2: Any, force: Any) -> tuple[Any, Any]:
        """Return the residual and its slope by q₂, (n, 2, 2)."""
        q2 = q2.detach().requires_grad_(True)
        left = self.residual(q0, q1, q2, force)
        rows = [torch.autograd.grad(left[:, i].sum(), q2, retain_graph=True)[0] for i in range(2)]
        return left.detach(), torch.stack(rows, dim=1)

    def loss(self, q0: Any, q1: Any, truth: Any, u0: Any, u1: Any) -> Any:
        """Return the mean square miss of the next pose, to be derived by the implicit function."""
        force = torch.zeros_like(q0)
        force[:, 1] = 0.5 * self.h * (u0 + u1)[:, 0]
        q2 = 2 * q1 - q0
        for _ in range(TURNS):
            left, slope = self.jacobian(q0, q1, q2, force)
            if float(left.norm()) < SMALL:
                break
            q2 = q2 - torch.linalg.solve(slope, left)
        _, slope = self.jacobian(q0, q1, q2, force)
        again = self.residual(q0, q1, q2, force)  # at the answer: only its slope by weights counts
        found = q2 - torch.linalg.solve(slope, again)
        return ((found - truth) ** 2).mean()


def _linear(weight: Any, bias: Any) -> torch.nn.Linear:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def tensors(data: Triples) -> tuple[Any, ...]:
    """Return poses and inputs of samples."""
    parts = (data.first, data.second, data.third, data.u_first, data.u_second)
    return tuple(torch.tensor(part) for part in parts)
