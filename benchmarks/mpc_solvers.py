"""The solvers that `bench_mpc` measures beside ours, and the problem they are given."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hil.control.active_set import Bounds
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.formulation import Formulation, MpcSettings
from hil.control.planner import Outcome, Planner
from hil.control.riccati import Stages
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics, Linearisation
from hil.models.fnode import Domain, FnodeModel, FnodeSettings, FnodeWeights, features
from hil.types import Array

DT = 0.05  # s
OPEN = (-np.inf, np.inf)


class Case(NamedTuple):
    """One sequence: how its problem differs from the paper's, and its loop."""

    changes: dict[str, Any]
    start: Array
    kick: float = 0.0  # m/s, every 0.5 s, to and fro
    bounded: float = 0.0  # share of the plans that must have active bounds
    learned: bool = False  # the model is a network

    def problem(self) -> dict[str, Any]:
        """Return the settings."""
        paper: dict[str, Any] = {
            "input_limits": ((-50.0, 50.0),),
            "state_limits": ((-np.pi / 2, np.pi / 2), (-10.0, 10.0), OPEN, OPEN),
            "horizon": 50,
            "dt": DT,
        }
        return paper | self.changes

    def dynamics(self) -> AbstractDynamics:
        """Return the model."""
        return network() if self.learned else CartPoleModel()


@cache
def network() -> FnodeModel:
    """Return a network 5 → 256 → 256 → 2 that answers as the equations do.

    Hidden layers are drawn, the last one is a least-squares fit: of the size, and good enough
    to balance on; how one is learned is another benchmark's matter.
    """
    draw = np.random.default_rng(0)
    settings = FnodeSettings(nq=2, nu=1, angles=(0,), left_out=(1,))
    x = draw.uniform(-1, 1, (4000, 5)) * [0.9, 3.0, 4.0, 4.0, 50.0]
    q, v, u = x[:, :2], x[:, 2:4], x[:, 4:]
    inputs, outputs = features(settings, q, v, u), CartPoleModel().acceleration(q, v, u)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    z = (inputs - mean) / scale
    layers, h = [], z
    for before, gain in ((5, 0.5), (256, 1.0)):
        weight = draw.normal(size=(256, before)) * gain / np.sqrt(before)
        layers.append((weight, draw.normal(size=256) * 0.3))
        h = np.tanh(h @ weight.T + layers[-1][1])
    columns = np.hstack([h, z, np.ones((len(z), 1))])
    found = np.linalg.lstsq(columns, outputs, rcond=1e-9)[0].T
    weights = FnodeWeights(
        mean, scale, tuple(layers), np.ascontiguousarray(found[:, :256]), found[:, 256:261].copy(),
        found[:, 261].copy(), np.zeros(2), np.ones(2),
        Domain(np.zeros(5), np.eye(5), np.asarray(1e3)),
    )  # fmt: skip
    return FnodeModel(settings, weights)


class TorchNetwork(AbstractDynamics):
    """The same network in torch, float32, with slopes as published: autograd's jacobian."""

    def __init__(self) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(1)
        t = self._torch
        w = network().weights
        (first, bias), (second, bias_2) = w.hidden
        parts = w.input_mean, w.input_scale, first, bias, second, bias_2, w.last, w.skip, w.offset
        self._parts = [t.from_numpy(np.array(part)).float() for part in parts]

    nq = property(lambda self: 2)
    nu = property(lambda self: 1)

    def acceleration(self, q: Array, v: Array, u: Array) -> Array:
        """Return q̈ of the network it was made of."""
        return network().acceleration(q, v, u)

    def linearise(self, x: Array, u: Array) -> Linearisation:
        """Return value and slopes at one point."""
        t = self._torch
        mean, scale, first, bias, second, bias_2, last, skip, offset = self._parts

        def net(p: Any) -> Any:
            z = (t.cat([t.sin(p[:1]), t.cos(p[:1]), p[2:]]) - mean) / scale
            h = t.tanh(second @ t.tanh(first @ z + bias) + bias_2)
            return last @ h + skip @ z + offset

        point = t.from_numpy(np.concatenate([x, u])).float()
        with t.no_grad():
            value = net(point).double().numpy()
        slopes = t.autograd.functional.jacobian(net, point).double().numpy()
        return Linearisation(value, slopes[:, :4], slopes[:, 4:])


