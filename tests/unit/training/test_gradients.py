"""Ways to measure a gradient, on equations and on the double, against the motion of equilibria."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.config import build, load
from hil.errors import ConfigError
from hil.mechanics.finite_springs import make_statics
from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import Equilibrium
from hil.services.bench_gradients import METHODS, distance, exact_slopes
from hil.tasks.gates import Gates, GatesSettings
from hil.training.gradients.base import ModelBench
from hil.types import Array

CONFIGS = Path(__file__).parents[3] / "configs"
LATTICE = triangular_lattice(4)
TASK = Gates(GatesSettings(force=0.3, output="14x"), geometry=LATTICE)
K = np.random.default_rng(5).uniform(100.0, 175.0, 28)
EXACT = make_statics(LATTICE, "exact")
TRUTH = exact_slopes(EXACT, K, TASK, TASK.train)


def measured(name: str, force: float | None, bench: Any = None, **more: Any) -> Any:
    method = build(METHODS[name] | more, "method", adjoint_force=force)
    return method.measure(bench or ModelBench(EXACT, K), TASK, TASK.train)


def error(name: str, force: float | None, **more: Any) -> float:
    return distance(measured(name, force, **more).gradient, TRUTH)[1]


def test_the_truth_is_a_difference_of_losses() -> None:
    def loss(k: Array) -> float:
        return float(
            TASK.loss(EXACT.settle(k, TASK.loads(TASK.train)).displacement, TASK.train).mean()
        )

    step = 1e-2
    quotient = [(loss(K + d) - loss(K - d)) / (2 * step) for d in step * np.eye(28)]
    assert distance(np.array(quotient), TRUTH)[1] < 1e-6


def test_in_the_linear_regime_the_adjoint_is_exact() -> None:
    linear = make_statics(LATTICE, "linear")
    truth = exact_slopes(linear, K, TASK, TASK.train)
    for name in ("adjoint, separate", "adjoint on top, ±"):
        found = measured(name, 0.01, ModelBench(linear, K)).gradient
        assert distance(found, truth)[1] < 1e-12


def test_on_top_is_second_order_and_separate_states_stop() -> None:
    both = [error("adjoint on top, ±", force) for force in (1e-2, 1e-3)]
    assert both[1] < 1e-5
    assert np.log10(both[0] / both[1]) == pytest.approx(2.0, abs=0.1)
    one = [error("adjoint on top, +", force) for force in (1e-2, 1e-3)]
    assert np.log10(one[0] / one[1]) == pytest.approx(1.0, abs=0.1)
    separate = [error("adjoint, separate", force) for force in (1e-2, 1e-5)]
    assert separate[1] > 0.1
    assert separate[1] == pytest.approx(separate[0], rel=0.05)


def test_propagation_and_differences_go_to_the_same() -> None:
    assert error("propagation, one-sided", 1e-4) < 1e-2
    assert error("propagation, symmetric", 1e-3) < 1e-4
    assert error("differences, forward", None, step=0.01) < 1e-2
    bench = ModelBench(EXACT, K)
    found = measured("differences, central", None, bench, step=0.1).gradient
    assert distance(found, TRUTH)[1] < 1e-3
    assert np.array_equal(bench.read_stiffness(), K)


@dataclass
class Tipping:
    """A network that leaves its branch under one sample's adjoint load, and comes back or not."""

    at: int  # load case of the second batch
    stays: bool = False
    calls: int = 0
    inner: Any = field(default_factory=lambda: ModelBench(EXACT, K))

    def settle(self, loads: Array) -> Equilibrium:
        found = self.inner.settle(loads)
        self.calls += 1
        if self.calls == 2:
            tipped = slice(self.at, None if self.stays else self.at + 1)
            found.elongation[tipped] += 1e-3
        return Equilibrium(found.displacement, found.elongation)


@pytest.mark.parametrize("at", [0, 3])
def test_a_jump_is_seen_and_its_sample_left_out(at: int) -> None:
    found = measured("adjoint on top, ±", 0.005, Tipping(at))
    assert found.jumped.tolist() == [at // 2 == sample for sample in range(4)]
    kept = ~found.jumped
    others = exact_slopes(EXACT, K, TASK, TASK.train[kept])
    assert distance(found.gradient, others)[1] < 1e-2
    assert not found.products[~kept].any()


def test_a_network_that_does_not_come_back_is_seen() -> None:
    table = {"come_back": True}
    whole = measured("adjoint on top, ±", 0.005, **table)
    assert not whole.jumped.any()
    assert len(whole.measured[1].elongation) == 12
    # + and − of the last sample jump alike: only the loaded state measured again tells.
    found = measured("adjoint on top, ±", 0.005, Tipping(11, stays=True), **table)
    assert found.jumped.tolist() == [False, False, False, True]


def test_adjoint_loads_are_capped() -> None:
    assert build(METHODS["adjoint on top, ±"], "m", adjoint_force=None).adjoint_force == 0.005
    kind = {"kind": METHODS["adjoint on top, ±"]["kind"]}
    with pytest.raises(ConfigError, match=r"0.03 N is above 0.02 N"):
        build(kind, "m", adjoint_force=0.03)


def test_through_the_simulated_rig() -> None:
    config = load(CONFIGS / "xor.toml", sim=True)
    assert config.board is not None
    double = "sim.rigs.spring_network:SimSpringNetwork"
    table = config.rig | {"kind": double, "plant": config.board["plant"]}
    errors = {}
    for ideal in (True, False):
        with build(table, "rig", seed=1, ideal=ideal) as rig:
            rig.configure()
            rig.activate()
            rig.set_stiffness(K)
            found = measured("adjoint on top, ±", 0.02 if not ideal else 0.003, rig)
            errors[ideal] = distance(found.gradient, TRUTH)[0]
            assert not found.jumped.any()
    assert errors[True] < 1e-7  # as the equations, to what is left of the relaxation
    assert errors[False] < 0.1
