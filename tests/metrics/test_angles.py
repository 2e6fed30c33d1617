"""The angle error of quads that were turned by a known angle, and which of them count."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.metrics.angles import AngleError, angle_error, angle_errors, directions
from tiltbox.metrics.score import Task1Score, evaluate_task1


def turned(degrees: float, *, long: float = 20, short: float = 10, x: float = 0) -> np.ndarray:
    """A rectangle around (x, 0) with its long side turned from +x towards +y."""
    return rbox_to_qbox([[x, 0, long, short, np.radians(degrees)]])[0]


def errors(found, labelled) -> list[float]:
    return angle_errors(np.reshape(found, (-1, 8)), np.reshape(labelled, (-1, 8))).tolist()


def scored(found: dict[str, list], labels: dict[str, list], **options) -> Task1Score:
    """One image; detections as (score, qbox), objects as (qbox, difficulty), by class."""
    rows = [(name, *each) for name, objects in labels.items() for each in objects]
    qboxes = np.array([qbox for _, qbox, _ in rows], dtype=float).reshape(-1, 8)
    difficult = np.array([value for *_, value in rows], dtype=int)
    detections = {
        name: ClassDetections.of(
            ["P1"] * len(each), np.array([s for s, _ in each]), np.array([q for _, q in each], dtype=float)
        )
        for name, each in found.items()
    }
    image = Labels(qboxes, tuple(name for name, *_ in rows), difficult)
    return evaluate_task1(detections, {"P1": image}, tuple(labels), **options)


def ship_errors(found: list, labels: list, **options) -> list[float]:
    return scored({"ship": found}, {"ship": labels}, **options).classes["ship"].angle_errors.tolist()


def test_nothing():
    assert angle_errors(np.empty((0, 8)), np.empty((0, 8))).shape == (0,)
    assert angle_error([]) == angle_error([np.empty(0)]) == AngleError(None, None, 0)
    score = evaluate_task1({}, {}, ("ship",))
    assert score.angle_error == AngleError(None, None, 0)


def test_nothing_found_and_nothing_to_find():
    assert scored({}, {"ship": [(turned(0), 0)]}).angle_error.objects == 0
    assert scored({"ship": [(0.9, turned(0))]}, {"ship": []}).angle_error.objects == 0


@pytest.mark.parametrize(
    ("found", "labelled", "error"),
    [
        (0, 0, 0),
        (10, 0, 10),
        (-10, 0, 10),
        (80, 0, 80),
        (90, 0, 90),
        (100, 0, 80),  # the same direction as -80
        (180, 0, 0),
        (179, 1, 2),
        (1, 179, 2),
        (89, -89, 2),
        (30, -60, 90),
        (725, 0, 5),
    ],
)
def test_known_turns(found, labelled, error):
    assert errors(turned(found), turned(labelled)) == pytest.approx([error], abs=1e-9)


def test_equal_and_upright_quads_have_no_rounding_error():
    upright, flat = [0, 0, 2, 0, 2, 4, 0, 4], [0, 0, 4, 0, 4, 2, 0, 2]
    assert errors([turned(37), upright, upright], [turned(37), upright, flat]) == [0, 0, 90]


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("step", [1, -1])
def test_the_order_of_the_corners_does_not_matter(first, step):
    corners = turned(10).reshape(4, 2)
    other = np.roll(corners, first, axis=0)[::step].ravel()
    assert errors(other, turned(-5)) == pytest.approx([15])
    assert errors(turned(-5), other) == pytest.approx([15])


def test_a_quad_that_is_not_a_rectangle():
    """Opposite edges (9, 0) and (11, 2), mean (10, 1); (2, 4) and (0, 2), mean (1, 3)."""
    quad = [0, 0, 9, 0, 11, 4, 0, 2]
    axes, aspect = directions(np.array([quad]))
    assert axes.tolist() == [[10, 1]] and aspect == pytest.approx([np.sqrt(101 / 10)])
    assert errors(turned(0), quad) == pytest.approx([np.degrees(np.arctan(0.1))])


@pytest.mark.parametrize(
    ("labelled", "counts"),
    [
        (turned(0, long=10), False),
        (turned(0, long=14.99), False),
        ([0, 0, 15, 0, 15, 10, 0, 10], True),  # exactly 1.5
        ([0, 0, 10, 0, 10, 15, 0, 15], True),
        ([0, 0, 9, 12, 1, 18, -8, 6], True),  # the same, turned: sides (9, 12) and (-8, 6)
    ],
)
def test_objects_count_from_an_aspect_on(labelled, counts):
    assert len(errors(turned(0, long=90), labelled)) == counts


def test_the_aspect_is_that_of_the_object_not_of_the_detection():
    assert len(errors(turned(0, long=11), turned(0))) == 1


def test_quads_without_a_shorter_axis():
    """A line has a direction, a point has none."""
    line, point = [0, 0, 8, 0, 8, 0, 0, 0], [5] * 8
    _, aspect = directions(np.array([line, point]))
    assert aspect[0] == np.inf and np.isnan(aspect[1])
    assert errors([turned(90), turned(0)], [line, point]) == [90]


def test_a_right_detection_counts():
    assert ship_errors([(0.01, turned(8))], [(turned(0), 0)]) == pytest.approx([8])


def test_a_second_claimant_does_not_count():
    """The better-scored one is 5 degrees off; the exact one comes too late."""
    assert ship_errors([(0.8, turned(0)), (0.9, turned(5))], [(turned(0), 0)]) == pytest.approx([5])


@pytest.mark.parametrize("difficult", [1, 2])
def test_difficult_objects_do_not_count(difficult):
    labels = [(turned(0), difficult), (turned(0, x=100), 0)]
    assert ship_errors([(0.9, turned(8)), (0.8, turned(3, x=100))], labels) == pytest.approx([3])


def test_an_iou_equal_to_the_threshold_does_not_count():
    labelled, half = [0, 0, 20, 0, 20, 10, 0, 10], [0, 0, 20, 0, 20, 5, 0, 5]
    assert ship_errors([(0.9, half)], [(labelled, 0)]) == []
    assert ship_errors([(0.9, [0, 0, 20, 0, 20, 5.1, 0, 5.1])], [(labelled, 0)]) == [0]


def test_objects_of_another_class_do_not_count():
    score = scored({"plane": [(0.9, turned(8))]}, {"ship": [(turned(0), 0)], "plane": []})
    assert score.angle_error.objects == 0


def test_the_iou_is_half_whatever_ap_is_taken_at():
    """A smaller box within the object has an IoU of 126/200."""
    found, labels = [(0.9, turned(4, long=14, short=9))], [(turned(0), 0)]
    assert ship_errors(found, labels, thresholds=(0.75, 0.95)) == pytest.approx([4])
    assert scored({"ship": found}, {"ship": labels}, thresholds=(0.75,)).mean_ap == 0


def test_percentiles_by_hand():
    """The 90th percentile of 0 10 20 30 is 7/10 of the way from the third to the fourth."""
    assert angle_error([np.array([30.0, 0.0, 20.0, 10.0])]) == AngleError(15.0, pytest.approx(27), 4)
    assert angle_error([np.array([4.0])]) == AngleError(4.0, 4.0, 1)


def test_all_classes_are_one_pool():
    """The median of 0 2 4 and 20 is 3; the mean of the classes' medians would be 11."""
    found = {
        "ship": [(0.7, turned(0)), (0.9, turned(2, x=50)), (0.8, turned(4, x=99))],
        "plane": [(0.6, turned(20))],
    }
    labels = {"ship": [(turned(0, x=x), 0) for x in (0, 50, 99)], "plane": [(turned(0), 0)], "harbor": []}
    score = scored(found, labels)
    assert score.angle_error.median == pytest.approx(3) and score.angle_error.objects == 4
    assert score.angle_error.p90 == pytest.approx(4 + 0.7 * 16)
    assert len(score.classes["harbor"].angle_errors) == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_boxes_far_from_each_other(seed):
    """The object and the angle of each detection are known; shapely says whether it is right."""
    rng = np.random.default_rng(seed)
    count = 60
    objects = np.c_[
        100 * np.arange(count), np.zeros(count), rng.uniform(10, 40, (count, 2)), rng.uniform(-2, 2, count)
    ]
    turns = rng.normal(0, 0.3, count).clip(-0.7, 0.7)
    found = objects + np.c_[rng.normal(0, 1.5, (count, 4)), turns]
    boxes, quads = (rbox_to_qbox(each) for each in (objects, found))
    shapes = [[shapely.Polygon(quad.reshape(4, 2)) for quad in each] for each in (boxes, quads)]
    ious = np.array([a.intersection(b).area / a.union(b).area for a, b in zip(*shapes, strict=True)])
    aspect = objects[:, 2:4].max(axis=1) / objects[:, 2:4].min(axis=1)
    counts = (ious > 0.5) & (aspect >= 1.5)
    rows = [(score, quad) for score, quad in zip(rng.permutation(count) / count, quads, strict=True)]
    actual = ship_errors(rows, [(box, 0) for box in boxes])
    assert 10 < counts.sum() < count
    assert sorted(actual) == pytest.approx(sorted(np.degrees(np.abs(turns[counts]))))