class Sparse:
    """The problem as a sparse quadratic programme in z = (x_1 … x_N, u_0 … u_{N−1})."""

    def __init__(self, formulation: Formulation) -> None:
        cost, self.horizon = formulation.cost, formulation.settings.horizon
        self.nx, self.nu = formulation.origin.b.shape[1:]
        horizon, nx, nu = self.horizon, self.nx, self.nu
        self.origin = formulation.origin
        blocks = [cost.q] * horizon + [cost.r] * horizon
        self.hessian = sparse.block_diag(blocks, format="csc")
        self.split = horizon * nx
        n = self.split + horizon * nu
        at = formulation.at(np.full(nx, 0.3), np.ones(nu))  # where nothing is zero by chance
        self.pattern_a, self.pattern_b = at.a[0] != 0, at.b[0] != 0
        rows, columns = [np.arange(self.split)], [np.arange(self.split)]
        (ia, ja), (ib, jb) = np.nonzero(self.pattern_a), np.nonzero(self.pattern_b)
        for k in range(horizon):
            if k:
                rows.append(k * nx + ia)
                columns.append((k - 1) * nx + ja)
        for k in range(horizon):
            rows.append(k * nx + ib)
            columns.append(self.split + k * nu + jb)
        row, column = np.concatenate(rows), np.concatenate(columns)
        order = sparse.csc_matrix((np.arange(1.0, len(row) + 1), (row, column)), (self.split, n))
        self._take = order.data.astype(int) - 1
        self.equalities = order.astype(float)
        self.equalities.data = self.values(self.origin)

    def values(self, stages: Stages) -> Array:
        """Return the data of the equality matrix, in its own order."""
        a, b = -stages.a[0][self.pattern_a], -stages.b[0][self.pattern_b]
        all_values = [np.ones(self.split), np.tile(a, self.horizon - 1), np.tile(b, self.horizon)]
        found: Array = np.concatenate(all_values)[self._take]
        return found

    def right(self, stages: Stages, start: Array) -> Array:
        """Return the right side of the equalities."""
        found = np.tile(stages.c[0], self.horizon)
        found[: self.nx] += stages.a[0] @ start
        return found

    def limits(self, bounds: Bounds) -> tuple[Array, Array]:
        """Return lowest and highest of z; the end is pinned at zero."""
        low = np.concatenate(
            [np.tile(bounds.state_low, self.horizon), np.tile(bounds.input_low, self.horizon)]
        )
        high = np.concatenate(
            [np.tile(bounds.state_high, self.horizon), np.tile(bounds.input_high, self.horizon)]
        )
        low[self.split - self.nx : self.split] = high[self.split - self.nx : self.split] = 0.0
        return low, high

    def outcome(self, solved: bool, z: Array, start: Array, said: str) -> Outcome:
        """Return z as a plan."""
        status = SolutionStatus.OPTIMAL if solved else SolutionStatus.FAILED
        states = np.vstack([start, z[: self.split].reshape(-1, self.nx)])
        return Outcome(status, z[self.split :].reshape(-1, self.nu), states, said)


class Direct(AbstractController):
    """A solver of quadratic programmes with the same planner around it as ours."""

    def __init__(self, formulation: Formulation, solve: Callable[..., Outcome]) -> None:
        self._planner = Planner(formulation, solve)
        self._horizon = formulation.settings.horizon

    @property
    def horizon(self) -> int:
        return self._horizon

    def reset(self) -> None:
        self._planner.reset()

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        return self._planner.solve(x, r, disturbance)


