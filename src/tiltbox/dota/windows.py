"""Where an image is cut, and which objects a window keeps: the rules of mmrotate's splitter, in float64.

All coordinates are pixels of the original image, x to the right and y down, unless said otherwise. A window
is ``(x0, y0, x1, y1)`` with x1 and y1 exclusive; it may reach beyond the right and bottom border of an image
that is smaller than the window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tiltbox.dota.labels import Labels
from tiltbox.dota.patches import MIN_SIZE
from tiltbox.errors import SettingsError
from tiltbox.geometry.boxes import polygon_area

Window = tuple[int, int, int, int]

CUT = 2  # the difficulty of an object that a window contains only in part
MIN_IMAGE_SHARE = 0.6  # of a window's area, if another scale fills more (mmrotate's img_rate_thr)
MAX_SIZE = 2**20  # pixels; OpenCV reads no longer sides than this
ZERO_AREA = 1e-6  # square pixels; as in tiltbox.geometry.kernels, which takes long to import
TOLERANCE = 1e-9  # of an iof; its float64 rounding error is far below


@dataclass(frozen=True)
class Cutting:
    """How images are cut.

    Attributes:
        size, overlap: Size and overlap of windows at rate 1, in pixels.
        rates: Divisors of size and overlap.
        iof: The least share of an object's area that a window must contain to keep it.

    Raises:
        SettingsError: No image can be cut like that; the error names the key.

    >>> Cutting(64, 16, (1.0, 8.0), 0.7)
    Traceback (most recent call last):
    tiltbox.errors.SettingsError: rates: rate 8.0 makes windows of 8 pixels; give one that makes 32 to 1048576
    """

    size: int
    overlap: int
    rates: tuple[float, ...]
    iof: float

    def __post_init__(self) -> None:
        if not self.rates:
            raise SettingsError("rates", "no rate is given", "give at least one")
        twice = [rate for rate, count in Counter(self.rates).items() if count > 1]
        if twice:
            raise SettingsError("rates", f"rate {twice[0]} is given twice", "remove one")
        for rate in self.rates:
            self._require_windows(rate)
        self._require_different_windows()
        if not 0 < self.iof <= 1:
            raise SettingsError(
                "iof", f"iof {self.iof} is out of range", "give a share above 0 and at most 1"
            )

    def windows(self, width: int, height: int) -> list[Window]:
        """The windows of an image of that size."""
        return scaled_windows(width, height, self.size, self.overlap, self.rates)

    def _require_different_windows(self) -> None:
        """Patches are named by the size of their window: rates must give different sizes."""
        rate_of: dict[int, float] = {}
        for rate, (size, _) in zip(self.rates, scales(self.size, self.overlap, self.rates), strict=True):
            if (other := rate_of.setdefault(size, rate)) != rate:
                problem = f"rates {other} and {rate} both make windows of {size} pixels"
                raise SettingsError("rates", problem, "remove one")

    def _require_windows(self, rate: float) -> None:
        """Raise SettingsError unless windows can be cut at this rate, each starting after the one before."""
        if not rate > 0:
            raise SettingsError("rates", f"rate {rate} is not above 0", "give positive numbers")
        if not MIN_SIZE <= self.size / rate <= MAX_SIZE:
            key, value = ("size", f"size {self.size}") if rate == 1 else ("rates", f"rate {rate}")
            problem = f"{value} makes windows of {self.size / rate:g} pixels"
            raise SettingsError(key, problem, f"give one that makes {MIN_SIZE} to {MAX_SIZE}")
        [(size, overlap)] = scales(self.size, self.overlap, [rate])
        if not 0 <= overlap < size:
            problem = f"overlap {self.overlap} makes windows of {size} pixels share {overlap}"
            raise SettingsError("overlap", problem, "give one from 0 to less than the size")


def sliding_windows(width: int, height: int, size: int, overlap: int) -> list[Window]:
    """The windows of one scale: x outer, y inner, the last one of each row and column flush with the border.

    >>> sliding_windows(150, 90, size=100, overlap=20)
    [(0, 0, 100, 100), (50, 0, 150, 100)]
    """
    starts = product(_starts(width, size, overlap), _starts(height, size, overlap))
    return [(x, y, x + size, y + size) for x, y in starts]


def scaled_windows(width: int, height: int, size: int, overlap: int, rates: Sequence[float]) -> list[Window]:
    """The windows of all scales, in the order of ``rates``.

    A rate divides size and overlap (rounded down); it does not resize the image: rate 0.5 gives windows twice
    as large. Windows that the image fills to at most 0.6 are left out, unless all are like that: then the
    best filled ones stay. With a single rate nothing is left out.

    >>> {window[2] - window[0] for window in scaled_windows(900, 900, 1024, 200, (0.5, 1.0, 2.0))}
    {1024, 512}
    """
    windows = [w for s, o in scales(size, overlap, rates) for w in sliding_windows(width, height, s, o)]
    shares = [_image_share(window, width, height) for window in windows]
    best = max(shares)
    # Ties within 0.01, as mmrotate has it.
    enough = MIN_IMAGE_SHARE if best > MIN_IMAGE_SHARE else best - 0.01
    return [window for window, share in zip(windows, shares, strict=True) if share > enough]


def scales(size: int, overlap: int, rates: Sequence[float]) -> list[tuple[int, int]]:
    """Window size and overlap for each rate, in pixels of the original image.

    >>> scales(1024, 200, (0.5, 1.0, 1.5))
    [(2048, 400), (1024, 200), (682, 133)]
    """
    return [(int(size / rate), int(overlap / rate)) for rate in rates]


def objects_in_window(labels: Labels, window: Window, iof: float) -> Labels:
    """The objects with at least the share ``iof`` in the window, in pixels of the patch.

    Corners are shifted to the window and neither rounded nor clipped; an object that the window cuts gets
    difficulty 2. Objects without area are in no window.
    """
    rows, shares = rows_in_window(labels.qboxes, window, iof)
    inside = labels[rows]
    difficult = np.where(shares < 1 - TOLERANCE, CUT, inside.difficult)
    return Labels(inside.qboxes - np.tile(window[:2], 4), inside.classes, difficult)


def rows_in_window(qboxes: np.ndarray, window: Window, iof: float) -> tuple[np.ndarray, np.ndarray]:
    """Which of the qboxes (n, 8) a window keeps, and the share of each inside it: both of shape (k,)."""
    near = np.flatnonzero(_boxes_meet(qboxes, window))
    shares = window_iofs(qboxes[near], window)
    kept = (shares >= iof - TOLERANCE) & (shares > 0)
    return near[kept], shares[kept]


def window_iofs(qboxes: np.ndarray, window: Window) -> np.ndarray:
    """Intersection with the window over the object's own area, shape (n,), for qboxes of shape (n, 8).

    A quad whose edges cross counts as its convex hull, which is also what a detector's minimum area rectangle
    sees of it; a quad without area has iof 0.

    >>> window_iofs(np.array([[5.0, 0, 15, 0, 15, 10, 5, 10]]), (0, 0, 10, 10))
    array([0.5])
    """
    quads = uncrossed(qboxes.reshape(-1, 4, 2)) - window[:2]
    sides = np.array([window[2] - window[0], window[3] - window[1]], dtype=np.float64)
    areas, inside = polygon_area(quads.reshape(-1, 8)), polygon_area(_clamped(quads, sides))
    return np.divide(inside, areas, out=np.zeros(len(quads)), where=areas > ZERO_AREA)


def without_area(qboxes: np.ndarray) -> np.ndarray:
    """Which qboxes of shape (n, 8) have no area, so that no window holds them: a mask of shape (n,)."""
    return polygon_area(uncrossed(qboxes.reshape(-1, 4, 2)).reshape(-1, 8)) <= ZERO_AREA


def uncrossed(quads: np.ndarray) -> np.ndarray:
    """Quads of shape (n, 4, 2) with the corners of the self-crossing ones put in the order of their hull.

    If sides ab and cd cross, they are the hull's diagonals, so a, c, b, d goes round it; if bc and da cross,
    a, b, d, c does.
    """
    a, b, c, d = np.moveaxis(quads, 1, 0)
    order = np.tile(np.arange(4), (len(quads), 1))
    order[_cross(a, b, c, d)] = (0, 2, 1, 3)
    order[_cross(b, c, d, a)] = (0, 1, 3, 2)
    return np.take_along_axis(quads, order[..., None], axis=1)


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def _image_share(window: Window, width: int, height: int) -> float:
    x0, y0, x1, y1 = window
    return (min(x1, width) - x0) * (min(y1, height) - y0) / ((x1 - x0) * (y1 - y0))


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether segment ab properly crosses segment cd, for points of shape (n, 2)."""
    return (_turn(a, b, c) * _turn(a, b, d) < 0) & (_turn(c, d, a) * _turn(c, d, b) < 0)


