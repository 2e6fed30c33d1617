"""Pictures of detections: oriented boxes in the colour of their class, and a legend below the image."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images import read_image, write_png
from tiltbox.dota.labels import read_labels
from tiltbox.dota.task1 import read_task1
from tiltbox.files import whole_file

RGB = tuple[int, int, int]

# Every two at least 40 apart in CIE Lab; bright on the ground that the class is seen on.
CLASS_COLOURS: dict[str, RGB] = {
    "plane": (0, 128, 255),
    "baseball-diamond": (0, 255, 159),
    "bridge": (191, 105, 137),
    "ground-track-field": (255, 0, 0),
    "small-vehicle": (0, 255, 0),
    "large-vehicle": (255, 191, 0),
    "ship": (0, 255, 255),
    "tennis-court": (188, 255, 76),
    "basketball-court": (223, 0, 255),
    "storage-tank": (255, 183, 140),
    "soccer-ball-field": (0, 143, 191),
    "roundabout": (148, 191, 105),
    "harbor": (241, 140, 255),
    "swimming-pool": (255, 76, 99),
    "helicopter": (255, 0, 159),
}
LABELLED: RGB = (255, 255, 255)
STRIP, TEXT, SHADOW = (20, 23, 31), (226, 229, 236), (0, 0, 0)
SIDES = 1024, 2048  # of a picture's longer side: lines stay fine on small images, files small on large ones
SUBPIXEL = 4  # fractional bits of the coordinates that OpenCV is given
FAR = 1e6  # pixels; OpenCV's fixed-point coordinates overflow somewhere beyond


def picture(
    image_file: Path,
    task1: Path,
    labels: Path | None,
    out: Path,
    *,
    score: float = 0.3,
    classes: Sequence[str] = DOTA_V1_CLASSES,
) -> None:
    """Write a PNG of an image with its detections and, in white below them, its labelled objects.

    The image is scaled so that its longer side has 1024 to 2048 pixels.

    Args:
        image_file: An image; its name without extension is looked up among the detections.
        task1: A folder or zip of ``Task1_<class>.txt``.
        labels: Its labelTxt file, if there is one.
        out: The PNG to write.
        score: Detections below it are left out.

    Raises:
        DataError: A file is missing or malformed.
        OutputError: The folder of ``out`` cannot be written.
    """
    image = read_image(image_file)
    found = [
        (name, value, qbox)
        for name, part in read_task1(Path(task1), classes).items()
        for image_name, value, qbox in zip(part.images, part.scores, part.qboxes, strict=True)
        if image_name == Path(image_file).stem and value >= score
    ]
    labelled = read_labels(labels, classes).qboxes if labels else np.empty((0, 8))
    zoom = _zoom(image)
    drawn = draw_detections(
        cv2.resize(
            image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        ),
        np.array([qbox for _, _, qbox in found]).reshape(-1, 8) * zoom,
        [name for name, _, _ in found],
        np.array([value for _, value, _ in found]),
        labelled=labelled * zoom,
    )
    with whole_file(out) as temporary:
        write_png(temporary, drawn)


def draw_detections(
    image: np.ndarray,
    qboxes: np.ndarray,
    classes: Sequence[str],
    scores: np.ndarray,
    *,
    labelled: np.ndarray | None = None,
) -> np.ndarray:
    """Draw oriented boxes on a copy of an image, surest on top, and add a strip that says what is what.

    Args:
        image: BGR, shape (h, w, 3), uint8.
        qboxes: Corners in pixels of the image, shape (n, 8); a box that is not finite is left out.
        classes: The class of each box, n of them.
        scores: Shape (n,).
        labelled: Corners of labelled objects, shape (m, 8), drawn in white below the detections.

    Returns:
        BGR, shape (h + strip, w, 3), uint8; without boxes there is no strip.

    Raises:
        ValueError: The shapes do not fit together.
    """
    qboxes, labelled = np.asarray(qboxes, float), np.asarray([] if labelled is None else labelled, float)
    labelled = labelled.reshape(-1, 8)
    if qboxes.shape != (len(classes), 8) or np.shape(scores) != (len(classes),):
        raise ValueError(
            f"Expected qboxes of shape ({len(classes)}, 8) and as many scores as classes, "
            f"but got {qboxes.shape} and {np.shape(scores)}"
        )
    order = [i for i in np.argsort(scores, kind="stable") if np.isfinite(qboxes[i]).all()]
    width = max(2, round(max(image.shape[:2]) / 700))
    drawn = _outlined(image, labelled, [LABELLED] * len(labelled), width - 1)
    drawn = _outlined(drawn, qboxes[order], [class_colour(classes[i]) for i in order], width)
    return _with_legend(drawn, _legend([classes[i] for i in order], len(labelled)))


def class_colour(name: str) -> RGB:
    """The colour of a class; one that is not DOTA's gets a bright one from its name, always the same.

    >>> class_colour("plane"), class_colour("wind-turbine") == class_colour("wind-turbine")
    ((0, 255, 255), True)
    """
    if name in CLASS_COLOURS:
        return CLASS_COLOURS[name]
    hue = zlib.crc32(name.encode()) % 180
    red, green, blue = cv2.cvtColor(np.uint8([[[hue, 170, 255]]]), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _zoom(image: np.ndarray) -> float:
    longer = max(image.shape[:2])
    return min(max(longer, SIDES[0]), SIDES[1]) / longer


def _outlined(image: np.ndarray, qboxes: np.ndarray, colours: list[RGB], width: int) -> np.ndarray:
    """The image with boxes over a soft dark edge, so that they stand out on any ground."""
    corners = np.clip(qboxes, -FAR, FAR) * 2**SUBPIXEL
    polygons = list(corners.round().astype(np.int32).reshape(-1, 4, 1, 2))
    shaded = image.copy()
    cv2.polylines(shaded, polygons, True, SHADOW, width + 2, cv2.LINE_AA, SUBPIXEL)
    drawn = cv2.addWeighted(shaded, 0.5, image, 0.5, 0)
    for polygon, colour in zip(polygons, colours, strict=True):
        cv2.polylines(drawn, [polygon], True, colour[::-1], width, cv2.LINE_AA, SUBPIXEL)
    return drawn


def _legend(classes: list[str], labelled: int) -> list[tuple[str, RGB]]:
    """Text and colour of each entry: classes by name with their counts, then the labelled objects."""
    entries = [(f"{name} {count}", class_colour(name)) for name, count in sorted(Counter(classes).items())]
    return entries + ([(f"labelled {labelled}", LABELLED)] if labelled else [])


def _with_legend(image: np.ndarray, entries: list[tuple[str, RGB]]) -> np.ndarray:
    if not entries:
        return image
    width = image.shape[1]
    em = max(12, round(max(image.shape[:2]) / 64))
    font = ImageFont.load_default(em)
    places, height = _places([font.getlength(text) for text, _ in entries], width, em)
    strip = Image.new("RGB", (width, height), STRIP)
    draw = ImageDraw.Draw(strip)
    for (text, colour), (x, y) in zip(entries, places, strict=True):
        draw.polygon(_swatch(x, y, em), outline=colour, width=max(2, em // 8))
        draw.text((x + 1.5 * em, y), text, fill=TEXT, font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)[:, :, ::-1]])


def _places(lengths: list[float], width: int, em: int) -> tuple[list[tuple[float, float]], int]:
    """The left middle of each entry, in lines that are broken at ``width``, and the height of them all."""
    places, x, y = [], float(em), 1.4 * em
    for length in lengths:
        if x > em and x + 1.5 * em + length + em > width:
            x, y = float(em), y + 1.7 * em
        places.append((x, y))
        x += 1.5 * em + length + 1.5 * em
    return places, round(y + 1.4 * em)


def _swatch(x: float, y: float, em: int) -> list[tuple[float, float]]:
    """The corners of a small tilted box."""
    across, along = np.array([0.19, 0.11]) * em, np.array([-0.28, 0.48]) * em
    centre = np.array([x + 0.6 * em, y])
    return [tuple(centre + s * across + t * along) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
