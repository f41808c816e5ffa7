"""The contract of a static rig, held by every implementation there is.

In process, on a board behind a serial line, and owned by another process: the same tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hil.config import build, load
from hil.errors import FaultError, LimitError, StateError
from hil.mechanics.geometry import triangular_lattice
from hil.mechanics.spring_network import SpringNetwork
from hil.rigs.base import AbstractStaticRig, RigState
from hil.safety.deadman import Minting
from hil.safety.limits import Limited
from tests.system.rigs import ROOT, client, mirror, spring_config, until

NETWORK = SpringNetwork.from_geometry(triangular_lattice(4))
Maker = Callable[[Path], contextlib.AbstractContextManager[AbstractStaticRig]]


@contextlib.contextmanager
def in_process(tmp_path: Path) -> Iterator[AbstractStaticRig]:
    config = spring_config(ideal=True)
    assert config.board is not None
    kind = "sim.rigs.spring_network:SimSpringNetwork"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    with Limited(build(table, "rig", tokens=Minting(1_000_000), ideal=True)) as rig:
        yield rig


@contextlib.contextmanager
def as_equations(tmp_path: Path) -> Iterator[AbstractStaticRig]:
    config = spring_config(ideal=True)
    assert config.board is not None
    kind = "sim.rigs.exact_spring_network:ExactSpringNetwork"
    table = config.rig | {"kind": kind, "plant": config.board["plant"]}
    with Limited(build(table, "rig")) as rig:
        yield rig


@contextlib.contextmanager
def on_a_board(tmp_path: Path) -> Iterator[AbstractStaticRig]:
    config = spring_config(ideal=True)
    assert config.board is not None
    with contextlib.ExitStack() as stack:
        board = build(config.board, "board", rig=config.rig, clock="virtual", ideal=True)
        port = stack.enter_context(board)
        tokens = Minting(1_000_000)
        rig = build(config.rig, "rig", tokens=tokens, clock="virtual", port=port)
        yield stack.enter_context(Limited(rig))


@contextlib.contextmanager
def remote(tmp_path: Path) -> Iterator[AbstractStaticRig]:
    config = spring_config(ideal=True)
    with mirror(config, tmp_path), client(config) as rig:
        yield rig


@contextlib.contextmanager
def by_hand(tmp_path: Path) -> Iterator[AbstractStaticRig]:
    """A person hangs weights, a camera looks on: both simulated."""
    few = {"ideal": True, "rig.samples": 2, "rig.force_max": 0.05}
    config = load(ROOT / "configs/manual.toml", sim=True, overrides=few)
    assert config.board is not None
    bench = build(config.board, "board", rig=config.rig, ideal=True)
    tokens = Minting(1_000_000)
    with Limited(build(config.rig, "rig", tokens=tokens, clock="virtual", bench=bench)) as rig:
        yield rig


RIGS: list[Maker] = [as_equations, in_process, on_a_board, remote, by_hand]
# What a twentieth of a pixel is on the bench, m; half of what two printed widths differ by, N/m.
SEEN, PRINTED = 1e-5, 1.8


@pytest.fixture(params=RIGS, ids=lambda make: make.__name__)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AbstractStaticRig]:
    with request.param(tmp_path) as made:
        yield made


@pytest.fixture
def hands(request: pytest.FixtureRequest) -> bool:
    """Whether hands and eyes stand between what is asked and what is measured."""
    return "by_hand" in request.node.name


def loads(count: int, limit: float = 0.2) -> np.ndarray:
    return np.random.default_rng(4).uniform(-limit / 4, limit / 4, (count, 24))


def stiffness() -> np.ndarray:
    return np.random.default_rng(5).uniform(80.0, 200.0, 28)


def test_it_measures_the_equilibrium_of_what_was_applied(
    rig: AbstractStaticRig, hands: bool
) -> None:
    info = rig.configure()
    assert (info.dof, info.bonds) == (24, 28)
    rig.activate()
    applied = rig.set_stiffness(stiffness())
    rounding = PRINTED if hands else 0.0
    np.testing.assert_allclose(applied, stiffness(), rtol=1e-6, atol=rounding)
    np.testing.assert_array_equal(rig.read_stiffness(), applied)
    cases = loads(info.max_cases + 3, info.force_limit)
    measured = rig.settle(cases)
    assert (measured.applied is not None) == hands
    pulled = cases if measured.applied is None else measured.applied
    np.testing.assert_allclose(pulled, cases, atol=0.06e-3 * 9.81 if hands else 0.0)
    expected = NETWORK.settle(applied, pulled)
    near = SEEN if hands else 1e-10
    for found, wanted in (
        (measured.displacement, expected.displacement), (measured.elongation, expected.elongation)
    ):  # fmt: skip
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=near)
    assert measured.settled
    later = rig.settle(cases)
    np.testing.assert_array_equal(later.displacement, measured.displacement)
    assert later.device_us > measured.device_us


def test_its_life_goes_in_order(rig: AbstractStaticRig) -> None:
    with pytest.raises(StateError, match=r"is unconfigured; call configure\(\) first"):
        rig.activate()
    rig.configure()
    assert rig.state is RigState.INACTIVE
    assert rig.read_stiffness().shape == (28,)
    for call in (lambda: rig.settle(loads(1)), lambda: rig.set_stiffness(stiffness())):
        with pytest.raises(StateError, match=r"is inactive; call activate\(\) first"):
            call()
    rig.activate()
    with pytest.raises(StateError, match=r"is active; call deactivate\(\) first"):
        rig.activate()
    rig.deactivate()
    states = [rig.state]
    rig.close()
    rig.close()
    states.append(rig.state)
    assert states == [RigState.INACTIVE, RigState.UNCONFIGURED]
    rig.configure()
    rig.activate()


def test_limits_hold(rig: AbstractStaticRig) -> None:
    limit = rig.configure().force_limit
    rig.activate()
    for value in (1.0005 * limit, -1.0, np.nan, -np.inf):
        cases = loads(3, limit)
        cases[1, 7] = value
        with pytest.raises(LimitError, match="load case 1, degree of freedom 7"):
            rig.settle(cases)
    for shape in ((24,), (2, 23), (0, 24)):
        with pytest.raises(LimitError):
            rig.settle(np.zeros(shape))
    rig.settle(np.full((1, 24), limit))
    wanted = stiffness()
    wanted[[0, 5]] = -1e9, 1e9
    applied = rig.set_stiffness(wanted)
    assert (applied[0], applied[5]) == pytest.approx((68.75, 206.25))
    for value in (np.nan, np.inf):
        with pytest.raises(LimitError, match="bond 3"):
            rig.set_stiffness(np.where(np.arange(28) == 3, value, stiffness()))
    with pytest.raises(LimitError):
        rig.set_stiffness(np.ones(27))
    np.testing.assert_array_equal(rig.read_stiffness(), applied)
    assert rig.state is RigState.ACTIVE


def test_a_stop_latches_until_it_is_cleared(rig: AbstractStaticRig) -> None:
    rig.configure()
    rig.activate()
    applied = rig.set_stiffness(stiffness())
    rig.stop("hand on the button")
    until(lambda: rig.poll() or rig.state is RigState.FAULT)
    assert rig.fault == "hand on the button"
    for call in (lambda: rig.settle(loads(1)), rig.activate):
        with pytest.raises(FaultError, match=r"hand on the button.*clear\(\)"):
            call()
    rig.clear()
    assert (rig.state, rig.fault) == (RigState.INACTIVE, "")
    np.testing.assert_array_equal(rig.read_stiffness(), applied)
    rig.activate()
    rig.settle(loads(1))
