"""Adam against its running means written out as sums."""

from __future__ import annotations

import numpy as np

from hil.training.adam import Adam, AdamState
from hil.types import Array

GRADIENTS = np.random.default_rng(0).normal(size=(200, 5)) * [1e-6, 1e-2, 1.0, 1e2, 1e6]


def by_sums(adam: Adam, gradients: Array) -> Array:
    """Return the last change from all gradients at once, without a recursion."""
    t = len(gradients)
    age = np.arange(t)[::-1, None]
    first = (1 - adam.beta1) * (adam.beta1**age * gradients).sum(0) / (1 - adam.beta1**t)
    second = (1 - adam.beta2) * (adam.beta2**age * gradients**2).sum(0) / (1 - adam.beta2**t)
    return np.asarray(-adam.rate * first / (np.sqrt(second) + adam.epsilon))


def test_every_step_is_what_the_sums_give() -> None:
    adam, state = Adam(rate=0.006), AdamState.start(5)
    for t in range(1, len(GRADIENTS) + 1):
        change, state = adam.step(GRADIENTS[t - 1], state)
        assert np.allclose(change, by_sums(adam, GRADIENTS[:t]), rtol=1e-10, atol=0)
    assert state.steps == len(GRADIENTS)


def test_the_first_step_has_the_length_of_the_rate() -> None:
    change, _ = Adam(rate=0.5, epsilon=1e-30).step(np.array([3.0, -2e-9]), AdamState.start(2))
    assert np.allclose(change, [-0.5, 0.5], rtol=1e-14)


def test_epsilon_holds_back_gradients_of_its_size() -> None:
    change, _ = Adam(rate=1.0, epsilon=1.5e-8).step(np.array([1.5e-8]), AdamState.start(1))
    assert np.allclose(change, -0.5, rtol=1e-14)


def test_without_momentum_it_is_the_sign() -> None:
    adam = Adam(rate=0.1, beta1=0.0, beta2=0.0, epsilon=1e-30)
    state = AdamState.start(2)
    for gradient in ([1.0, -5.0], [-2.0, 1e-3]):
        change, state = adam.step(np.array(gradient), state)
        assert np.allclose(change, -0.1 * np.sign(gradient), rtol=1e-14)


def test_no_gradient_is_no_step() -> None:
    change, state = Adam(rate=0.1).step(np.zeros(3), AdamState.start(3))
    assert not change.any()
    assert state.steps == 1


def test_equal_arguments_give_equal_bits_and_stay_as_they_were() -> None:
    adam, gradient = Adam(rate=0.006), GRADIENTS[0].copy()
    _, state = adam.step(GRADIENTS[1], AdamState.start(5))
    before = state.first.copy(), state.second.copy()
    first, second = adam.step(gradient, state), adam.step(gradient, state)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].second.tobytes() == second[1].second.tobytes()
    assert np.array_equal(state.first, before[0])
    assert np.array_equal(state.second, before[1])
    assert np.array_equal(gradient, GRADIENTS[0])
