"""The compiled network against the plain one: the same motion, and derivatives without error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hil.errors import MechanicsError
from hil.mechanics.gyro_adjoint import GyroAdjoint
from hil.mechanics.gyro_geometry import GyroGeometry, lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import AnyArray, Array
from tests.unit.mechanics.gyro_torch import NAMES, torch_rollout

H, DT, STEPS, BATCH = 1e-30, 0.05, 9, 5
INPUTS = np.array([0, 5, 9])


def star() -> GyroGeometry:
    """Return a hub with twelve spokes, one of them pulled tight, and one left alone."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    nodes = np.concatenate(([[0.0, 0.0]], np.stack((np.cos(angle), np.sin(angle)), 1), [[3, 3]]))
    springs = np.array([[0, k] if k % 2 else [k, 0] for k in range(1, 13)])
    lengths = np.ones(12)
    lengths[3] = 0.6
    return GyroGeometry(nodes, springs, lengths=lengths)


@pytest.fixture(params=["lattice", "star"])
def network(request: pytest.FixtureRequest) -> GyroNetwork:
    return GyroNetwork(lattice(4, 4) if request.param == "lattice" else star())


def case(network: GyroNetwork) -> tuple[GyroParameters, Array, Array, Array]:
    """Return parameters, nudges, first states and weights; some go past the clamp."""
    random, n = np.random.default_rng(3), network.n
    p = GyroParameters(
        mass=random.uniform(0.5, 2.0, n),
        length=random.uniform(0.8, 1.5, n),
        gamma=random.normal(0.0, 2.0, n),
        stiffness=random.uniform(2.0, 10.0, network.spring_count),
        drag=0.2,
    )
    nudges = random.normal(0.0, 2.0, (BATCH, STEPS, len(INPUTS), 2))
    start = 0.3 * random.standard_normal((BATCH, n, 4))
    start[0, 0, :2] = [1.4, 0.2]
    start[1] = 0.0
    return p, nudges, start, random.standard_normal((BATCH, n, 4))


def swapped(p: GyroParameters, name: str, value: Any) -> GyroParameters:
    changed: dict[str, Any] = {name: value}
    return replace(p, **changed)


