from __future__ import annotations

import numpy as np

from tiltbox.dota.labels import Labels
from tiltbox.dota.task1 import ClassDetections
from tiltbox.metrics.confusion import confusion
from tiltbox.metrics.objects import objects_by_class

CLASSES = ("plane", "ship")
HERE = (0, 0, 9, 0, 9, 9, 0, 9)
THERE = (90, 0, 99, 0, 99, 9, 90, 9)


def counts(objects: list[tuple], found: list[tuple]) -> list[list[int]]:
    """The confusion of objects (qbox, class, difficult) and detections (qbox, class, score) on one image."""
    qboxes, names, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    labels = Labels(np.array(qboxes, float).reshape(-1, 8), names, np.array(difficult, int))
    detections = {}
    for name in CLASSES:
        rows = [row for row in found if row[1] == name]
        corners = np.array([row[0] for row in rows], float).reshape(-1, 8)
        detections[name] = ClassDetections.of(["P1"] * len(rows), np.array([row[2] for row in rows]), corners)
    return confusion(detections, objects_by_class({"P1": labels}, CLASSES)).counts.tolist()


def test_nothing():
    assert counts([], []) == [[0, 0, 0]] * 3


def test_right_wrong_missed_and_of_nothing():
    assert counts([(HERE, "plane", 0)], [(HERE, "plane", 0.9)]) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert counts([(HERE, "plane", 0)], [(HERE, "ship", 0.9)]) == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert counts([(HERE, "ship", 0)], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert counts([], [(HERE, "ship", 0.9)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counts([(HERE, "ship", 0)], [(THERE, "ship", 0.9)]) == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_the_best_of_several_names_the_object():
    both = [(HERE, "ship", 0.5), (HERE, "plane", 0.9)]
    assert counts([(HERE, "ship", 0)], both) == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert counts([(HERE, "ship", 0)], both[::-1]) == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_low_scores_are_left_out():
    assert counts([(HERE, "ship", 0)], [(HERE, "ship", 0.29)]) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_difficult_objects_count_neither_way():
    assert counts([(HERE, "ship", 1)], [(HERE, "plane", 0.9)]) == [[0, 0, 0]] * 3
    assert counts([(HERE, "ship", 1)], []) == [[0, 0, 0]] * 3


def test_the_largest():
    objects = [(HERE, "ship", 0), (THERE, "plane", 0)]
    labels = {"P1": Labels(np.array([HERE, THERE], float), ("ship", "plane"), np.zeros(2, int))}
    wrong = ClassDetections.of(["P1"], np.ones(1), np.array([HERE], float))
    right = ClassDetections.of([], np.ones(0), np.empty((0, 8)))
    found = confusion({"plane": wrong, "ship": right}, objects_by_class(labels, CLASSES))
    assert len(objects) == found.counts.sum()
    assert found.largest(5) == [("ship", "plane", 1)]
