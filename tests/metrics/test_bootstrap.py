from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.metrics.bootstrap import (
    SCORES,
    Difference,
    compare_runs,
    image_counts,
    mean_scores,
    outcomes,
    resampled_aps,
)
from tiltbox.metrics.objects import objects_by_class
from tiltbox.metrics.score import evaluate_task1

CLASSES = ("ship", "plane", "harbor")  # some detections are harbors, but no objects


def square(x: float, side: float = 10) -> tuple:
    return (x, 0, x + side, 0, x + side, side, x, side)


def random_labels(draw: np.random.Generator, images: int) -> dict[str, Labels]:
    """Few objects on a line, some difficult, some close together; sometimes a class has none."""
    labels = {}
    for number in range(images):
        count = int(draw.integers(0, 5))
        qboxes = np.array([square(x) for x in draw.integers(0, 60, count)], dtype=float).reshape(-1, 8)
        names = tuple(draw.choice(CLASSES[:2], count, p=[0.8, 0.2]).tolist())
        labels[f"P{number}"] = Labels(qboxes, names, (draw.random(count) < 0.2).astype(int))
    return labels


def random_detections(draw: np.random.Generator, labels: dict[str, Labels]) -> dict[str, ClassDetections]:
    """Detections around objects and elsewhere, with only a few different scores, so that there are ties."""
    found = {}
    for name in CLASSES:
        rows = []
        for image, each in labels.items():
            near = [box[0] for box, label in zip(each.qboxes, each.classes, strict=True) if label == name]
            for x in [*near, *near, *draw.integers(0, 90, 2)]:
                rows.append(
                    (image, draw.integers(1, 8) / 8, square(x + draw.normal(0, 1.5), draw.normal(10, 0.7)))
                )
        draw.shuffle(rows)
        images, scores, qboxes = zip(*rows, strict=True)
        found[name] = ClassDetections.of(images, np.array(scores), np.array(qboxes, dtype=float))
    return found


def copied_labels(labels: dict[str, Labels], counts) -> dict[str, Labels]:
    """As many copies of each image, under other names, as it was drawn."""
    return {
        f"{name}#{copy}": each
        for (name, each), count in zip(labels.items(), counts, strict=True)
        for copy in range(count)
    }


def copied_detections(found: ClassDetections, labels: dict[str, Labels], counts) -> ClassDetections:
    """Each detection with its copies beside it."""
    drawn = dict(zip(labels, counts, strict=True))
    rows = [
        (f"{name}#{copy}", score, qbox)
        for name, score, qbox in zip(found.images, found.scores, found.qboxes, strict=True)
        for copy in range(drawn[name])
    ]
    names, scores, qboxes = zip(*rows, strict=True) if rows else ((), (), ())
    return ClassDetections.of(
        names, np.array(scores, dtype=float), np.array(qboxes, dtype=float).reshape(-1, 8)
    )


@pytest.mark.parametrize("seed", range(12))
def test_each_resample_is_scored_as_its_images_are(seed):
    draw = np.random.default_rng(seed)
    labels = random_labels(draw, images=int(draw.integers(2, 9)))
    found = random_detections(draw, labels)
    counts = image_counts(draw, len(labels), 30)
    objects = objects_by_class(labels, CLASSES)
    aps = np.stack([resampled_aps(outcomes(found[name], objects[name]), counts) for name in CLASSES], axis=1)
    scores = mean_scores(aps)
    for row, drawn in enumerate(counts.tolist()):
        copies = {name: copied_detections(each, labels, drawn) for name, each in found.items()}
        truth = evaluate_task1(copies, copied_labels(labels, drawn), CLASSES)
        for at, each in enumerate(truth.classes.values()):
            assert tuple(aps[row, at].tolist()) == each.aps or (
                each.aps is None and np.isnan(aps[row, at]).all()
            )
        expected = truth.ap(0.5), truth.ap(0.75), truth.mean_ap
        assert tuple(None if np.isnan(each) else each for each in scores[row].tolist()) == expected


def test_the_counts_are_of_draws_with_replacement():
    counts = image_counts(np.random.default_rng(0), 40, 2000)
    assert counts[0].tolist() == [1] * 40
    assert (counts.sum(axis=1) == 40).all()
    # Each image is drawn 40 times with probability 1/40: mean 1, variance 39/40.
    assert counts[1:].mean(axis=0) == pytest.approx(1, abs=0.1)
    assert counts[1:].var() == pytest.approx(39 / 40, abs=0.03)


def scenes(images: int = 30) -> dict[str, Labels]:
    return {f"P{i}": Labels(np.array([square(0.0)]), ("ship",), np.array([0])) for i in range(images)}


def found_in(labels: dict[str, Labels], right: int) -> dict[str, ClassDetections]:
    """The object of the first ``right`` images, and a detection of nothing in the others."""
    boxes = [square(0.0 if number < right else 50.0) for number in range(len(labels))]
    scores = np.linspace(0.9, 0.1, len(labels))
    return {"ship": ClassDetections.of(list(labels), scores, np.array(boxes, dtype=float))}


