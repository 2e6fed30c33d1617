"""What is scored, and against what."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np

from tiltbox.dota.labels import list_labels
from tiltbox.dota.results import read_results
from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import DataError


def label_files(folder: Path) -> dict[str, Path]:
    """The label file of each image.

    Raises:
        DataError: There is none.
    """
    files = {path.stem: path for path in list_labels(folder)}
    if not files:
        raise DataError(folder, "holds no label files", "give the labelTxt folder with --labels")
    return files


def read_scored(
    source: Path, classes: Sequence[str], labelled: Container[str], names: Path | None = None
) -> dict[str, ClassDetections]:
    """Detections of whole images, by class (:func:`tiltbox.dota.results.read_results`).

    Raises:
        DataError: A file is missing or malformed, or detections are on an image that is not ``labelled``.
    """
    found = read_results(source, classes, names)
    for part in found.values():
        _require_labels(part, labelled)
    return found


def _require_labels(part: ClassDetections, labelled: Container[str]) -> None:
    for index, name in enumerate(part.names):
        if name not in labelled:
            where = part.where(int(np.argmax(part.image == index)))
            problem = f"there are no labels of the image '{name}'"
            raise DataError(where, problem, "merge the patches first, or give the labels of all images")
