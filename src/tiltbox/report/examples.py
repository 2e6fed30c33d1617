"""A few images of the test split for the gallery: which ones, their pictures, and the outcome of each box.

The evaluation decides what is a hit (:meth:`tiltbox.metrics.score.Matches.verdicts`); nothing is matched
here.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from tiltbox.dota.images.pixels import read_image
from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.dota.windows import Window, sliding_windows
from tiltbox.metrics.score import Task1Score
from tiltbox.provenance import file_hash
from tiltbox.records import Corners, Gallery, GalleryDetection, GalleryImage, GalleryObject

IMAGES = 6
SCORE, IOU = 0.3, 0.5  # the least score of shown detections, and the IoU of a match
LARGEST_SIDE = 1024  # pixels; for a larger image a window is shown
CROWDED = 150  # so many objects in a window are hard to tell apart: other windows are preferred
MOST_BYTES = 100_000  # of a picture: six of them add 0.8 MB to a page
QUALITIES = (85, 70, 55, 40, 25, 10)  # of WebP, until it is small enough
Box = TypeVar("Box", GalleryObject, GalleryDetection)
FAR_OUTSIDE = 1e5  # a barely trained detector draws boxes of any size


def varied(files: Collection[str], labels: Mapping[str, Labels], count: int = IMAGES) -> list[str]:
    """Names of images that show many kinds of objects, the same ones for every detector.

    The first has the most kinds, each further one adds the most new kinds; once all kinds are shown, this
    starts over. Ties go by name.

    Args:
        files: Names of images that exist.
        labels: By image.
    """
    left = {name: set(labels[name].classes) for name in sorted(files) if name in labels}
    chosen: list[str] = []
    shown: set[str] = set()
    while left and len(chosen) < count:
        if shown and all(kinds <= shown for kinds in left.values()):
            shown = set()
        best = max(left, key=lambda name: (len(left[name] - shown), len(left[name])))
        shown |= left.pop(best)
        chosen.append(best)
    return chosen


def gallery(files: Mapping[str, Path], found: Mapping[str, ClassDetections], score: Task1Score) -> Gallery:
    """The gallery of these images.

    Args:
        files: The image file of each name; the score must include them.
        found: The detections that were scored, by class.

    Raises:
        DataError: An image cannot be read.
    """
    scored = _Scored(found, score)
    images = tuple(_example(name, file, scored) for name, file in files.items())
    return Gallery(iou=IOU, score=SCORE, images=images)


def encoded(image: np.ndarray) -> str:
    """A data URI of a BGR image as WebP, as good as ``MOST_BYTES`` allow, or reduced if none would fit."""
    for quality in QUALITIES:
        _, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if len(data) <= MOST_BYTES:
            return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"
    return encoded(cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA))


@dataclass(frozen=True)
class _Scored:
    """Detections by class, and their score."""

    found: Mapping[str, ClassDetections]
    score: Task1Score

    def objects(self, image: str) -> dict[tuple[str, int], GalleryObject]:
        """The objects of an image, by their class and their row among its objects."""
        return {
            (kind, row): GalleryObject(
                kind=kind, corners=_corners(objects.qboxes[row]), difficult=bool(objects.difficult[row])
            )
            for kind, objects in self.score.objects.items()
            for row in np.flatnonzero(objects.image == objects.names.index(image)).tolist()
        }

    def detections(self, image: str) -> Iterator[tuple[GalleryDetection, tuple[str, int]]]:
        """The detections of an image that can be drawn, with the key of the object that each overlaps
        most."""
        for kind, found in self.found.items():
            matches, objects = self.score.classes[kind].matches, self.score.objects[kind]
            right, aside = matches.verdicts(IOU)
            qboxes = found.qboxes[matches.rows]
            mine = self.score.classes[kind].places[matches.rows] == objects.names.index(image)
            drawn = mine & (matches.scores >= SCORE) & np.isfinite(qboxes).all(axis=1)
            for at in np.flatnonzero(drawn).tolist():
                detection = GalleryDetection(
                    kind=kind,
                    corners=_corners(qboxes[at]),
                    score=round(float(matches.scores[at]), 3),
                    verdict="right" if right[at] else "aside" if aside[at] else "wrong",
                )
                yield detection, (kind, int(matches.objects[at]))


def _example(name: str, file: Path, scored: _Scored) -> GalleryImage:
    image = read_image(file)
    height, width = image.shape[:2]
    objects = scored.objects(name)
    window = best_window(width, height, objects.values())
    left, top, right, bottom = window
    parted = window != (0, 0, width, height)
    kept = {key: each for key, each in objects.items() if not parted or _centre_is_in(each, window)}
    return GalleryImage(
        name=name,
        source=file_hash(file),
        left=left,
        top=top,
        width=right - left,
        height=bottom - top,
        picture=encoded(image[top:bottom, left:right]),
        objects=tuple(_moved(each, left, top) for each in kept.values()),
        detections=tuple(
            _moved(each, left, top)
            for each in _kept_detections(scored.detections(name), list(kept), window if parted else None)
        ),
    )


def _kept_detections(
    detections: Iterable[tuple[GalleryDetection, tuple[str, int]]],
    objects: list[tuple[str, int]],
    window: Window | None,
) -> Iterator[GalleryDetection]:
    """The detections in a window that is not the whole image; right ones are kept with their object."""
    for each, key in detections:
        if each.verdict == "right":
            if key in objects:
                yield each.model_copy(update={"object": objects.index(key)})
        elif window is None or _centre_is_in(each, window):
            yield each


def best_window(width: int, height: int, objects: Collection[GalleryObject]) -> Window:
    """The part of an image to show: all of it or, of a large one, the window with the most kinds of objects.

    >>> best_window(600, 400, [])
    (0, 0, 600, 400)
    """
    windows = [
        (left, top, min(right, width), min(bottom, height))
        for left, top, right, bottom in sliding_windows(width, height, LARGEST_SIDE, LARGEST_SIDE // 2)
    ]

    def worth(window: Window) -> tuple[bool, int, int]:
        kinds = [each.kind for each in objects if _centre_is_in(each, window)]
        return len(kinds) <= CROWDED, len(set(kinds)), len(kinds)

    return windows[0] if len(windows) == 1 else max(windows, key=worth)


def _centre_is_in(box: Box, window: Window) -> bool:
    left, top, right, bottom = window
    corners = box.corners
    return left <= sum(corners[::2]) / 4 < right and top <= sum(corners[1::2]) / 4 < bottom


def _corners(qbox: np.ndarray) -> Corners:
    return tuple(np.clip(qbox, -FAR_OUTSIDE, FAR_OUTSIDE).round(1).tolist())


def _moved(box: Box, left: int, top: int) -> Box:
    """The box in pixels of the window instead of the image."""
    corners = tuple(round(value - (left, top)[at % 2], 1) for at, value in enumerate(box.corners))
    return box.model_copy(update={"corners": corners})
