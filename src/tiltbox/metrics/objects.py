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
        names: Names of all images, with or without objects of the class.
        image: For each row an index into ``names``, shape (m,).
        qboxes: Shape (m, 8), float64, pixels of the image.
        difficult: Shape (m,), bool.
    """

    names: tuple[str, ...]
    image: np.ndarray
    qboxes: np.ndarray
    difficult: np.ndarray

    def places(self, detections: ClassDetections) -> np.ndarray:
        """For each detection the index of its image in ``names``, shape (n,); one past the end for others."""
        known = {name: index for index, name in enumerate(self.names)}
        places = np.array([known.get(name, len(known)) for name in detections.names], dtype=np.int64)
        return places[detections.image]


def objects_by_class(labels: Mapping[str, Labels], classes: Collection[str]) -> dict[str, Objects]:
    """The objects of each class in all images."""
    number = {name: index for index, name in enumerate(classes)}
    found = list(labels.values())
    label = np.array([number.get(name, -1) for each in found for name in each.classes], dtype=np.int64)
    image = np.repeat(np.arange(len(found)), [len(each) for each in found])
    qboxes = np.concatenate([np.empty((0, 8)), *(each.qboxes for each in found)])
    difficult = np.concatenate([np.empty(0, dtype=bool), *(each.difficult.astype(bool) for each in found)])
    rows = {name: np.flatnonzero(label == index) for name, index in number.items()}
    names = tuple(labels)
    return {name: Objects(names, image[own], qboxes[own], difficult[own]) for name, own in rows.items()}
