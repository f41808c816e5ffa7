"""The nodes of a network on a bench, seen by a camera: where each one is, or a refusal.

    frames ──mean──▶ dots ──lens──▶ straight pixels ──which is which──▶ plane ──▶ metres

Markers on a board behind the network (the frame) and on its fixed nodes say in every image
where the bench is, so that a camera that creeps or was bumped moves no node. All dots look
alike: which is which follows from where a model expects them, and every doubt is a refusal
that names the node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from hil.errors import MeasurementError
from hil.types import AnyArray, Array, IntArray
from hil.vision.lens import Lens
from hil.vision.markers import Dots, find_dots
from hil.vision.plane import Plane

SIGMAS = 5.0  # of the noise: beyond, something moved
BENT = 0.4  # px; a frame farther from a plane at first sight is not seen straight
UNEVEN = 0.35  # of brightness, at the first sight: the light is not the same everywhere, 1


class TrackingSettings(Protocol):
    """When a sight is refused."""

    @property
    def gate(self) -> float:
        """Farthest a marker is from where it is expected, of its next neighbour, 1."""

    @property
    def hidden(self) -> float:
        """Change of a marker's brightness that means that something covers it, 1."""

    @property
    def moved(self) -> float:
        """Shift of a reference marker that is taken for none, px."""

    @property
    def strain(self) -> float:
        """Largest of a strut; more is a mix-up, 1."""


@dataclass(frozen=True)
class Layout:
    """What is to be seen, at rest and without load."""

    nodes: Array  # (n, 2), m
    bonds: IntArray  # (m, 2), from 0
    fixed: tuple[int, ...]  # nodes that do not move, from 0
    frame: Array  # (f, 2), markers on the board, m; f at least 4
    radius: float  # of a dot, m

    def name(self, marker: int) -> str:
        """Return what a person calls a marker: nodes first, then the frame's."""
        count = len(self.nodes)
        return f"node {marker + 1}" if marker < count else f"frame marker {marker - count + 1}"


class Sight(NamedTuple):
    """Where everything is."""

    nodes: Array  # (n, 2), m, on the bench
    drift: float  # rms, of all nodes, from the first half of the frames to the second, m
    moved: float  # rms shift of the reference markers since the sight before, px; 0: none
    residual: float  # rms of the reference markers about the plane, px


@dataclass(frozen=True)
class Registration:
    """What the tracker compares with."""

    nodes: Array  # (n, 2), without load, m
    pixels: Array  # (n + f, 2), of all markers without load, straight
    references: Array  # (r, 2), of fixed nodes and frame as seen without load, m
    flux: Array  # (n + f,), brightness of every marker for its size
    plane: Plane
    noise: float  # scatter of a marker in one frame, px
    flicker: float  # scatter of a marker's brightness in one frame, 1
    scale: float  # px/m


