"""Fits a network to noisy positions without differentiating them: integral matching.

The double integral of the network's acceleration along the motion is compared with the
positions themselves; where the motion began and how fast is left free. Noise is then averaged
over the span instead of multiplied by 1/dt². The network is asked at smoothed states, whose
errors enter only through its slopes; after a fit they may be taken from its own motion
(`rounds`). After Dattner & Klaassen, "Optimal rate of direct estimators in systems of ordinary
differential equations linear in functions of the parameters" (Electronic Journal of Statistics
9, 2015). It ends when what is left is the noise: a better fit would be one to the noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hil.models.fnode import FnodeModel, FnodeSettings, features, layout
from hil.training.differentiation import Derivatives
from hil.training.flow import Variant, built
from hil.training.function_space import Descent, NetworkProblem, descend
from hil.training.network import Blocks, Network
from hil.types import Array


def twice_integrated(n: int, dt: float) -> Array:
    """Return S (n, n): S a is the double integral of a (n,) less its best line, by trapezoids."""
    once = np.tril(np.ones((n, n))) * dt
    once[:, 0] -= dt / 2
    once[np.arange(n), np.arange(n)] -= dt / 2
    once[0] = 0.0
    twice = once @ once
    return twice - _line(n) @ (_line(n).T @ twice)


def _line(n: int) -> Array:
    """Return an orthonormal base of lines, (n, 2)."""
    return np.asarray(np.linalg.qr(np.stack([np.ones(n), np.linspace(-1, 1, n)], axis=1))[0])


def learn_by_integrals(
    settings: FnodeSettings,
    variant: Variant,
    q: Array,
    dt: float,
    smooth: Callable[[Array, float], Derivatives],
    *,
    seed: int,
    iterations: int = 50,
) -> tuple[FnodeModel, Descent]:
    """Return a network whose motion is that of positions q (n, nq), sampled every dt seconds.

    smooth: gives the states the network is asked at, and how large the noise is.
    """
    settings = built(settings, variant)
    moved, n = smooth(q, dt), len(q)
    random, width = np.random.default_rng(seed), layout(settings).width
    z = features(settings, moved.position, moved.velocity, np.zeros((n, 0)))
    spread = variant.scale * np.sqrt(2 / (width + settings.hidden[0]))
    goal = Blocks(z[None], moved.acceleration[None], np.eye(1))
    net = Network.start(settings, goal, spread, random)
    limit = np.sqrt(6 / (settings.hidden[-1] + settings.nq))
    net.last[:] = random.uniform(-limit, limit, net.last.shape)
    noise = np.maximum((q - moved.position).std(axis=0), 1e-12 * q.std(axis=0))
    line = _line(n)
    twice = twice_integrated(n, dt)
    flat = q - line @ (line.T @ q) - twice @ np.broadcast_to(net.output_mean, q.shape)
    weights = twice * (net.output_scale / noise)[:, None, None]
    points = (z - net.input_mean) / net.input_scale
    problem = NetworkProblem(net, points, flat / noise, weights=weights)
    done = descend(problem, iterations=iterations, enough=1.0)
    return FnodeModel(settings, net.weights(points)), done
