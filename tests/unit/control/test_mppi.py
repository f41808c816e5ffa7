"""Sampling against the exact controller, the kernel against plain NumPy, and the clock it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hil.config import check
from hil.control import mppi
from hil.control.base import SolutionStatus
from hil.control.formulation import Formulation, MpcSettings
from hil.control.mppi import Mppi, MppiSettings
from hil.errors import ConfigError
from hil.mechanics.cart_pole import CartPoleParameters
from hil.models.analytic import CartPoleModel
from hil.models.base import AbstractDynamics
from hil.models.rollouts import (
    TURN,
    About,
    AbstractRollouts,
    BatchedRollouts,
    Charges,
    CompiledRollouts,
    Followed,
    NoSettings,
)
from hil.types import Array
from tests.contract.test_models import untrained_fnode, untrained_mechanical
from tests.unit.control.loops import plant

OPEN = (-np.inf, np.inf)
WEIGHTS: dict[str, Any] = {
    "horizon": 60,
    "dt": 0.02,
    "input_limits": ((-20.0, 20.0),),
    "state_weights": (10.0, 10.0, 1.0, 1.0),
    "input_weights": (0.05,),
}
RAIL: dict[str, Any] = {"soft_limits": (OPEN, (-0.2, 0.2), OPEN, OPEN), "penalties": (0, 1e4, 0, 0)}
CHARGES = Charges(
    q=np.array([10.0, 10.0, 1.0, 1.0]),
    r=np.array([0.05]),
    end=np.diag([30.0, 20.0, 5.0, 4.0]) + 0.5,
    low=np.array([-np.inf, -0.05, -np.inf, -np.inf]),
    high=np.array([np.inf, 0.1, np.inf, np.inf]),
    penalties=np.array([0.0, 300.0, 0.0, 0.0]),
    turn=np.array([TURN, 0.0, 0.0, 0.0]),
    dt=0.02,
)


def sampler(**changes: Any) -> Mppi:
    return Mppi(check({**WEIGHTS, **changes}, MppiSettings, "control"), dynamics=CartPoleModel())


def problem(seed: int = 0) -> tuple[About, Array]:
    """Return samples around a plan, some of them beyond limits and past half a turn."""
    random = np.random.default_rng(seed)
    about = About(
        start=np.array([2.9, 0.02, 1.0, -0.3]),
        target=np.zeros(4),
        gain=np.array([[3.0, 1.0, 0.5, 0.2]]),
        states=random.normal(0.0, 0.3, (31, 4)) + np.array([3.0, 0.0, 0.0, 0.0]),
        low=np.array([-9.0]),
        high=np.array([8.0]),
    )
    return about, random.normal(0.0, 6.0, (40, 30, 1))


def cost_of(inputs: Array, x: Array) -> float:
    """Return the cost of inputs (N, 1) from x, with a plant and a regulator of another's making."""
    made = Formulation(MpcSettings(**WEIGHTS, terminal="lqr", discretise="rk4"), CartPoleModel())
    total = 0.0
    for u in inputs:
        total += x @ made.cost.q @ x + u @ made.cost.r @ u
        x = plant(x, float(u[0]), dt=0.02, parts=4)
    return float(total + x @ made.cost.end @ x)


def test_the_kernel_costs_what_numpy_costs() -> None:
    model = CartPoleModel(CartPoleParameters(cart_viscous=0.2, pivot_viscous=0.01, pole_mass=0.4))
    about, samples = problem()
    fast = CompiledRollouts(NoSettings(), dynamics=model, charges=CHARGES)
    plain = BatchedRollouts(NoSettings(), dynamics=model, charges=CHARGES)
    for mine, theirs in zip(fast.follow(about, samples), plain.follow(about, samples), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    costs, inputs, states = fast.follow(about, samples)
    alone = fast.follow(about, samples[int(np.argmin(costs))][None])
    assert costs.min() == alone.costs[0]
    np.testing.assert_array_equal(inputs, alone.inputs)
    np.testing.assert_array_equal(states, alone.states)
    with pytest.raises(ConfigError, match="CompiledRollouts knows the equations"):
        CompiledRollouts(NoSettings(), dynamics=untrained_fnode(), charges=CHARGES)


@pytest.mark.parametrize("make", [CartPoleModel, untrained_fnode, untrained_mechanical])
def test_torch_costs_what_numpy_costs(make: Any) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from hil.models.torch_rollouts import TorchRollouts, TorchRolloutsSettings

    about, samples = problem(1)
    model: AbstractDynamics = make()
    plain = BatchedRollouts(NoSettings(), dynamics=model, charges=CHARGES)
    expected = plain.follow(about, samples)
    for precision, rtol in (("float64", 1e-9), ("float32", 1e-3)):
        settings = check({"precision": precision}, TorchRolloutsSettings, "rollouts")
        found = TorchRollouts(settings, dynamics=model, charges=CHARGES).follow(about, samples)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)
    with pytest.raises(ConfigError, match=r"rollouts.device: 'nowhere'"):
        TorchRollouts(TorchRolloutsSettings(device="nowhere"), dynamics=model, charges=CHARGES)


