from __future__ import annotations

import numpy as np
import pytest
import shapely

from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.errors import SettingsError
from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.metrics.objects import objects_by_class
from tiltbox.metrics.score import IOU_THRESHOLDS, evaluate_task1, match, score_class

SHIP, FAR = (0, 0, 10, 0, 10, 10, 0, 10), (90, 90, 99, 90, 99, 99, 90, 99)
CLASSES = ("ship", "plane")


def shifted(qbox, x: float) -> tuple:
    return tuple(np.add(qbox, (x, 0) * 4))


def labels_of(*rows: tuple) -> Labels:
    """Rows of (qbox, class, difficult)."""
    qboxes, classes, difficult = zip(*rows, strict=True) if rows else ((), (), ())
    return Labels(np.array(qboxes, dtype=float).reshape(-1, 8), classes, np.array(difficult, dtype=int))


def detections_of(*rows: tuple) -> ClassDetections:
    """Rows of (image, score, qbox)."""
    images, scores, qboxes = zip(*rows, strict=True) if rows else ((), (), ())
    return ClassDetections.of(
        images, np.array(scores, dtype=float), np.array(qboxes, dtype=float).reshape(-1, 8)
    )


def verdicts(detections: ClassDetections, labels: dict[str, Labels], threshold: float = 0.5) -> str:
    """``+`` right, ``-`` wrong, for each detection, best first; in scenes without difficult objects."""
    curve = match(detections, objects_by_class(labels, ["ship"])["ship"]).curve(threshold)
    right = np.diff(curve.recall, prepend=0) > 0
    assert curve.precision.tolist() == (np.cumsum(right) / np.arange(1, len(right) + 1)).tolist()
    return "".join("+" if hit else "-" for hit in right)


def test_nothing():
    score = evaluate_task1({}, {}, CLASSES)
    assert score.ap(0.5) is None and score.mean_ap is None
    assert [each.aps for each in score.classes.values()] == [None, None]
    nothing = score_class(detections_of(), objects_by_class({}, ["ship"])["ship"])
    assert nothing.matches.curve(0.5).recall.shape == (0,)


def test_objects_without_detections():
    score = evaluate_task1({}, {"P1": labels_of((SHIP, "ship", 0))}, CLASSES)
    assert score.classes["ship"].aps == (0.0,) * 10 and score.mean_ap == 0


def test_the_thresholds():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize(
    ("rows", "boxes", "expected"),
    [
        ([(SHIP, "ship", 0)], [SHIP], "+"),
        ([(SHIP, "ship", 0)], [SHIP, SHIP], "+-"),  # the first claimant wins
        ([(SHIP, "ship", 0)], [FAR, SHIP], "-+"),
        ([(SHIP, "plane", 0), (FAR, "ship", 0)], [SHIP], "-"),  # another class
        # The better of two objects is taken, ...
        ([(shifted(SHIP, 2), "ship", 0), (SHIP, "ship", 0)], [SHIP, shifted(SHIP, 2)], "++"),
        # ... and the next best is not tried if that is claimed.
        ([(shifted(SHIP, 2), "ship", 0), (SHIP, "ship", 0)], [SHIP, SHIP], "+-"),
        # Among equal objects, the first is taken.
        ([(SHIP, "ship", 0), (SHIP, "ship", 0)], [SHIP, SHIP], "+-"),
    ],
)
def test_matching(rows, boxes, expected):
    detections = detections_of(*[("P1", 0.9 - 0.1 * i, box) for i, box in enumerate(boxes)])
    assert verdicts(detections, {"P1": labels_of(*rows)}) == expected


@pytest.mark.parametrize("difficult", [1, 2])
def test_difficult_objects_count_neither_way(difficult):
    labels = {"P1": labels_of((SHIP, "ship", difficult), (FAR, "ship", 0))}
    found = detections_of(("P1", 0.9, SHIP), ("P1", 0.8, SHIP), ("P1", 0.7, FAR))
    curve = match(found, objects_by_class(labels, ["ship"])["ship"]).curve(0.5)
    assert curve.recall.tolist() == [0, 0, 1] and curve.precision.tolist() == [0, 0, 1]


def test_a_difficult_object_that_overlaps_more_hides_an_ordinary_one():
    labels = {"P1": labels_of((shifted(SHIP, 1), "ship", 0), (SHIP, "ship", 1))}
    curve = match(detections_of(("P1", 0.9, SHIP)), objects_by_class(labels, ["ship"])["ship"]).curve(0.5)
    assert (curve.recall.tolist(), curve.precision.tolist()) == ([0], [0])


def test_an_iou_equal_to_the_threshold_is_not_a_match():
    half = (0, 0, 10, 0, 10, 5, 0, 5)  # IoU 50/100, exact in floating point
    labels = {"P1": labels_of((SHIP, "ship", 0))}
    assert verdicts(detections_of(("P1", 0.9, half)), labels, 0.5) == "-"
    assert verdicts(detections_of(("P1", 0.9, half)), labels, 0.4999) == "+"


