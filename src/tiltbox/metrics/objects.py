"""The objects of a set of images, class by class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections


@dataclass(frozen=True)
class Objects:
    """The objects of one class in all images: m rows.

    Attributes:
        names: Of all images, with objects of the class or without.
        image: For each row an index into ``names``, shape (m,).
        qboxes: Shape (m, 8), float64, pixels of the image.
        difficult: Shape (m,), bool.
    """

    names: tuple[str, ...]
    image: np.ndarray
    qboxes: np.ndarray
    difficult: np.ndarray

    def places(self, detections: ClassDetections) -> np.ndarray:
        """For each detection the index of its image in ``names``, shape (n,); one beyond for any other."""
        known = {name: index for index, name in enumerate(self.names)}
        places = np.array([known.get(name, len(known)) for name in detections.names], dtype=np.int64)
        return places[detections.image]


def objects_by_class(labels: Mapping[str, Labels], classes: Collection[str]) -> dict[str, Objects]:
    """The objects of each class in all images."""
    rows: dict[str, list[tuple[int, int]]] = {name: [] for name in classes}
    for image, found in enumerate(labels.values()):
        for row, name in enumerate(found.classes):
            if name in rows:
                rows[name].append((image, row))
    qboxes = [found.qboxes for found in labels.values()]
    difficult = [found.difficult.astype(bool) for found in labels.values()]
    return {
        name: Objects(
            tuple(labels),
            np.array([image for image, _ in places], dtype=np.int64),
            np.array([qboxes[image][row] for image, row in places], dtype=np.float64).reshape(-1, 8),
            np.array([difficult[image][row] for image, row in places], dtype=bool),
        )
        for name, places in rows.items()
    }
