"""The model that runs beside a spring network and says how far the rig is from it."""

from __future__ import annotations

import numpy as np

from hil.mechanics.spring_network import SpringNetwork
from hil.types import Array


class SpringNetworkTwin:
    """Predicts what a rig should have measured, from what was applied to it."""

    def __init__(self, network: SpringNetwork) -> None:
        self.network = network

    def residual(self, stiffness: Array, loads: Array, elongation: Array) -> float:
        """Return the relative rms of measured minus predicted elongation.

        stiffness: (bonds,), N/m, as applied; loads: (batch, dof), N; elongation:
        (batch, bonds), m, as measured.
        """
        predicted = self.network.settle(stiffness, loads).elongation
        scale = float(np.sqrt(np.mean(predicted**2)))
        rms = float(np.sqrt(np.mean((elongation - predicted) ** 2)))
        return rms / scale if scale > 0 else rms
