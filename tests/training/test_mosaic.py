"""Images composed of four."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiltbox.model.compat import import_openmmlab

import_openmmlab()
from mmrotate.structures import RotatedBoxes  # noqa: E402

from tiltbox.training.mosaic import Mosaic  # noqa: E402

SIDE, SHADES = 96, (40, 90, 160, 220)


class Album:
    """Square images of one shade each, with objects as dots a shade brighter; read like mmengine's."""

    def __init__(self, side: int = SIDE, objects: int = 3) -> None:
        draw = np.random.default_rng(0)
        self.images, self.boxes = [], []
        for shade in SHADES:
            image = np.full((side, side, 3), shade, dtype=np.uint8)
            cells = draw.permutation(16 * 16)[:objects]  # apart from each other
            centres = ((np.stack([cells % 16, cells // 16], axis=1) + 0.5) * side // 16).astype(int)
            for x, y in centres:
                image[y, x] = shade + 1
            self.images.append(image)
            self.boxes.append(
                np.concatenate([centres, np.tile([7, 3, 0.4], (objects, 1))], axis=1, dtype=np.float32)
            )
        self.reads = 0

    def record(self, index: int) -> dict:
        return {"img_path": f"{index}.png", "index": index, "draw": self.draw}

    def draw(self) -> dict:
        return self.record(np.random.randint(len(SHADES)))

    def read(self, record: dict) -> dict:
        self.reads += 1
        index = record["index"]
        boxes = RotatedBoxes(torch.from_numpy(self.boxes[index].copy()))
        labels = np.full(len(boxes), index)
        return record | {"img": self.images[index].copy(), "gt_bboxes": boxes, "gt_bboxes_labels": labels}


def mosaic(album: Album, prob: float = 1.0) -> Mosaic:
    made = Mosaic(SIDE, prob, [])
    made._steps = album.read
    return made


def test_never():
    album = Album()
    found = mosaic(album, prob=0.0)(album.record(2))
    assert (found["img"] == album.images[2]).all() and "draw" not in found
    assert (found["gt_bboxes"].tensor.numpy() == album.boxes[2]).all()


@pytest.mark.parametrize("side", [SIDE, 300, 40])
def test_boxes_stay_on_what_they_mark(side):
    """Every box is centred on its dot, in the tile of its image; every dot of the result has its box."""
    album = Album(side)
    made = mosaic(album)
    np.random.seed(0)
    for _ in range(40):
        found = made(album.record(0))
        image, boxes = found["img"], found["gt_bboxes"].tensor.numpy()
        assert image.shape == (SIDE, SIDE, 3) == (*found["img_shape"], 3)
        assert len(boxes) == len(found["gt_bboxes_labels"]) == len(found["gt_ignore_flags"])
        marked = {(int(x), int(y)) for x, y in boxes[:, :2]}
        dots = np.isin(image[..., 0], [shade + 1 for shade in SHADES])
        assert marked == {(x, y) for y, x in zip(*np.nonzero(dots), strict=True)}
        for box, label in zip(boxes, found["gt_bboxes_labels"], strict=True):
            assert image[int(box[1]), int(box[0]), 0] == SHADES[label] + 1
            assert box[2:] == pytest.approx([7, 3, 0.4])


def test_most_tiles_show_an_object():
    album = Album(300, objects=1)
    made = mosaic(album)
    np.random.seed(0)
    counts = [len(made(album.record(0))["gt_bboxes"]) for _ in range(100)]
    assert np.mean(counts) > 4 * 0.8


def test_images_without_objects():
    album = Album(objects=0)
    found = mosaic(album)(album.record(1))
    assert found["gt_bboxes"].tensor.shape == (0, 5) and len(found["gt_bboxes_labels"]) == 0


def test_each_image_is_read_once_and_not_changed():
    album = Album()
    made = mosaic(album)
    for _ in range(20):
        made(album.record(3))["img"][:] = 0
    assert album.reads == len(SHADES)
    assert (mosaic(album, prob=0.0)(album.record(3))["img"] == album.images[3]).all()
    made.prob = 0.0
    assert (made(album.record(3))["img"] == album.images[3]).all()


def test_what_does_not_fit_is_read_again(monkeypatch):
    monkeypatch.setattr("tiltbox.training.mosaic.REMEMBERED", 0)
    album = Album()
    made = mosaic(album)
    for _ in range(3):
        made(album.record(0))
    assert album.reads == 12
