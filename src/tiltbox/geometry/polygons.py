"""Exact IoU of quads in float64, as the DOTA devkit defines it.

Quads are ``qbox`` rows x1 y1 ... x4 y4 of one frame, in either direction, rectangles or not. For convex quads
the IoU is geometry. Three cases need a definition:

* A quad without area has IoU 0 with everything, including itself, and so does one with a coordinate that is
  not finite.
* If the edges of a quad cross, or it has a dent, areas and intersection are the devkit's signed ones
  (:mod:`tiltbox.geometry.kernels`). A simple quad with a dent comes out as in geometry. One half of a crossed
  quad counts as negative, and its IoU with a box may be negative or exceed 1.
* If this union is not positive, the IoU is 0 (the devkit divides by it).
"""

from __future__ import annotations

import numpy as np

from tiltbox.geometry import kernels


def quad_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every quad with every other: (n, 8) and (m, 8) to (n, m), float64.

    >>> quad_iou([[0, 0, 4, 0, 4, 2, 0, 2]], [[2, 0, 6, 0, 6, 2, 2, 2], [9, 9, 8, 9, 8, 8, 9, 8]]).tolist()
    [[0.3333333333333333, 0.0]]
    """
    return kernels.iou_matrix(prepared(first), prepared(second))


def aligned_quad_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of row i with row i: (n, 8) and (n, 8) to (n,), float64."""
    ours, theirs = prepared(first), prepared(second)
    if len(ours.areas) != len(theirs.areas):
        raise ValueError(
            f"Expected as many quads as quads, but got {len(ours.areas)} and {len(theirs.areas)}"
        )
    return kernels.iou_aligned(ours, theirs)


def best_overlaps(
    quads: np.ndarray,
    groups: np.ndarray,
    candidates: np.ndarray,
    candidate_groups: np.ndarray,
    *,
    above: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The best candidate of its own group for each quad: its IoU (n,) and its row (n,).

    Among equal IoUs the first row counts. If no IoU is above 0, the IoU is 0 and the row -1. Asking only for
    IoUs ``above`` a number saves most of the work; smaller ones are then anything up to that number.

    Args:
        quads, candidates: Shapes (n, 8) and (m, 8).
        groups, candidate_groups: Shapes (n,) and (m,), numbers from 0, for example of images.
    """
    count = 1 + max(groups.max(initial=-1), candidate_groups.max(initial=-1))
    return kernels.best_match_in_groups(
        prepared(quads), groups, prepared(candidates), candidate_groups, count, above
    )


def prepared(qboxes: np.ndarray) -> kernels.Quads:
    """Quads of shape (n, 8) as the kernels take them."""
    qboxes = np.ascontiguousarray(qboxes, dtype=np.float64)
    if qboxes.ndim != 2 or qboxes.shape[1] != 8:
        raise ValueError(f"Expected qboxes of shape (n, 8), but got {qboxes.shape}")
    return kernels.prepare(qboxes)
