from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tiltbox.metrics.ap import RECALL_POINTS, voc07_ap


def ap_of(right: str, objects: int) -> float:
    """AP of detections, best first: ``+`` is right, ``-`` is wrong."""
    hits = np.cumsum([mark == "+" for mark in right])
    return voc07_ap(hits / objects, hits / np.arange(1, len(right) + 1))


def test_nothing():
    assert voc07_ap(np.empty(0), np.empty(0)) == 0


def test_the_points_are_numpys():
    assert RECALL_POINTS.tolist() == [i * 0.1 for i in range(11)]
    assert RECALL_POINTS[3] == 0.30000000000000004 > 3 / 10


@pytest.mark.parametrize(
    ("right", "objects", "elevenths"),
    [
        ("+", 1, 11),
        ("-", 1, 0),
        ("-+", 1, Fraction(11, 2)),
        ("+", 2, 6),  # points 0 to 0.5
        ("+-+", 2, 6 + 5 * Fraction(2, 3)),
        ("-++", 2, 11 * Fraction(2, 3)),  # later and better
        ("+" * 2, 10, 3),
        ("+" * 3, 10, 3),  # a recall of 3/10 misses the point 0.30000000000000004
        ("+" * 4, 10, 5),
        ("+" * 5, 10, 6),
        ("+" * 6, 10, 6),  # misses 0.6000000000000001
        ("+" * 7, 10, 7),  # misses 0.7000000000000001
        ("+" * 8, 10, 9),
        ("+" * 9, 30, 3),
        ("+" * 10, 30, 4),
        ("+" * 18, 30, 6),
        ("+" * 21, 30, 7),
        ("+" * 10, 10, 11),
    ],
)
def test_by_hand(right, objects, elevenths):
    assert ap_of(right, objects) == pytest.approx(float(Fraction(elevenths) / 11), abs=1e-15)


def test_a_perfect_result_is_not_quite_one():
    """Eleven elevenths, added one by one as in the devkit."""
    total = 0.0
    for _ in range(11):
        total += 1.0 / 11
    assert ap_of("+", 1) == total


def test_without_objects():
    assert voc07_ap(np.array([np.nan, np.nan]), np.zeros(2)) == 0