class Tracker:
    """Finds the nodes in frames, after it was shown the network without load."""

    def __init__(self, lens: Lens, layout: Layout, settings: TrackingSettings) -> None:
        self.lens = lens
        self.layout = layout
        self.settings = settings
        self.registration: Registration | None = None
        everything = np.concatenate([layout.nodes, layout.frame])
        apart = cdist(everything, everything)
        np.fill_diagonal(apart, np.inf)
        self._gates = settings.gate * apart.min(1)  # (n + f,), m
        count = len(layout.nodes)
        self._frame = np.arange(count, len(everything))
        self._references = np.concatenate([np.array(layout.fixed, dtype=np.int64), self._frame])

    def register(self, frames: Sequence[AnyArray]) -> Registration:
        """Look at the network without load; what is seen later is measured from here.

        frames: at least 2. Raises MeasurementError naming what is not seen.
        """
        layout = self.layout
        everything = np.concatenate([layout.nodes, layout.frame])
        dots = self._dots(_mean(frames), self._rough_radius(frames[0].shape[1]))
        plane = self._from_corners(dots)
        radius = layout.radius * float(plane.scale(everything).mean())
        dots = self._dots(_mean(frames), radius)
        order = self._assign(dots, plane, everything, np.arange(len(everything)))
        pixels = dots.centre[order]
        plane = Plane.fit(pixels[self._frame], layout.frame)
        each = [self._dots(frame, radius) for frame in frames[:: max(1, len(frames) // 16)]]
        near = [cdist(pixels, one.centre).argmin(1) for one in each]
        centres = [one.centre[which] for one, which in zip(each, near, strict=True)]
        noise = float(np.std(centres, axis=0, ddof=1).mean())
        shine = np.array([one.flux[which] for one, which in zip(each, near, strict=True)])
        flicker = float((shine.std(0, ddof=1) / shine.mean(0)).mean())
        mean = noise / math.sqrt(len(frames))
        self._check_plane(
            plane, pixels[self._frame], layout.frame, self._frame, max(SIGMAS * mean, BENT)
        )
        flux = dots.flux[order] / plane.scale(plane.metres(pixels)) ** 2
        self._check_flux(flux, np.full(len(flux), np.median(flux)), UNEVEN)
        count, scale = len(layout.nodes), float(plane.scale(everything).mean())
        nodes, references = (
            plane.metres(pixels[part]) for part in (range(count), self._references)
        )
        self.registration = Registration(
            nodes, pixels, references, flux, plane, noise, flicker, scale
        )
        return self.registration

    def locate(self, frames: Sequence[AnyArray], predicted: Array) -> Sight:
        """Return where the nodes are.

        frames: at least 2. predicted: (n, 2), where a model has the nodes, displacement
        added to the places of `registration`, m. Raises MeasurementError for a marker that
        is hidden, lost, or where it cannot be, and for a frame that is bent.
        """
        seen = self.registration
        assert seen is not None, "register() comes first"
        half = max(1, len(frames) // 2)
        parts = [self._look(part, seen, predicted) for part in (frames[:half], frames[half:])]
        nodes = np.mean([part.nodes for part in parts], axis=0)
        drift = float(np.sqrt(np.mean((parts[1].nodes - parts[0].nodes) ** 2)))
        self._check_strain(nodes)
        moved, pixels = self._moved(parts, seen, half)
        if moved:  # reported once, and from here on
            self.registration = replace(seen, pixels=pixels, plane=parts[1].plane)
        return Sight(nodes, drift, moved, parts[1].residual)

    def _look(self, frames: Sequence[AnyArray], seen: Registration, predicted: Array) -> _Look:
        radius = self.layout.radius * seen.scale
        dots = self._dots(_mean(frames), radius)
        known = seen.references  # as seen: what the lens still does wrong stays out of it
        plane, references = self._find_plane(dots, seen, known)
        most = max(SIGMAS * seen.noise / math.sqrt(len(frames)), self.settings.moved)
        residual = self._check_plane(plane, references, known, self._references, most)
        count = len(self.layout.nodes)
        order = self._assign(dots, plane, predicted, np.arange(count))
        metres = plane.metres(dots.centre[order])
        pixels = np.concatenate([dots.centre[order], references[len(self.layout.fixed) :]])
        near = cdist(pixels, dots.centre).argmin(1)
        flux = dots.flux[near] / plane.scale(plane.metres(pixels)) ** 2
        flicker = SIGMAS * seen.flicker / math.sqrt(len(frames))
        self._check_flux(flux, seen.flux, max(self.settings.hidden, flicker))
        return _Look(metres, pixels, references, plane, residual)

    def _find_plane(self, dots: Dots, seen: Registration, known: Array) -> tuple[Plane, Array]:
        """Return the plane now and its reference markers, from where they were before."""
        try:
            order = self._assign(dots, seen.plane, known, self._references)
        except MeasurementError:
            try:  # a camera that was moved a long way: found anew, or the first word stands
                plane = self._from_corners(dots)
                order = self._assign(dots, plane, known, self._references)
            except MeasurementError:
                order = None
            if order is None:
                raise
        pixels = dots.centre[order]
        return Plane.fit(pixels, known), pixels

    def _moved(
        self, parts: Sequence[_Look], seen: Registration, frames: int
    ) -> tuple[float, Array]:
        pixels = parts[1].pixels
        now = np.mean([part.references for part in parts], axis=0)
        shift = float(np.sqrt(np.mean((now - seen.pixels[self._references]) ** 2)))
        noise = SIGMAS * seen.noise / math.sqrt(2 * frames)
        return (shift if shift > max(noise, self.settings.moved) else 0.0), pixels

    def _rough_radius(self, width: int) -> float:
        """Return about how many pixels a dot's radius is, before anything was found, px.

        The frame is taken to fill the better part of the image; the dots that count need
        not be met exactly.
        """
        return 0.75 * width * self.layout.radius / float(np.ptp(self.layout.frame[:, 0]))

    def _dots(self, image: AnyArray, radius: float) -> Dots:
        dots = find_dots(image, radius, len(self.layout.nodes) + len(self.layout.frame))
        return Dots(self.lens.straighten(dots.centre), dots.flux)

    def _from_corners(self, dots: Dots) -> Plane:
        """Return the plane in which the four outermost dots are the corners of the frame."""
        frame = self.layout.frame * [1.0, -1.0]  # y of an image goes down
        if len(dots.centre) < 4:
            raise MeasurementError(
                f"camera: {len(dots.centre)} markers are in view, the frame alone has "
                f"{len(frame)}; check light, focus and `camera`, then look again"
            )
        ways = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])  # outwards, clockwise
        place = (frame @ ways.T).argmax(0)
        seen = (dots.centre @ ways.T).argmax(0)
        if len(set(seen.tolist())) < 4:
            raise MeasurementError(
                "camera: the corners of the frame are not told apart; turn the camera upright "
                "and have all of the frame in view"
            )
        return Plane.fit(dots.centre[seen], self.layout.frame[place])

    def _assign(self, dots: Dots, plane: Plane, expected: Array, markers: IntArray) -> IntArray:
        """Return which dot is which marker, one to one: (len(markers),)."""
        gates = self._gates[markers]
        found = plane.metres(dots.centre)
        distance = cdist(expected, found)
        far = distance > gates[:, None]
        if found.size:
            order = linear_sum_assignment(np.where(far, 1e6, distance**2))
            rows, columns = order
            lost = sorted(set(range(len(markers))) - set(rows[~far[rows, columns]].tolist()))
        else:
            lost = list(range(len(markers)))
        if lost:
            where = expected[lost[0]] * 1e3
            names = ", ".join(self.layout.name(int(markers[i])) for i in lost[:4])
            more = f" and {len(lost) - 4} more" if len(lost) > 4 else ""
            raise MeasurementError(
                f"camera: the marker of {names}{more} is not seen within "
                f"{gates[lost[0]] * 1e3:.1f} mm of ({where[0]:.1f}, {where[1]:.1f}) mm, where it "
                "should be; clear the view, check what hangs where, then look again"
            )
        return np.asarray(columns, dtype=np.int64)

    def _check_flux(self, flux: Array, before: Array, tolerance: float) -> None:
        """Refuse markers that are partly covered: their centre is not the centre seen."""
        ratio = flux / before
        ratio /= np.median(ratio)  # the light may have changed for all of them
        worst = int(np.abs(ratio - 1).argmax())
        if abs(ratio[worst] - 1) > tolerance:
            raise MeasurementError(
                f"camera: the marker of {self.layout.name(worst)} is {ratio[worst]:.0%} as bright "
                "as it should be, something covers or lights part of it; clear the view, then "
                "look again"
            )

    def _check_plane(
        self, plane: Plane, pixels: Array, metres: Array, markers: IntArray, most: float
    ) -> float:
        """Return the rms of reference markers about their plane, px; refuse one that went."""
        off = np.linalg.norm(plane.pixels(metres) - pixels, axis=1)
        if off.max() > most:
            which, away = _odd_one(pixels, metres)
            raise MeasurementError(
                f"camera: {self.layout.name(int(markers[which]))} is {away:.2f} px from where "
                "the other reference markers put it; it was moved, or the lens is not the "
                "calibrated one; put it back, then stop and register anew"
            )
        return float(np.sqrt(np.mean(off**2)))

    def _check_strain(self, nodes: Array) -> None:
        assert self.registration is not None
        before, now = (_lengths(at, self.layout.bonds) for at in (self.registration.nodes, nodes))
        strain = now / before - 1
        worst = int(np.abs(strain).argmax())
        if abs(strain[worst]) > self.settings.strain:
            i, j = self.layout.bonds[worst] + 1
            raise MeasurementError(
                f"camera: the strut from node {i} to node {j} would be strained by "
                f"{strain[worst]:.0%}: the markers of two nodes were taken for each other, or a "
                "strut came off; check them, then look again"
            )


class _Look(NamedTuple):
    """One half of the frames."""

    nodes: Array  # (n, 2), m
    pixels: Array  # (n + f, 2), px
    references: Array  # (r, 2), px
    plane: Plane
    residual: float  # px


def _odd_one(pixels: Array, metres: Array) -> tuple[int, float]:
    """Return the point without which the others fit a plane best, and how far off it is, px.

    The largest residual would not do: a corner pulls the plane along, and others stand out.
    """
    found = []
    for one in range(len(pixels)):
        others = np.arange(len(pixels)) != one
        plane = Plane.fit(pixels[others], metres[others])
        off = np.linalg.norm(plane.pixels(metres) - pixels, axis=1)
        found.append((float(off[others].max()), one, float(off[one])))
    _, which, away = min(found)
    return which, away


def _mean(frames: Sequence[AnyArray]) -> AnyArray:
    total = np.zeros(frames[0].shape, dtype=np.float32)
    for frame in frames:
        total += frame
    return total / np.float32(len(frames))


def _lengths(nodes: Array, bonds: IntArray) -> Array:
    return np.asarray(np.linalg.norm(nodes[bonds[:, 1]] - nodes[bonds[:, 0]], axis=1))
