"""Average precision as PASCAL VOC 2007 and the DOTA devkit compute it."""

from __future__ import annotations

import numpy as np

# As in the devkit: 3 * 0.1 is 0.30000000000000004 in floating point, and 6 * 0.1 and 7 * 0.1 are above 6/10
# and 7/10, too. A recall of exactly 3/10 misses its point there, and therefore here.
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)


def voc07_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean over eleven recalls of the best precision at that recall or above.

    Bit for bit the devkit's ``voc_ap(..., use_07_metric=True)``: it adds up elevenths one by one, and a
    recall of exactly 3/10, 6/10 or 7/10 does not reach its point (see ``RECALL_POINTS``).

    Args:
        recall, precision: Values over the detections up to each, best first; shape (n,). Recall is NaN or
            never falls.

    Returns:
        From 0 to 1; 0 without detections.

    >>> round(voc07_ap(np.array([0.5, 1.0]), np.array([1.0, 0.5])), 4)
    0.7727
    """
    if np.isnan(recall[-1:]).any():  # without objects
        return 0.0
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    ap = 0.0
    for first in np.searchsorted(recall, RECALL_POINTS):
        ap += (best_from[first] if first < len(best_from) else 0.0) / 11
    return float(ap)
