"""Painting that gives the same bits on every machine.

Floating-point work is kept to sums and products of rounded numbers (no BLAS, no trigonometry beyond six
decimals), outlines are filled by integer arithmetic at four times the size, and smooth edges come from
averaging integers, not from a library's anti-aliasing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

SCALE = 4  # painted pixels per image pixel, along each axis
SHIFT = 4  # fractional bits of a painted coordinate

Colour = tuple[int, int, int]  # red, green, blue


def cos_sin(degrees: int) -> tuple[float, float]:
    """Cosine and sine rounded to six decimals, on which all maths libraries agree."""
    radians = math.radians(degrees)
    return round(math.cos(radians), 6), round(math.sin(radians), 6)


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and sides in image pixels, heading in whole degrees (0 right, 90 down)."""

    x: float
    y: float
    angle: int
    length: float
    width: float

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Local points (n, 2) in pixels, ahead and to the right of the centre, as image points (n, 2)."""
        cos, sin = cos_sin(self.angle)
        ahead, right = np.asarray(points, dtype=float).T
        return np.stack([self.x + ahead * cos - right * sin, self.y + ahead * sin + right * cos], axis=1)

    @cached_property
    def corners(self) -> np.ndarray:
        """The four corners (4, 2), clockwise from the front left one, as DOTA orders them.

        >>> Pose(10, 10, angle=-90, length=8, width=4).corners.tolist()
        [[8.0, 6.0], [12.0, 6.0], [12.0, 14.0], [8.0, 14.0]]
        """
        half = np.array([self.length, self.width]) / 2
        return self.to_image(np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]]) * half)

    def moved(self, ahead: float, right: float) -> Pose:
        """The same pose, shifted in its own frame."""
        x, y = self.to_image(np.array([[ahead, right]]))[0]
        return Pose(float(x), float(y), self.angle, self.length, self.width)


class Canvas:
    """A picture in the making, ``SCALE`` times as large as the image it becomes.

    Args:
        ground: The background to paint over, uint8 BGR (height, width, 3) at the size of the image.
    """

    def __init__(self, ground: np.ndarray) -> None:
        self.pixels = enlarged(ground)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """Fill the outline ``points`` (n, 2), in image pixels."""
        cv2.fillPoly(self.pixels, [_painted(points)], colour[::-1], cv2.LINE_8, SHIFT)

    def veil(self, points: np.ndarray, colour: Colour) -> None:
        """Fill the outline half transparently."""
        window, mask = self._touched([points])
        window[mask] = window[mask] // 2 + np.array(colour[::-1], np.uint8) // 2

    def cover(self, points: np.ndarray, ground: np.ndarray) -> None:
        """Fill the outline with another ground (height, width, 3) of the size of the image."""
        mask = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(mask, [_painted(points)], [1], cv2.LINE_8, SHIFT)
        cv2.copyTo(enlarged(ground), mask, self.pixels)

    def shade(self, outlines: list[np.ndarray]) -> None:
        """Darken everything inside any of the outlines, once."""
        window, mask = self._touched(outlines)
        window[mask] = window[mask] // 8 * 5

    def _touched(self, outlines: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The window of painted pixels around the outlines, and a mask of those inside any of them."""
        polygons = [_painted(points) for points in outlines]
        points = np.concatenate(polygons) >> SHIFT
        left, top = np.maximum(points.min(0) - 1, 0)
        right, bottom = np.maximum(points.max(0) + 2, 0)
        window = self.pixels[top:bottom, left:right]
        mask = np.zeros(window.shape[:2], np.uint8)
        for polygon in polygons:
            cv2.fillPoly(mask, [polygon - (np.array([left, top]) << SHIFT)], [1], cv2.LINE_8, SHIFT)
        return window, mask.view(bool)

    def photograph(self) -> np.ndarray:
        """The image: the mean of every ``SCALE`` × ``SCALE`` painted pixels, rounded, uint8 BGR."""
        height, width = (side // SCALE for side in self.pixels.shape[:2])
        rows = self.pixels.reshape(height, SCALE, width * SCALE * 3).sum(1, dtype=np.uint16)
        sums = rows.reshape(height, width, SCALE, 3).sum(2, dtype=np.uint16)
        return ((sums + SCALE * SCALE // 2) // (SCALE * SCALE)).astype(np.uint8)


def enlarged(image: np.ndarray) -> np.ndarray:
    """Every pixel as ``SCALE`` × ``SCALE`` painted ones."""
    return cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)


def _painted(points: np.ndarray) -> np.ndarray:
    """Image coordinates as OpenCV's fixed-point ones, where whole numbers are pixel centres."""
    return np.rint((np.asarray(points) * SCALE - 0.5) * (1 << SHIFT)).astype(np.int32)