def _turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Positive where p, q, r turn one way, negative where they turn the other."""
    return np.sign((q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0]))


def _boxes_meet(qboxes: np.ndarray, window: Window) -> np.ndarray:
    """Which qboxes (n, 8) have a horizontal box that shares area with the window: a mask of shape (n,).

    Few objects of an image are near any one window, and the boxes show that in a fraction of the time.
    """
    x, y = qboxes[:, 0::2], qboxes[:, 1::2]
    beyond_start = (x > window[0]).any(axis=1) & (y > window[1]).any(axis=1)
    return np.asarray(beyond_start & (x < window[2]).any(axis=1) & (y < window[3]).any(axis=1))


def _clamped(quads: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Polygons of 24 corners, (n, 48), whose areas are those of the quads in the rectangle up to ``sides``.

    Moving each point to the nearest one of the rectangle leaves the inside unchanged and flattens the rest
    onto the border, where it encloses no area. A side stays straight under it only between the lines that
    bound the rectangle, so each side is cut there first, at up to four places between its two ends.
    """
    steps = np.roll(quads, -1, axis=1) - quads
    ends = np.broadcast_to([0.0, 1.0], (len(quads), 4, 2))
    cuts = [_fractions(0 - quads, steps), _fractions(sides - quads, steps)]
    fractions = np.sort(np.concatenate([*cuts, ends], axis=2), axis=2)
    points = quads[:, :, None] + fractions[..., None] * steps[:, :, None]
    return np.clip(points, 0, sides).reshape(-1, 48)


def _fractions(distances: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How far along its side, 0 to 1, each coordinate has moved the distance (0 if it never moves)."""
    return np.clip(np.divide(distances, steps, out=np.zeros_like(steps), where=steps != 0), 0, 1)
