"""How certain the scores of the rows are, and which differences between them are significant.

Rows are resampled together if they were scored on the same labels, images and classes, and if all their runs
have kept the outcomes of their detections (:mod:`tiltbox.metrics.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tiltbox.metrics.bootstrap import Comparison, Outcomes, Resampling
from tiltbox.metrics.outcomes_file import read_outcomes
from tiltbox.report.collect import Row

LEAST_IMAGES = 2


class _Ground(NamedTuple):
    """What rows must share to be compared."""

    labels: str
    images: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Resampled:
    """A row's AP in each draw of the images of its ground, the same draws as for other rows."""

    ground: _Ground
    resampling: Resampling
    aps: np.ndarray


@dataclass(frozen=True)
class Uncertainty:
    """Intervals of scores and of differences; None for rows that cannot be resampled, or not together."""

    rows: dict[str, _Resampled] = field(default_factory=dict)

    def ranges(self, row: Row) -> dict[str, tuple[float, float] | None]:
        """The 95 % interval of each score, as a fraction; empty if there is none."""
        found = self.rows.get(row.name)
        return found.resampling.ranges(found.aps) if found else {}

    def comparison(self, first: Row, second: Row) -> Comparison | None:
        ours, theirs = (self.rows.get(row.name) for row in (first, second))
        if ours is None or theirs is None or ours.ground != theirs.ground:
            return None
        return ours.resampling.compare(ours.aps, theirs.aps, ours.ground.classes)

    def seen(self, first: Row, second: Row, key: str) -> bool:
        """Whether the difference of a score is larger than chance would make it, at 95 %."""
        found = self.comparison(first, second)
        return found is not None and key in found.scores and found.scores[key].seen


UNKNOWN = Uncertainty()


def uncertainty(rows: Sequence[Row]) -> Uncertainty:
    """Resample the rows that can be resampled.

    Raises:
        DataError: A file of outcomes is malformed.
    """
    resamplings: dict[_Ground, Resampling] = {}
    found = {}
    for row in rows:
        ground, runs = _outcomes(row)
        if ground is not None and len(ground.images) >= LEAST_IMAGES:
            if ground not in resamplings:
                resamplings[ground] = Resampling(len(ground.images))
            resampling = resamplings[ground]
            found[row.name] = _Resampled(ground, resampling, resampling.aps(runs))
    return Uncertainty(found)


def _outcomes(row: Row) -> tuple[_Ground | None, list[dict[str, Outcomes]]]:
    """The outcomes of all scored runs, and what they have in common; None if that differs."""
    scored = [(run.metrics, run.outcomes) for run in row.runs if run.metrics and run.outcomes]
    if not scored or len(scored) < len(row.scored):
        return None, []
    if any(metrics.absent_classes == "zero" for metrics, _ in scored):  # means over other classes
        return None, []
    read = [read_outcomes(path) for _, path in scored]
    grounds = {
        _Ground(metrics.labels, images, tuple(found))
        for (metrics, _), (images, found) in zip(scored, read, strict=True)
    }
    return (grounds.pop() if len(grounds) == 1 else None), [found for _, found in read]
