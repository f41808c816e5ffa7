"""A model in the inference process, as a part of a control loop, with a declared answer to a miss.

What does not come within the deadline, or comes as anything but a result, is not a number: a
controller then has no plan (FAILED), and the loop goes on with the next input of the last good
one. `domain` is infinite then, so that a guard lets its fallback plan. Only the first answer to an
operation may take longer: it is asked for while a loop is being made, before a rig moves.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from hil.config import Settings
from hil.errors import ConfigError, LinkError
from hil.inference.client import START_S, InferenceClient, model_of
from hil.inference.operations import asked, asked_charges
from hil.links.zeromq import Address, Keys
from hil.messages.inference import HIGHEST, LOWEST, Result
from hil.models.base import AbstractLearnedDynamics, Linearisation
from hil.models.rollouts import About, Charges, Followed
from hil.types import AnyArray, Array


class RemoteModelSettings(Settings, frozen=True, kw_only=True):
    """Which model of which inference process, and how long an answer may take."""

    model: Annotated[str, Meta(min_length=1, description="its name in [inference.models]")]
    name: Annotated[str, Meta(min_length=1, description="of the configuration served")] = (
        "inference"
    )
    address: Annotated[str, Meta(description="'ipc' or tcp://host:port")] = "ipc"
    keys: Annotated[str, Meta(description="directory of CURVE keys")] = ""
    deadline: Annotated[float, Meta(gt=0, le=60, description="for one answer, s")] = 0.005
    priority: Annotated[int, Meta(ge=HIGHEST, le=LOWEST)] = HIGHEST


class RemoteModel(AbstractLearnedDynamics):
    """Dynamics computed by the inference process; may be asked by several threads.

    Connects when it is made; raises LinkError where nobody serves, ConfigError where the model
    is none of dynamics. misses: how often there was no answer in time, since then.
    """

    Settings: ClassVar[type[RemoteModelSettings]] = RemoteModelSettings

    def __init__(self, settings: RemoteModelSettings) -> None:
        self._settings = settings
        self._address = Address(settings.address, settings.name, "inference")
        self._keys = Keys(Path(settings.keys)) if settings.keys else None
        self._mine = threading.local()
        self._clients: list[InferenceClient] = []
        self._making = threading.Lock()
        self._charges: tuple[Charges, list[Array]] | None = None  # the last ones, as they are sent
        self._answered: set[str] = set()  # operations
        self.misses = 0
        try:
            found = model_of(self._client().describe(), settings.model)
            operations = {o.name: {f.name: f.shape for f in o.inputs} for o in found.operations}
            shapes = operations.get("linearise", {})
            if {"x", "u"} != shapes.keys():
                raise ConfigError(f"model.model: {settings.model!r} is a {found.kind}: no dynamics")
            (nx,), (nu,) = shapes["x"], shapes["u"]
            self._nq, self._nu = int(nx) // 2, int(nu)
            self._has_domain = "domain" in operations
        except BaseException:
            self.close()
            raise

    @property
    def nq(self) -> int:
        """Number of positions."""
        return self._nq

    @property
    def nu(self) -> int:
        """Number of inputs."""
        return self._nu

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈, (batch, nq); NaN where no answer came in time."""
        found = self._ask("acceleration", np.concatenate([q, v], axis=1), u)
        return found[0] if found else np.full(q.shape, np.nan)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return acceleration and slopes at one or many points; NaN where no answer came."""
        if x.ndim == 1:
            return Linearisation(*(part[0] for part in self.linearise(x[None], u[None])))
        found = self._ask("linearise", x, u)
        if found:
            return Linearisation(*found)
        n, nq = len(x), self._nq
        shapes = (n, nq), (n, nq, 2 * nq), (n, nq, self._nu)
        return Linearisation(*(np.full(shape, np.nan) for shape in shapes))

    def domain(self, x: Array, u: Array) -> float:
        """Return the distance from the data; 0 of equations, infinite where no answer came."""
        if not self._has_domain:
            return 0.0
        found = self._ask("domain", x[None], u[None])
        return float(found[0][0]) if found else np.inf

    def rollout(self, x: Array, inputs: Array, dt: float) -> Array:
        """Return the states (n, N, nx) after every step of inputs (n, N, nu) from x (n, nx).

        One row of x counts for all. RK4, inputs held for dt s. NaN where no answer came.
        """
        found = self._ask("rollout", x, inputs, np.array([dt]))
        return found[0] if found else np.full((*inputs.shape[:2], self.nx), np.nan)

    def follow(self, charges: Charges, about: About, samples: Array) -> Followed | None:
        """Return what samples (n, N, nu) cost, and the cheapest; None where no answer came."""
        if self._charges is None or self._charges[0] is not charges:
            self._charges = charges, asked_charges(charges)
        found = self._ask("follow", *asked(self._charges[1], about, samples))
        if not found:
            return None
        costs, inputs, states = (part[0] for part in found)
        return Followed(costs, inputs, np.concatenate([about.start[None], states]))

    def close(self) -> None:
        """Close the connections."""
        with self._making:
            while self._clients:
                self._clients.pop().close()

    def reconnect(self) -> None:
        """Begin with new connections: their threads have the priority of who asks then."""
        self.close()
        self._mine = threading.local()

    def _client(self) -> InferenceClient:
        """Return the connection of this thread."""
        client: InferenceClient | None = getattr(self._mine, "client", None)
        if client is None:
            client = InferenceClient(self._address, self._keys, "model")
            with self._making:
                self._clients.append(client)
            self._mine.client = client
        return client

    def _ask(self, operation: str, *inputs: AnyArray) -> list[AnyArray]:
        """Return outputs, or nothing where they did not come in time."""
        wanted, known = self._settings, operation in self._answered
        arrays = [np.ascontiguousarray(array, dtype=float) for array in inputs]
        if not all(math.isfinite(np.vdot(array, array)) for array in arrays):
            return []  # NaN in, NaN out: nobody need be asked
        try:
            answer, outputs = self._client().ask(
                wanted.model, operation, *arrays, priority=wanted.priority,
                timeout=wanted.deadline if known else max(START_S, wanted.deadline),
            )  # fmt: skip
        except LinkError:
            self.misses += 1
            return []
        if not isinstance(answer, Result):
            self.misses += 1
            return []
        self._answered.add(operation)
        # Writable, as a model's own: compiled functions would be compiled again for others.
        return [np.array(output) for output in outputs]