def test_a_detector_does_not_differ_from_itself():
    labels = scenes()
    same = compare_runs([found_in(labels, 20)], [found_in(labels, 20)], labels, ["ship"])
    assert same.scores["AP50"] == Difference(same.scores["AP50"].first, same.scores["AP50"].first, 0.0, 0.0)
    assert not same.scores["AP50"].seen


def test_a_clear_difference_is_seen_and_a_slight_one_is_not():
    labels = scenes()
    clear = compare_runs([found_in(labels, 5)], [found_in(labels, 28)], labels, ["ship"]).scores["mAP"]
    slight = compare_runs([found_in(labels, 20)], [found_in(labels, 21)], labels, ["ship"]).scores["mAP"]
    assert clear.seen and clear.low > 0.4 and clear.low < clear.difference < clear.high
    assert slight.difference >= 0 and slight.low <= 0 and not slight.seen


def test_the_interval_is_that_of_a_mean_where_ap_is_one():
    """With one object per image and nothing wrong, AP over many images is about the share that is found."""
    labels = scenes(400)
    none = {"ship": ClassDetections.of((), np.empty(0), np.empty((0, 8)))}
    boxes = np.array([square(0.0)] * 200, dtype=float)
    half = {"ship": ClassDetections.of(list(labels)[:200], np.linspace(0.9, 0.1, 200), boxes)}
    found = compare_runs([none], [half], labels, ["ship"], resamples=4000).scores["AP50"]
    # AP goes in steps of 1/11: a recall of 0.5 is reached in about half of the draws, 0.4 in nearly all.
    assert found.second == pytest.approx(6 / 11) and (found.low, found.high) == pytest.approx(
        (5 / 11, 6 / 11)
    )


def test_the_order_of_the_detectors_turns_the_sign():
    draw = np.random.default_rng(1)
    labels = random_labels(draw, 20)
    one, other = (random_detections(draw, labels) for _ in range(2))
    there, back = (compare_runs([a], [b], labels, CLASSES).scores for a, b in ((one, other), (other, one)))
    for key in SCORES:
        assert there[key].difference == -back[key].difference
        assert (there[key].low, there[key].high) == pytest.approx((-back[key].high, -back[key].low))


def test_runs_are_averaged_and_drawn_too():
    """Two runs each, with all objects or none: a draw of two runs has both kinds, or one of them twice."""
    labels = scenes()
    all_, none = found_in(labels, 30), found_in(labels, 0)
    found = compare_runs([none, all_], [none, all_], labels, ["ship"], resamples=4000).scores["AP50"]
    assert (found.first, found.second, found.difference) == (pytest.approx(0.5), found.first, 0.0)
    assert (found.low, found.high) == pytest.approx((-1, 1))  # in 1/16 of the draws each
    one_sided = compare_runs([none], [none, all_], labels, ["ship"], resamples=4000)
    assert one_sided.runs == (1, 2) and one_sided.scores["AP50"].low == 0.0


def test_more_runs_narrow_the_interval_that_their_noise_makes():
    labels = scenes()
    all_, none = found_in(labels, 30), found_in(labels, 0)
    few, many = (
        compare_runs([none], [none, all_] * count, labels, ["ship"]).scores["AP50"] for count in (2, 8)
    )
    assert few.first == many.first and few.second == many.second
    assert many.high - many.low < few.high - few.low


def test_it_repeats():
    draw = np.random.default_rng(2)
    labels = random_labels(draw, 12)
    one, other = (random_detections(draw, labels) for _ in range(2))
    first, again, changed = (
        compare_runs([one], [other], labels, CLASSES, resamples=200, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again
    assert first.scores["mAP"].low != changed.scores["mAP"].low
    assert first.scores["mAP"].first == changed.scores["mAP"].first


def test_a_class_without_objects():
    draw = np.random.default_rng(5)
    labels = random_labels(draw, 6)
    found = compare_runs([random_detections(draw, labels)], [{}], labels, CLASSES)
    for key, none in product(SCORES, ("first", "second", "low", "high", "difference")):
        assert getattr(found.classes["harbor"][key], none) is None
    assert not found.classes["harbor"]["AP50"].seen
    assert found.scores["AP50"].second == 0.0


def test_a_class_that_many_draws_miss_has_an_interval_from_the_others():
    labels = scenes(8) | {"P9": Labels(np.array([square(0.0)]), ("plane",), np.array([0]))}
    right = {"plane": ClassDetections.of(["P9"], np.array([0.9]), np.array([square(0.0)]))}
    found = compare_runs([{}], [right], labels, ("ship", "plane")).classes["plane"]["AP50"]
    assert (found.first, found.second) == (0.0, pytest.approx(1.0))
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
