"""Which classes are mistaken for which: all detections with at least a given score, across classes.

A detection belongs to the object, of whatever class, that it overlaps most, if that IoU is above the
threshold. The best-scored detection of an object names it; further ones are repetitions and do not count, nor
does anything that belongs to a difficult object. The remaining detections are of nothing, and an object
without a detection is missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tiltbox.dota.task1 import ClassDetections, no_detections
from tiltbox.geometry.polygons import best_overlaps
from tiltbox.metrics.objects import Objects


@dataclass(frozen=True)
class Confusion:
    """Counts of objects by what they are and what they were taken for.

    Attributes:
        classes: k names.
        counts: Shape (k + 1, k + 1), int: objects of a class by row, what they were taken for by column. The
            last row is for no object, the last column for missed objects.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    def largest(self, count: int) -> list[tuple[str, str, int]]:
        """The most frequent pairs of different classes: actual class, class it was taken for, count."""
        size = len(self.classes)
        wrong = self.counts[:size, :size] * (1 - np.eye(size, dtype=np.int64))
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def confusion(
    detections: Mapping[str, ClassDetections],
    objects: Mapping[str, Objects],
    *,
    iou: float = 0.5,
    score: float = 0.3,
) -> Confusion:
    """Count what the objects of all classes were taken for.

    Args:
        detections: Detections of each class; those below ``score`` are left out.
        objects: Objects of each class, all with the same names of images.
    """
    classes = tuple(objects)
    counts = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    truth = np.repeat(np.arange(len(classes)), [len(part.image) for part in objects.values()])
    difficult = np.concatenate([part.difficult for part in objects.values()])
    boxes = np.concatenate([part.qboxes for part in objects.values()])
    images = np.concatenate([part.image for part in objects.values()])

    found = {name: detections.get(name, no_detections()) for name in classes}
    good = [part.scores >= score for part in found.values()]
    taken_for = np.repeat(np.arange(len(classes)), [int(rows.sum()) for rows in good])
    qboxes, scores, places = (
        np.concatenate([values[rows] for values, rows in zip(columns, good, strict=True)])
        for columns in (
            [part.qboxes for part in found.values()],
            [part.scores for part in found.values()],
            [objects[name].places(part) for name, part in found.items()],
        )
    )
    ious, best = best_overlaps(qboxes, places, boxes, images, above=iou)
    belongs = ious > iou
    np.add.at(counts[-1], taken_for[~belongs], 1)
    order = np.argsort(-scores, kind="stable")
    order = order[belongs[order]]
    namer = np.full(len(truth), len(classes))
    namer[best[order[::-1]]] = taken_for[order[::-1]]  # the best one of an object is assigned last and stays
    np.add.at(counts, (truth[~difficult], namer[~difficult]), 1)
    return Confusion(classes, counts)
