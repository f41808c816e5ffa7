"""Round markers in an image: where their centres are, to a fraction of a pixel.

A marker is a white dot on a black disc 1.8 times as wide. Dots are found
as peaks of a difference of two Gaussians of their size (Lindeberg 1998), their centres as
the intensity-weighted centroid over an aperture that ends on the black disc, where the
weight is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hil.types import AnyArray, Array

DISC = 1.8  # radius of the black disc, of the dot's
BLACK = 1.6  # up to here the disc is black, also a little farther from the camera
CONTRAST = 20.0  # grey levels between dot and disc; less is no dot
APERTURE = 1.35  # of the centroid, of the dot's radius: on the disc, beyond the blurred edge
FAINT = 0.4  # of the median peak: weaker ones are no dots
COARSE = 4.0  # px, radius of a dot in the image the peaks are looked for in
ROUNDS = 3  # of moving the aperture to the centroid it gave


@dataclass(frozen=True)
class Dots:
    """The dots of an image."""

    centre: Array  # (n, 2), px, x right and y down, (0, 0) the centre of the first pixel
    flux: Array  # (n,), brightness above the disc, summed over the dot, grey levels · px


def find_dots(image: AnyArray, radius: float, expected: int) -> Dots:
    """Return the dots of an image, the strongest first.

    image: (h, w), grey levels, one frame or the mean of several. radius: of a dot, px.
    expected: how many there are about; tells how strong a dot is.
    """
    grey = np.ascontiguousarray(image, dtype=np.float32)
    peaks, strength = _peaks(grey, radius)
    if not len(peaks):
        return Dots(np.empty((0, 2)), np.empty(0))
    order = np.argsort(-strength, kind="stable")
    kept = strength[order] > FAINT * np.median(strength[order][:expected])
    dots = _centroids(grey, peaks[order][kept].astype(np.float64), radius)
    solid = dots.flux > CONTRAST * np.pi * radius**2
    return Dots(dots.centre[solid], dots.flux[solid])


def _peaks(grey: AnyArray, radius: float) -> tuple[AnyArray, AnyArray]:
    """Return the pixels (n, 2), x and y, where a dot may be, and how strong each is.

    Looked for in a smaller image in which a dot is `COARSE` px or so: a place to begin at.
    """
    height, width = grey.shape
    shrink = max(1.0, radius / COARSE)
    size = (round(width / shrink), round(height / shrink))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if shrink > 1 else grey
    ratio = np.array([width / size[0], height / size[1]])
    dot = radius / float(ratio.mean())
    inner, outer = (cv2.GaussianBlur(small, (0, 0), share * dot) for share in (0.5, 1.1))
    response = cv2.subtract(inner, outer)
    nearby = cv2.dilate(response, np.ones((2 * round(dot) + 1,) * 2, np.uint8))
    y, x = np.nonzero((response >= nearby) & (response > 0.1 * response.max()))
    places = np.rint((np.column_stack([x, y]) + 0.5) * ratio - 0.5).astype(np.int64)
    edge = int(np.ceil(DISC * radius))  # nearer to the border a dot and its disc do not fit
    inside = ((places >= edge) & (places < np.array([width, height]) - edge)).all(1)
    return places[inside], response[y, x][inside]


def _centroids(grey: AnyArray, start: Array, radius: float) -> Dots:
    """Return centre and flux of the dots near `start`, (n, 2), px."""
    reach = int(np.ceil(DISC * radius))
    corner = np.rint(start).astype(np.int64) - reach  # (n, 2)
    span = np.arange(2 * reach + 1)
    rows, columns = corner[:, 1, None] + span, corner[:, 0, None] + span  # (n, s)
    patch = grey[rows[:, :, None], columns[:, None, :]].astype(np.float64)  # (n, s, s)
    x, y = columns[:, None, :].astype(np.float64), rows[:, :, None].astype(np.float64)
    centre = start.copy()
    flux = np.zeros(len(start))
    for _ in range(ROUNDS):
        away = np.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None]) / radius
        ring = (away > APERTURE) & (away < BLACK)
        black = (patch * ring).sum((1, 2)) / np.maximum(ring.sum((1, 2)), 1)
        weight = (patch - black[:, None, None]) * (away < APERTURE)
        flux = weight.sum((1, 2))
        solid = np.where(flux > 0, flux, np.inf)  # no dot at all stays where it is
        step = np.column_stack(
            [(weight * (x - centre[:, 0, None, None])).sum((1, 2)) / solid,
             (weight * (y - centre[:, 1, None, None])).sum((1, 2)) / solid]
        )  # fmt: skip
        centre = centre + np.clip(step, -radius, radius)
        centre = np.clip(centre, start - radius, start + radius)  # the patch ends there
    return Dots(centre, flux)
