"""What no linear network can pass: the best any linear answer to the same loads does.

The displacement of a linear network is a linear function of its input forces, whatever its
stiffness: u(−F) = −u(F). So its classes are cut by a line through the origin, or, where a
threshold on the displacement is allowed, by any line; its response to one force is a line.
Searched for exhaustively over the samples at hand, so the bounds are exact for them.
"""

from __future__ import annotations

import numpy as np

from hil.types import Array, BoolArray, IntArray


def best_line(points: Array, labels: IntArray, *, threshold: bool) -> float:
    """Return the largest share of points in the plane that one line sorts rightly, 1.

    points: (n, 2), forces in any unit. labels: (n,), 0 or 1; 1 is wanted where the answer is
    above zero. threshold: whether the line may lie anywhere, or goes through the origin.
    """
    right = labels == 1
    if not threshold:
        return _best_through(points, right, np.zeros(2)) / len(points)
    # A best line can be shifted until it touches a point, and then turned about it.
    found = [max(int(right.sum()), int((~right).sum()))]
    for at in range(len(points)):
        others = np.arange(len(points)) != at
        found.append(1 + _best_through(points[others], right[others], points[at]))
    return max(found) / len(points)


def best_slope(x: Array, wanted: Array) -> float:
    """Return the least rms of wanted − a·x over the rms of wanted, 1; both (n,)."""
    slope = float(x @ wanted) / float(x @ x)
    return float(np.sqrt(np.mean((wanted - slope * x) ** 2) / np.mean(wanted**2)))


def _best_through(points: Array, right: BoolArray, pivot: Array) -> int:
    """Return how many points the best line through a pivot sorts rightly."""
    apart = points - pivot
    apart, right = apart[apart.any(axis=1)], right[apart.any(axis=1)]
    if not len(apart):
        return 0
    angle = np.arctan2(apart[:, 1], apart[:, 0])
    # The answer changes where the line meets a point: look once between every two of them.
    meets = np.unique(np.round(np.concatenate([angle, angle + np.pi]) % (2 * np.pi), 12))
    middle = (meets + np.diff(meets, append=meets[0] + 2 * np.pi) / 2)[:, None]
    above = np.sin(angle - middle) > 0  # (lines, points)
    return int((above == right).sum(axis=1).max())
