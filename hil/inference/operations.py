"""What dynamics can be asked for: acceleration, slopes, domain, rollouts and their costs.

A model of another kind says it itself, by a method `operations` (see `hil.models.operation`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hil.errors import ConfigError
from hil.mechanics.integrate import rk4
from hil.models.base import AbstractDynamics, AbstractLearnedDynamics
from hil.models.operation import Field, Operation
from hil.types import Array

STEPS = 20  # of the rollouts a worker warms up with


def operations(model: Any, where: str) -> dict[str, Operation]:
    """Return what a model can be asked for, by name.

    Raises ConfigError for something that is no model.
    """
    if hasattr(model, "operations"):
        found = tuple(model.operations())
    elif isinstance(model, AbstractDynamics):
        found = of_dynamics(model)
    else:
        raise ConfigError(
            f"{where}: {type(model).__name__} cannot be served; it needs a method `operations` "
            "(hil.models.operation)"
        )
    return {operation.name: operation for operation in found}


def fields_of_dynamics(nq: int, nu: int) -> dict[str, tuple[tuple[Field, ...], tuple[Field, ...]]]:
    """Return the inputs and outputs of every operation of dynamics, by name."""
    nx = 2 * nq
    x, u, plan = Field("x", (nx,)), Field("u", (nu,)), Field("inputs", ("N", nu))
    dt, states = Field("dt", ()), Field("states", ("N", nx))
    weighing = (
        Field("reference", (nx,)), Field("state_weights", (nx,)), Field("input_weights", (nu,)),
        Field("end_weights", (nx, nx)),
    )  # fmt: skip
    acceleration = Field("acceleration", (nq,))
    slopes = Field("by_state", (nq, nx)), Field("by_input", (nq, nu))
    return {
        "acceleration": ((x, u), (acceleration,)),
        "linearise": ((x, u), (acceleration, *slopes)),
        "domain": ((x, u), (Field("distance", ()),)),
        "rollout": ((x, plan, dt), (states,)),
        "rollout_cost": ((x, plan, dt, *weighing), (Field("cost", ()),)),
    }


def of_dynamics(model: AbstractDynamics) -> tuple[Operation, ...]:
    """Return what dynamics can be asked for, computed by the model itself."""
    nq = model.nq

    def acceleration(x: Array, u: Array) -> list[Array]:
        return [model.acceleration(x[:, :nq], x[:, nq:], u)]

    def linearise(x: Array, u: Array) -> list[Array]:
        if len(x) == 1:  # the compiled way of one point
            return [part[None] for part in model.linearise(x[0], u[0])]
        return list(model.linearise(x, u))

    def domain(x: Array, u: Array) -> list[Array]:
        assert isinstance(model, AbstractLearnedDynamics)
        return [np.array([model.domain(*point) for point in zip(x, u, strict=True)])]

    def rollout(x: Array, inputs: Array, dt: Array) -> list[Array]:
        states = np.empty((*inputs.shape[:2], model.nx))
        for k in range(inputs.shape[1]):
            x = states[:, k] = _step(model, x, inputs[:, k], dt)
        return [states]

    def rollout_cost(
        x: Array, inputs: Array, dt: Array, reference: Array,
        state_weights: Array, input_weights: Array, end_weights: Array,
    ) -> list[Array]:  # fmt: skip
        cost, steps = np.zeros(len(x)), inputs.shape[1]
        for k in range(steps):
            error, u = x - reference, inputs[:, k]
            cost += (state_weights * error**2).sum(1) + (input_weights * u**2).sum(1)
            x = _step(model, x, u, dt)
        error = x - reference
        cost += np.einsum("ni,nij,nj->n", error, end_weights, error)
        return [cost]

    runs: dict[str, Callable[..., list[Array]]] = {
        "acceleration": acceleration, "linearise": linearise, "domain": domain,
        "rollout": rollout, "rollout_cost": rollout_cost,
    }  # fmt: skip
    if not isinstance(model, AbstractLearnedDynamics):
        del runs["domain"]
    every = fields_of_dynamics(nq, model.nu)
    return tuple(
        Operation(name, *every[name], run, (("N", STEPS),) if "rollout" in name else ())
        for name, run in runs.items()
    )


def _step(model: AbstractDynamics, x: Array, u: Array, dt: Array) -> Array:
    """Return the states (n, nx) one RK4 step on, each with its own dt (n,)."""
    after: Array = rk4(model.acceleration, x, u, dt[:, None])  # type: ignore[arg-type]
    return after