@pytest.mark.parametrize("x", [[0.2, 0.3, 0.0, 0.0], [-0.3, -0.2, 0.5, 0.4]])
def test_a_plan_costs_little_more_than_the_exact_one(x: list[float]) -> None:
    """The exact one: sequential quadratic programming along the horizon, solved to its end."""
    from hil.control.linear_mpc import LinearMpc

    start = np.array(x)
    exact = LinearMpc(
        MpcSettings(
            **WEIGHTS, terminal="lqr", linearise="horizon", discretise="rk4", iterations=30
        ),
        dynamics=CartPoleModel(),
    )
    best = exact.solve(start, np.zeros(4))
    assert best.status is SolutionStatus.OPTIMAL
    found = sampler(samples=2048).solve(start, np.zeros(4))
    assert found.status is SolutionStatus.SAMPLED
    least = cost_of(best.inputs, start)
    assert least * (1 - 1e-6) < cost_of(found.inputs, start) < least * 1.01
    assert f"cost {cost_of(found.inputs, start):.3g}"[:8] in found.detail


def test_it_keeps_a_soft_limit_where_it_can() -> None:
    start, far = np.array([0.0, 0.15, 0.0, 0.35]), []
    for changes in ({}, RAIL):
        controller, x, most = sampler(**changes), start, 0.0
        for _ in range(40):
            x = plant(x, float(controller.solve(x, np.zeros(4)).inputs[0, 0]), dt=0.02, parts=2)
            most = max(most, x[1])
        far.append(most)
    assert far[0] > 0.23  # the cart must go outward first, to get the pole to lean inward
    assert far[1] < far[0] - 0.015


def test_noise_depends_on_seed_and_solve_and_nothing_else() -> None:
    x, plans = np.array([0.1, 0.2, 0.0, 0.0]), []
    for seed in (3, 3, 4):
        controller = sampler(seed=seed)
        plans.append([controller.solve(x, np.zeros(4)).inputs for _ in range(3)])
    np.testing.assert_array_equal(plans[0], plans[1])
    assert np.abs(np.subtract(plans[0], plans[2])).max() > 1e-6


class Slow(AbstractRollouts):
    """Every block takes a second of a clock that only it moves."""

    Settings = NoSettings
    now = 0.0

    def __init__(
        self, settings: NoSettings, *, dynamics: AbstractDynamics, charges: Charges
    ) -> None:
        self._inner = CompiledRollouts(settings, dynamics=dynamics, charges=charges)

    def follow(self, about: About, samples: Array) -> Followed | None:
        Slow.now += 1.0 if len(samples) > 1 else 0.0
        return self._inner.follow(about, samples)


@pytest.mark.parametrize(("budget", "blocks"), [(0.0, 8), (0.5, 1), (3.5, 3), (9.0, 8)])
def test_no_block_begins_that_would_not_end_in_time(
    budget: float, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        mppi, "build", lambda table, where, **context: Slow(NoSettings(), **context)
    )
    monkeypatch.setattr("hil.control.mppi.time.perf_counter", lambda: Slow.now)
    controller = sampler(samples=8 * 128, block=128, budget=budget, rollouts={"kind": "slow"})
    solution = controller.solve(np.array([0.1, 0.0, 0.0, 0.0]), np.zeros(4))
    assert solution.detail.startswith(f"{blocks * 128} rollouts")
    assert solution.status is SolutionStatus.SAMPLED
    assert budget == 0.0 or solution.solve_us <= max(budget, 1.0) * 1e6


def test_what_does_not_stay_finite_fails_without_an_exception() -> None:
    controller = sampler()
    solution = controller.solve(np.array([0.1, 0.0, 1e200, 0.0]), np.zeros(4))
    assert solution.status is SolutionStatus.FAILED
    assert controller.solve(np.zeros(4), np.zeros(4)).status is SolutionStatus.SAMPLED


def test_settings_that_do_not_fit_are_refused() -> None:
    for changes, said in (
        ({"noise": [1.0, 2.0]}, r"control.noise: the model has 1, found 2"),
        ({"penalties": [1.0]}, r"control.penalties: the model has 4, found 1"),
        ({"input_limits": [[-np.inf, np.inf]]}, r"an input without limits needs one"),
    ):
        with pytest.raises(ConfigError, match=said):
            sampler(**changes)
