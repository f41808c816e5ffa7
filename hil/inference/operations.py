"""What dynamics can be asked for: acceleration, slopes, domain, rollouts, followed samples.

A model of another kind says it itself, by a method `operations` (see `hil.models.operation`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hil.errors import ConfigError
from hil.mechanics.integrate import rk4
from hil.models.base import AbstractDynamics, AbstractLearnedDynamics
from hil.models.operation import Field, Operation
from hil.models.rollouts import About, Charges, rollouts_for
from hil.types import Array

EXAMPLES = {"rollout": (("N", 20),), "follow": (("N", 20), ("n", 8))}  # sizes to warm up with
NO_LIMIT = 3e38  # in the place of infinity, which is no number to send; one in float32, too


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
    problem = (
        Field("start", (nx,)), Field("target", (nx,)), Field("samples", ("n", "N", nu)),
        Field("middle", ("N", nx)), Field("gain", (nu, nx)), Field("input_limits", (2, nu)),
        Field("state_weights", (nx,)), Field("input_weights", (nu,)),
        Field("end_weights", (nx, nx)), Field("state_limits", (2, nx)),
        Field("penalties", (nx,)), Field("turn", (nx,)), dt,
    )  # fmt: skip
    followed = Field("costs", ("n",)), Field("inputs", ("N", nu)), states
    acceleration = Field("acceleration", (nq,))
    slopes = Field("by_state", (nq, nx)), Field("by_input", (nq, nu))
    return {
        "acceleration": ((x, u), (acceleration,)),
        "linearise": ((x, u), (acceleration, *slopes)),
        "domain": ((x, u), (Field("distance", ()),)),
        "rollout": ((x, plan, dt), (states,)),
        "follow": (problem, followed),
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

    def follow(*given: Array) -> list[Array]:
        each = []
        for row in zip(*given, strict=True):
            charges, about, samples = problem(row)
            found = rollouts_for(model, charges).follow(about, samples)
            assert found is not None
            each.append(found._replace(states=found.states[1:]))
        return [np.stack(column) for column in zip(*each, strict=True)]

    runs: dict[str, Callable[..., list[Array]]] = {
        "acceleration": acceleration, "linearise": linearise, "domain": domain,
        "rollout": rollout, "follow": follow,
    }  # fmt: skip
    if not isinstance(model, AbstractLearnedDynamics):
        del runs["domain"]
    every = fields_of_dynamics(nq, model.nu)
    return tuple(
        Operation(name, *every[name], run, EXAMPLES.get(name, ())) for name, run in runs.items()
    )


def problem(row: Sequence[Any]) -> tuple[Charges, About, Any]:
    """Return what `follow` is asked for in one row, arrays or tensors: the three of a sampler."""
    (start, target, samples, middle, gain, input_limits, q, r, end, state_limits, penalties, turn,
     dt) = row  # fmt: skip
    (low, high), (lowest, highest) = input_limits, state_limits
    charges = Charges(q, r, end, lowest, highest, penalties, turn, dt)
    return charges, About(start, target, gain, middle, low, high), samples


def asked(charges: Sequence[Array], about: About, samples: Array) -> list[Array]:
    """Return the same as the inputs of `follow`, one row each: what `problem` takes apart.

    charges: of `asked_charges`, the same at every solve.
    """
    a, (low, high) = about, finite(about.low, about.high)
    given = a.start, a.target, samples, a.states[: samples.shape[1]], a.gain, np.array([low, high])
    return [*(part[None] for part in given), *charges]


def asked_charges(c: Charges) -> list[Array]:
    """Return the part of `asked` that says what is charged."""
    limits = np.array(finite(c.low, c.high))
    given = c.q, c.r, c.end, limits, c.penalties, c.turn, np.asarray(c.dt)
    return [part[None] for part in given]


def finite(*limits: Array) -> list[Array]:
    """Return limits with numbers in the place of infinity."""
    return [np.clip(limit, -NO_LIMIT, NO_LIMIT) for limit in limits]


def _step(model: AbstractDynamics, x: Array, u: Array, dt: Array) -> Array:
    """Return the states (n, nx) one RK4 step on, each with its own dt (n,)."""
    after: Array = rk4(model.acceleration, x, u, dt[:, None])  # type: ignore[arg-type]
    return after
