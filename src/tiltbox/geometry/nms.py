"""Greedy non-maximum suppression of oriented boxes on their true polygons."""

from __future__ import annotations

import numpy as np

from tiltbox.geometry import kernels
from tiltbox.geometry.polygons import prepared

LARGEST = 1e100  # of a coordinate; results from larger ones may not be finite


def nms_quads(qboxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Row numbers of the boxes that are kept, best first.

    Boxes are taken by falling score, equal scores in input order; one is dropped if its IoU with a kept one
    is above ``threshold`` (not if equal, as in the DOTA devkit). Boxes without area and boxes with a
    coordinate that is not finite, or beyond 1e100, have IoU 0 with everything, so they are kept.

    Args:
        qboxes: Shape (n, 8), one frame.
        scores: Shape (n,).
        threshold: From 0 to 1.

    Returns:
        Row numbers, shape (k,).

    >>> nms_quads([[0, 0, 4, 0, 4, 2, 0, 2], [1, 0, 5, 0, 5, 2, 1, 2]], [0.3, 0.4], 0.1).tolist()
    [1]
    """
    qboxes, scores = np.asarray(qboxes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if qboxes.ndim != 2 or qboxes.shape[1] != 8:
        raise ValueError(f"Expected qboxes of shape (n, 8), but got {qboxes.shape}")
    if scores.shape != qboxes.shape[:1]:
        raise ValueError(f"Expected a score for each box, but got {qboxes.shape} and {scores.shape}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold from 0 to 1, but got {threshold}")
    order = np.argsort(-scores, kind="stable")
    ordered = qboxes[order]
    kept = np.ones(len(order), dtype=bool)
    finite = (np.abs(ordered) <= LARGEST).all(axis=1)  # false for NaN
    kept[finite] = kernels.suppress(prepared(ordered[finite]), threshold)
    return order[kept]


def nms_quads_in_groups(
    qboxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, count: int, threshold: float
) -> np.ndarray:
    """Like :func:`nms_quads` within each group, such as the boxes of one image; all boxes must be finite.

    Args:
        groups: Shape (n,), numbers from 0 to ``count`` - 1.

    Returns:
        Rows that are kept, by group, then best first; shape (k,).
    """
    return kernels.keep_in_groups(qboxes, scores, groups, count, threshold)
