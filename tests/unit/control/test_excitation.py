"""Excitation signals: their size, their band, and that time and seed decide them."""

from __future__ import annotations

import numpy as np
import pytest

from hil.control.excitation import (
    AbstractExcitation,
    Chirp,
    ChirpSettings,
    Excited,
    Multisine,
    MultisineSettings,
    Prbs,
    PrbsSettings,
)
from hil.control.lqr import Lqr, LqrSettings
from hil.errors import ConfigError
from hil.models.analytic import CartPoleModel

TIMES = np.arange(0.0, 100.0, 0.005)
SIGNALS: list[AbstractExcitation] = [
    Multisine(MultisineSettings(amplitude=2.0, low=0.1, high=8.0), seed=1),
    Prbs(PrbsSettings(amplitude=2.0, hold=0.05), seed=1),
    Chirp(ChirpSettings(amplitude=2.0, low=0.1, high=8.0, sweep=20.0)),
]


def sampled(signal: AbstractExcitation) -> np.ndarray:
    return np.array([signal.at(t) for t in TIMES])


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: type(s).__name__)
def test_the_size_is_the_one_asked_for(signal: AbstractExcitation) -> None:
    values = sampled(signal)
    assert np.sqrt((values**2).mean()) == pytest.approx(2.0, rel=0.03)
    assert abs(values.mean()) < 0.2
    np.testing.assert_array_equal(values, sampled(signal))


@pytest.mark.parametrize("signal", [SIGNALS[0], SIGNALS[2]], ids=["multisine", "chirp"])
def test_the_power_lies_below_the_end_of_the_band(signal: AbstractExcitation) -> None:
    spectrum = np.abs(np.fft.rfft(sampled(signal))) ** 2
    frequency = np.fft.rfftfreq(len(TIMES), 0.005)
    inside = spectrum[frequency < 9.0].sum()
    assert inside > 0.98 * spectrum.sum()


def test_the_seed_decides() -> None:
    for kind, settings in (
        (Multisine, MultisineSettings(amplitude=1.0, low=0.1, high=8.0)),
        (Prbs, PrbsSettings(amplitude=1.0, hold=0.05)),
    ):
        one, two = kind(settings, seed=1), kind(settings, seed=2)  # type: ignore[arg-type]
        assert [one.at(t) for t in TIMES[:200]] != [two.at(t) for t in TIMES[:200]]


def test_the_signal_is_added_to_the_first_input_only() -> None:
    settings = LqrSettings(
        state_weights=(1, 1, 1, 1), input_weights=(1,), input_limits=((-9, 9),), dt=0.02
    )
    law = Lqr(settings, dynamics=CartPoleModel())
    x, r = np.array([0.1, 0.0, 0.0, 0.0]), np.zeros(4)
    excited = Excited(law, SIGNALS[0], 0.02)
    for k in range(5):
        added = excited.solve(x, r).inputs - law.solve(x, r).inputs
        assert added[0, 0] == pytest.approx(SIGNALS[0].at(k * 0.02))


def test_the_law_is_the_riccati_equation_s() -> None:
    """K from the definition: the closed loop is stable, and no small change is cheaper."""
    settings = LqrSettings(
        state_weights=(10, 10, 1, 1), input_weights=(0.1,), input_limits=((-1e3, 1e3),), dt=0.02
    )
    model = CartPoleModel()
    law = Lqr(settings, dynamics=model)
    slopes = model.linearise(np.zeros(4), np.zeros(1))
    a_c = np.zeros((5, 5))
    a_c[:2, 2:4], a_c[2:4, :4], a_c[2:4, 4:] = np.eye(2), slopes.by_state, slopes.by_input
    from scipy.linalg import expm

    held = expm(0.02 * a_c)
    a, b = held[:4, :4], held[:4, 4:]

    def cost(gain: np.ndarray) -> float:
        x, total = np.array([0.1, 0.1, 0.0, 0.0]), 0.0
        for _ in range(4000):
            u = -gain @ x
            total += x @ np.diag([10, 10, 1, 1]) @ x + 0.1 * u @ u
            x = a @ x + b @ u
        return float(total)

    best = cost(law.gain)
    assert np.isfinite(best)
    for i in range(4):
        for change in (0.98, 1.02):
            other = law.gain.copy()
            other[0, i] *= change
            assert cost(other) > best * (1 - 1e-6)
    with pytest.raises(ConfigError, match=r"control\.input_weights"):
        Lqr(LqrSettings(state_weights=(1, 1, 1, 1), input_weights=(), input_limits=((-1, 1),)),
            dynamics=model)  # fmt: skip
