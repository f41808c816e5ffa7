"""What dynamics are compared with: networks that know no time derivative.

FCNN: the state from the time alone. LSTM: the next state from a window of states, let loose on
its own answers. Both after Wang, Wang & Negrut (arXiv 2509.00183), trained until their loss
stands still, on standardised states.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from hil.training.adam import Adam, AdamState
from hil.training.baselines import Lstm
from hil.training.network import spread
from hil.types import Array


class Prediction(NamedTuple):
    """States from the first known one on, and how many updates it took to learn them."""

    states: Array  # (n, nx)
    updates: int


def fcnn(x: Array, n: int, *, seed: int, hidden: tuple[int, ...], updates: int) -> Prediction:
    """Return n states of a network of the time, fitted to the first ones x (m, nx) by L-BFGS."""
    time = np.arange(n)[:, None] / (len(x) - 1) * 2 - 1  # −1 … 1 over what is known
    mean, scale = x.mean(axis=0), spread(x)
    network = MLPRegressor(
        hidden_layer_sizes=hidden, activation="tanh", solver="lbfgs", alpha=0.0, max_iter=updates,
        max_fun=2 * updates, tol=1e-12, random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `updates` is a limit
        network.fit(time[: len(x)], (x - mean) / scale)
    found = network.predict(time).reshape(n, -1) * scale + mean
    return Prediction(found, int(network.n_iter_))


def lstm(
    x: Array, n: int, *, seed: int, units: int = 64, window: int = 10, updates: int = 1000
) -> Prediction:
    """Return n states: the first `window` known, then each from the ones before it.

    x: (m, nx), what is known. Adam with a rate that falls to zero as a cosine, all windows at
    once; the network answers with the change of the state over its spread.
    """
    random = np.random.default_rng(seed)
    mean, scale = x.mean(axis=0), spread(x)
    z = (x - mean) / scale
    change = spread(np.diff(z, axis=0))
    views = np.lib.stride_tricks.sliding_window_view(z[:-1], window, axis=0)
    inputs = np.ascontiguousarray(np.swapaxes(views, 1, 2))  # (windows, window, nx)
    goal = np.diff(z, axis=0)[window - 1 :] / change
    model = Lstm(z.shape[1], units, z.shape[1], random)
    names = list(model.weights)
    sizes = np.cumsum([model.weights[name].size for name in names])
    state = AdamState.start(int(sizes[-1]))
    for update in range(updates):
        miss = model.forward(inputs) - goal
        slopes = model.backward(inputs, 2 * miss / miss.size)
        flat = np.concatenate([slopes[name].ravel() for name in names])
        step, state = Adam(0.5e-2 * (1 + np.cos(np.pi * update / updates))).step(flat, state)
        for name, part in zip(names, np.split(step, sizes[:-1]), strict=True):
            model.weights[name] += part.reshape(model.weights[name].shape)
    states = list(z[:window])
    for _ in range(n - window):
        ahead = model.forward(np.array(states[-window:])[None])[0]
        states.append(states[-1] + ahead * change)
    return Prediction(np.array(states) * scale + mean, updates)
