"""Predictions of Ultralytics' oriented detectors, as ``yolo obb val save_json=True`` writes them.

Its ``predictions.json`` is a list of ``{"image_id", "file_name", "category_id", "score", "rbox", "poly"}``.

``poly`` holds the corners in pixels of the image or patch; ``category_id`` numbers the class names of the
model's data file from 1. The names themselves are not in the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.reading import decoded, image_name, plain_name, read_bytes, require_class
from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import DataError

#: The order of Ultralytics' own DOTAv1.yaml, which is not DOTA's.
DOTA_V1_NAMES = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court",
    "ground-track-field", "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout",
    "soccer-ball-field", "swimming-pool",
)  # fmt: skip

log = logging.getLogger("tiltbox")

Row = tuple[int, str, float, list[float]]  # number, image, score, corners

_WRITE = "write it with `yolo obb val save_json=True`"


def category_names(classes: Sequence[str], data_file: Path | None = None) -> tuple[str, ...]:
    """The class names of the categories: from a data file, else DOTAv1.yaml's, or ``classes`` if not DOTA's.

    Raises:
        DataError: The data file cannot be read, or names a class that is not one of ``classes``.
    """
    if data_file is None:
        return DOTA_V1_NAMES if set(classes) == set(DOTA_V1_CLASSES) else tuple(classes)
    try:
        names = yaml.safe_load(decoded(read_bytes(data_file), data_file))["names"]
        names = [names[number] for number in range(len(names))]
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        raise DataError(data_file, "contains no list of names", "give the data file of the model") from None
    names = [str(name).replace(" ", "-") for name in names]
    for name in names:
        require_class(name, classes, f"{data_file}: names")
    return tuple(names)


def read_predictions(path: Path, classes: Sequence[str], names: Sequence[str]) -> dict[str, ClassDetections]:
    """The predictions of each of ``classes``, in that order.

    Args:
        names: The class names that ``category_id`` numbers from 1; see :func:`category_names`.

    Raises:
        DataError: The file cannot be read or is not one of Ultralytics' (with the number of the prediction).
    """
    try:
        found = json.loads(decoded(read_bytes(path), path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not valid JSON ({error})", _WRITE) from None
    if not isinstance(found, list):
        raise DataError(path, "is not a list of predictions", _WRITE)
    rows: dict[str, list[Row]] = {name: [] for name in classes}
    source = f"{path}: prediction "
    for number, each in enumerate(found, start=1):
        name, row = _row(each, names, number, f"{source}{number}")
        rows[name].append(row)
    if found and not any("file_name" in each for each in found):  # versions before 8.4 do not write it
        log.warning("%s: categories are taken to count from 1; up to Ultralytics 8.3.0 it was 0", path)
    return {name: _detections(part, source) for name, part in rows.items()}


def _row(each: dict[str, Any], names: Sequence[str], number: int, where: str) -> tuple[str, Row]:
    try:
        category, score, *corners = map(_number, [each["category_id"], each["score"], *each["poly"]])
        # A name that has only digits is a number there, without leading zeros.
        image = (
            image_name(Path(each["file_name"])) if "file_name" in each else plain_name(str(each["image_id"]))
        )
        image.encode()  # JSON can contain lone surrogates
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"has no valid category_id, score, poly and image_id ({error})"
        raise DataError(where, problem, _WRITE) from None
    if len(corners) != 8:
        raise DataError(where, f"has a poly of {len(corners)} numbers, not 8", _WRITE)
    if category == 0:
        problem = "is of category 0: they count from 1, but did so from 0 up to Ultralytics 8.3.0"
        raise DataError(where, problem, "write it with version 8.3.60 or newer")
    if category not in range(1, len(names) + 1):
        problem = f"is of category {category:g}, but there are {len(names)}"
        raise DataError(where, problem, "give the data file of the model with --names")
    return names[int(category) - 1], (number, image, score, corners)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _detections(rows: list[Row], source: str) -> ClassDetections:
    numbers, images, scores, corners = zip(*rows, strict=True) if rows else ((), (), (), ())
    found = ClassDetections.of(images, np.array(scores, float), np.array(corners, float).reshape(-1, 8))
    return replace(found, source=source, lines=np.array(numbers, dtype=np.int64))
