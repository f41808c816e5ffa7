"""Gyroscopes against energy, eigenvalues, closed forms, another integrator, another formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.fft import rfft, rfftfreq

from hil.errors import MechanicsError
from hil.mechanics.gyro_geometry import GyroGeometry, lattice
from hil.mechanics.gyro_network import GyroNetwork, GyroParameters
from hil.types import Array

ALONE = GyroNetwork(GyroGeometry(np.zeros((1, 2)), np.zeros((0, 2), dtype=np.int64)))
SMALL = GyroNetwork(lattice(4, 4))
NO_NUDGES = np.zeros((1, 100, 0, 2))
NOBODY = np.zeros(0, dtype=np.int64)


def uneven(network: GyroNetwork, seed: int = 0, drag: float = 0.0) -> GyroParameters:
    random = np.random.default_rng(seed)
    n, s = network.n, network.spring_count
    return GyroParameters(
        mass=random.uniform(0.5, 2.0, n),
        length=random.uniform(0.8, 1.5, n),
        gamma=random.normal(0.0, 2.0, n),
        stiffness=random.uniform(2.0, 10.0, s),
        drag=drag,
    )


def drawn(network: GyroNetwork, batch: int, size: float, seed: int = 1) -> Array:
    return size * np.random.default_rng(seed).standard_normal((batch, network.n, 4))


def by_hand(network: GyroNetwork, p: GyroParameters, state: Array, force: Array) -> Array:
    """Return accelerations written as the source has them, one spring at a time."""
    g = network.geometry
    found = np.zeros((network.n, 2))
    for i in range(network.n):
        x, y, vx, vy = state[i]
        height = np.sqrt(max(p.length[i] ** 2 - x * x - y * y, (0.2 * p.length[i]) ** 2))
        speed = np.hypot(vx, vy)
        spin, drag = p.gamma[i] / p.mass[i], p.drag / p.mass[i]
        found[i, 0] = -9.8 * x / height - spin * vy - drag * vx * speed + force[i, 0] / p.mass[i]
        found[i, 1] = -9.8 * y / height + spin * vx - drag * vy * speed + force[i, 1] / p.mass[i]
    for s, (i, j) in enumerate(g.springs):
        span = g.nodes[j] + state[j, :2] + g.offsets[s] - g.nodes[i] - state[i, :2]
        pull = p.stiffness[s] * (np.hypot(*span) - g.lengths[s]) * span / np.hypot(*span)
        found[i] += pull / p.mass[i]
        found[j] -= pull / p.mass[j]
    return found


def test_accelerations_are_those_of_the_source() -> None:
    p, states = uneven(SMALL, drag=0.3), drawn(SMALL, 3, 0.4)
    force = drawn(SMALL, 3, 1.0, seed=4)[..., :2]
    found = SMALL.acceleration(p, states[..., :2], states[..., 2:], force)
    for sample in range(3):
        expected = by_hand(SMALL, p, states[sample], force[sample])
        np.testing.assert_allclose(found[sample], expected, rtol=1e-12, atol=1e-12)


def test_energy_stays_without_drag_and_falls_with_it() -> None:
    start = drawn(SMALL, 1, 0.2)
    p = uneven(SMALL)

    def energies(parameters: GyroParameters, substeps: int) -> Array:
        states = SMALL.rollout(
            parameters, NO_NUDGES, 0.05, inputs=NOBODY, initial=start, substeps=substeps
        )
        return np.asarray(SMALL.energy(parameters, states)[0])

    coarse, fine = energies(p, 4), energies(p, 8)
    error = np.abs(coarse / coarse[0] - 1).max(), np.abs(fine / fine[0] - 1).max()
    assert error[1] < 1e-6
    assert error[0] / error[1] > 16, "energy of RK4 drifts with the fifth power of the step"
    assert (np.diff(energies(replace(p, drag=0.5), 4)) < 0).all()


def test_energy_is_kept_beyond_the_clamp() -> None:
    """A gyroscope that left its rod is pulled as by a spring; the energy knows."""
    p = GyroParameters(gamma=1.0, drag=0.0)
    start = np.array([[[1.3, 0.0, 0.0, 2.0]]])
    states = ALONE.rollout(p, np.zeros((1, 3000, 0, 2)), 0.001, inputs=NOBODY, initial=start)
    reach = ALONE.reach(p, states)
    assert reach.max() > 1.0, "the path has to cross the clamp"
    assert reach.min() < 0.9
    energy = ALONE.energy(p, states)
    np.testing.assert_allclose(energy, energy[0, 0], rtol=2e-3)  # the pull has a kink there


def test_the_power_of_nudges_is_the_change_of_energy() -> None:
    p, random = uneven(SMALL), np.random.default_rng(2)
    q, v = random.normal(0, 0.2, (2, SMALL.n, 2))
    force, h = random.normal(0, 3.0, (SMALL.n, 2)), 1e-20
    acceleration = SMALL.acceleration(p, q, v, force)
    state = np.concatenate((q + 1j * h * v, v + 1j * h * acceleration), axis=-1)
    assert SMALL.energy(p, state).imag / h == pytest.approx((force * v).sum(), rel=1e-10)


def test_one_gyroscope_has_two_frequencies() -> None:
    """ω = √(g/L + (γ/2m)²) ± γ/2m: the pendulum, split by the spin."""
    p = GyroParameters(mass=2.0, length=0.7, gamma=3.0)
    half, middle = 3.0 / 4.0, np.sqrt(9.8 / 0.7 + (3.0 / 4.0) ** 2)
    np.testing.assert_allclose(ALONE.frequencies(p), [middle - half, middle + half], rtol=1e-12)


def test_a_wrapped_lattice_of_equals_has_the_frequencies_of_waves() -> None:
    """Each wave is a 2 × 2 problem of its own: exact, without the large matrix."""
    rows, columns, m, k = 4, 6, 1.3, 5.0
    network = GyroNetwork(lattice(rows, columns))
    found = network.frequencies(GyroParameters(mass=m, length=0.9, stiffness=k))
    steps = np.array([[1, 0], [0.5, np.sqrt(3) / 2], [-0.5, np.sqrt(3) / 2]])
    expected = []
    for a in range(columns):
        for b in range(rows // 2):
            for shift in (0, 1):  # brick rows: the torus closes after two rows
                wave = np.array(
                    [
                        2 * np.pi * a / columns,
                        2 * np.pi * (b + shift * rows / 2) / rows * 2 / 3**0.5,
                    ]
                )
                matrix = 9.8 / 0.9 * np.eye(2)
                for r in steps:
                    matrix += 2 * k / m * (1 - np.cos(wave @ r)) * np.outer(r, r)
                expected += np.sqrt(np.linalg.eigvalsh(matrix)).tolist()
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-9)


def test_small_motions_ring_at_the_frequencies_of_the_linear_network() -> None:
    network = GyroNetwork(lattice(2, 2, wrap="none"))
    p, dt, steps = uneven(network), 0.04, 2048
    start = drawn(network, 1, 1e-5)
    states = network.rollout(p, np.zeros((1, steps, 0, 2)), dt, inputs=NOBODY, initial=start)
    window = np.hanning(steps)[:, None]
    power = (np.abs(rfft(window * states[0, 1:, :, 0], axis=0)) ** 2).sum(1)
    omega = 2 * np.pi * rfftfreq(steps, dt)
    peaks = [i for i in range(1, len(power) - 1) if power[i] > power[[i - 1, i + 1]].max()]
    strongest = sorted(peaks, key=lambda i: -power[i])[:6]
    expected = network.frequencies(p)
    for peak in strongest:
        assert np.abs(expected - omega[peak]).min() < omega[1]


def test_the_linear_system_is_the_slope_of_the_motion() -> None:
    p, h = uneven(SMALL), 1e-30
    matrix = SMALL.linearise(p)
    size = 2 * SMALL.n
    for column in np.random.default_rng(3).integers(0, 2 * size, 12):
        flat = np.zeros(2 * size, dtype=complex)
        flat[column] = 1j * h
        q, v = flat[:size].reshape(-1, 2), flat[size:].reshape(-1, 2)
        slope = SMALL.acceleration(replace(p, drag=0.0), q, v).imag.ravel() / h
        np.testing.assert_allclose(matrix[size:, column], slope, rtol=1e-9, atol=1e-9)


def test_runge_kutta_goes_where_the_adaptive_method_goes() -> None:
    p, start = uneven(SMALL, drag=0.1), drawn(SMALL, 2, 0.2)
    nudges = np.random.default_rng(5).normal(0, 4.0, (2, 12, 2, 2))
    inputs = np.array([0, 7])
    exact = SMALL.adaptive(p, nudges, 0.05, inputs=inputs, initial=start, tolerance=1e-11)
    errors = [
        np.abs(
            SMALL.rollout(p, nudges, 0.05, inputs=inputs, initial=start, substeps=n) - exact
        ).max()
        for n in (1, 2, 4)
    ]
    assert errors[2] < 2e-5
    assert 10 < errors[1] / errors[2] < 25, "fourth order"


def test_every_sample_may_have_its_own_parameters() -> None:
    one, two = uneven(SMALL, 0), uneven(SMALL, 9)
    names = ("mass", "length", "gamma", "stiffness")
    pairs: dict[str, Any] = {n: np.stack([getattr(one, n), getattr(two, n)]) for n in names}
    both = replace(one, **pairs)
    nudges = np.random.default_rng(6).normal(0, 4.0, (2, 10, SMALL.n, 2))
    found = SMALL.rollout(both, nudges, 0.05)
    np.testing.assert_array_equal(found[0], SMALL.rollout(one, nudges[:1], 0.05)[0])
    np.testing.assert_array_equal(found[1], SMALL.rollout(two, nudges[1:], 0.05)[0])


def test_the_bound_on_frequencies_holds_and_long_steps_are_refused() -> None:
    line = np.stack((np.arange(9.0), np.zeros(9)), axis=1)
    chain = GyroNetwork(GyroGeometry(line, np.stack((np.arange(8), np.arange(1, 9)), axis=1)))
    for network in (SMALL, chain, ALONE):
        for seed in range(5):
            p = uneven(network, seed)
            assert network.fastest(p) * (1 + 1e-12) >= network.frequencies(p).max()
    p = replace(uneven(SMALL), gamma=np.linspace(-60, 60, SMALL.n))
    with pytest.raises(MechanicsError, match=r"too long for motions of .* rad/s; take"):
        SMALL.rollout(p, np.zeros((1, 1, SMALL.n, 2)), 0.05)
    SMALL.check_step(p, 0.02)


def test_the_least_masses_are_at_the_limit_and_may_be_taken() -> None:
    p, dt = uneven(SMALL), 0.05
    p = replace(p, mass=SMALL.lightest(p, dt))
    assert SMALL.fastest(p) == pytest.approx(2.5 / dt, rel=1e-12)
    SMALL.check_step(p, dt)
    both = replace(p, stiffness=np.stack([p.stiffness, 2 * p.stiffness]))
    np.testing.assert_allclose(SMALL.lightest(both, dt)[0], SMALL.lightest(p, dt))
    with pytest.raises(MechanicsError, match="swings too fast for dt = 1"):
        SMALL.lightest(p, 1.0)


def test_what_passes_the_check_does_not_grow() -> None:
    """The check against the integrator itself, on small motions."""
    p = GyroParameters(stiffness=400.0, drag=0.0, gamma=0.0)
    limit = 2.5 / SMALL.frequencies(p).max()
    start = drawn(SMALL, 1, 1e-6)
    states = SMALL.rollout(p, NO_NUDGES, 0.99 * limit, inputs=NOBODY, initial=start)
    energy = SMALL.energy(p, states)[0]
    assert energy[-1] <= energy[0] * (1 + 1e-9)
    with pytest.raises(MechanicsError, match="too long"):
        SMALL.check_step(p, 1.01 * limit)


def test_unphysical_parameters_are_refused_unless_meant() -> None:
    p = replace(uneven(SMALL), mass=np.linspace(-0.5, 2.1, SMALL.n))
    with pytest.raises(MechanicsError, match=r"mass: -0\.5 is not physical"):
        p.check_physical()
    q = np.full((SMALL.n, 2), 0.1)
    pushed = SMALL.acceleration(replace(p, gravity=0.0), 0 * q, 0 * q, q)
    assert (np.sign(pushed[:, 0]) == np.sign(p.mass)).all(), "a negative mass comes towards you"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mass": np.ones(3)}, r"mass: expected \(…, 16\)"),
        ({"length": 0.0}, "length: 0"),
        ({"stiffness": np.full(48, np.nan)}, "stiffness: not finite"),
    ],
)
def test_parameters_that_do_not_fit_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(MechanicsError, match=message):
        SMALL.rollout(replace(uneven(SMALL), **bad), np.zeros((1, 1, 16, 2)), 0.01)


def test_unstable_rest_has_no_frequencies() -> None:
    with pytest.raises(MechanicsError, match="rest is unstable"):
        SMALL.frequencies(GyroParameters(stiffness=-50.0))
