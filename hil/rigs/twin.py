"""The model that runs beside a spring network and says how far the rig is from it."""

from __future__ import annotations

import numpy as np

from hil.mechanics.finite_springs import AbstractStatics
from hil.rigs.calibrated import SpringCalibration
from hil.types import Array

WINDOW = 512  # load cases a look is taken over
SURE = 6.0  # standard errors beyond which a change is no chance
MATTERS = 0.01  # of what a channel reads, or of its range: a smaller change is let be


class SpringNetworkTwin:
    """Predicts what a rig should have measured, from what was applied to it.

    calibration: of the rig, None without one; samples: averaged per load case. With a
    calibration the residual is followed as well, channel by channel: over windows of load
    cases a straight line is laid through residual against prediction. Where its height (a
    zero) or its slope (a gain, a stiffness) is away from nothing beyond chance, and by more
    than matters, `recalibrate` says so until a window is good again.
    """

    def __init__(
        self,
        network: AbstractStatics,
        calibration: SpringCalibration | None = None,
        samples: int = 1,
    ) -> None:
        self.network = network
        self.recalibrate = ""
        self._calibration = calibration
        if calibration is None:
            return
        gain = calibration.gain
        # In true lengths: noise of a load case, and where a sensor may have met its end.
        self._noise = np.maximum(calibration.noise / np.sqrt(samples), 1e-9) / gain
        self._largest = calibration.largest / gain
        self._sums = np.zeros((6, len(gain)))

    def residual(
        self, stiffness: Array, loads: Array, elongation: Array, displacement: Array | None = None
    ) -> float:
        """Return the relative rms of measured minus predicted elongation.

        stiffness: (bonds,), N/m, as applied; loads: (batch, dof), N; elongation and
        displacement: (batch, bonds) and (batch, dof), m, as measured.
        """
        predicted = self.network.settle(stiffness, loads)
        if self._calibration is not None and displacement is not None:
            self._follow(
                np.concatenate([predicted.displacement, predicted.elongation], axis=1),
                np.concatenate([displacement, elongation], axis=1),
            )
        scale = float(np.sqrt(np.mean(predicted.elongation**2)))
        rms = float(np.sqrt(np.mean((elongation - predicted.elongation) ** 2)))
        return rms / scale if scale > 0 else rms

    def _follow(self, predicted: Array, measured: Array) -> None:
        """Add load cases to the window, and look when it is full."""
        good = np.maximum(np.abs(predicted), np.abs(measured)) <= self._largest
        left = measured - predicted
        cases = np.full_like(left, 1.0)
        parts = (cases, predicted, predicted**2, left, left * predicted, left**2)
        self._sums += np.stack([(good * part).sum(0) for part in parts])
        if self._sums[0].max() >= WINDOW:
            self._look()
            self._sums[:] = 0.0

    def _look(self) -> None:
        """Lay a line through residual against prediction, per channel, and judge it."""
        n, p, pp, r, rp, rr = self._sums
        n = np.maximum(n, 1.0)
        mean, spread = p / n, np.maximum(pp - p**2 / n, 0.0)
        # What is left scatters at least as its sensor does; where it scatters more, by that.
        noise = np.maximum(self._noise, np.sqrt(np.maximum(rr / n - (r / n) ** 2, 0.0)))
        moved = spread > n * self._noise**2  # otherwise there is no slope to see
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(moved, (rp - p * r / n) / spread, 0.0)
            slope_error = np.where(moved, noise / np.sqrt(spread), 1.0)
        zero = r / n - slope * mean
        zero_error = noise * np.sqrt(
            1.0 / n + np.where(moved, mean**2 / np.maximum(spread, 1e-300), 0.0)
        )
        gone = (
            ("reads {:+.2%} of what it should", slope, slope_error, np.ones_like(slope)),
            ("reads {:+.2%} of its range at rest", zero, zero_error, self._largest),
        )
        self.recalibrate = ""
        worst = 1.0
        for words, found, error, unit in gone:
            share = np.abs(found) / unit
            far = (np.abs(found) > SURE * error) & (share > MATTERS)
            channel = int(np.argmax(np.where(far, share, 0.0)))
            if far[channel] and share[channel] / MATTERS > worst:
                worst = share[channel] / MATTERS
                what = words.format(found[channel] / unit[channel])
                self.recalibrate = (
                    f"{int(far.sum())} of {len(far)} channels have drifted away from their "
                    f"calibration; {self._named(channel)} {what}: run `hil calibrate`"
                )

    def _named(self, channel: int) -> str:
        geometry, dof = self.network.geometry, self.network.dof
        if channel >= dof:
            return f"elongation of bond {channel - dof + 1}"
        node = int(geometry.free_nodes[channel // geometry.dimensions]) + 1
        return f"displacement of node {node} along {'xyz'[channel % geometry.dimensions]}"
