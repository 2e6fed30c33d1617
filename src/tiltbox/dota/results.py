"""The results of oriented detectors, whichever tool wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiltbox.dota.task1 import ClassDetections, read_task1
from tiltbox.dota.ultralytics import category_names, read_predictions
from tiltbox.errors import SettingsError


def read_results(
    source: Path, classes: Sequence[str], data_file: Path | None = None
) -> dict[str, ClassDetections]:
    """Detections of each of ``classes``, in that order.

    Args:
        source: A folder or zip of ``Task1_<class>.txt`` (tiltbox, the DOTA devkit, mmrotate, Ultralytics), or
            Ultralytics' predictions.json.
        data_file: The Ultralytics data file with the class names of a JSON's categories.

    Raises:
        DataError: The source does not exist, or it is malformed or of a class that is not one of ``classes``.
        SettingsError: ``data_file`` is given for another source.
    """
    if source.suffix.lower() == ".json" and not source.is_dir():
        return read_predictions(source, classes, category_names(classes, data_file))
    refuse_data_file(data_file)
    return read_task1(source, classes)


def refuse_data_file(data_file: Path | None) -> None:
    """Raise SettingsError if there is one, since the results have no categories to name."""
    if data_file is not None:
        raise SettingsError("--names", "is only for a predictions.json", "leave it out")
