"""What a spring network loses with a bond, told by its self-stresses, before anything is solved.

A self-stress is a set of bond tensions that balance at every free node (Maxwell, Phil. Mag. 27,
294 (1864); Calladine, Int. J. Solids Struct. 14, 161 (1978)). A bond that takes part in none is
all that keeps some motion stiff: without it there is a zero mode. Bonds that take part in one
and the same, in fixed proportion, go slack together: as long as no load acts between them,
losing any one of them is losing all.
"""

from __future__ import annotations

import numpy as np

from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array

SLACK = 1e-9  # of the largest tension of a self-stress: less is rounding
ALIGNED = 1e-9  # 1 − |cos| of the parts two bonds have in all self-stresses: less is the same


def self_stresses(network: SpringNetwork) -> Array:
    """Return an orthonormal basis of the self-stresses: (bonds, count), 1.

    By a full singular value decomposition: for networks of some hundred bonds.
    """
    compat = network.compat
    full = compat if isinstance(compat, np.ndarray) else compat.toarray()
    left, sigma, _ = np.linalg.svd(full)
    rank = int((sigma > SLACK * sigma[0]).sum())
    return np.asarray(left[:, rank:])


def zero_mode_bonds(network: SpringNetwork) -> tuple[int, ...]:
    """Return the bonds, from 0, without any one of which the network has a zero mode."""
    part = np.linalg.norm(self_stresses(network), axis=1)
    return tuple(int(bond) for bond in np.flatnonzero(part <= SLACK))


def common_self_stress(network: SpringNetwork) -> tuple[tuple[int, ...], ...]:
    """Return groups of bonds, from 0, that carry one self-stress in fixed proportion.

    Every bond that carries any is in exactly one group; groups of one are left out.
    """
    part = self_stresses(network)
    size = np.linalg.norm(part, axis=1)
    carrying = [int(bond) for bond in np.flatnonzero(size > SLACK)]
    groups: list[list[int]] = []
    for bond in carrying:
        for group in groups:
            cosine = abs(part[bond] @ part[group[0]]) / (size[bond] * size[group[0]])
            if 1.0 - cosine <= ALIGNED:
                group.append(bond)
                break
        else:
            groups.append([bond])
    return tuple(tuple(group) for group in groups if len(group) > 1)
