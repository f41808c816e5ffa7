"""Value and Jacobian of a tanh network at one point, in one compiled pass.

What costs time is reading the weights of the widest layer. Row i of the last hidden layer needs
nothing but its own activation to send its share back, so that one reading does both ways: a few
rows are taken, activated, and their part of value and Jacobian added up while they are in the
cache. Earlier layers are read twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hil.compiled import compiled, in_order
from hil.types import Array

ROWS = 8  # that are in the first-level cache together
PLAIN, SINE, COSINE, PRODUCT = 0, 1, 2, 3  # how a state or an input enters the network
LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
SERIES = tuple(1.0 / n for n in np.cumprod(np.arange(1.0, 14.0))[:0:-1])  # 1/13! … 1/2!


@in_order
def tanh_all(x: Array) -> None:
    """Replace every number by its tanh, to 5e-16 of it; without a branch, for vectors.

    From e^{−2|x|} − 1: argument reduction by a two-part ln 2 (Cody & Waite), Taylor's series.
    """
    for i in range(len(x)):
        y = min(2.0 * abs(x[i]), 60.0)
        n = np.rint(y * LOG2_E)
        rest = n * LN2_HIGH - y + n * LN2_LOW
        total = SERIES[0]
        for k in range(1, len(SERIES)):
            total = total * rest + SERIES[k]
        total = total * rest * rest + rest
        power = np.int64((1023 - np.int64(n)) << 52).view(np.float64)  # 2⁻ⁿ
        less = power * total + (power - 1.0)
        x[i] = np.copysign(less / (2.0 + less), x[i]) if x[i] == x[i] else np.nan


@compiled
def value_and_slopes(
    x: Array, u: Array, source: Any, layers: tuple[tuple[Array, Array], ...],
    last: Array, skip: Array, offset: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return the value (ny,) and its slopes by x, (ny, nx), and by u, (ny, nu).

    source: (3, width) of int64, for every input of the network the place in (x, u) it comes
    from, how, and for a product of two states the place of the other. layers: weights
    (units, before) and bias (units,). last: (ny, units). skip: (ny, width). offset: (ny,).
    """
    nx, nu, ny, width = len(x), len(u), len(offset), source.shape[1]
    z, by_source = np.empty(width), np.ones(width)
    for column in range(width):
        place, kind = source[0, column], source[1, column]
        z[column] = x[place] if place < nx else u[place - nx]
        if kind == PRODUCT:
            z[column] *= x[source[2, column]]
        elif kind != PLAIN:
            sine, cosine = np.sin(z[column]), np.cos(z[column])
            z[column] = sine if kind == SINE else cosine
            by_source[column] = cosine if kind == SINE else -sine
    count = 0
    for weight, _ in layers:
        count += len(weight)
    tape = np.empty(count)  # activations of all layers but the last
    before, end = z, 0
    for number in range(len(layers) - 1):
        weight, bias = layers[number]
        here = tape[end : end + len(bias)]
        end += len(bias)
        for i in range(len(bias)):
            total = bias[i]
            for j in range(weight.shape[1]):
                total += weight[i, j] * before[j]
            here[i] = total
        tanh_all(here)
        before = here
    value, back = offset.copy(), _last_layer(layers[-1][0], layers[-1][1], before, last)
    for y in range(ny):
        value[y] += back[y, back.shape[1] - 1]
    slopes = back[:, : back.shape[1] - 1].copy()
    for number in range(len(layers) - 2, -1, -1):
        weight, bias = layers[number]
        units, narrow = weight.shape
        further = np.zeros((ny, narrow))
        end -= units
        for y in range(ny):
            for i in range(units):
                share = slopes[y, i] * (1.0 - tape[end + i] * tape[end + i])
                for j in range(narrow):
                    further[y, j] += share * weight[i, j]
        slopes = further
    by_x, by_u = np.zeros((ny, nx)), np.zeros((ny, nu))
    for y in range(ny):
        for column in range(width):
            value[y] += skip[y, column] * z[column]
            slope = (slopes[y, column] + skip[y, column]) * by_source[column]
            place = source[0, column]
            if source[1, column] == PRODUCT:
                other = source[2, column]
                by_x[y, place] += slope * x[other]
                by_x[y, other] += slope * x[place]
            elif place < nx:
                by_x[y, place] += slope
            else:
                by_u[y, place - nx] += slope
    return value, by_x, by_u


@compiled
def _last_layer(weight: Array, bias: Array, before: Array, last: Array) -> Array:
    """Return slopes by what enters the last hidden layer, (ny, before), and last·h beside them."""
    units, wide = weight.shape
    ny = len(last)
    found, h = np.zeros((ny + ny % 2, wide + 1)), np.zeros(ROWS)
    share = np.zeros((2, ROWS))
    for begin in range(0, units, ROWS):
        rows = min(ROWS, units - begin)
        for r in range(rows):
            total = bias[begin + r]
            for j in range(wide):
                total += weight[begin + r, j] * before[j]
            h[r] = total
        tanh_all(h)
        for first in range(0, ny, 2):
            for y in range(first, min(first + 2, ny)):
                for r in range(rows):
                    found[y, wide] += last[y, begin + r] * h[r]
                    share[y - first, r] = last[y, begin + r] * (1.0 - h[r] * h[r])
            if rows == ROWS:
                _add_rows(weight, begin, share, found, first)
            else:
                for y in range(first, min(first + 2, ny)):
                    for r in range(rows):
                        for j in range(wide):
                            found[y, j] += share[y - first, r] * weight[begin + r, j]
    return found[:ny]


@compiled
def _add_rows(weight: Array, begin: int, share: Array, found: Array, y: int) -> None:
    """Add Σ share_r weight_r of eight rows to two rows of `found`, each read once."""
    a, b, c, d = share[0, 0], share[0, 1], share[0, 2], share[0, 3]
    e, f, g, h = share[0, 4], share[0, 5], share[0, 6], share[0, 7]
    k, m, n, o = share[1, 0], share[1, 1], share[1, 2], share[1, 3]
    p, q, r, s = share[1, 4], share[1, 5], share[1, 6], share[1, 7]
    w0, w1, w2, w3 = weight[begin], weight[begin + 1], weight[begin + 2], weight[begin + 3]
    w4, w5, w6, w7 = weight[begin + 4], weight[begin + 5], weight[begin + 6], weight[begin + 7]
    out, other = found[y], found[y + 1]
    for j in range(weight.shape[1]):
        v0, v1, v2, v3, v4, v5, v6, v7 = w0[j], w1[j], w2[j], w3[j], w4[j], w5[j], w6[j], w7[j]
        one = a * v0 + b * v1 + c * v2 + d * v3 + (e * v4 + f * v5 + g * v6 + h * v7)
        two = k * v0 + m * v1 + n * v2 + o * v3 + (p * v4 + q * v5 + r * v6 + s * v7)
        out[j] += one
        other[j] += two
