from __future__ import annotations

import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon

from tiltbox.dota.classes import DOTA_V1_CLASSES
from tiltbox.dota.images.pixels import read_image
from tiltbox.dota.labels import format_labels, read_labels
from tiltbox.files.atomic import MARK
from tiltbox.mini import render_mini
from tiltbox.mini.canvas import Canvas, Pose
from tiltbox.mini.render import labels_of, render_image
from tiltbox.mini.scenes import THEMES, apart
from tiltbox.mini.shapes import SHAPES, Pen
from tiltbox.mini.terrain import GROUNDS, ground
from tiltbox.settings.datasets import Render

# One image of every theme; they change only if the set changes, and then so do all measured figures.
PIXELS = [0x3022C55B, 0x8236B160, 0x2630CEFE, 0xB6BC1B0B, 0xB9687295, 0x2111A705]
LABELS = 0x2080A122
EMPTY = 15  # the first scene without objects
SMALLEST = 128  # the least size that settings accept


@pytest.fixture(scope="module")
def scenes() -> list:
    return [render_image(0, "train", number) for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "raw"
    render_mini(out, images={"train": 2, "val": 24, "test": 1})
    return out


def test_no_images(tmp_path):
    render_mini(tmp_path / "raw", images={"train": 0})
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [MARK]


def test_scene_without_objects():
    image, things = render_image(0, "train", EMPTY)
    assert image.shape == (256, 256, 3) and things == []
    assert format_labels(labels_of(things)) == "imagesource:mini\ngsd:0.5\n"


def test_same_pixels_on_every_machine(scenes):
    assert [zlib.crc32(image.tobytes()) for image, _ in scenes] == PIXELS


def test_same_labels_on_every_machine(scenes):
    text = "".join(format_labels(labels_of(things)) for _, things in scenes)
    assert zlib.crc32(text.encode()) == LABELS


def test_other_seed_other_images(scenes):
    assert not np.array_equal(render_image(1, "train", 0)[0], scenes[0][0])


def test_folder_is_in_dota_format(folder):
    assert sorted(p.name for p in (folder / "train/images").iterdir()) == ["P0000.png", "P0001.png"]
    assert sorted(p.name for p in (folder / "train/labelTxt").iterdir()) == ["P0000.txt", "P0001.txt"]
    assert [p.name for p in (folder / "test/images").iterdir()] == ["P0026.png"]
    assert not (folder / "test/labelTxt").exists()
    labels = read_labels(folder / "train/labelTxt/P0000.txt", DOTA_V1_CLASSES)
    assert labels.header == ("imagesource:mini", "gsd:0.5")


def test_files_hold_what_was_rendered(folder, scenes):
    image, things = scenes[1]
    assert np.array_equal(read_image(folder / "train/images/P0001.png"), image)
    labels = read_labels(folder / "train/labelTxt/P0001.txt")
    exact = np.array([thing.pose.corners.ravel() for thing in things])
    assert np.abs(labels.qboxes - exact).max() <= 0.0501


def test_every_class_is_there_often_and_some_objects_are_difficult(folder):
    labels = [read_labels(path) for path in (folder / "val/labelTxt").iterdir()]
    counts = Counter(name for each in labels for name in each.classes)
    assert set(counts) == set(DOTA_V1_CLASSES) and min(counts.values()) >= 15
    difficult = np.concatenate([each.difficult for each in labels])
    assert set(difficult) == {0, 1} and 0.02 < difficult.mean() < 0.1
    per_image = sorted(map(len, labels))
    assert per_image[0] == 0 and 1 <= per_image[1] <= 5 and per_image[-1] >= 25


@pytest.mark.parametrize("size", [SMALLEST, 129, 179])
@pytest.mark.parametrize(
    "number", [*range(len(THEMES)), 23, 47]
)  # every theme; rivers with few and no objects
def test_small_images(size, number):
    image, things = render_image(0, "train", number, size)
    assert image.shape == (size, size, 3) and bool(things) == (number != 47)
    for thing in things:
        assert thing.pose.corners.min() >= 0 and thing.pose.corners.max() <= size


def test_no_smaller_image_is_accepted():
    with pytest.raises(ValueError, match="size"):
        Render(size=SMALLEST - 1)


def test_objects_are_whole_and_clear_of_each_other(scenes):
    for _, things in scenes:
        polygons = [Polygon(thing.pose.corners) for thing in things]
        for index, polygon in enumerate(polygons):
            assert min(polygon.bounds) >= 0 and max(polygon.bounds) <= 256
            assert all(not polygon.intersects(other) for other in polygons[:index])


def test_round_things_have_upright_boxes(scenes):
    _, things = scenes[4]
    round_things = [t for t in things if t.name in ("storage-tank", "roundabout")]
    assert len(round_things) > 5
    for thing in round_things:
        front_left, front_right, back_right, back_left = thing.pose.corners
        assert front_left[1] == front_right[1] < back_left[1] == back_right[1]
        assert front_left[0] == back_left[0] < front_right[0] == back_right[0]


@pytest.mark.parametrize("name", DOTA_V1_CLASSES)
@pytest.mark.parametrize("angle", [-90, 0, 33, 218])
def test_boxes_are_tight(name, angle):
    """The painted pixels come within a pixel of all four sides of the box, but do not cross them."""
    length = SHAPES[name].length[1]
    pose = Pose(40.3, 39.8, angle, length, round(length * SHAPES[name].aspect, 1))
    canvas = Canvas(np.full((80, 80, 3), 1, np.uint8))
    SHAPES[name].paint(Pen(canvas, pose))
    ys, xs = np.nonzero((canvas.pixels != 1).any(2))
    turn = np.deg2rad(angle)
    x, y = (xs + 0.5) / 4 - pose.x, (ys + 0.5) / 4 - pose.y
    ahead, right = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    for reach, side in ((ahead, pose.length), (right, pose.width)):
        assert reach.max() == pytest.approx(side / 2, abs=0.8)
        assert reach.min() == pytest.approx(-side / 2, abs=0.8)


def test_corners_start_at_the_left_of_the_head():
    ship = Pose(40, 40, 0, 40, 12)  # heads right, so its left is up
    assert ship.corners.tolist() == [[60, 34], [60, 46], [20, 46], [20, 34]]
    canvas = Canvas(np.zeros((80, 80, 3), np.uint8))
    SHAPES["ship"].paint(Pen(canvas, ship))
    inked = canvas.photograph().any(2)
    assert inked[:, 58].sum() < inked[:, 22].sum()  # the bow is pointed


def test_photograph_rounds_the_mean():
    canvas = Canvas(np.zeros((1, 2, 3), np.uint8))
    canvas.pixels[:2, :4] = 255
    canvas.pixels[0, 4] = 8
    assert canvas.photograph()[0, :, 0].tolist() == [128, 1]


def test_fill_covers_exactly_its_pixels():
    canvas = Canvas(np.zeros((8, 8, 3), np.uint8))
    canvas.fill(np.array([[2, 3], [6, 3], [6, 5], [2, 5]]), (250, 100, 10))
    image = canvas.photograph()
    assert image[3, 3].tolist() == [10, 100, 250]
    assert cv2.countNonZero(image[..., 0]) >= 8
    assert not image[:2].any() and not image[:, 7].any()


def test_apart_agrees_with_shapely():
    rng = np.random.default_rng(3)
    for _ in range(300):
        x, y, length, width = rng.uniform((-20, -20, 4, 4), (20, 20, 24, 12), (2, 4)).round(1).T
        one, two = (Pose(x[i], y[i], int(rng.integers(360)), length[i], width[i]) for i in (0, 1))
        distance = Polygon(one.corners).distance(Polygon(two.corners))
        assert apart(one, two, gap=0.01) == (distance > 0.01) or distance < 0.02
        assert not apart(one, two, gap=3) or distance >= 3 - 1e-6


@pytest.mark.parametrize("kind", GROUNDS)
def test_ground_stays_near_its_colours(kind):
    pixels = ground(np.random.default_rng(0), kind, 70).astype(int)
    low, high = np.array(GROUNDS[kind])[:, ::-1]
    assert pixels.shape == (70, 70, 3)
    assert (pixels >= low - 7).all() and (pixels <= high + 7).all()
    assert pixels.std() > 3