def published(case: Case, dynamics: AbstractDynamics | None = None) -> AbstractController:
    """Return the published procedure, ported: everything anew, a norm to minimise, SCS."""
    cp: Any = importlib.import_module("cvxpy")
    formulation = Formulation(MpcSettings(**case.problem()), dynamics or case.dynamics())
    horizon, (nx, nu) = formulation.settings.horizon, formulation.origin.b.shape[1:]

    def solve(stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        a, b, c = stages.a[0], stages.b[0], stages.c[0]
        x, u = cp.Variable((nx, horizon + 1)), cp.Variable((nu, horizon))
        constraints = [x[:, 0] == start, x[:, horizon] == target]
        ahead = a @ x[:, :horizon] + b @ u
        constraints.append(x[:, 1:] == (ahead + c[:, None] if c.any() else ahead))
        for i in range(nx):
            if np.isfinite(bounds.state_high[i]):
                constraints.append(cp.max(x[i, :]) <= bounds.state_high[i])
                constraints.append(cp.min(x[i, :]) >= bounds.state_low[i])
        constraints += [cp.max(u) <= bounds.input_high[0], cp.min(u) >= bounds.input_low[0]]
        size = cp.norm(cp.vstack([np.eye(nx) @ x[:, :horizon], np.eye(nu) @ u]), "fro")
        programme = cp.Problem(cp.Minimize(size), constraints)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # inaccurate ones are taken too
            programme.solve(solver="SCS")
        if u.value is None:
            nothing = np.empty((0, 0))
            return Outcome(SolutionStatus.FAILED, nothing, nothing, programme.status)
        return Outcome(SolutionStatus.OPTIMAL, u.value.T, x.value.T, programme.status)

    return Direct(formulation, solve)


def piqp_direct(case: Case) -> AbstractController:
    """Return PIQP, sparse, equalities condensed in its linear systems, matrices updated."""
    piqp = importlib.import_module("piqp")
    formulation = Formulation(MpcSettings(**case.problem()), case.dynamics())
    qp, solver = Sparse(formulation), piqp.SparseSolver()
    solver.settings.kkt_solver = piqp.KKTSolver.sparse_ldlt_eq_cond
    low, high = qp.limits(formulation.bounds())
    zero = np.zeros(len(low))
    none = sparse.csc_matrix((0, len(low)))
    right = qp.right(formulation.origin, case.start)
    empty = np.zeros(0)
    solver.setup(qp.hessian, zero, qp.equalities, right, none, empty, empty, low, high)

    def solve(stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        right = qp.right(stages, start)
        if stages is formulation.origin:
            solver.update(b=right)
        else:
            qp.equalities.data = qp.values(stages)
            solver.update(A=qp.equalities, b=right)
        status = solver.solve()
        return qp.outcome(status == piqp.PIQP_SOLVED, np.array(solver.result.x), start, str(status))

    return Direct(formulation, solve)


def osqp_direct(case: Case, tolerance: float) -> AbstractController:
    """Return OSQP with vectors and matrix values updated, started warm as it likes it."""
    osqp = importlib.import_module("osqp")
    formulation = Formulation(MpcSettings(**case.problem()), case.dynamics())
    qp, solver = Sparse(formulation), osqp.OSQP()
    low, high = qp.limits(formulation.bounds())
    n = len(low)
    first = sparse.vstack([qp.equalities, sparse.eye(n)], format="csc")
    order = sparse.csc_matrix((np.arange(1.0, first.nnz + 1), first.indices, first.indptr))
    of_equalities = sparse.csc_matrix(order)[: qp.split].tocsc().data.astype(int) - 1
    data = first.data.copy()
    right = qp.right(formulation.origin, case.start)
    solver.setup(
        sparse.triu(qp.hessian, format="csc"), np.zeros(n), first,
        np.concatenate([right, low]), np.concatenate([right, high]),
        eps_abs=tolerance, eps_rel=tolerance, max_iter=20_000, verbose=False,
    )  # fmt: skip

    def solve(stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        right = qp.right(stages, start)
        changed = {"l": np.concatenate([right, low]), "u": np.concatenate([right, high])}
        if stages is not formulation.origin:
            data[of_equalities] = qp.values(stages)
            changed["Ax"] = data
        solver.update(**changed)
        result = solver.solve()
        return qp.outcome(result.info.status_val == 1, result.x, start, result.info.status)

    return Direct(formulation, solve)


def casadi_programme(case: Case, solver: str) -> AbstractController:
    """Return a solver of nonlinear programmes on the problem, stage by stage, cold."""
    ca = importlib.import_module("casadi")
    if not ca.has_nlpsol(solver):
        raise ImportError(f"casadi without {solver}")
    formulation = Formulation(MpcSettings(**case.problem()), case.dynamics())
    bounds, horizon = formulation.bounds(), formulation.settings.horizon
    nx, nu = formulation.origin.b.shape[1:]
    a, b = ca.MX.sym("a", nx, nx), ca.MX.sym("b", nx, nu)
    c, start = ca.MX.sym("c", nx), ca.MX.sym("x0", nx)
    z, g, low, high, z_low, z_high = [], [], [], [], [], []
    cost, equality = 0.0, []
    x = ca.MX.sym("x_0", nx)
    z.append(x)
    z_low.append(np.full(nx, -np.inf))
    z_high.append(np.full(nx, np.inf))

    def equal(expression: Any) -> None:
        g.append(expression)
        low.append(np.zeros(nx))
        high.append(np.zeros(nx))
        equality.extend([True] * nx)

    for k in range(horizon):
        u = ca.MX.sym(f"u_{k}", nu)
        ahead = ca.MX.sym(f"x_{k + 1}", nx)
        z += [u, ahead]
        z_low += [bounds.input_low, bounds.state_low]
        z_high += [bounds.input_high, bounds.state_high]
        cost = cost + ca.sumsqr(x) + ca.sumsqr(u)
        equal(ahead - (a @ x + b @ u + c))
        if k == 0:
            equal(x - start)
        x = ahead
    equal(x)
    z_low[-1], z_high[-1] = np.full(nx, -np.inf), np.full(nx, np.inf)  # the end is pinned
    parameters = ca.vertcat(ca.vec(a), ca.vec(b), c, start)
    options: dict[str, Any] = {"expand": True, "print_time": False, "error_on_fail": False}
    if solver == "fatrop":
        options |= {"structure_detection": "auto", "equality": equality}
        options["fatrop"] = {"print_level": 0, "tol": 1e-8}
    else:
        options["ipopt"] = {"print_level": 0, "sb": "yes", "tol": 1e-8}
    nlp = {"x": ca.vertcat(*z), "p": parameters, "f": cost, "g": ca.vertcat(*g)}
    programme = ca.nlpsol("mpc", solver, nlp, options)
    given = {"lbx": np.concatenate(z_low), "ubx": np.concatenate(z_high)}
    given |= {"lbg": np.concatenate(low), "ubg": np.concatenate(high)}

    def solve(stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        values = [stages.a[0].ravel("F"), stages.b[0].ravel("F"), stages.c[0], start]
        result = programme(x0=0.0, p=np.concatenate(values), **given)
        stats = programme.stats()
        found = np.array(result["x"]).ravel()
        plan = found[nx:].reshape(horizon, nu + nx)
        states = np.vstack([found[:nx], plan[:, nu:]])
        status = SolutionStatus.OPTIMAL if stats["success"] else SolutionStatus.FAILED
        return Outcome(status, plan[:, :nu], states, str(stats["return_status"]))

    return Direct(formulation, solve)


class DoMpc(AbstractController):
    """do-mpc with IPOPT at its defaults, on the nonlinear equations, forward Euler."""

    def __init__(self, case: Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what else could be installed
            do_mpc: Any = importlib.import_module("do_mpc")
        ca: Any = importlib.import_module("casadi")
        settings = MpcSettings(**case.problem())
        p = CartPoleModel().parameters
        model = do_mpc.model.Model("discrete", "SX")
        x, u = model.set_variable("_x", "x", (4, 1)), model.set_variable("_u", "u")
        sine, cosine = ca.sin(x[0]), ca.cos(x[0])
        coupling = p.pole_mass * p.length * cosine
        mass = ca.vertcat(
            ca.horzcat(p.pole_mass * p.length**2, coupling),
            ca.horzcat(coupling, p.cart_mass + p.pole_mass),
        )
        swing = p.pole_mass * p.length * sine
        force = ca.vertcat(p.gravity * swing, u + swing * x[2] ** 2)
        model.set_rhs("x", x + DT * ca.vertcat(x[2], x[3], ca.solve(mass, force)))
        model.setup()
        mpc = do_mpc.controller.MPC(model)
        mpc.settings.n_horizon, mpc.settings.t_step = settings.horizon, DT
        mpc.settings.state_discretization = "discrete"
        mpc.settings.store_full_solution = False
        mpc.settings.nlpsol_opts = {
            "ipopt.print_level": 0, "ipopt.sb": "yes", "print_time": 0,
        }  # fmt: skip
        mpc.set_objective(mterm=0.0 * x[0], lterm=ca.sumsqr(x) + ca.sumsqr(u))
        mpc.set_rterm(u=0.0)
        for i, side in enumerate(("lower", "upper")):
            mpc.bounds[side, "_x", "x"] = np.array(settings.state_limits)[:, i : i + 1]
            mpc.bounds[side, "_u", "u"] = settings.input_limits[0][i]
            mpc.terminal_bounds[side, "x"] = np.zeros((4, 1))
        mpc.setup()
        self._mpc, self._horizon = mpc, settings.horizon
        self._fresh = True

    @property
    def horizon(self) -> int:
        return self._horizon

    def reset(self) -> None:
        self._fresh = True

    def solve(self, x: Array, r: Array, disturbance: Array | None = None) -> Solution:
        if self._fresh:
            self._mpc.reset_history()
            self._mpc.x0 = x
            self._mpc.set_initial_guess()
            self._fresh = False
        first = np.array(self._mpc.make_step(x.reshape(-1, 1)))
        good = bool(self._mpc.solver_stats["success"])
        status = SolutionStatus.OPTIMAL if good else SolutionStatus.FAILED
        return Solution(first, np.empty((0, 4)), status, 0.0)
