"""Training images composed of four: more objects, and more kinds of them, per computed pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmrotate.registry import TRANSFORMS
from mmrotate.structures import RotatedBoxes

from tiltbox.model.detector import PAD_VALUE

CENTRE = (0.35, 0.65)  # where the four tiles meet, as shares of the side
AT_AN_OBJECT = 0.8  # share of the tiles that are certain to show an object
STRAY = 0.3  # how far from the centre of a tile that object may be, as a share of its sides
REMEMBERED = 1 << 29  # bytes of images that a process keeps, since each image is in four mosaics per epoch


@TRANSFORMS.register_module()
class Mosaic(BaseTransform):
    """Four tiles, each a piece of a different image at its own scale, most of them cut around an object.

    Aerial images are mostly empty; a tile around an object is not. An object belongs to a tile if its centre
    is inside; its box keeps the part that the border of the tile cuts off, as in cut patches.

    Args:
        size: Side of the square result in pixels.
        prob: Probability of a mosaic; other images stay as they are.
        read: The transforms that read an image and its rboxes, without randomness.
    """

    def __init__(self, size: int, prob: float, read: list[dict[str, Any]]) -> None:
        self.size, self.prob, self._steps = size, prob, Compose(read)
        self._known: dict[str, dict[str, Any]] = {}
        self._bytes = 0

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """From a dataset's record, with ``draw`` to get another, to ``img`` (h, w, 3) and its boxes."""
        draw = results.pop("draw")
        image = self._read(results)
        if np.random.rand() >= self.prob:
            return image
        canvas = np.full((self.size, self.size, 3), PAD_VALUE, dtype=np.uint8)
        images = [image, *(self._read(draw()) for _ in range(3))]
        parts = [_paste(canvas, *tile, each) for tile, each in zip(self._tiles(), images, strict=True)]
        boxes, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        return image | {
            "img": canvas,
            "img_shape": canvas.shape[:2],
            "gt_bboxes": RotatedBoxes(torch.from_numpy(boxes)),
            "gt_bboxes_labels": labels,
            "gt_ignore_flags": np.zeros(len(labels), dtype=bool),
        }

    def _tiles(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the four tiles."""
        x, y = (np.random.uniform(*CENTRE, 2) * self.size).astype(int)
        sides = (slice(0, y), slice(y, self.size)), (slice(0, x), slice(x, self.size))
        return [(rows, columns) for rows in sides[0] for columns in sides[1]]

    def _read(self, record: dict[str, Any]) -> dict[str, Any]:
        """The image of a record, remembered if there is room; the result may be modified."""
        known = self._known.get(record["img_path"])
        if known is None:
            known = self._steps(record)
            if self._bytes + known["img"].nbytes <= REMEMBERED:
                self._known[record["img_path"]] = known
                self._bytes += known["img"].nbytes
        return known | {"img": known["img"].copy(), "gt_bboxes": known["gt_bboxes"].clone()}


def _paste(
    canvas: np.ndarray, rows: slice, columns: slice, image: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Fill a tile of ``canvas`` with a piece of ``image``; returns the rboxes in it, and their labels."""
    boxes, labels = image["gt_bboxes"].tensor.numpy(), image["gt_bboxes_labels"]
    tile = np.array([columns.stop - columns.start, rows.stop - rows.start])
    extent = np.array(image["img"].shape[1::-1])
    low = _corner(boxes[:, :2], tile, extent)
    high = np.minimum(low + tile, extent)  # if the image is smaller than the tile, the canvas shows the rest
    start = np.array([columns.start, rows.start])
    (x0, y0), (x1, y1) = start, start + high - low
    canvas[y0:y1, x0:x1] = image["img"][low[1] : high[1], low[0] : high[0]]
    inside = ((boxes[:, :2] >= low) & (boxes[:, :2] < high)).all(axis=1)
    boxes[:, :2] += start - low
    return boxes[inside], labels[inside]


def _corner(centres: np.ndarray, tile: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """The upper left corner, in the image, of a piece of size ``tile`` (x, y); it crosses no border."""
    if len(centres) and np.random.rand() < AT_AN_OBJECT:
        middle = centres[np.random.randint(len(centres))] + np.random.uniform(-STRAY, STRAY, 2) * tile
    else:
        middle = np.random.uniform(0, 1, 2) * extent
    return np.clip(np.round(middle - tile / 2), 0, np.maximum(extent - tile, 0)).astype(int)
