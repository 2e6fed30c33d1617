"""What the gallery keeps: varied images, pictures of limited size, the evaluation's verdict on each box."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from tiltbox.dota.images.pixels import write_png
from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.metrics.score import evaluate_task1
from tiltbox.records import GalleryObject
from tiltbox.report.examples import LARGEST_SIDE, MOST_BYTES, best_window, encoded, gallery, varied

CLASSES = ("ship", "plane")


def square(x: float, y: float, side: float = 10) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def labels(*objects: tuple) -> Labels:
    """Labels from corners, class and difficulty."""
    corners, names, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return Labels(np.reshape(corners, (-1, 8)).astype(float), names, np.array(difficult, int))


def detections(*found: tuple) -> ClassDetections:
    """Detections from image, score and corners."""
    images, scores, corners = zip(*found, strict=True)
    return ClassDetections.of(images, np.array(scores), np.array(corners, float))


def test_images_that_show_more_kinds_come_first():
    """Then always the one that adds most; once all kinds are shown, it starts over."""
    kinds = {"a": "xy", "b": "xyz", "c": "w", "d": "", "e": "xyz"}
    truth = {name: labels(*((square(0, 0), kind, 0) for kind in each)) for name, each in kinds.items()}
    assert varied(kinds, truth) == ["b", "c", "e", "a", "d"]
    assert varied(["d", "c"], truth, count=1) == ["c"] and varied([], truth) == []
    assert varied(["unlabelled"], truth) == []


def scene(tmp_path, truth: Labels, found: ClassDetections, side: int = 200):
    write_png(tmp_path / "P1.png", np.full((side, side, 3), 90, np.uint8))
    score = evaluate_task1({"ship": found}, {"P1": truth}, CLASSES)
    return gallery({"P1": tmp_path / "P1.png"}, {"ship": found}, score).images[0]


def test_verdicts_are_those_of_the_evaluation(tmp_path):
    """A second claim on an object is wrong, the nearest object counts, a difficult one does not."""
    truth = labels((square(10, 10), "ship", 0), (square(50, 50), "ship", 1), (square(90, 10), "ship", 0))
    found = detections(
        ("P1", 0.9, square(11, 10)),
        ("P1", 0.8, square(10, 10)),  # claimed by a better one
        ("P1", 0.7, square(50, 51)),  # on the difficult one
        ("P1", 0.6, square(150, 150)),
        ("P1", 0.29, square(90, 10)),  # right, but its score is too low to be shown
        ("P1", 0.5, [np.nan] * 8),
    )
    image = scene(tmp_path, truth, found)
    verdicts = [(each.score, each.verdict, each.object) for each in image.detections]
    assert verdicts == [(0.9, "right", 0), (0.8, "wrong", None), (0.7, "aside", None), (0.6, "wrong", None)]
    assert [each.corners for each in image.missed] == [tuple(square(90, 10))]
    assert (image.width, image.height, len(image.objects)) == (200, 200, 3)


def test_of_a_large_image_the_window_with_most_kinds_is_kept(tmp_path):
    """Boxes are in its pixels; a hit is kept with its object, even if its own centre is outside."""
    x, side = 1024, 1600  # windows begin at 0, 512 and 576
    truth = labels(
        *((square(20 * at, 5), "ship", 0) for at in range(9)),
        (square(x - 6, 700), "ship", 0),
        (square(800, 800), "plane", 0),
    )
    found = detections(
        ("P1", 0.9, square(x - 3, 700)), ("P1", 0.8, square(20, 5)), ("P1", 0.7, square(900, 900))
    )
    image = scene(tmp_path, truth, found, side)
    assert (image.left, image.top, image.width, image.height) == (0, 0, 1024, 1024)
    corner = scene(tmp_path, labels((square(1560, 1560), "ship", 0)), found, side)
    assert (corner.left, corner.top) == (576, 576)
    assert corner.objects[0].corners == tuple(square(984, 984))
    assert [each.object for each in image.detections] == [9, 1, None]


def test_the_right_pixels_are_kept(tmp_path):
    pixels = np.zeros((1600, 1600, 3), np.uint8)
    pixels[1400:] = (0, 0, 250)
    write_png(tmp_path / "P1.png", pixels)
    truth = {"P1": labels((square(1500, 1500), "ship", 0))}
    score = evaluate_task1({}, truth, CLASSES)
    (image,) = gallery({"P1": tmp_path / "P1.png"}, {}, score).images
    data = base64.b64decode(image.picture.partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (1024, 1024, 3)
    assert np.allclose(shown[900, 500], (0, 0, 250), atol=12) and np.allclose(shown[500, 500], 0, atol=12)


def test_a_crowd_is_shown_only_where_there_is_nothing_else():
    crowd = [GalleryObject(kind=str(at), corners=square(5, 5), difficult=False) for at in range(200)]
    few = [GalleryObject(kind="ship", corners=square(1990, 20), difficult=False)]
    assert best_window(2000, 1000, crowd + few) == (976, 0, 2000, 1000)
    assert best_window(2000, 1000, crowd) == (512, 0, 1536, 1000)  # but an empty one shows nothing


@pytest.mark.parametrize("side", [1, 300, LARGEST_SIDE])
def test_pictures_are_of_limited_size(side):
    """Noise is the worst case."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    data = base64.b64decode(encoded(noise).partition(",")[2])
    assert 0 < len(data) <= MOST_BYTES
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
