"""Put the detections of overlapping patches together to those of whole images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.detections import read_detections
from tiltbox.dota.patches import parse_patch_name
from tiltbox.dota.reading import require_class
from tiltbox.dota.task1 import ClassDetections, read_task1, write_task1
from tiltbox.errors import DataError, SettingsError
from tiltbox.files import whole_folder
from tiltbox.geometry.boxes import polygon_area, rbox_to_qbox
from tiltbox.geometry.kernels import ZERO_AREA
from tiltbox.geometry.nms import nms_quads
from tiltbox.progress import progress


@dataclass(frozen=True)
class Boxes:
    """Boxes of all classes in whole images: n rows, in the order of the input.

    ``image`` and ``label`` are indices into ``image_names`` and into the classes of the merge; ``qboxes`` has
    shape (n, 8), float64, pixels of the image.
    """

    image_names: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    scores: np.ndarray
    qboxes: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Boxes:
        columns = (column[rows] for column in (self.image, self.label, self.scores, self.qboxes))
        return Boxes(self.image_names, *columns)


def merge(detections: Path, out: Path, *, iou: float = 0.1, classes: Sequence[str] = DOTA_V1_CLASSES) -> dict:
    """Merge patch detections and write ``out/Task1_<class>.txt`` for every class, and ``out/Task1.zip``.

    Boxes are shifted to whole-image pixels (and, for patches named in the devkit's way, divided by the rate),
    then suppressed per image and class on their true polygons (:func:`tiltbox.geometry.nms.nms_quads`): by
    falling score, equal scores in input order, dropped if the IoU with a kept box is above ``iou``. Lines are
    in order of image name, then score. Boxes with a NaN or infinite number are dropped; boxes without area
    have IoU 0 with everything and stay. ``out`` appears when it is complete, in place of an earlier merge.

    Args:
        detections: A detections.parquet, or a folder (or zip) of ``Task1_<class>.txt`` whose first column
            names patches.
        out: The folder to write.
        iou: Threshold of the suppression, from 0 to 1.
        classes: The classes, in the order of the result.

    Returns:
        ``images`` and ``detections`` that came in, ``not_finite`` of them dropped, ``without_area``, ``kept``
        in all and for each of ``classes``.

    Raises:
        DataError: The detections are missing or malformed, of an unknown class or not on a patch.
        SettingsError: ``iou`` is not from 0 to 1.
        OutputError: ``out`` cannot be written, holds something else than a merge or is being written by
            another process.
    """
    detections = Path(detections)
    if not 0 <= iou <= 1:
        raise SettingsError("iou", f"{iou} is not accepted", "give a number from 0 to 1")
    with whole_folder(out, "merge", reads=[detections]) as folder:
        boxes = _read(detections, classes)
        finite = boxes[np.isfinite(boxes.qboxes).all(axis=1) & np.isfinite(boxes.scores)]
        kept = suppressed(finite, iou)
        write_task1(folder, _by_class(kept, classes))
    counts = Counter(kept.label.tolist())
    return {
        "images": len(np.unique(boxes.image)),
        "detections": len(boxes.scores),
        "not_finite": len(boxes.scores) - len(finite.scores),
        "without_area": int((polygon_area(finite.qboxes) <= ZERO_AREA).sum()),
        "kept": len(kept.scores),
        "classes": {name: counts[label] for label, name in enumerate(classes)},
    }


def suppressed(boxes: Boxes, iou: float) -> Boxes:
    """The boxes that NMS keeps, by class, then image name, then falling score."""
    rank = np.empty(len(boxes.image_names), dtype=np.int64)
    rank[np.argsort(np.array(boxes.image_names, dtype=object), kind="stable")] = np.arange(len(rank))
    boxes = boxes[np.lexsort((-boxes.scores, rank[boxes.image], boxes.label))]
    changes = np.flatnonzero(np.diff(boxes.image) | np.diff(boxes.label)) + 1
    groups = np.split(np.arange(len(boxes.scores)), changes)
    kept = [
        rows[nms_quads(boxes.qboxes[rows], boxes.scores[rows], iou)]
        for rows in progress(groups, "merge", len(groups))
    ]
    return boxes[np.concatenate(kept)]


def _read(source: Path, classes: Sequence[str]) -> Boxes:
    if source.is_dir() or source.suffix == ".zip":
        return _from_task1(source, classes)
    return _from_parquet(source, classes)


def _from_parquet(path: Path, classes: Sequence[str]) -> Boxes:
    found = read_detections(path)
    for name in found.class_names:
        require_class(name, classes, f"{path}: column 'class'")
    labels = np.array([classes.index(name) for name in found.class_names], dtype=np.int64)[found.label]
    offset = np.tile(np.stack([found.x, found.y], axis=1), 4)
    qboxes = rbox_to_qbox(found.rboxes) + offset
    return Boxes(found.image_names, found.image, labels, found.score.astype(np.float64), qboxes)


def _from_task1(source: Path, classes: Sequence[str]) -> Boxes:
    parts = list(read_task1(source, classes).values())
    images: dict[str, int] = {}
    patches = [_patches(part, images) for part in parts]  # x, y, rate and image
    windows = np.concatenate(patches)
    labels = np.repeat(np.arange(len(classes)), [len(part) for part in parts])
    qboxes = (np.concatenate([part.qboxes for part in parts]) + np.tile(windows[:, :2], 4)) / windows[:, 2:3]
    scores = np.concatenate([part.scores for part in parts])
    return Boxes(tuple(images), windows[:, 3].astype(np.int64), labels, scores, qboxes)


def _patches(part: ClassDetections, images: dict[str, int]) -> np.ndarray:
    """For each row its patch's x, y and rate and its image's number in ``images``, which grows; (n, 4)."""
    known: dict[str, tuple[float, ...]] = {}
    for row, name in enumerate(part.images):
        if name not in known:
            known[name] = _patch(name, part.where(row), images)
    return np.array([known[name] for name in part.images], dtype=np.float64).reshape(-1, 4)


def _patch(name: str, where: str, images: dict[str, int]) -> tuple[float, ...]:
    try:
        patch = parse_patch_name(name)
    except DataError as error:
        raise DataError(where, f"'{name}' {error.problem}", error.remedy) from None
    return patch.x, patch.y, patch.rate, images.setdefault(patch.image, len(images))


def _by_class(boxes: Boxes, classes: Sequence[str]) -> dict[str, ClassDetections]:
    starts = np.searchsorted(boxes.label, np.arange(len(classes) + 1))
    result = {}
    for name, start, stop in zip(classes, starts, starts[1:], strict=False):
        part = boxes[np.arange(start, stop)]
        images = tuple(boxes.image_names[i] for i in part.image.tolist())
        result[name] = ClassDetections(images, part.scores, part.qboxes)
    return result
