"""How well angles are learned: the angle error of correct detections of elongated objects.

A quad p1 p2 p3 p4 has two axes, each the mean of two opposite edges: ``((p2 - p1) + (p3 - p4)) / 2`` and
``((p3 - p2) + (p4 - p1)) / 2``. The longer one is its direction, longer / shorter its aspect. The angle error
of a detection is the angle between its direction and that of its object, modulo 180 degrees, so from 0 to 90.

It is measured where an angle is meaningful: between each elongated object (``ELONGATED``) and the detection
that is right about it by the rules of AP at the IoU ``MATCH_IOU`` (:mod:`tiltbox.metrics.score`). Missed
objects, wrong detections and difficult objects have no angle error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MATCH_IOU = 0.5  # the IoU must be above it
ELONGATED = 1.5  # the smallest aspect


@dataclass(frozen=True)
class AngleError:
    """The angle errors of some objects, summarised in two figures.

    Attributes:
        median, p90: Median and 90th percentile in degrees, from 0 to 90; None without objects.
        objects: The number of elongated objects that were found.
    """

    median: float | None
    p90: float | None
    objects: int


def angle_errors(found: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The angle errors of those pairs whose labelled quad is elongated.

    Args:
        found, labelled: The qboxes of detections and of their objects; shape (n, 8), both in one frame.

    Returns:
        Degrees from 0 to 90, shape (k,) with k <= n, in the order of the pairs.

    >>> upright, flat, square = [0, 0, 2, 0, 2, 4, 0, 4], [0, 0, 4, 0, 4, 2, 0, 2], [0, 0, 4, 0, 4, 4, 0, 4]
    >>> angle_errors(np.array([upright, upright]), np.array([flat, square])).tolist()
    [90.0]
    """
    axes, aspect = directions(labelled)
    elongated = aspect >= ELONGATED
    theirs, (ours, _) = axes[elongated], directions(found[elongated])
    along = np.abs((ours * theirs).sum(axis=1))  # without its sign: an axis points both ways
    across = np.abs(ours[:, 0] * theirs[:, 1] - ours[:, 1] * theirs[:, 0])
    return np.degrees(np.arctan2(across, along))


def directions(qboxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The longer axis of each quad in pixels, shape (n, 2), and the aspect, shape (n,).

    If both axes have the same length, it is the one along the first edge. The aspect is at least 1; it is
    infinite if the shorter axis has length 0, NaN if both have.

    >>> axes, aspect = directions(np.array([[0, 0, 2, 0, 2, 4, 0, 4]]))
    >>> axes.tolist(), aspect.tolist()
    ([[0.0, 4.0]], [2.0])
    """
    p1, p2, p3, p4 = np.moveaxis(np.asarray(qboxes, dtype=np.float64).reshape(-1, 4, 2), 1, 0)
    axes = np.stack([(p2 - p1) + (p3 - p4), (p3 - p2) + (p4 - p1)], axis=1) / 2
    lengths = np.hypot(axes[..., 0], axes[..., 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = lengths.max(axis=1) / lengths.min(axis=1)
    return axes[np.arange(len(axes)), lengths.argmax(axis=1)], aspect


def angle_error(errors: Iterable[np.ndarray]) -> AngleError:
    """Summarise the errors (degrees) of all classes in one pool: each object counts the same.

    Percentiles between two errors are interpolated linearly, as NumPy does by default.

    >>> angle_error([np.array([1.0, 2.0]), np.array([6.0])])
    AngleError(median=2.0, p90=5.2, objects=3)
    """
    pool = np.concatenate([np.empty(0), *errors])
    if not len(pool):
        return AngleError(None, None, 0)
    median, p90 = np.percentile(pool, [50, 90]).tolist()
    return AngleError(median, p90, len(pool))
