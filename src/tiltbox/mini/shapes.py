"""What the fifteen classes look like from above.

A shape is painted by a function in the object's own frame: ``u`` runs from -1 (back) to 1 (front), ``v`` from
-1 (left) to 1 (right), and every shape reaches all four sides of its box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tiltbox.mini.canvas import Canvas, Colour, Pose, cos_sin

WHITE, DARK = (238, 240, 240), (38, 42, 48)

Points = Sequence[tuple[float, float]] | np.ndarray  # u and v of each


@dataclass
class Pen:
    """Paints in the frame of one object.

    Args:
        canvas: The canvas to paint on.
        pose: Where the object is.
        tint: Added to every colour, so that no two objects look quite alike.
        variant: A number by which a shape may choose one of its liveries.
    """

    canvas: Canvas
    pose: Pose
    tint: Colour = (0, 0, 0)
    variant: int = 0
    outlines: list[np.ndarray] = field(default_factory=list)

    def fill(self, points: Points, colour: Colour) -> None:
        self.canvas.fill(self._outline(points), self._tinted(colour))

    def veil(self, points: Points, colour: Colour) -> None:
        self.canvas.veil(self._outline(points), self._tinted(colour))

    def bar(self, u0: float, v0: float, u1: float, v1: float, colour: Colour) -> None:
        self.fill([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], colour)

    def frame(self, u: float, v: float, line: Colour, inside: Colour, pixels: float = 1.0) -> None:
        """A centred rectangle with a line of that many pixels around it."""
        self.bar(-u, -v, u, v, line)
        u, v = u - 2 * pixels / self.pose.length, v - 2 * pixels / self.pose.width
        self.bar(-u, -v, u, v, inside)

    def across(self, u: float, v0: float, v1: float, colour: Colour, pixels: float = 1.0) -> None:
        """A line across the object."""
        half = pixels / self.pose.length
        self.bar(u - half, v0, u + half, v1, colour)

    def along(self, v: float, u0: float, u1: float, colour: Colour, pixels: float = 1.0) -> None:
        """A line along the object."""
        half = pixels / self.pose.width
        self.bar(u0, v - half, u1, v + half, colour)

    def disc(self, u: float, v: float, radius: float, colour: Colour) -> None:
        """A disc whose radius is a share of half the width."""
        self.fill(self.round(u, v, radius), colour)

    def circle(self, u: float, radius: float, line: Colour, inside: Colour, pixels: float = 1.0) -> None:
        self.disc(u, 0, radius, line)
        self.disc(u, 0, radius - 2 * pixels / self.pose.width, inside)

    def round(self, u: float, v: float, radius: float) -> np.ndarray:
        aspect = self.pose.width / self.pose.length
        return np.array([(u + radius * aspect * c, v + radius * s) for c, s in _CIRCLE])

    def _outline(self, points: Points) -> np.ndarray:
        half = np.array([self.pose.length, self.pose.width]) / 2
        outline = self.pose.to_image(np.asarray(points, dtype=float) * half)
        self.outlines.append(outline)
        return outline

    def _tinted(self, colour: Colour) -> Colour:
        red, green, blue = (min(max(c + t, 0), 255) for c, t in zip(colour, self.tint, strict=True))
        return red, green, blue


_CIRCLE = [cos_sin(degrees) for degrees in range(0, 360, 10)]


def _mirrored(right: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return right + [(u, -v) for u, v in reversed(right)]


def plane(pen: Pen) -> None:
    body, wing, shade = (236, 238, 242), (212, 218, 228), (96, 108, 130)
    for side in (1, -1):
        pen.fill([(0.32, 0.08 * side), (-0.22, side), (-0.40, side), (-0.14, 0.08 * side)], wing)
        pen.fill([(-0.70, 0.04 * side), (-0.96, 0.40 * side), (-1, 0.40 * side), (-0.92, 0)], wing)
        pen.bar(-0.06, 0.36 * side - 0.06, 0.20, 0.36 * side + 0.06, shade)
    pen.fill(_mirrored([(1, 0.02), (0.88, 0.10), (0.6, 0.13), (-0.6, 0.11), (-1, 0.03)]), body)
    pen.bar(0.78, -0.07, 0.86, 0.07, shade)
    pen.along(0, -1, -0.66, shade)


def helicopter(pen: Pen) -> None:
    body = [(70, 40, 92), (92, 36, 84)][pen.variant % 2]
    hub = 1 - pen.pose.width / pen.pose.length
    pen.veil(pen.round(hub, 0, 1), (214, 206, 222))
    pen.fill(_mirrored([(0.2, 0.16), (-0.9, 0.06), (-1, 0.06)]), body)
    pen.bar(-1, -0.28, -0.86, 0.28, body)
    pen.fill(_mirrored([(0.78, 0.05), (0.66, 0.2), (0.3, 0.27), (-0.05, 0.2), (-0.2, 0.1)]), body)
    pen.fill(_mirrored([(0.76, 0.05), (0.66, 0.15), (0.54, 0.17), (0.54, 0)]), (176, 214, 226))
    for degrees in range(35, 395, 90):
        cos, sin = cos_sin(degrees)
        aspect = pen.pose.width / pen.pose.length
        pen.fill(
            [(hub + aspect * (0.96 * cos + f * sin), 0.96 * sin - f * cos) for f in (0.05, -0.05)]
            + [(hub + aspect * f * sin, -f * cos) for f in (-0.05, 0.05)],
            DARK,
        )


def ship(pen: Pen) -> None:
    hull = [(150, 62, 48), (176, 84, 56)][pen.variant % 2]
    pen.fill(_mirrored([(1, 0), (0.78, 0.6), (0.5, 1), (-0.86, 1), (-1, 0.7)]), WHITE)
    pen.fill(_mirrored([(0.88, 0), (0.7, 0.5), (0.46, 0.74), (-0.84, 0.74), (-0.92, 0.5)]), hull)
    pen.bar(-0.78, -0.6, -0.44, 0.6, WHITE)
    pen.bar(-0.52, -0.5, -0.46, 0.5, DARK)
    for u in (-0.26, 0.06, 0.38):
        pen.bar(u, -0.4, u + 0.2, 0.4, (96, 44, 38))


def storage_tank(pen: Pen) -> None:
    pen.disc(0, 0, 1, (160, 164, 168))
    pen.disc(0, 0, 0.92, (230, 230, 224))
    pen.disc(-0.08, -0.08, 0.70, (246, 246, 242))
    pen.bar(-0.04, 0, 0.04, 0.92, (150, 152, 156))
    pen.disc(0, 0, 0.14, (136, 140, 146))


def roundabout(pen: Pen) -> None:
    pen.disc(0, 0, 1, (214, 214, 206))
    pen.disc(0, 0, 0.95, (84, 86, 92))
    pen.circle(0, 0.5, (232, 226, 190), (86, 132, 58), pixels=1.5)
    pen.disc(0, 0, 0.22, (48, 92, 44))
    for degrees in range(0, 360, 30):
        cos, sin = cos_sin(degrees)
        pen.disc(0.74 * cos, 0.74 * sin, 0.05, WHITE)


def harbor(pen: Pen) -> None:
    deck, edge = (206, 190, 152), (150, 134, 104)
    pen.bar(-1, -1, 1, -0.42, edge)
    pen.bar(-0.97, -0.95, 0.97, -0.5, deck)
    half = 5 / pen.pose.length
    for u in np.array([-1 + half, -0.32, 0.32, 1 - half]):
        pen.bar(u - half, -0.6, u + half, 1, edge)
        pen.bar(u - half * 0.65, -0.6, u + half * 0.65, 0.96, deck)
    for u in (-0.66, 0, 0.66):
        pen.bar(u - 0.12, -0.85, u + 0.12, -0.62, (170, 96, 70))


def bridge(pen: Pen) -> None:
    pen.bar(-1, -1, 1, 1, (196, 176, 168))
    pen.bar(-1, -0.72, 1, 0.72, (118, 98, 98))
    for u in np.arange(-9, 10, 3) / 10:
        pen.along(0, u - 0.08, u + 0.08, (240, 214, 110))
    for u in (-0.5, 0.5):
        pen.across(u, -1, -0.72, DARK, pixels=2)
        pen.across(u, 0.72, 1, DARK, pixels=2)


def tennis_court(pen: Pen) -> None:
    blue = (46, 84, 168)
    pen.bar(-1, -1, 1, 1, (62, 128, 118))
    pen.frame(0.82, 0.76, WHITE, blue)
    for side in (1, -1):
        pen.along(0.54 * side, -0.82, 0.82, WHITE, pixels=0.8)
        pen.across(0.42 * side, -0.54, 0.54, WHITE, pixels=0.8)
    pen.along(0, -0.42, 0.42, WHITE, pixels=0.8)
    pen.across(0, -0.86, 0.86, DARK)


def basketball_court(pen: Pen) -> None:
    floor, key = (222, 138, 62), (150, 62, 40)
    pen.bar(-1, -1, 1, 1, (186, 104, 48))
    pen.frame(0.92, 0.86, WHITE, floor)
    for side in (1, -1):
        pen.disc(0.52 * side, 0, 0.34, WHITE)
        pen.bar(0.52 * side, -0.34, 0.88 * side, 0.34, key)
    pen.across(0, -0.86, 0.86, WHITE)
    pen.circle(0, 0.32, WHITE, key)


def soccer_ball_field(pen: Pen) -> None:
    for stripe in range(10):
        u = stripe / 5 - 1
        pen.bar(u, -1, u + 0.2, 1, [(72, 176, 60), (104, 200, 78)][stripe % 2])
    for v in (-0.92, 0.92):
        pen.along(v, -0.94, 0.94, WHITE)
    for u in (-0.94, 0, 0.94):
        pen.across(u, -0.92, 0.92, WHITE)
    for side in (1, -1):
        pen.across(0.66 * side, -0.5, 0.5, WHITE)
        for v in (-0.5, 0.5):
            pen.along(v, 0.66 * side, 0.94 * side, WHITE)
    pen.circle(0, 0.30, WHITE, (88, 188, 70))


def ground_track_field(pen: Pen) -> None:
    lane, line, infield = (196, 84, 66), (232, 186, 172), (126, 168, 84)
    for shrink, colour in ((0, lane), (4.0, line), (5.2, lane), (10.0, infield)):
        pen.fill(_oval(pen.pose, shrink), colour)
    pen.bar(-0.42, -0.42, 0.42, 0.42, (146, 186, 98))


def _oval(pose: Pose, shrink: float) -> list[tuple[float, float]]:
    """Two half circles joined by straights, ``shrink`` pixels inside the box."""
    radius = 1 - 2 * shrink / pose.width
    straight, reach = 1 - pose.width / pose.length, radius * pose.width / pose.length
    return [((straight if c >= 0 else -straight) + reach * c, radius * s) for c, s in _CIRCLE]


def baseball_diamond(pen: Pen) -> None:
    for radius, colour in ((2.0, (150, 118, 72)), (1.88, (112, 152, 70)), (1.18, (198, 150, 96))):
        arc = [cos_sin(degrees) for degrees in range(0, 91, 9)]
        pen.fill([(-1, -1)] + [(-1 + radius * c, -1 + radius * s) for c, s in arc], colour)
    pen.bar(-0.82, -0.82, -0.14, -0.14, (124, 164, 78))
    pen.disc(-0.48, -0.48, 0.12, (206, 160, 106))
    for u, v in ((-0.9, -0.9), (-0.14, -0.82), (-0.82, -0.14), (-0.14, -0.14)):
        pen.disc(u, v, 0.08, WHITE)


def swimming_pool(pen: Pen) -> None:
    for shrink, colour in ((0, (232, 226, 210)), (1.5, (64, 206, 220)), (4.0, (40, 180, 206))):
        pen.fill(_rounded(pen.pose, shrink), colour)


def _rounded(pose: Pose, shrink: float) -> list[tuple[float, float]]:
    """A rectangle with corners rounded by 0.35 of its width, ``shrink`` pixels inside the box."""
    u, v = 1 - 2 * shrink / pose.length, 1 - 2 * shrink / pose.width
    reach = (0.7 * pose.width / pose.length * u, 0.7 * v)
    signs = [(1 if c >= 0 else -1, 1 if s >= 0 else -1) for c, s in _CIRCLE]
    return [
        (a * (u - reach[0]) + reach[0] * c, b * (v - reach[1]) + reach[1] * s)
        for (a, b), (c, s) in zip(signs, _CIRCLE, strict=True)
    ]


def small_vehicle(pen: Pen) -> None:
    paint = [(214, 40, 44), (232, 60, 40), (198, 30, 60)][pen.variant % 3]
    pen.fill(_mirrored([(1, 0.7), (0.86, 1), (-0.86, 1), (-1, 0.8)]), paint)
    pen.bar(0.2, -0.74, 0.48, 0.74, DARK)
    pen.bar(-0.76, -0.66, -0.56, 0.66, DARK)


def large_vehicle(pen: Pen) -> None:
    trailer, roof = [((242, 200, 44), (255, 218, 62)), ((248, 184, 30), (255, 202, 48))][pen.variant % 2]
    pen.bar(-1, -1, 0.48, 1, trailer)
    pen.bar(-0.95, -0.8, 0.44, 0.8, roof)
    for u in (-0.6, -0.25, 0.1):
        pen.across(u, -0.8, 0.8, trailer)
    pen.bar(0.48, -0.5, 0.58, 0.5, DARK)
    pen.bar(0.58, -0.9, 1, 0.9, (60, 76, 120))
    pen.bar(0.76, -0.8, 0.88, 0.8, (20, 24, 32))


def tree(pen: Pen) -> None:
    """Not a class: it stands beside objects, or over them."""
    pen.disc(0, 0, 1, (40, 66, 36))
    pen.disc(-0.2, -0.16, 0.72, (54, 84, 44))
    pen.disc(-0.3, -0.3, 0.4, (70, 102, 54))


@dataclass(frozen=True)
class Shape:
    """How a class is painted and how large it is.

    Attributes:
        paint: The function that paints it.
        length: Least and greatest length in pixels.
        aspect: Width over length.
        height: How far its shadow falls, in pixels; 0 for flat objects.
        upright: Whether its boxes stay parallel to the image, as DOTA's do for round things.
    """

    paint: Callable[[Pen], None]
    length: tuple[int, int]
    aspect: float
    height: float = 0
    upright: bool = False


SHAPES: dict[str, Shape] = {
    "plane": Shape(plane, (36, 50), 0.92, height=2.5),
    "baseball-diamond": Shape(baseball_diamond, (36, 46), 1.0),
    "bridge": Shape(bridge, (40, 60), 0.3, height=3),
    "ground-track-field": Shape(ground_track_field, (50, 60), 0.6),
    "small-vehicle": Shape(small_vehicle, (18, 22), 0.5, height=1.2),
    "large-vehicle": Shape(large_vehicle, (32, 42), 0.36, height=2),
    "ship": Shape(ship, (34, 50), 0.34, height=1.6),
    "tennis-court": Shape(tennis_court, (36, 44), 0.56),
    "basketball-court": Shape(basketball_court, (32, 40), 0.56),
    "storage-tank": Shape(storage_tank, (22, 34), 1.0, height=3, upright=True),
    "soccer-ball-field": Shape(soccer_ball_field, (48, 60), 0.66),
    "roundabout": Shape(roundabout, (38, 52), 1.0, upright=True),
    "harbor": Shape(harbor, (46, 60), 0.52, height=1.5),
    "swimming-pool": Shape(swimming_pool, (22, 32), 0.62),
    "helicopter": Shape(helicopter, (36, 44), 0.72, height=2.5),
}
