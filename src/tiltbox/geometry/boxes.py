"""Two ways to write an oriented box, and the area of one, in NumPy and float64.

* ``rbox``: (cx, cy, w, h, theta), theta in radians turning the w-axis from +x towards +y.
* ``qbox``: four corners x1 y1 ... x4 y4 in order around the box.

Nothing here depends on the frame: pixels of a patch in, pixels of that patch out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CORNER_SIGNS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
_PAIRS = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]])  # edges first, then diagonals


def rbox_to_qbox(rboxes: np.ndarray) -> np.ndarray:
    """Corners of rboxes: (n, 5) to (n, 8), float64.

    With theta 0 they run from the top left clockwise as seen in an image, where y points down. A row with a
    number that is not finite gives corners that are not finite.

    >>> rbox_to_qbox([[5, 5, 4, 2, 0]]).tolist()
    [[3.0, 4.0, 7.0, 4.0, 7.0, 6.0, 3.0, 6.0]]
    """
    rboxes = _rows(rboxes, 5, "rboxes")
    centre, sides, theta = rboxes[:, None, :2], rboxes[:, None, 2:4], rboxes[:, 4:]
    along, across = np.moveaxis(_CORNER_SIGNS * sides, 2, 0)
    with np.errstate(invalid="ignore"):
        cos, sin = np.cos(theta), np.sin(theta)
        corners = centre + np.stack([along * cos - across * sin, along * sin + across * cos], axis=2)
    return corners.reshape(-1, 8)


def qbox_to_rbox(qboxes: np.ndarray) -> np.ndarray:
    """The smallest rectangle around each qbox, as le90: (n, 8) to (n, 5), float64.

    le90 means that w is the long side and theta is in [-pi/2, pi/2). A rectangle is its own smallest
    rectangle. For other quads, including crossed ones, it is the one of least area that contains all four
    corners. One of its sides is always along a side of their convex hull, so it is enough to try all six
    directions between corners.

    >>> qbox_to_rbox([[3, 4, 7, 4, 7, 6, 3, 6]]).tolist()
    [[5.0, 5.0, 4.0, 2.0, 0.0]]
    """
    corners = _rows(qboxes, 8, "qboxes").reshape(-1, 4, 2)
    origin = corners.mean(axis=1, keepdims=True)  # small numbers, small rounding errors
    local = corners - origin
    axes = _directions(local)  # (n, 6, 2)
    normals = np.stack([-axes[..., 1], axes[..., 0]], axis=2)
    low_w, high_w = _extent(local, axes)
    low_h, high_h = _extent(local, normals)
    best = (
        np.argmin((high_w - low_w) * (high_h - low_h), axis=1)[:, None]
        if len(local)
        else np.empty((0, 1), int)
    )

    def chosen(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, best, axis=1)[:, 0]

    axis = np.take_along_axis(axes, best[..., None], axis=1)[:, 0]
    w, h = chosen(high_w - low_w), chosen(high_h - low_h)
    along, across = chosen(high_w + low_w) / 2, chosen(high_h + low_h) / 2
    cx = origin[:, 0, 0] + along * axis[:, 0] - across * axis[:, 1]
    cy = origin[:, 0, 1] + along * axis[:, 1] + across * axis[:, 0]
    return le90(np.stack([cx, cy, w, h, np.arctan2(axis[:, 1], axis[:, 0])], axis=1))


def le90(rboxes: np.ndarray) -> np.ndarray:
    """The same boxes with w the long side and theta in [-pi/2, pi/2): (n, 5) to (n, 5), float64.

    >>> le90([[0, 0, 2, 4, 0]]).round(4).tolist()
    [[0.0, 0.0, 4.0, 2.0, -1.5708]]
    """
    cx, cy, w, h, theta = _rows(rboxes, 5, "rboxes").T
    theta = np.where(w >= h, theta, theta + np.pi / 2)
    theta = (theta + np.pi / 2) % np.pi - np.pi / 2
    theta = np.where(theta >= np.pi / 2, -np.pi / 2, theta)  # the remainder of -1e-17 rounds up to pi
    return np.stack([cx, cy, np.maximum(w, h), np.minimum(w, h), theta], axis=1)


def polygon_area(polygons: np.ndarray) -> np.ndarray:
    """Areas of polygons x1 y1 x2 y2 ..., in either direction: (n, 2k) to (n,), float64, square pixels.

    If edges cross, parts that run the other way round count as negative, as in the DOTA devkit.

    >>> polygon_area([[0, 0, 4, 0, 4, 2, 0, 2]]).tolist()
    [8.0]
    """
    polygons = np.asarray(polygons, dtype=np.float64)
    corners = polygons.reshape(len(polygons), polygons.shape[-1] // 2, 2)
    corners = corners[:, 1:] - corners[:, :1]
    a, b = corners[:, :-1], corners[:, 1:]  # a fan of triangles from the first corner
    return np.abs((a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(axis=1)) / 2


def _rows(boxes: np.ndarray | Sequence[Sequence[float]], width: int, name: str) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != width:
        raise ValueError(f"Expected {name} of shape (n, {width}), but got {boxes.shape}")
    return boxes


def _directions(corners: np.ndarray) -> np.ndarray:
    """Unit vectors between the corners of each quad, (n, 4, 2) to (n, 6, 2); (1, 0) where two coincide."""
    vectors = corners[:, _PAIRS[:, 1]] - corners[:, _PAIRS[:, 0]]
    lengths = np.hypot(vectors[..., 0], vectors[..., 1])[..., None]
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), [1.0, 0.0])


def _extent(corners: np.ndarray, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each quad begins and ends along each of its axes: (n, 4, 2) and (n, 6, 2) to (n, 6) twice."""
    along = np.einsum("nkc,nac->nka", corners, axes)
    return along.min(axis=1), along.max(axis=1)
