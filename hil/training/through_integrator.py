"""Fits a network through its integrator: MBD-NODE, a neural ODE of second order.

After Wang et al., "MBD-NODE: Physics-informed data-driven modeling and simulation of
constrained multibody systems" (arXiv 2407.08664): the network's accelerations go through a
Runge–Kutta step, and the velocities it ends with are compared with the next ones,

    (v_{k+1} − v_k) / h = mean acceleration of the step from (q_k, v_k).

The same second-order steps as for labels serve here (`hil.training.function_space`). The mean
acceleration moves with the weights nearly as the acceleration half way does, up to terms of
size h², so that the tangent kernel is taken there; the residual itself is exact.
"""

from __future__ import annotations

import numpy as np

from hil.mechanics.integrate import rk4
from hil.models.fnode import FnodeModel, FnodeSettings, features, layout
from hil.training.function_space import Descent, NetworkProblem, descend
from hil.training.network import Blocks, Network
from hil.types import Array


def learn_through_integrator(
    settings: FnodeSettings,
    q: Array,
    v: Array,
    dt: float,
    *,
    seed: int,
    iterations: int = 50,
    every: int = 1,
) -> tuple[FnodeModel, Descent]:
    """Return a network whose steps of dt lead from each state q, v (n, nq) to the next one.

    every: of so many steps one is learned from.
    """
    random, nq = np.random.default_rng(seed), settings.nq
    begin = np.arange(0, len(q) - 1, every)
    none = np.zeros((len(begin), 0))
    x = np.concatenate([q[begin], v[begin]], axis=1)
    half_way = (x + np.concatenate([q[begin + 1], v[begin + 1]], axis=1)) / 2
    middle = features(settings, half_way[:, :nq], half_way[:, nq:], none)
    mean = (v[begin + 1] - v[begin]) / dt
    width = layout(settings).width
    spread = np.sqrt(2 / (width + settings.hidden[0]))
    net = Network.start(settings, Blocks(middle[None], mean[None], np.eye(1)), spread, random)
    limit = np.sqrt(6 / (settings.hidden[-1] + nq))
    net.last[:] = random.uniform(-limit, limit, net.last.shape)
    points = (middle - net.input_mean) / net.input_scale

    def answers(now: Network) -> Array:
        def acceleration(at: Array, moving: Array, u: Array) -> Array:
            z = (features(settings, at, moving, u) - now.input_mean) / now.input_scale
            return now.output_mean + now.output_scale * now.answers(z)[0]

        with np.errstate(all="ignore"):
            ahead = rk4(acceleration, x, none, dt)
        gained = (ahead[:, nq:] - x[:, nq:]) / dt
        return np.asarray((gained - now.output_mean) / now.output_scale)

    goal = (mean - net.output_mean) / net.output_scale
    done = descend(NetworkProblem(net, points, goal, answers), iterations=iterations)
    return FnodeModel(settings, net.weights(points)), done
