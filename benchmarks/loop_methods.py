"""What `bench_loop.py` closes its loop with: controllers here, and with their model elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hil.config import check
from hil.control.base import AbstractController
from hil.control.cvxpy_mpc import CvxpyMpc, CvxpyMpcSettings
from hil.control.formulation import MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.control.mppi import Mppi, MppiSettings
from hil.inference.remote import RemoteModel, RemoteModelSettings
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics, Linearisation
from hil.models.fnode import FnodeModel
from hil.realtime import RealTimeSettings
from hil.types import Array

OURS, REMOTE = "ours", "ours, model in hil infer"
MPPI, MPPI_REMOTE = "MPPI", "MPPI, rollouts in hil infer"
REBUILT = "torch, rebuilt CVXPY"
METHODS = (OURS, REMOTE, MPPI, MPPI_REMOTE, REBUILT)
SERVED = (REMOTE, MPPI_REMOTE)
NEEDED = {REBUILT: ("torch", "cvxpy", "scs")}
ROLLOUTS = 128  # of MPPI, every period
SERVER = "bench-loop-models"
OPEN = (-np.inf, np.inf)
WEIGHTS: dict[str, Any] = {
    "horizon": 50, "input_limits": ((-20.0, 20.0),),
    "state_weights": (10.0, 10.0, 1.0, 1.0), "input_weights": (0.05,),
}  # fmt: skip


class TorchJacobian(AbstractDynamics):
    """The same network; its slopes by automatic differentiation in torch, as published."""

    def __init__(self, model: FnodeModel) -> None:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(1)
        self._model, self._torch = model, torch
        w = {name: torch.from_numpy(np.array(a)) for name, a in model.weights.arrays().items()}

        def network(point: Any) -> Any:
            z = torch.cat([torch.sin(point[:1]), torch.cos(point[:1]), point[2:]])
            h = z = (z - w["input_mean"]) / w["input_scale"]
            for number in (1, 2):
                h = torch.tanh(w[f"hidden.{number}.weight"] @ h + w[f"hidden.{number}.bias"])
            answer = w["last"] @ h + w["skip"] @ z + w["offset"]
            return w["output_mean"] + w["output_scale"] * answer

        self._network = network

    @property
    def nq(self) -> int:
        return self._model.nq

    @property
    def nu(self) -> int:
        return self._model.nu

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        return self._model.acceleration(q, v, u)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        if x.ndim > 1:
            parts = [self.linearise(*point) for point in zip(x, u, strict=True)]
            return Linearisation(*(np.array(column) for column in zip(*parts, strict=True)))
        point = self._torch.from_numpy(np.concatenate([x, u]))
        slopes = self._torch.autograd.functional.jacobian(self._network, point).numpy()
        return Linearisation(self._network(point).numpy(), slopes[:, :4], slopes[:, 4:])


def make_controller(method: str, model: FnodeModel, dt: float) -> AbstractController:
    """Return the controller of a method; an answer from elsewhere may take 5 ms."""
    dynamics: AbstractDynamics = CartPoleModel() if method == MPPI else model
    if method in SERVED:
        name = "fnode" if method == REMOTE else "equations"
        dynamics = RemoteModel(RemoteModelSettings(model=name, name=SERVER))
    if method in (MPPI, MPPI_REMOTE):
        table = {**WEIGHTS, "dt": dt, "samples": ROLLOUTS, "block": ROLLOUTS, "noise": (1.0,)}
        return Mppi(check(table, MppiSettings, "control"), dynamics=dynamics)
    problem: dict[str, Any] = {
        **WEIGHTS, "dt": dt, "terminal": "lqr", "linearise": "state", "discretise": "rk4",
        "state_limits": ((-1.0, 1.0), (-1.0, 1.0), OPEN, OPEN),
    }  # fmt: skip
    if method in (OURS, REMOTE):
        return LinearMpc(MpcSettings(**problem), dynamics=dynamics)
    rebuilt = CvxpyMpcSettings(**problem, solver="SCS", rebuild=True)
    return CvxpyMpc(rebuilt, dynamics=TorchJacobian(model))


@contextlib.contextmanager
def served(model: Path, realtime: RealTimeSettings) -> Iterator[None]:
    """Run `hil infer` on a model and on the equations, with the same wishes as the loop."""
    config = model.with_name("bench-loop.toml")
    config.write_text(
        f'name = "{SERVER}"\n[inference.models.fnode]\npath = "{model}"\n'
        '[inference.models.equations.model]\nkind = "hil.models.analytic:CartPoleModel"\n'
        f"[inference.realtime]\npriority = {realtime.priority}\ntimer_slack = 1\n"
        f"freeze_gc = true\ncpus = {json.dumps(realtime.cpus)}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hil", "infer", str(config)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        while "ctrl-C" not in (line := process.stderr.readline()):
            if not line:
                sys.exit("hil infer did not start")
        yield
    finally:
        process.terminate()
        process.communicate()
