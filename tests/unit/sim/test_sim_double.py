"""The spring network in process: its steps, its life, its limits, its gradient."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from hil.config import build, check
from hil.errors import (
    ConfigError,
    DeadmanError,
    FaultError,
    MechanicsError,
    StateError,
)
from hil.messages.wire import Target
from hil.rigs.base import AbstractTokens, RigState, Token
from sim.rigs.spring_network import SimSpringNetwork
from tests.unit.sim.rig import at_rest, compatibility, shipped, some_loads, some_stiffness


def make(*, ideal: bool = True, tokens: AbstractTokens | None = None, **over: Any) -> Any:
    """Return the double of the shipped rig; `__` in a name stands for a dot."""
    config = shipped(**over)
    assert config.board is not None
    table = config.rig | {
        "kind": "sim.rigs.spring_network:SimSpringNetwork",
        "plant": config.board["plant"],
    }
    return build(table, "rig", seed=config.seed, ideal=ideal, tokens=tokens)


def active(**over: Any) -> SimSpringNetwork:
    """Return the double, powered."""
    rig: SimSpringNetwork = make(**over)
    rig.configure()
    rig.activate()
    return rig


class Minted(AbstractTokens):
    """Hands out the tokens it was given the lives of, in microseconds."""

    def __init__(self, *lives_us: int, step: int = 1) -> None:
        self.lives = list(lives_us)
        self.step = step
        self.sequence = 0

    def take(self, device_us: int) -> Token:
        """Return the next token."""
        self.sequence += self.step
        return Token(self.sequence, device_us + self.lives.pop(0))


def test_it_measures_the_equilibrium_a_dense_solve_gives() -> None:
    rig, stiffness, loads = active(), some_stiffness(), some_loads(40)
    np.testing.assert_array_equal(rig.set_stiffness(stiffness), stiffness)
    np.testing.assert_array_equal(rig.read_stiffness(), stiffness)
    found = rig.settle(loads)
    measured = np.concatenate([found.displacement, found.elongation], axis=1)
    assert found.settled
    # 20 time constants of settling leave 2e-9 of the case before, unless it has snapped.
    np.testing.assert_allclose(measured, at_rest(stiffness, loads), rtol=0, atol=5e-12)


def test_its_gradient_is_the_derivative_of_the_loss() -> None:
    rig, stiffness, load = active(), some_stiffness(), some_loads(1)
    target = np.random.default_rng(5).uniform(-1e-3, 1e-3, 24)

    def loss(k: Any) -> Any:
        return 50 * np.sum((at_rest(k, load)[0, :24] - target) ** 2)

    rig.set_stiffness(stiffness)
    forward = rig.settle(load)
    adjoint = rig.settle(-100 * (forward.displacement - target))
    gradient = (adjoint.elongation * forward.elongation)[0]
    # Central differences: exact to the sixth digit, and blind to how the rig computes.
    h = 1e-3
    differences = [
        (loss(stiffness + h * unit) - loss(stiffness - h * unit)) / (2 * h) for unit in np.eye(28)
    ]
    cosine = gradient @ differences / np.linalg.norm(gradient) / np.linalg.norm(differences)
    assert 1 - cosine < 1e-9
    np.testing.assert_allclose(gradient, differences, rtol=0, atol=1e-5 * np.abs(gradient).max())


def test_elongation_is_compatible_with_displacement() -> None:
    found = active().settle(some_loads(3))
    np.testing.assert_allclose(
        found.elongation, found.displacement @ compatibility().T, rtol=0, atol=1e-15
    )


def test_it_takes_the_firmware_s_steps_at_the_firmware_s_times() -> None:
    rig = active()
    assert rig.plant is not None
    loads = some_loads(2)
    first = rig.settle(loads)
    case = 20_000 + 7 * 1000  # settle, then 8 samples 1 ms apart
    forces = [(e.time_us, e.values) for e in rig.plant.events if e.target is Target.FORCE]
    assert forces == [
        (0, tuple(loads[0])),
        (case, tuple(loads[1])),
        (2 * case, (0.0,) * 24),
    ]
    assert first.device_us == 2 * case
    assert rig.settle(loads[:1]).device_us == 2 * case + 20_000 + case


def test_averaging_takes_the_square_root_of_the_samples_off_the_noise() -> None:
    scatter = {}
    for samples in (2, 32):
        rig = active(ideal=False, rig__samples=samples, board__plant__imperfections__adc_bits=0)
        found = rig.settle(np.repeat(some_loads(1), 300, axis=0)).displacement
        scatter[samples] = found.std(axis=0).mean()
    assert scatter[2] == pytest.approx(0.01 * 0.0023 / np.sqrt(2), rel=0.05)
    assert scatter[32] == pytest.approx(0.01 * 0.0023 / np.sqrt(32), rel=0.05)


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    loads = some_loads(4)
    found = [
        active(ideal=False, seed=seed).settle(loads).displacement.tobytes() for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_a_run_taken_up_again_in_the_middle_measures_the_same_bits() -> None:
    loads, stiffness = some_loads(6), some_stiffness()
    whole = active(ideal=False, seed=3)
    whole.set_stiffness(stiffness)
    whole.settle(loads[:3])
    between = whole.settle(loads[:1]).device_us + 20_000
    rest = whole.settle(loads[3:])
    config = shipped(seed=3)
    assert config.board is not None
    table = config.rig | {
        "kind": "sim.rigs.spring_network:SimSpringNetwork",
        "plant": config.board["plant"],
    }
    again: SimSpringNetwork = build(table, "rig", seed=3, start_us=between)
    again.configure()
    again.activate()
    again.set_stiffness(stiffness)
    assert again.settle(loads[3:]).displacement.tobytes() == rest.displacement.tobytes()


def test_a_network_that_still_moves_is_granted_more_time_and_then_reported() -> None:
    slow = {"board__plant__settling_time": 0.02, "rig__drift_max": 1e-6}
    hasty = active(**slow, rig__settle_timeout=0.0)
    assert not hasty.settle(some_loads(1)).settled
    patient = active(**slow, rig__settle_timeout=0.4)
    found = patient.settle(some_loads(1))
    assert found.settled
    windows = (found.device_us - 20_000 - 7000) / 8000
    assert windows == int(windows) > 0
    middle = np.full(28, (68.75 + 206.25) / 2)
    expected = at_rest(middle, some_loads(1))
    np.testing.assert_allclose(found.displacement, expected[:, :24], rtol=0, atol=5e-6)


def test_actuators_saturate_at_their_ends() -> None:
    rig = active()
    wanted = some_stiffness()
    wanted[[0, 5]] = 1.0, 1e6
    applied = rig.set_stiffness(wanted)
    assert (applied[0], applied[5]) == (68.75, 206.25)
    np.testing.assert_array_equal(applied[6:], wanted[6:])
    wanted[3] = np.nan
    with pytest.raises(FaultError):
        rig.set_stiffness(wanted)
    np.testing.assert_array_equal(rig.read_stiffness(), applied)


def test_its_life() -> None:
    rig = make()
    states = [rig.state]
    with pytest.raises(StateError, match="configure"):
        rig.activate()
    info = rig.configure()
    assert (info.dof, info.bonds, info.force_limit) == (24, 28, 0.2)
    assert info.max_cases >= 16
    for call, argument in ((rig.settle, some_loads(1)), (rig.set_stiffness, some_stiffness())):
        with pytest.raises(StateError, match="activate"):
            call(argument)
    assert rig.read_stiffness().shape == (28,)
    states.append(rig.state)
    rig.activate()
    rig.settle(some_loads(1))
    states.append(rig.state)
    rig.deactivate()
    states.append(rig.state)
    rig.activate()
    rig.close()
    rig.close()
    states.append(rig.state)
    with pytest.raises(StateError):
        rig.read_stiffness()
    rig.configure()
    assert states == ["unconfigured", "inactive", "active", "inactive", "unconfigured"]


def test_stop_latches_until_clear() -> None:
    rig = active()
    rig.stop("hand on the button")
    assert rig.fault == "hand on the button"
    with pytest.raises(FaultError, match="hand on the button"):
        rig.settle(some_loads(1))
    with pytest.raises(FaultError):
        rig.activate()
    rig.clear()
    assert rig.fault == ""
    rig.activate()
    rig.settle(some_loads(1))


def test_stop_from_another_thread_ends_a_batch_with_the_forces_at_zero() -> None:
    stopper: threading.Thread | None = None

    class StopAtSecondBatch(Minted):
        def take(self, device_us: int) -> Token:
            nonlocal stopper
            if self.sequence == 1:
                stopper = threading.Thread(target=rig.stop, args=("from elsewhere",))
                stopper.start()
                assert rig._stop.wait(10)
            return super().take(device_us)

    rig = active(tokens=StopAtSecondBatch(*[900_000] * 99))
    assert rig.plant is not None
    with pytest.raises(FaultError, match="from elsewhere"):
        rig.settle(some_loads(200))
    assert stopper is not None
    stopper.join()
    assert rig.plant.unloaded
    assert rig.state is RigState.FAULT


def test_a_token_that_runs_out_ends_in_fault_with_the_forces_at_zero() -> None:
    rig = active(tokens=Minted(900_000, 40_000))
    assert rig.plant is not None
    rig.settle(some_loads(1))
    started = rig.plant.events[-1].time_us + 20_000
    with pytest.raises(DeadmanError, match="expired"):
        rig.settle(some_loads(3))
    last = rig.plant.events[-1]
    assert (last.largest, last.time_us) == (0.0, started + 40_000)
    assert rig.state is RigState.FAULT


def test_a_token_never_lives_longer_than_the_watchdog() -> None:
    rig = active(tokens=Minted(10**9), rig__watchdog=0.1)
    for count, ok in ((1, True), (2, False)):
        rig._tokens = Minted(10**9)
        rig._token = 0
        rig._max_cases = 99  # what a host that miscounts would send
        if ok:
            rig.settle(some_loads(count))
        else:
            with pytest.raises(DeadmanError):
                rig.settle(some_loads(4))


def test_a_stale_or_late_token_is_refused_before_anything_moves() -> None:
    rig = active(tokens=Minted(900_000, 900_000, step=0))
    assert rig.plant is not None
    with pytest.raises(DeadmanError, match="must grow"):
        rig.settle(some_loads(1))
    rig._tokens = Minted(0)
    with pytest.raises(DeadmanError, match="ran out"):
        rig.settle(some_loads(1))
    assert not rig.plant.events
    assert rig.state is RigState.ACTIVE


def test_each_batch_fits_under_its_token() -> None:
    tokens = Minted(*[1_000_000] * 10)
    rig = active(tokens=tokens)
    found = rig.settle(some_loads(50))
    assert found.displacement.shape == (50, 24)
    assert tokens.sequence > 1


def test_a_watchdog_too_short_for_one_case_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rig\.watchdog"):
        make(rig__watchdog=0.02)


def test_every_key_of_the_hardware_s_rig_table_is_known() -> None:
    from hil.rigs.spring_network import SpringNetworkRig

    known = set(SpringNetworkRig.Settings.__struct_fields__)
    assert set(SimSpringNetwork.Settings.__struct_fields__) == known | {"plant"}
    with pytest.raises(ConfigError, match="rig"):
        check({"nonsense": 1}, SimSpringNetwork.Settings, "rig")


def test_a_cut_bond_carries_nothing_whatever_it_is_set_to() -> None:
    rig, k, loads = active(rig__pruned=[13]), some_stiffness(), some_loads(3)
    applied = rig.set_stiffness(k)
    cut = k.copy()
    cut[12] = 0.0
    np.testing.assert_array_equal(applied, cut)
    np.testing.assert_array_equal(rig.read_stiffness(), cut)
    compat = compatibility()
    expected = np.linalg.solve(compat.T @ np.diag(cut) @ compat, loads.T).T
    np.testing.assert_allclose(rig.settle(loads).displacement, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("bonds", "said"), [([6], "zero mode"), ([29], "no bond 29")])
def test_a_cut_that_cannot_be_is_refused_before_anything_moves(bonds: list[int], said: str) -> None:
    with pytest.raises((ConfigError, MechanicsError), match=said):
        make(rig__pruned=bonds).configure()
