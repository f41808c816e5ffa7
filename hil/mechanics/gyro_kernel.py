"""The gyro network compiled: RK4 forward, and its exact derivative backward.

One call handles LANES samples side by side. Arrays are (rows, LANES): row 4 i + c of a
state is component c of (q_x, q_y, v_x, v_y) of gyroscope i; row 2 i + c of a vector field
its x or y; row 2 s + c that of spring s. The state after every step is kept, the three
accelerations inside a step are computed again on the way back.

With v₂ = v + h/2 a₁, v₃ = v + h/2 a₂, v₄ = v + h a₃ the classical RK4 step is

    a₁ = a(q, v)  a₂ = a(q + h/2 v, v₂)  a₃ = a(q + h/2 v₂, v₃)  a₄ = a(q + h v₃, v₄)
    q⁺ = q + h v + h²/6 (a₁ + a₂ + a₃)     v⁺ = v + h/6 (a₁ + 2 a₂ + 2 a₃ + a₄)
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hil.compiled import threaded
from hil.mechanics.lanes import above, at_least, load, root, store
from hil.types import AnyArray

TINY = 1e-30  # m²/s², added to |v|²: at rest the slope of |v| v is 0, not 0/0
CLAMP_SQUARED = 0.2**2


class Graph(NamedTuple):
    """The network as a kernel reads it; springs in the order in which they begin."""

    near: AnyArray  # (s,), gyroscope a spring begins at, ascending
    far: AnyArray  # (s,), gyroscope it ends at
    between: AnyArray  # (s, 2), from near to far at rest, m
    lengths: AnyArray  # (s,), m
    begins: AnyArray  # (n + 1,), first of the springs that begin at a gyroscope
    ends: AnyArray  # (n + 1,), first entry of `ending` of a gyroscope
    ending: AnyArray  # (s,), springs in the order in which they end
    inputs: AnyArray  # (k,), gyroscopes that are nudged


class Values(NamedTuple):
    """Parameters as a kernel reads them."""

    lightness: AnyArray  # (n,), 1/m
    turn: AnyArray  # (n,), γ/m
    squared: AnyArray  # (n,), L²
    stiffness: AnyArray  # (s,)
    gravity: Any
    drag: Any
    step: Any  # h, s
    barrier: Any  # weight of the penalty on reach, per step
    free_reach: Any  # |q|²/L² that costs nothing


class Slopes(NamedTuple):
    """Derivatives by what stands in Values, added up over steps; LANES sums side by side."""

    lightness: AnyArray  # (n, LANES)
    turn: AnyArray  # (n, LANES)
    squared: AnyArray  # (n, LANES)
    stiffness: AnyArray  # (s, LANES)


class Scratch(NamedTuple):
    """Room for one step; contents mean nothing between calls."""

    trial: AnyArray  # (4n, LANES), state inside a step
    trial3: AnyArray
    trial4: AnyArray
    first: AnyArray  # (2n, LANES), a₁
    second: AnyArray
    third: AnyArray
    fourth: AnyArray
    push: AnyArray  # (2n, LANES), nudges on every gyroscope
    pull: AnyArray  # (2s, LANES)
    back: AnyArray  # (2s, LANES)
    weight: AnyArray  # (2n, LANES), adjoint of the forces
    nudged: AnyArray  # (2n, LANES), its sum over the stages
    by_first: AnyArray  # (2n, LANES), adjoint of a₁
    by_second: AnyArray
    by_third: AnyArray
    by_fourth: AnyArray
    by_trial: AnyArray  # (4n, LANES), adjoint of the state inside a step


@threaded
def accelerate(graph: Graph, values: Values, state: AnyArray, room: Scratch, out: AnyArray) -> None:
    """Write the accelerations of a state to `out`, (2n, LANES)."""
    pull, push = room.pull, room.push
    for s in range(len(graph.near)):
        i, j = 4 * graph.near[s], 4 * graph.far[s]
        dx = load(state, j) - load(state, i) + graph.between[s, 0]
        dy = load(state, j + 1) - load(state, i + 1) + graph.between[s, 1]
        inverse = 1.0 / root(dx * dx + dy * dy)
        share = values.stiffness[s] * (1.0 - graph.lengths[s] * inverse)
        store(pull, 2 * s, share * dx)
        store(pull, 2 * s + 1, share * dy)
    for i in range(len(values.turn)):
        fx, fy = load(push, 2 * i), load(push, 2 * i + 1)
        for s in range(graph.begins[i], graph.begins[i + 1]):
            fx = fx + load(pull, 2 * s)
            fy = fy + load(pull, 2 * s + 1)
        for e in range(graph.ends[i], graph.ends[i + 1]):
            s = graph.ending[e]
            fx = fx - load(pull, 2 * s)
            fy = fy - load(pull, 2 * s + 1)
        qx, qy = load(state, 4 * i), load(state, 4 * i + 1)
        vx, vy = load(state, 4 * i + 2), load(state, 4 * i + 3)
        squared = values.squared[i]
        left = at_least(squared - (qx * qx + qy * qy), CLAMP_SQUARED * squared)
        rod = values.gravity / root(left)
        drag = values.drag * root(vx * vx + vy * vy + TINY)
        lightness, turn = values.lightness[i], values.turn[i]
        store(out, 2 * i, lightness * (fx - drag * vx) - turn * vy - rod * qx)
        store(out, 2 * i + 1, lightness * (fy - drag * vy) + turn * vx - rod * qy)


@threaded
def pull_back(
    graph: Graph, values: Values, state: AnyArray, by_out: AnyArray, room: Scratch, slopes: Slopes
) -> None:
    """Write the adjoint of `state`, given that of its accelerations, to `room.by_trial`.

    by_out: (2n, LANES). Adds to the slopes of the parameters and to `room.nudged`.
    """
    pull, back, weight = room.pull, room.back, room.weight
    for i in range(len(values.turn)):
        lightness = values.lightness[i]
        store(weight, 2 * i, lightness * load(by_out, 2 * i))
        store(weight, 2 * i + 1, lightness * load(by_out, 2 * i + 1))
    for s in range(len(graph.near)):
        i, j = graph.near[s], graph.far[s]
        dx = load(state, 4 * j) - load(state, 4 * i) + graph.between[s, 0]
        dy = load(state, 4 * j + 1) - load(state, 4 * i + 1) + graph.between[s, 1]
        inverse = 1.0 / root(dx * dx + dy * dy)
        bx = load(weight, 2 * i) - load(weight, 2 * j)
        by = load(weight, 2 * i + 1) - load(weight, 2 * j + 1)
        slack = graph.lengths[s] * inverse
        share, along = 1.0 - slack, bx * dx + by * dy
        store(slopes.stiffness, s, load(slopes.stiffness, s) + share * along)
        k = values.stiffness[s]
        store(pull, 2 * s, (k * share) * dx)
        store(pull, 2 * s + 1, (k * share) * dy)
        along = slack * (inverse * inverse) * along
        store(back, 2 * s, k * (share * bx + along * dx))
        store(back, 2 * s + 1, k * (share * by + along * dy))
    for i in range(len(values.turn)):
        fx, fy = load(room.push, 2 * i), load(room.push, 2 * i + 1)
        ax, ay = load(by_out, 2 * i), load(by_out, 2 * i + 1)
        px, py = 0.0 * ax, 0.0 * ay
        for s in range(graph.begins[i], graph.begins[i + 1]):
            fx = fx + load(pull, 2 * s)
            fy = fy + load(pull, 2 * s + 1)
            px = px - load(back, 2 * s)
            py = py - load(back, 2 * s + 1)
        for e in range(graph.ends[i], graph.ends[i + 1]):
            s = graph.ending[e]
            fx = fx - load(pull, 2 * s)
            fy = fy - load(pull, 2 * s + 1)
            px = px + load(back, 2 * s)
            py = py + load(back, 2 * s + 1)
        qx, qy = load(state, 4 * i), load(state, 4 * i + 1)
        vx, vy = load(state, 4 * i + 2), load(state, 4 * i + 3)
        squared, turn = values.squared[i], values.turn[i]
        floor = CLAMP_SQUARED * squared
        raw = squared - (qx * qx + qy * qy)
        free = above(raw, floor)
        inverse = 1.0 / root(at_least(raw, floor))
        rod = values.gravity * inverse
        steep = rod * (inverse * inverse) * (qx * ax + qy * ay)
        store(room.by_trial, 4 * i, px - rod * ax - (free * steep) * qx)
        store(room.by_trial, 4 * i + 1, py - rod * ay - (free * steep) * qy)
        # Below the clamp the height is 0.2 L, which L still moves.
        by_squared = (0.5 * steep) * (free + CLAMP_SQUARED * (1.0 - free))
        store(slopes.squared, i, load(slopes.squared, i) + by_squared)
        square = vx * vx + vy * vy + TINY
        still = 1.0 / root(square)
        speed = square * still
        wx, wy = load(weight, 2 * i), load(weight, 2 * i + 1)
        same = values.drag * still * (vx * wx + vy * wy)
        store(room.by_trial, 4 * i + 2, turn * ay - values.drag * speed * wx - same * vx)
        store(room.by_trial, 4 * i + 3, -turn * ax - values.drag * speed * wy - same * vy)
        store(slopes.turn, i, load(slopes.turn, i) + (ay * vx - ax * vy))
        drag = values.drag * speed
        by_light = ax * (fx - drag * vx) + ay * (fy - drag * vy)
        store(slopes.lightness, i, load(slopes.lightness, i) + by_light)
        store(room.nudged, 2 * i, load(room.nudged, 2 * i) + wx)
        store(room.nudged, 2 * i + 1, load(room.nudged, 2 * i + 1) + wy)


@threaded
def stages(graph: Graph, values: Values, state: AnyArray, room: Scratch) -> None:
    """Compute a₁, a₂, a₃ and the three states after the first that a step looks at."""
    h = values.step
    accelerate(graph, values, state, room, room.first)
    for i in range(len(values.turn)):
        for c in range(2):
            q, v = load(state, 4 * i + c), load(state, 4 * i + 2 + c)
            store(room.trial, 4 * i + c, q + (0.5 * h) * v)
            store(room.trial, 4 * i + 2 + c, v + (0.5 * h) * load(room.first, 2 * i + c))
    accelerate(graph, values, room.trial, room, room.second)
    for i in range(len(values.turn)):
        for c in range(2):
            q, v = load(state, 4 * i + c), load(state, 4 * i + 2 + c)
            a1, a2 = load(room.first, 2 * i + c), load(room.second, 2 * i + c)
            store(room.trial3, 4 * i + c, q + (0.5 * h) * v + (0.25 * h * h) * a1)
            store(room.trial3, 4 * i + 2 + c, v + (0.5 * h) * a2)
    accelerate(graph, values, room.trial3, room, room.third)
    for i in range(len(values.turn)):
        for c in range(2):
            q, v = load(state, 4 * i + c), load(state, 4 * i + 2 + c)
            a2, a3 = load(room.second, 2 * i + c), load(room.third, 2 * i + c)
            store(room.trial4, 4 * i + c, q + h * v + (0.5 * h * h) * a2)
            store(room.trial4, 4 * i + 2 + c, v + h * a3)


@threaded
def nudge(graph: Graph, nudges: AnyArray, room: Scratch) -> None:
    """Put the nudges of one step, (2k, LANES), on their gyroscopes."""
    for k in range(len(graph.inputs)):
        i = graph.inputs[k]
        store(room.push, 2 * i, load(nudges, 2 * k))
        store(room.push, 2 * i + 1, load(nudges, 2 * k + 1))


@threaded
def forward(
    graph: Graph, values: Values, nudges: AnyArray, states: AnyArray, room: Scratch
) -> None:
    """Fill states (steps + 1, 4n, LANES) from its first entry on.

    nudges: (steps, 2k, LANES), each held for a step.
    """
    h = values.step
    for step in range(len(nudges)):
        nudge(graph, nudges[step], room)
        state, after = states[step], states[step + 1]
        stages(graph, values, state, room)
        accelerate(graph, values, room.trial4, room, room.fourth)
        for i in range(len(values.turn)):
            for c in range(2):
                q, v = load(state, 4 * i + c), load(state, 4 * i + 2 + c)
                a1, a2 = load(room.first, 2 * i + c), load(room.second, 2 * i + c)
                a3, a4 = load(room.third, 2 * i + c), load(room.fourth, 2 * i + c)
                store(after, 4 * i + c, q + h * v + (h * h / 6.0) * (a1 + a2 + a3))
                store(after, 4 * i + 2 + c, v + (h / 6.0) * (a1 + a4 + 2.0 * (a2 + a3)))


@threaded
def add_barrier(values: Values, state: AnyArray, adjoint: AnyArray, slopes: Slopes) -> None:
    """Add the slope of barrier · Σ max(0, |q|²/L² − free_reach)² to an adjoint."""
    for i in range(len(values.turn)):
        qx, qy = load(state, 4 * i), load(state, 4 * i + 1)
        inverse = 1.0 / values.squared[i]
        reach = inverse * (qx * qx + qy * qy)
        excess = (2.0 * values.barrier) * at_least(reach - values.free_reach, 0.0)
        store(adjoint, 4 * i, load(adjoint, 4 * i) + (2.0 * inverse) * excess * qx)
        store(adjoint, 4 * i + 1, load(adjoint, 4 * i + 1) + (2.0 * inverse) * excess * qy)
        store(slopes.squared, i, load(slopes.squared, i) - inverse * excess * reach)


@threaded
def backward(
    graph: Graph, values: Values, nudges: AnyArray, states: AnyArray, adjoint: AnyArray,
    by_nudges: AnyArray, room: Scratch, slopes: Slopes,
) -> None:  # fmt: skip
    """Turn the adjoint of the last state, (4n, LANES), into that of the first, in place.

    Adds to `slopes`; fills by_nudges (steps, 2k, LANES).
    """
    h = values.step
    if values.barrier > 0.0:
        add_barrier(values, states[len(nudges)], adjoint, slopes)
    for step in range(len(nudges) - 1, -1, -1):
        nudge(graph, nudges[step], room)
        state, back = states[step], room.by_trial
        stages(graph, values, state, room)
        room.nudged[:] = 0.0
        for i in range(len(values.turn)):
            for c in range(2):
                by_q, by_v = load(adjoint, 4 * i + c), load(adjoint, 4 * i + 2 + c)
                outer, inner = (h * h / 6.0) * by_q, (h / 6.0) * by_v
                store(room.by_first, 2 * i + c, outer + inner)
                store(room.by_second, 2 * i + c, outer + 2.0 * inner)
                store(room.by_third, 2 * i + c, outer + 2.0 * inner)
                store(room.by_fourth, 2 * i + c, inner)
                store(adjoint, 4 * i + 2 + c, by_v + h * by_q)
        pull_back(graph, values, room.trial4, room.by_fourth, room, slopes)
        collect(adjoint, back, h, 0.5 * h * h, room.by_second, h, room.by_third)
        pull_back(graph, values, room.trial3, room.by_third, room, slopes)
        collect(adjoint, back, 0.5 * h, 0.25 * h * h, room.by_first, 0.5 * h, room.by_second)
        pull_back(graph, values, room.trial, room.by_second, room, slopes)
        collect(adjoint, back, 0.5 * h, 0.0 * h, room.by_first, 0.5 * h, room.by_first)
        pull_back(graph, values, state, room.by_first, room, slopes)
        collect(adjoint, back, 0.0 * h, 0.0 * h, room.by_first, 0.0 * h, room.by_first)
        for k in range(len(graph.inputs)):
            i = graph.inputs[k]
            store(by_nudges[step], 2 * k, load(room.nudged, 2 * i))
            store(by_nudges[step], 2 * k + 1, load(room.nudged, 2 * i + 1))
        if values.barrier > 0.0 and step > 0:  # where it starts is given
            add_barrier(values, state, adjoint, slopes)


@threaded
def collect(
    adjoint: AnyArray, back: AnyArray, ahead: Any, by_q: Any, one: AnyArray, by_v: Any,
    other: AnyArray,
) -> None:  # fmt: skip
    """Add the adjoint of a stage's state to what the stage was made of.

    q_stage = q + ahead v + by_q one, v_stage = v + by_v other.
    """
    for i in range(len(one) // 2):
        for c in range(2):
            p, s = load(back, 4 * i + c), load(back, 4 * i + 2 + c)
            store(adjoint, 4 * i + c, load(adjoint, 4 * i + c) + p)
            v = load(adjoint, 4 * i + 2 + c)
            store(adjoint, 4 * i + 2 + c, v + s + ahead * p)
            store(one, 2 * i + c, load(one, 2 * i + c) + by_q * p)
            store(other, 2 * i + c, load(other, 2 * i + c) + by_v * s)
