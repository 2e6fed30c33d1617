"""Merge the detections of overlapping patches into those of whole images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tiltbox.defaults import MERGE_IOU
from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.detections import read_detections
from tiltbox.dota.patches import PatchName, parse_patch_name
from tiltbox.dota.reading import MAX_COORDINATE, require_class
from tiltbox.dota.results import read_results, refuse_data_file
from tiltbox.dota.task1 import ClassDetections, write_task1
from tiltbox.errors import DataError, SettingsError
from tiltbox.files.atomic import atomic_folder
from tiltbox.geometry.boxes import polygon_area, rbox_to_qbox
from tiltbox.geometry.kernels import ZERO_AREA
from tiltbox.geometry.nms import nms_quads_in_groups
from tiltbox.progress import progress
from tiltbox.provenance import TASK1_FILES, Begun, beside, matching


def merge(
    detections: Path,
    out: Path,
    *,
    iou: float = MERGE_IOU,
    classes: Sequence[str] = DOTA_V1_CLASSES,
    data_file: Path | None = None,
) -> dict[str, Any]:
    """Merge patch detections and write ``out/Task1_<class>.txt`` for every class, and ``out/Task1.zip``.

    Boxes are shifted to whole-image pixels (and, for patches named in the devkit's way, divided by the rate),
    then suppressed per image and class on their true polygons
    (:func:`tiltbox.geometry.nms.nms_quads_in_groups`): by falling score, equal scores in input order, dropped
    if the IoU with a kept box is above ``iou``. Lines are in order of image name, then score. Boxes with a
    NaN or infinite number, or beyond 1e7 pixels, are dropped; boxes without area have IoU 0 with everything
    and stay. ``out`` appears when it is complete, and replaces an earlier merge.

    Args:
        detections: A detections.parquet, a folder (or zip) of ``Task1_<class>.txt`` whose first column names
            patches, or Ultralytics' predictions.json of patches.
        out: The folder to write.
        iou: Threshold of the suppression, from 0 to 1.
        classes: The classes, in the order of the result.
        data_file: The file that says what the categories of a predictions.json are.

    Returns:
        Counts: ``images`` and ``detections`` of the input, those that were ``not_finite`` (dropped) or
            ``without_area``, and those ``kept``, in total and for each of ``classes``.

    Raises:
        DataError: The detections are missing or malformed, of an unknown class or not on a patch.
        SettingsError: ``iou`` is not from 0 to 1, or ``data_file`` is given for anything but a
            predictions.json.
        OutputError: ``out`` cannot be written, contains anything but a merge or is being written by another
            process.
    """
    begun, detections, out = Begun("merge"), Path(detections), Path(out)
    if not 0 <= iou <= 1:
        raise SettingsError("iou", f"{iou} is not accepted", "give a number from 0 to 1")
    with atomic_folder(out, "merge", reads=[detections]) as folder:
        if detections.exists():  # otherwise its reader says what is missing
            begun.reads(detections, pattern=TASK1_FILES if detections.is_dir() else None)
        counts = Counts()
        parts = progress(_read(detections, classes, data_file), "merge", len(classes))
        write_task1(folder, _merged(parts, iou, counts))
    settings = {"iou": iou, "classes": list(classes)}
    begun.record(beside(out), matching(out, "*"), settings=settings)
    return {
        "images": len(counts.images),
        "detections": counts.detections,
        "not_finite": counts.not_finite,
        "without_area": counts.without_area,
        "kept": sum(counts.kept.values()),
        "classes": counts.kept,
    }


@dataclass
class Counts:
    """Counts of the input and of what was kept."""

    images: set[str] = field(default_factory=set)
    detections: int = 0
    not_finite: int = 0
    without_area: int = 0
    kept: dict[str, int] = field(default_factory=dict)


def _merged(
    parts: Iterable[tuple[str, ClassDetections]], iou: float, counts: Counts
) -> Iterator[tuple[str, ClassDetections]]:
    """Each class merged, one at a time: the corners of all boxes at once would take most of the memory."""
    for name, part in parts:
        within = (np.abs(part.qboxes) <= MAX_COORDINATE).all(axis=1)  # false for NaN
        finite = part.take(within & np.isfinite(part.scores))
        kept = suppressed(finite, iou)
        counts.images.update(part.names)
        counts.detections += len(part)
        counts.not_finite += len(part) - len(finite)
        counts.without_area += int((polygon_area(finite.qboxes) <= ZERO_AREA).sum())
        counts.kept[name] = len(kept)
        yield name, kept


def suppressed(part: ClassDetections, iou: float) -> ClassDetections:
    """The detections that NMS keeps, by image name, then falling score."""
    rank = np.empty(len(part.names), dtype=np.int64)
    rank[sorted(range(len(rank)), key=part.names.__getitem__)] = np.arange(len(rank))
    return part.take(nms_quads_in_groups(part.qboxes, part.scores, rank[part.image], len(rank), iou))


def _read(
    source: Path, classes: Sequence[str], data_file: Path | None
) -> Iterator[tuple[str, ClassDetections]]:
    """The detections of each of ``classes`` in pixels of whole images, in that order."""
    if source.is_dir() or source.suffix.lower() in (".zip", ".json"):
        return _from_patches(read_results(source, classes, data_file))
    refuse_data_file(data_file)
    return _from_parquet(source, classes)


def _from_parquet(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, ClassDetections]]:
    found = read_detections(path)
    for name in found.class_names:
        require_class(name, classes, f"{path}: column 'class'")
    for name in classes:
        label = found.class_names.index(name) if name in found.class_names else -1
        rows = np.flatnonzero(found.label == label)
        offset = np.tile(np.stack([found.x[rows], found.y[rows]], axis=1), 4)
        qboxes = rbox_to_qbox(found.rboxes[rows]) + offset
        scores = found.score[rows].astype(np.float64)
        yield name, _in_images(found.image_names, found.image[rows], scores, qboxes)


def _from_patches(found: Mapping[str, ClassDetections]) -> Iterator[tuple[str, ClassDetections]]:
    patches = _patches(found.values())
    number = {name: index for index, name in enumerate(patches)}
    images = {image: index for index, image in enumerate(dict.fromkeys(p.image for p in patches.values()))}
    image = np.array([images[patch.image] for patch in patches.values()], dtype=np.int64)
    windows = np.array([(patch.x, patch.y, patch.rate) for patch in patches.values()]).reshape(-1, 3)
    for name, part in found.items():
        own = np.array([number[patch] for patch in part.names], dtype=np.int64)[part.image]
        qboxes = (part.qboxes + np.tile(windows[own, :2], 4)) / windows[own, 2:]
        yield name, _in_images(tuple(images), image[own], part.scores, qboxes)


def _patches(parts: Iterable[ClassDetections]) -> dict[str, PatchName]:
    """The parsed names of all patches, each once: most patches have objects of more than one class."""
    known = {}
    for part in parts:
        for index, name in enumerate(part.names):
            if name not in known:
                known[name] = _patch(part, index)
    return known


def _in_images(
    names: tuple[str, ...], image: np.ndarray, scores: np.ndarray, qboxes: np.ndarray
) -> ClassDetections:
    """Detections with the names of only their own images."""
    used, image = np.unique(image, return_inverse=True)
    return ClassDetections(tuple(names[index] for index in used.tolist()), image, scores, qboxes)


def _patch(part: ClassDetections, index: int) -> PatchName:
    name = part.names[index]
    if name.split() != [name]:
        where = part.where(int(np.argmax(part.image == index)))
        raise DataError(
            where, f"{name!r} contains whitespace, which result files do not allow", "rename the image"
        )
    try:
        return parse_patch_name(name)
    except DataError as error:
        where = part.where(int(np.argmax(part.image == index)))
        remedy = f"{error.remedy}; results on whole images need only 'tiltbox evaluate', not merge"
        raise DataError(where, f"'{name}' {error.problem}", remedy) from None
