"""Pictures of images with their objects and detections side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from tiltbox.dota.images.listing import list_images
from tiltbox.dota.images.pixels import read_image, write_png
from tiltbox.dota.labels import Labels, list_labels, read_labels
from tiltbox.dota.reading import image_name
from tiltbox.dota.results import read_results
from tiltbox.dota.task1 import ClassDetections
from tiltbox.files.atomic import atomic_file
from tiltbox.report.examples import varied
from tiltbox.report.formatting import counted

# Distinct in hue or lightness from each other and from grass, water and asphalt; then they repeat.
COLOURS = (
    "#e6194b", "#ffe119", "#4363d8", "#3cb44b", "#f58231", "#42d4f4", "#f032e6", "#bfef45", "#fabed4",
    "#469990", "#dcbeff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075",
)  # fmt: skip
SMALLEST_SIDE = 640  # small images are enlarged to keep lines and words fine
LARGEST_SIDE = 2048  # large images are reduced
FAR_OUTSIDE = 1e5  # a barely trained detector can draw boxes too large for OpenCV's integers
GAP = 12
LEGEND_LINE = 22
FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK = (250, 250, 250), (40, 40, 40)


def example_pictures(
    task1: Path,
    labels: Path,
    images: Path,
    out: Path,
    classes: Sequence[str],
    *,
    data_file: Path | None = None,
    count: int = 4,
    score: float = 0.3,
) -> list[Path]:
    """Write PNGs of ``count`` images with many kinds of objects: labels left, detections right.

    Args:
        task1, data_file: Merged detections, as evaluate takes them; those with at least ``score`` are drawn.
        labels, images: The labelTxt and images folders of the split.
    """
    found = read_results(task1, classes, data_file)
    truth = {image_name(path): read_labels(path) for path in list_labels(labels)}
    files = {image_name(path): path for path in list_images(images)}
    out.mkdir(parents=True, exist_ok=True)
    return [
        _picture(files[name], truth[name], found, classes, score, out) for name in varied(files, truth, count)
    ]


def draw_boxes(
    image: np.ndarray, qboxes: np.ndarray, names: Sequence[str], classes: Sequence[str], scale: float = 1.0
) -> np.ndarray:
    """A copy of ``image``, enlarged by ``scale``, with boxes in the colours of their classes.

    Args:
        image: BGR, uint8, shape (h, w, 3).
        qboxes: Corners in pixels of the image, shape (n, 8).
        names: The class of each box.
        classes: All classes, which determine the colours.
    """
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    canvas = cv2.resize(image, (width, height), interpolation=interpolation)
    shift = 4  # OpenCV takes corners as integers with that many bits of fraction
    for qbox, name in zip(qboxes, names, strict=True):
        corners = np.clip(np.reshape(qbox, (-1, 2)) * scale, -FAR_OUTSIDE, FAR_OUTSIDE)
        corners = np.rint(corners * 2**shift).astype(np.int32)
        for colour, width in ((INK, 4), (_colour(name, classes), 2)):
            cv2.polylines(canvas, [corners], True, colour, width, cv2.LINE_AA, shift)
    return canvas


def _picture(
    file: Path,
    truth: Labels,
    found: Mapping[str, ClassDetections],
    classes: Sequence[str],
    score: float,
    out: Path,
) -> Path:
    image = read_image(file)
    scale = min(max(1.0, SMALLEST_SIDE / min(image.shape[:2])), LARGEST_SIDE / max(image.shape[:2]))
    qboxes, names = _detections_of(image_name(file), found, score)
    objects, detections = counted(len(truth.classes), "object"), counted(len(names), "detection")
    sides: list[tuple[str, np.ndarray, Sequence[str]]] = [
        (objects, truth.qboxes, truth.classes),
        (f"{detections} (score from {score})", qboxes, names),
    ]
    drawn = [_titled(draw_boxes(image, boxes, kinds, classes, scale), title) for title, boxes, kinds in sides]
    gap = np.full((drawn[0].shape[0], GAP, 3), PAPER, np.uint8)
    both = np.hstack([drawn[0], gap, drawn[1]])
    present = [name for name in classes if name in {*truth.classes, *names}]
    path = out / f"{file.stem}.png"
    with atomic_file(path) as temporary:
        write_png(temporary, np.vstack([both, _legend(present, classes, both.shape[1])]))
    return path


def _detections_of(
    image: str, found: Mapping[str, ClassDetections], score: float
) -> tuple[np.ndarray, list[str]]:
    qboxes, names = [np.zeros((0, 8))], []
    for name, detections in found.items():
        index = detections.names.index(image) if image in detections.names else -1
        mine = (detections.image == index) & (detections.scores >= score)
        qboxes.append(detections.qboxes[mine])
        names += [name] * int(mine.sum())
    return np.concatenate(qboxes), names


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    bar = np.full((LEGEND_LINE + 8, image.shape[1], 3), PAPER, np.uint8)
    cv2.putText(bar, title, (4, LEGEND_LINE - 2), FONT, 0.55, INK, 1, cv2.LINE_AA)
    return np.vstack([bar, image])


def _legend(names: Sequence[str], classes: Sequence[str], width: int) -> np.ndarray:
    """Colour patches with class names, in as many lines as they need."""
    x, y, places = 4, 0, []
    for name in names:
        needed = 26 + cv2.getTextSize(name, FONT, 0.5, 1)[0][0] + 14
        if x + needed > width and x > 4:
            x, y = 4, y + LEGEND_LINE
        places.append((name, x, y))
        x += needed
    legend = np.full((y + LEGEND_LINE + 8, width, 3), PAPER, np.uint8)
    for name, x, y in places:
        cv2.rectangle(legend, (x, y + 8), (x + 18, y + 20), _colour(name, classes), -1)
        cv2.putText(legend, name, (x + 24, y + 19), FONT, 0.5, INK, 1, cv2.LINE_AA)
    return legend


def _colour(name: str, classes: Sequence[str]) -> tuple[int, int, int]:
    """BGR, the same for every picture of a set of classes."""
    red, green, blue = ImageColor.getrgb(COLOURS[classes.index(name) % len(COLOURS)])[:3]
    return blue, green, red
