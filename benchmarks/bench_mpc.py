"""What one period of predictive control costs: linearise, solve, first input.

    python benchmarks/bench_mpc.py [--json] [--steps N] [--passes N]

The problem is that of the FNODE paper (arXiv 2509.00183): cart-pole, M = m = 1, l = 0.5, 50
periods of 0.05 s, Q = R = I, forward Euler, pinned end, |x| ≤ 10, |θ| ≤ π/2, |u| ≤ 50. Three
sequences of states, recorded once from a closed loop on the true equations (RK4, held input):

"paper": from (π/6, 1, 0, 0), linearised at the origin once. No bound is ever active.
"re-linearised": the same, linearised at the state and the input at work, every period.
"bounded": from rest, |u| ≤ 3, the cart is given 0.8 m/s to and fro every 0.5 s; re-linearised.
Bounds are active in more than a quarter of the plans, or the script stops.

All methods get the same states, and share the linearisation (analytic slopes) and what is
around a solver; the time is all of `solve`, wall, one thread. Methods take turns, 20 steps
each. Only the fast ones go over a sequence more than once. The error is that of the first
input, against Clarabel at 1e-12, at its worst.

"published" is the published procedure: the CVXPY problem built anew every period, largest and
smallest entries bounded, the norm minimised, not its square, SCS at its defaults. "rebuilt, SCS"
is the same problem put as the other methods have it, still built anew. "CVXPY …" is that
parametrised and compiled once. "… direct" is a solver's own interface with matrices updated.
"CasADi …" is the problem as parametric nonlinear programme.
A solver that is not installed is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

from hil.control.active_set import Bounds
from hil.control.base import AbstractController, Solution, SolutionStatus
from hil.control.cvxpy_mpc import TIGHT, CvxpyMpc, CvxpyMpcSettings
from hil.control.formulation import Formulation, MpcSettings
from hil.control.linear_mpc import LinearMpc
from hil.control.planner import Outcome, Planner
from hil.control.riccati import Stages
from hil.mechanics.integrate import rk4
from hil.models.analytic import CartPoleModel
from hil.types import Array

OURS = "ours"
DT, BLOCK = 0.05, 20  # s; steps before the next method takes its turn
FAST_US = 2000.0  # a method faster than this goes over a sequence `passes` times
SAME = 1e-6  # N, largest error of the first input that ours may have
THREADS = "OPENBLAS_NUM_THREADS"
OPEN = (-np.inf, np.inf)
START, REST = np.array([np.pi / 6, 1.0, 0.0, 0.0]), np.zeros(4)


class Case(NamedTuple):
    """One sequence: how its problem differs from the paper's, and its loop."""

    changes: dict[str, Any]
    start: Array
    kick: float  # m/s, every 0.5 s, to and fro
    bounded: float  # share of the plans that must have active bounds


CASES = {
    "paper": Case({}, START, 0.0, 0.0),
    "re-linearised": Case({"linearise": "state"}, START, 0.0, 0.0),
    "bounded": Case({"linearise": "state", "input_limits": ((-3.0, 3.0),)}, REST, 0.8, 0.25),
}


def problem(case: Case) -> dict[str, Any]:
    """Return the settings of a case."""
    paper: dict[str, Any] = {
        "input_limits": ((-50.0, 50.0),),
        "state_limits": ((-np.pi / 2, np.pi / 2), (-10.0, 10.0), OPEN, OPEN),
        "horizon": 50,
        "dt": DT,
    }
    return paper | case.changes


def record(case: Case, steps: int) -> tuple[Array, list[bool]]:
    """Return the states (steps, 4) of the closed loop, and whose plan had active bounds."""
    model = CartPoleModel()
    controller = LinearMpc(MpcSettings(**problem(case)), dynamics=model)
    x, states, active = case.start, [], []
    for k in range(steps):
        if case.kick and k % 10 == 0:
            x = x + np.array([0.0, 0.0, 0.0, case.kick * (1.0 if k % 20 else -1.0)])
        plan = controller.solve(x, REST)
        if plan.status is not SolutionStatus.OPTIMAL:
            sys.exit(f"step {k} has no plan: {plan.detail}")
        states.append(x)
        active.append("bounds active" in plan.detail)
        x = rk4(model.acceleration, x, plan.inputs[0], DT, 10)
    if np.mean(active) < case.bounded:
        sys.exit(f"bounds are active in {np.mean(active):.0%} of the plans only")
    return np.array(states), active


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


