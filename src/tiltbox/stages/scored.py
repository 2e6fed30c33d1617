"""Reads detections to score and the labels to score them against."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np

from tiltbox.dota.labels import list_labels
from tiltbox.dota.patches import parse_patch_name
from tiltbox.dota.reading import image_name
from tiltbox.dota.results import read_results
from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import DataError

log = logging.getLogger("tiltbox")


def label_files(folder: Path) -> dict[str, Path]:
    """The label file of each image.

    Raises:
        DataError: There are none.
    """
    files = {image_name(path): path for path in list_labels(folder)}
    if not files:
        raise DataError(folder, "contains no label files", "give the labelTxt folder with --labels")
    return files


def read_scored(
    source: Path, classes: Sequence[str], labelled: Container[str], data_file: Path | None = None
) -> dict[str, ClassDetections]:
    """Detections of whole images, by class (:func:`tiltbox.dota.results.read_results`).

    Raises:
        DataError: A file is missing or malformed, or detections are on an image that is not ``labelled``.
    """
    found = read_results(source, classes, data_file)
    for part in found.values():
        _require_labels(part, labelled)
    if look_normalised(found):
        log.warning(
            "%s: all coordinates are between 0 and 1, as if normalised, but are taken as pixels: multiply"
            " them by the image's width and height first",
            source,
        )
    return found


def look_normalised(found: Mapping[str, ClassDetections]) -> bool:
    """Whether all corners of all boxes are within a pixel of the origin."""
    largest = [np.abs(part.qboxes).max() for part in found.values() if len(part)]
    return bool(largest) and max(largest) <= 1


def _require_labels(part: ClassDetections, labelled: Container[str]) -> None:
    for index, name in enumerate(part.names):
        if name not in labelled:
            where = part.where(int(np.argmax(part.image == index)))
            raise DataError(where, f"there are no labels for image '{name}'", _remedy(name, labelled))


def _remedy(name: str, labelled: Container[str]) -> str:
    """The remedy for an unknown image name, by what may be wrong with it."""
    if (bare := image_name(Path(name))) in labelled:
        return f"name the image without its extension: {bare}"
    if name.isdecimal() and any(name.zfill(digits) in labelled for digits in range(len(name) + 1, 13)):
        return (
            "the images have leading zeros in their names, which this file has lost: write it with"
            " Ultralytics 8.4 or newer, whose predictions.json has the name of each file"
        )
    try:
        parse_patch_name(name)
    except DataError:
        return "give the labels of all images, or leave out the results on others"
    return "it is a patch: merge the patches first"