def test_it_moves_as_the_plain_network_does(network: GyroNetwork) -> None:
    p, nudges, start, _ = case(network)
    expected = network.rollout(p, nudges, DT, inputs=INPUTS, initial=start)
    assert network.reach(p, expected).max() > 0.98
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
        tape = GyroAdjoint(network, DT, inputs=INPUTS, dtype=dtype).forward(p, nudges, start)
        np.testing.assert_allclose(tape.trajectory(), expected, atol=tolerance)
        np.testing.assert_array_equal(tape.at(-1), tape.trajectory()[:, -1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("drag", [0.0, 0.2])
def test_the_gradient_is_that_of_a_complex_step(
    network: GyroNetwork, dtype: Any, tolerance: float, drag: float
) -> None:
    p, nudges, start, weights = case(network)
    p = replace(p, drag=drag)
    runner = GyroAdjoint(network, DT, inputs=INPUTS, dtype=dtype)
    found = runner.backward(runner.forward(p, nudges, start), weights)

    def slopes(**moved: AnyArray) -> Array:
        """Return d(weights · last state) along the imaginary part of a batch of arguments."""
        count = len(next(iter(moved.values())))
        some: dict[str, Any] = {k: a for k, a in moved.items() if k in NAMES}
        found = np.zeros(count)
        for sample in range(BATCH):
            mine = {"nudges": nudges[sample], "initial": start[sample]}
            full: dict[str, Any] = {
                k: np.broadcast_to(a, (count, *a.shape)) for k, a in mine.items()
            }
            for name in full.keys() & moved.keys():
                full[name] = moved[name][:, sample]
            states = network.rollout(replace(p, **some), **full, dt=DT, inputs=INPUTS)
            found += (states[:, -1] * weights[sample]).sum((1, 2)).imag / H
        return found

    for name in NAMES:
        value = np.asarray(getattr(p, name))
        expected = slopes(**{name: value + 1j * H * np.eye(len(value))})
        error = np.abs(getattr(found, name) - expected).max() / np.abs(expected).max()
        assert error < tolerance, name
    random = np.random.default_rng(8)
    for name, at in (("nudges", nudges), ("initial", start)):
        along = random.standard_normal((6, *at.shape))
        expected = slopes(**{name: at + 1j * H * along})
        by = getattr(found, name)
        size = np.sqrt((by**2).sum() * at.size)
        directional = (along * by).reshape(6, -1).sum(1)
        np.testing.assert_allclose(directional, expected, atol=tolerance * size)


def test_the_barrier_is_in_the_gradient() -> None:
    network = GyroNetwork(lattice(4, 4))
    p, nudges, start, _ = case(network)
    runner = GyroAdjoint(network, DT, inputs=INPUTS, dtype=np.float64, barrier=7.0, free_reach=0.3)
    found = runner.backward(runner.forward(p, nudges, start), np.zeros((BATCH, network.n, 4)))
    for name in NAMES:
        value = np.asarray(getattr(p, name))
        for k in (0, 3, 7):
            cost = []
            for change in (1e-6, -1e-6):
                moved = value.copy()
                moved[k] += change
                cost.append(
                    runner.barrier_cost(runner.forward(swapped(p, name, moved), nudges, start))
                )
            expected = (cost[0] - cost[1]) / 2e-6
            assert getattr(found, name)[k] == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_threads_and_neighbours_in_the_batch_change_nothing() -> None:
    network = GyroNetwork(lattice(4, 4))
    p, _, _, _ = case(network)
    random = np.random.default_rng(5)
    nudges = random.normal(0.0, 2.0, (40, STEPS, len(INPUTS), 2))
    weights = random.standard_normal((40, network.n, 4))
    one, two = (GyroAdjoint(network, DT, inputs=INPUTS, threads=k) for k in (1, 2))
    try:
        tapes = [runner.forward(p, nudges) for runner in (one, two)]
        grads = [r.backward(t, weights) for r, t in zip((one, two), tapes, strict=True)]
    finally:
        two.close()
    for a, b in zip(*grads, strict=True):
        np.testing.assert_array_equal(a, b)
    alone = one.forward(p, nudges[17:18])
    np.testing.assert_array_equal(alone.at(-1)[0], tapes[0].at(-1)[17])


def test_a_nan_comes_out_as_a_nan() -> None:
    network = GyroNetwork(lattice(4, 4))
    p, nudges, start, weights = case(network)
    nudges[2, 0, 0, 0] = np.nan
    runner = GyroAdjoint(network, DT, inputs=INPUTS)
    tape = runner.forward(p, nudges, start)
    assert np.isnan(tape.at(-1)[2]).any()
    assert np.isfinite(np.delete(tape.at(-1), 2, axis=0)).all()
    assert np.isnan(runner.backward(tape, weights).gamma).any()


def test_it_agrees_with_autograd() -> None:
    torch = pytest.importorskip("torch")
    network = GyroNetwork(lattice(4, 4))
    p, nudges, start, weights = case(network)
    leaves = {n: torch.tensor(np.asarray(getattr(p, n)), requires_grad=True) for n in NAMES}
    forces = torch.tensor(nudges, requires_grad=True)
    final = torch_rollout(network, leaves, p, forces, DT, INPUTS, torch.tensor(start))
    (final * torch.tensor(weights)).sum().backward()
    runner = GyroAdjoint(network, DT, inputs=INPUTS)
    found = runner.backward(runner.forward(p, nudges, start), weights)
    for name, leaf in (*leaves.items(), ("nudges", forces)):
        expected = leaf.grad.numpy()
        assert np.abs(getattr(found, name) - expected).max() < 1e-5 * np.abs(expected).max(), name


def test_shapes_that_do_not_fit_are_refused() -> None:
    runner = GyroAdjoint(GyroNetwork(lattice(4, 4)), DT, inputs=INPUTS)
    with pytest.raises(MechanicsError, match=r"nudges: expected \(batch, steps, 3, 2\)"):
        runner.forward(GyroParameters(), np.zeros((1, 4, 2, 2)))