def published(case: Case) -> AbstractController:
    """Return the published procedure, ported: everything anew, a norm to minimise, SCS."""
    cp: Any = importlib.import_module("cvxpy")
    formulation = Formulation(MpcSettings(**problem(case)), CartPoleModel())
    horizon, (nx, nu) = formulation.settings.horizon, formulation.origin.b.shape[1:]

    def solve(stages: Stages, start: Array, target: Array, bounds: Bounds) -> Outcome:
        a, b, c = stages.a[0], stages.b[0], stages.c[0]
        x, u = cp.Variable((nx, horizon + 1)), cp.Variable((nu, horizon))
        constraints = [x[:, 0] == start, x[:, horizon] == target]
        constraints.append(x[:, 1:] == a @ x[:, :horizon] + b @ u + c[:, None])
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
    formulation = Formulation(MpcSettings(**problem(case)), CartPoleModel())
    qp, solver = Sparse(formulation), piqp.SparseSolver()
    solver.settings.kkt_solver = piqp.KKTSolver.sparse_ldlt_eq_cond
    low, high = qp.limits(formulation.bounds())
    zero = np.zeros(len(low))
    none = sparse.csc_matrix((0, len(low)))
    right = qp.right(formulation.origin, START)
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
    formulation = Formulation(MpcSettings(**problem(case)), CartPoleModel())
    qp, solver = Sparse(formulation), osqp.OSQP()
    low, high = qp.limits(formulation.bounds())
    n = len(low)
    first = sparse.vstack([qp.equalities, sparse.eye(n)], format="csc")
    order = sparse.csc_matrix((np.arange(1.0, first.nnz + 1), first.indices, first.indptr))
    of_equalities = sparse.csc_matrix(order)[: qp.split].tocsc().data.astype(int) - 1
    data = first.data.copy()
    right = qp.right(formulation.origin, START)
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
    formulation = Formulation(MpcSettings(**problem(case)), CartPoleModel())
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


def ours(case: Case) -> AbstractController:
    """Return the fast controller, as anybody makes it."""
    return LinearMpc(MpcSettings(**problem(case)), dynamics=CartPoleModel())


def cvxpy_with(solver: str, *, rebuild: bool = False) -> Callable[[Case], AbstractController]:
    """Return a maker of the CVXPY controller with a solver at its defaults."""

    def make(case: Case) -> AbstractController:
        settings = CvxpyMpcSettings(**problem(case), solver=solver, rebuild=rebuild)
        return CvxpyMpc(settings, dynamics=CartPoleModel())

    return make


METHODS: dict[str, Callable[[Case], AbstractController]] = {
    "published": published,
    "rebuilt, SCS": cvxpy_with("SCS", rebuild=True),
    "CVXPY Clarabel": cvxpy_with("CLARABEL"),
    "CVXPY OSQP": cvxpy_with("OSQP"),
    "CVXPY PIQP": cvxpy_with("PIQP"),
    "OSQP direct, 1e-3": lambda case: osqp_direct(case, 1e-3),
    "OSQP direct, 1e-5": lambda case: osqp_direct(case, 1e-5),
    "PIQP direct": piqp_direct,
    "CasADi IPOPT": lambda case: casadi_programme(case, "ipopt"),
    "CasADi fatrop": lambda case: casadi_programme(case, "fatrop"),
    OURS: ours,
}


@dataclass
class Run:
    """One method on its way over a sequence."""

    controller: AbstractController
    took: list[float]  # us, of every step of every pass
    inputs: list[float]  # N, first of every plan of the first pass; NaN where there is none


def go(run: Run, states: Array, block: range, first: bool) -> None:
    """Let a method take its turn."""
    for k in block:
        begin = time.perf_counter_ns()
        plan = run.controller.solve(states[k], REST)
        run.took.append((time.perf_counter_ns() - begin) / 1e3)
        if first:
            good = plan.status is SolutionStatus.OPTIMAL
            run.inputs.append(float(plan.inputs[0, 0]) if good else np.nan)


