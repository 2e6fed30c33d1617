"""Pictures: the right pixels are painted, and the right images chosen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.task1 import ClassDetections, write_task1
from tiltbox.report.pictures import draw_boxes, example_pictures

BOX = np.array([[10.0, 10, 50, 10, 50, 30, 10, 30]])


def test_no_boxes_leave_the_image():
    image = np.full((40, 60, 3), 7, np.uint8)
    assert np.array_equal(draw_boxes(image, np.zeros((0, 8)), [], DOTA_V1_CLASSES), image)


def test_edges_are_painted_and_the_inside_is_not():
    image = np.zeros((40, 60, 3), np.uint8)
    drawn = draw_boxes(image, BOX, ["ship"], DOTA_V1_CLASSES)
    assert (drawn[10, 11:50].max(axis=1) > 100).all() and (drawn[30, 11:50].max(axis=1) > 100).all()
    assert not drawn[16:25, 16:45].any()
    assert not image.any(), "the given image is not painted on"


def test_a_box_larger_than_any_image():
    image = np.zeros((40, 60, 3), np.uint8)
    huge = np.array([[-1e12, 20, 1e12, 20, 1e12, 1e12, -1e12, 1e12]])
    drawn = draw_boxes(image, huge, ["ship"], DOTA_V1_CLASSES)
    assert (drawn[20].max(axis=1) > 100).all() and not drawn[:15].any()


def test_classes_have_colours_of_their_own():
    image = np.zeros((40, 60, 3), np.uint8)
    colours = {tuple(draw_boxes(image, BOX, [name], DOTA_V1_CLASSES)[10, 30]) for name in DOTA_V1_CLASSES}
    assert len(colours) == 15


def test_enlarging_moves_the_boxes_too():
    drawn = draw_boxes(np.zeros((40, 60, 3), np.uint8), BOX, ["ship"], DOTA_V1_CLASSES, scale=2)
    assert drawn.shape == (80, 120, 3) and drawn[20, 22:100].max(axis=1).min() > 100


def test_examples_are_those_with_most_kinds_of_objects(tmp_path):
    for folder in ("images", "labelTxt", "task1"):
        (tmp_path / folder).mkdir()
    line = "10 10 50 10 50 30 10 30 {} 0\n"
    for name, kinds in {"one": ["ship"], "two": ["ship", "plane"], "none": []}.items():
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((40, 60, 3), np.uint8))
        (tmp_path / "labelTxt" / f"{name}.txt").write_text("".join(map(line.format, kinds)))
    (tmp_path / "labelTxt/._two.txt").write_bytes(b"\xff what macOS leaves behind")
    write_task1(
        tmp_path / "task1",
        [("ship", ClassDetections.of(["two", "two"], np.array([0.9, 0.1]), np.vstack([BOX, BOX])))],
    )
    written = example_pictures(
        tmp_path / "task1",
        tmp_path / "labelTxt",
        tmp_path / "images",
        tmp_path / "out",
        DOTA_V1_CLASSES,
        count=2,
    )
    assert [path.name for path in written] == ["two.png", "one.png"]
    height, width, _ = cv2.imread(str(written[0])).shape
    assert width == 2 * 960 + 12 and height > 640


@pytest.mark.parametrize("size", [(6000, 4000), (4, 3000), (3000, 4)])
def test_pictures_of_large_and_of_thin_images_are_bounded(tmp_path, size):
    for folder in ("images", "labelTxt", "task1"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images/P1.png"), np.zeros((*size, 3), np.uint8))
    (tmp_path / "labelTxt/P1.txt").write_text("")
    write_task1(tmp_path / "task1", [("ship", ClassDetections.of(["P1"], np.array([0.9]), BOX))])
    folders = (tmp_path / name for name in ("task1", "labelTxt", "images", "out"))
    (written,) = example_pictures(*folders, DOTA_V1_CLASSES)
    height, width, _ = cv2.imread(str(written)).shape
    assert width <= 2 * 2048 + 12 and height <= 2048 + 100