def test_equal_scores_are_taken_in_input_order():
    labels = {"P1": labels_of((SHIP, "ship", 0))}
    assert verdicts(detections_of(("P1", 0.5, FAR), ("P1", 0.5, SHIP)), labels) == "-+"
    assert verdicts(detections_of(("P1", 0.5, SHIP), ("P1", 0.5, FAR)), labels) == "+-"


def test_images_are_apart():
    labels = {"P1": labels_of((SHIP, "ship", 0)), "P2": labels_of((FAR, "ship", 0)), "P3": labels_of()}
    found = detections_of(("P2", 0.9, SHIP), ("P3", 0.8, SHIP), ("P1", 0.7, SHIP), ("P2", 0.6, FAR))
    assert verdicts(found, labels) == "--++"


@pytest.mark.parametrize("odd", [(5,) * 8, (np.nan,) * 8])
def test_boxes_without_area_and_not_finite_ones_are_wrong(odd):
    assert verdicts(detections_of(("P1", 0.9, odd)), {"P1": labels_of((SHIP, "ship", 0))}) == "-"


def test_absent_classes():
    labels = {"P1": labels_of((SHIP, "ship", 0), (FAR, "plane", 1))}
    found = {"ship": detections_of(("P1", 0.9, SHIP)), "plane": detections_of(("P1", 0.9, SHIP))}
    null = evaluate_task1(found, labels, CLASSES)
    assert null.classes["plane"].aps is None and null.classes["plane"].mean_ap is None
    assert null.ap(0.5) == null.mean_ap == pytest.approx(1)
    zero = evaluate_task1(found, labels, CLASSES, absent_classes="zero")
    assert zero.classes["plane"].aps == (0.0,) * 10
    assert zero.ap(0.5) == zero.mean_ap == pytest.approx(0.5)
    with pytest.raises(SettingsError, match="choose null or zero"):
        evaluate_task1(found, labels, CLASSES, absent_classes="none")


def test_counts():
    labels = {"P1": labels_of((SHIP, "ship", 0), (FAR, "ship", 1)), "P2": labels_of((SHIP, "ship", 0))}
    score = evaluate_task1({"ship": detections_of(("P1", 0.9, SHIP))}, labels, CLASSES)
    assert [(each.objects, each.detections) for each in score.classes.values()] == [(2, 1), (0, 0)]


def brute_force_ap(rows: list[tuple], labels: dict[str, Labels], threshold: float) -> float:
    """The devkit's rules again, with shapely's polygons and plain lists."""
    polygons = {
        image: [shapely.Polygon(qbox.reshape(4, 2)) for qbox in found.qboxes]
        for image, found in labels.items()
    }
    claimed, outcomes = set(), []
    for image, _, qbox in sorted(rows, key=lambda row: -row[1]):
        box, best, best_iou = shapely.Polygon(np.reshape(qbox, (4, 2))), None, 0.0
        for i, polygon in enumerate(polygons[image]):
            shared = box.intersection(polygon).area
            if (iou := shared / (box.area + polygon.area - shared)) > best_iou:
                best, best_iou = i, iou
        if best_iou <= threshold:
            outcomes.append(-1)
        elif labels[image].difficult[best]:
            outcomes.append(0)
        else:
            outcomes.append(-1 if (image, best) in claimed else 1)
            claimed.add((image, best))
    objects = sum(int((found.difficult == 0).sum()) for found in labels.values())
    total = 0.0
    for step in range(11):
        best, right, wrong = 0.0, 0, 0
        for outcome in outcomes:
            right, wrong = right + (outcome > 0), wrong + (outcome < 0)
            if right / objects >= step * 0.1 and right:
                best = max(best, right / (right + wrong))
        total += best / 11
    return total


@pytest.mark.parametrize("seed", range(12))
def test_random_scenes_as_brute_force(seed):
    rng = np.random.default_rng(seed)
    labels, rows = {}, []
    for image in ("P1", "P2", "P3"):
        count = int(rng.integers(3, 12))
        rboxes = np.c_[
            rng.uniform(0, 150, (count, 2)), rng.uniform(8, 50, (count, 2)), rng.uniform(-2, 2, count)
        ]
        difficult = rng.choice([0, 0, 0, 1, 2], count)
        labels[image] = Labels(rbox_to_qbox(rboxes).round(1), ("ship",) * count, difficult)
        noise = rng.normal(0, 1, (3, count, 5)) * [3, 3, 1, 1, 0.1] * rng.uniform(0, 1, (3, 1, 1))
        found = rbox_to_qbox((rboxes + noise).reshape(-1, 5))
        rows += [(image, round(rng.random(), 1 if seed % 2 else 9), qbox) for qbox in found]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    score = evaluate_task1({"ship": detections_of(*rows)}, labels, ("ship",))
    for threshold in (0.5, 0.75, 0.95):
        assert score.ap(threshold) == brute_force_ap(rows, labels, threshold)
    assert score.mean_ap == pytest.approx(np.mean([brute_force_ap(rows, labels, t) for t in IOU_THRESHOLDS]))