def measure(case: Case, steps: int, passes: int, missing: set[str]) -> dict[str, dict[str, float]]:
    """Return figures of every method on one sequence; names in `missing` are left out."""
    states, active = record(case, steps)
    tight = CvxpyMpcSettings(**problem(case), options=TIGHT)
    truth = Run(CvxpyMpc(tight, dynamics=CartPoleModel()), [], [])
    go(truth, states, range(steps), first=True)
    if np.isnan(truth.inputs).any():
        sys.exit("Clarabel at 1e-12 leaves steps unsolved: nothing to compare with")
    runs = {}
    for name, make in METHODS.items():
        if name not in missing:
            runs[name] = Run(make(case), [], [])
            go(runs[name], states, range(min(3, steps)), first=False)  # what is lazy is done now
            runs[name].controller.reset()
            runs[name].took.clear()
    for turn in range(passes):
        for run in runs.values():
            if turn:
                run.controller.reset()
        for begin in range(0, steps, BLOCK):
            for run in runs.values():
                if turn == 0 or np.median(run.took) < FAST_US:
                    go(run, states, range(begin, min(begin + BLOCK, steps)), first=turn == 0)
    fastest = float(np.median(runs[OURS].took))
    return {name: figures(run, truth.inputs, active, fastest) for name, run in runs.items()}


def figures(run: Run, truth: list[float], active: list[bool], fastest: float) -> dict[str, float]:
    """Return what is reported of one method."""
    took = np.array(run.took)
    error = np.abs(np.array(run.inputs) - truth)
    bounded = np.tile(active, len(took) // len(active))
    found = {
        "us_p50": float(np.median(took)),
        "us_p99": float(np.percentile(took, 99)),
        "over_ours": float(np.median(took)) / fastest,
        "u0_error_max": float(np.nanmax(error)) if np.isfinite(error).any() else np.inf,
        "unsolved": int(np.isnan(error).sum()),
        "solves": len(took),
        "bounded_share": float(np.mean(active)),
    }
    if bounded.any():
        found["us_p50_bounded"] = float(np.median(took[bounded]))
        found["us_p99_bounded"] = float(np.percentile(took[bounded], 99))
    return found


def not_there(console: Console) -> set[str]:
    """Return the methods that cannot be made here, and say why."""
    missing = set()
    for name, make in METHODS.items():
        try:
            make(CASES["paper"])
        except Exception as error:  # noqa: BLE001 - whatever keeps a third party's solver away
            reason = str(error).splitlines()[0]
            console.print(f"{name} left out: {reason}", markup=False)
            missing.add(name)
    return missing


def show(console: Console, title: str, found: dict[str, dict[str, float]]) -> None:
    """Print one sequence as a table."""
    share = found[OURS]["bounded_share"]
    table = Table(title=f"{title}: bounds active in {share:.0%} of the plans")
    headings = ["method", "p50 µs", "p99 µs", "over ours", "worst error of u0, N", "unsolved"]
    bounded = "us_p50_bounded" in found[OURS]
    for heading in headings + (["p50 µs, bounded plans"] if bounded else []):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, f in found.items():
        row = [name, f"{f['us_p50']:.3g}" if f["us_p50"] < 1e3 else f"{f['us_p50']:.0f}"]
        row += [f"{f['us_p99']:.0f}", f"{f['over_ours']:.3g}×", f"{f['u0_error_max']:.1e}"]
        row.append(f"{f['unsolved']:.0f}")
        table.add_row(*row, *([f"{f['us_p50_bounded']:.0f}"] if bounded else []))
    console.print(table)


def require_one_thread() -> None:
    """Start this script again with one BLAS thread; NumPy reads the number when it loads."""
    if THREADS not in os.environ:
        one = {THREADS: "1", "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})


def main() -> None:
    """Measure, print a table, and with --json end with one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--steps", type=int, default=200, help="periods in a sequence")
    parser.add_argument("--passes", type=int, default=5, help="over a sequence, fast methods")
    arguments = parser.parse_args()
    if arguments.steps < 10 or arguments.passes < 1:
        parser.error("at least 10 steps and 1 pass")
    require_one_thread()
    console = Console(stderr=arguments.json)
    missing = not_there(console)
    report = {}
    for name, case in CASES.items():
        with console.status(f"measuring {name}"):
            report[name] = measure(case, arguments.steps, arguments.passes, missing)
        show(console, name, report[name])
    if arguments.json:
        print(json.dumps(report))
    worst = max(found[OURS]["u0_error_max"] for found in report.values())
    if not worst <= SAME or any(found[OURS]["unsolved"] for found in report.values()):
        sys.exit(f"ours differs from Clarabel by {worst:.1e} N, more than {SAME:.0e}")


if __name__ == "__main__":
    main()
