"""Scenes with a theme, which decides the ground, the objects on it, and their places.

Objects keep clear of each other and of the borders; some stand in rows, as vehicles and ships do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tiltbox.mini.canvas import Canvas, Colour, Pose, cos_sin
from tiltbox.mini.shapes import SHAPES, Pen, tree
from tiltbox.mini.terrain import ground

ATTEMPTS = 60
MARGIN = 2.0  # pixels between an object and the border
GAP = 3.0  # pixels between two objects
SUN = np.array([0.8, 0.6])  # where a shadow falls, per pixel of height
FULL, SPARSE, EMPTY = 1000, 5, 0  # the largest number of objects in a scene


@dataclass(frozen=True)
class Thing:
    """One labelled object."""

    name: str
    pose: Pose
    difficult: int = 0


class Site:
    """An image while it is being laid out.

    Args:
        rng: The only source of randomness.
        size: Side of the image in pixels.
        kind: The ground that covers all of it.
        room: The largest number of objects in it.
    """

    def __init__(self, rng: np.random.Generator, size: int, kind: str, room: int) -> None:
        self.rng, self.size, self.room = rng, size, room
        self.canvas = Canvas(ground(rng, kind, size))
        self.things: list[Thing] = []
        self.obstacles: list[Pose] = []

    def strip(self, kind: str, pose: Pose) -> None:
        """Cover a rectangle with another ground."""
        self.canvas.cover(pose.corners, ground(self.rng, kind, self.size))

    def somewhere(self, inset: int = 0) -> tuple[float, float]:
        x, y = self.rng.integers(inset * 10, (self.size - inset) * 10 + 1, 2).tolist()
        return x / 10, y / 10

    def angle(self) -> int:
        return int(self.rng.integers(0, 360))

    def number(self, low: int, high: int) -> int:
        """A random number of objects: few if there is little room, but at least one."""
        if self.room == FULL:
            return int(self.rng.integers(low, high + 1))
        return int(self.rng.integers(0, 2)) if self.things else 1

    def pose(self, name: str, x: float, y: float, angle: int) -> Pose:
        shape = SHAPES[name]
        length = int(self.rng.integers(shape.length[0] * 10, shape.length[1] * 10 + 1)) / 10
        return Pose(x, y, -90 if shape.upright else angle, length, round(length * shape.aspect, 1))

    def scatter(self, name: str, count: int) -> None:
        """Put up to ``count`` objects anywhere, at any angle, as long as there is room."""
        for _ in range(count):
            for _ in range(ATTEMPTS):
                if self.put(Thing(name, self.pose(name, *self.somewhere(), self.angle()))):
                    break

    def row(self, name: str, count: int) -> None:
        """Put a row of objects side by side where most of them find room."""
        for _ in range(ATTEMPTS):
            first = self.pose(name, *self.somewhere(), self.angle())
            poses = [first.moved(0, index * (first.width + GAP + 0.5)) for index in range(count)]
            if sum(self.free(pose) for pose in poses) * 4 >= count * 3:
                for pose in poses:
                    self.put(Thing(name, pose))
                return

    def tiny_vehicles(self, count: int) -> None:
        """Put vehicles that are too small to make out and therefore difficult."""
        for _ in range(count):
            self.put(Thing("small-vehicle", Pose(*self.somewhere(), self.angle(), 9.0, 4.5), difficult=1))

    def trees(self, count: int) -> None:
        """Plant trees away from the objects."""
        for _ in range(count):
            width = int(self.rng.integers(60, 131)) / 10
            pose = Pose(*self.somewhere(), 0, width, width)
            if self.free(pose):
                paint(self.canvas, tree, pose, height=2)

    def put(self, thing: Thing) -> bool:
        """Place the object if there is room for it."""
        if len(self.things) >= self.room or not self.free(thing.pose):
            return False
        self.things.append(thing)
        return True

    def free(self, pose: Pose) -> bool:
        corners = pose.corners
        inside = corners.min() >= MARGIN and corners.max() <= self.size - MARGIN
        others = [thing.pose for thing in self.things] + self.obstacles
        return bool(inside) and all(apart(pose, other) for other in others)


def apart(a: Pose, b: Pose, gap: float = GAP) -> bool:
    """Whether two rectangles are at least ``gap`` pixels apart: some side of one separates them.

    >>> apart(Pose(0, 0, 0, 10, 4), Pose(0, 8, 0, 10, 4)), apart(Pose(0, 0, 0, 10, 4), Pose(0, 6, 0, 10, 4))
    (True, False)
    """
    reach = (a.length + a.width + b.length + b.width) / 2 + gap
    if abs(a.x - b.x) > reach or abs(a.y - b.y) > reach:
        return True
    one, two = a.corners, b.corners
    for angle in (a.angle, a.angle + 90, b.angle, b.angle + 90):
        cos, sin = cos_sin(angle)
        p, q = (corners[:, 0] * cos + corners[:, 1] * sin for corners in (one, two))
        if p.max() + gap <= q.min() or q.max() + gap <= p.min():
            return True
    return False


def airfield(site: Site) -> None:
    """Planes and helicopters on an apron beside a runway."""
    angle = site.angle()
    apron = Pose(*site.somewhere(60), angle, 230, 150)
    site.strip("concrete", apron)
    runway = apron.moved(0, 105)
    site.strip("asphalt", Pose(runway.x, runway.y, angle, 800, 36))
    for step in range(-12, 13):
        mark = runway.moved(step * 24, 0)
        site.canvas.fill(Pose(mark.x, mark.y, angle, 12, 1.6).corners, (214, 214, 208))
    site.scatter("helicopter", site.number(6, 8))
    site.scatter("plane", site.number(7, 9))


def marina(site: Site) -> None:
    """Ships in rows and piers along a quay."""
    angle = site.angle()
    side = Pose(site.size / 2, site.size / 2, angle, 0, 0).moved(0, site.size * 0.55)
    quay = Pose(side.x, side.y, angle, 800, 110)
    site.strip("concrete", quay)
    site.obstacles.append(quay)
    site.scatter("harbor", site.number(5, 8))
    if site.room == FULL:
        site.row("ship", int(site.rng.integers(4, 7)))
        site.row("ship", int(site.rng.integers(3, 6)))
    site.scatter("ship", site.number(1, 4))


def river(site: Site) -> None:
    """Bridges over a river, with ships on it and vehicles beside it."""
    angle, breadth = site.angle(), int(site.rng.integers(30, 42))
    middle = Pose(*site.somewhere(min(90, site.size // 2)), angle, 800, breadth)
    site.strip("soil", Pose(*site.somewhere(), site.angle(), 190, 120))
    site.strip("sand", Pose(middle.x, middle.y, angle, 800, breadth + 8))
    site.strip("water", middle)
    for step in range(-5, 6):
        spot = middle.moved(step * 36 + int(site.rng.integers(-4, 5)), 0)
        turn = angle + 90 + int(site.rng.integers(-12, 13))
        width = int(site.rng.integers(120, 161)) / 10
        if site.room == FULL or site.rng.integers(0, 3) == 0:
            site.put(Thing("bridge", Pose(round(spot.x, 1), round(spot.y, 1), turn, breadth + 16.0, width)))
    site.obstacles.append(Pose(middle.x, middle.y, angle, 800, breadth + 8))
    site.row("small-vehicle", site.number(4, 7))
    site.scatter("large-vehicle", site.number(2, 4))
    site.tiny_vehicles(2)
    site.trees(40)


def park(site: Site) -> None:
    """Sports grounds and pools on grass."""
    site.strip("meadow", Pose(*site.somewhere(), site.angle(), 200, 130))
    site.strip("sand", Pose(*site.somewhere(), site.angle(), 800, 7))
    for name in ("soccer-ball-field", "ground-track-field", "baseball-diamond"):
        site.scatter(name, site.number(3, 4))
    site.scatter("tennis-court", site.number(3, 4))
    site.scatter("basketball-court", site.number(4, 5))
    site.scatter("swimming-pool", site.number(2, 3))
    site.trees(24)


def town(site: Site) -> None:
    """Roundabouts, tanks, pools and parked vehicles between streets."""
    site.strip("soil", Pose(*site.somewhere(), site.angle(), 170, 130))
    site.strip("grass", Pose(*site.somewhere(), site.angle(), 170, 130))
    site.scatter("roundabout", site.number(5, 7))
    for thing in list(site.things):
        site.strip("asphalt", Pose(thing.pose.x, thing.pose.y, site.angle(), 800, 11))
    if site.room == FULL:
        site.row("large-vehicle", int(site.rng.integers(4, 7)))
        site.row("small-vehicle", int(site.rng.integers(8, 13)))
    site.scatter("storage-tank", site.number(5, 8))
    site.scatter("swimming-pool", site.number(2, 3))
    site.tiny_vehicles(3)
    site.trees(12)


#: Themes in the order in which the images of a split take them, each with its ground.
THEMES: tuple[tuple[Callable[[Site], None], str], ...] = (
    (park, "grass"),
    (airfield, "meadow"),
    (marina, "water"),
    (park, "grass"),
    (town, "asphalt"),
    (river, "grass"),
)


def scene(rng: np.random.Generator, size: int, number: int) -> tuple[np.ndarray, list[Thing]]:
    """Lay out and paint the ``number``-th image of a split.

    Every eighth scene has few objects, and the second of those (number 15) and every fourth after it have
    none.

    Returns:
        The image, uint8 BGR (size, size, 3), and its objects.
    """
    theme, kind = THEMES[number % len(THEMES)]
    room = FULL if number % 8 != 7 else EMPTY if number % 32 == 15 else SPARSE
    site = Site(rng, size, kind, room)
    theme(site)
    things = [_painted(site, thing, kind) for thing in site.things]
    return site.canvas.photograph(), things


def _painted(site: Site, thing: Thing, kind: str) -> Thing:
    """Paint the object; on land, trees hide a part of one in twenty-five, which makes it difficult."""
    tint = tuple(site.rng.integers(-12, 13, 3).tolist())
    shape, pose = SHAPES[thing.name], thing.pose
    paint(site.canvas, shape.paint, pose, shape.height, tint, int(site.rng.integers(0, 6)))
    if kind == "water" or site.rng.integers(0, 25) > 0:
        return thing
    crown = round(pose.width * 0.7 + 4, 1)
    for right in (-0.3, 0.3):
        spot = pose.moved(pose.length * 0.3, pose.width * right)
        paint(site.canvas, tree, Pose(spot.x, spot.y, 0, crown, crown), height=2)
    return Thing(thing.name, pose, difficult=1)


def paint(
    canvas: Canvas,
    shape: Callable[[Pen], None],
    pose: Pose,
    height: float,
    tint: Colour = (0, 0, 0),
    variant: int = 0,
) -> None:
    """Paint one object over the shadow that its height throws."""
    if height:
        probe = Pen(Canvas(np.zeros((1, 1, 3), np.uint8)), pose)
        shape(probe)
        canvas.shade([outline + height * SUN for outline in probe.outlines])
    shape(Pen(canvas, pose, tint, variant))
