from __future__ import annotations

import numpy as np
import pytest
import shapely

from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.geometry.nms import nms_quads, nms_quads_in_groups

SQUARE = (0, 0, 4, 0, 4, 4, 0, 4)
SQUARE_CORNERS = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])


def brute_force(qboxes, scores, threshold: float) -> list[int]:
    polygons = [shapely.Polygon(np.reshape(qbox, (4, 2))) for qbox in qboxes]

    def iou(i: int, j: int) -> float:
        shared = polygons[i].intersection(polygons[j]).area
        return shared / (polygons[i].area + polygons[j].area - shared)

    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):  # sorted() is stable
        if all(iou(i, j) <= threshold for j in kept):
            kept.append(i)
    return kept


def scene(seed: int, count: int, width: float, sides: tuple[float, float]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-width, width, (count, 2))
    return rbox_to_qbox(np.c_[centres, rng.uniform(*sides, (count, 2)), rng.uniform(-4, 4, count)])


def test_nothing():
    assert nms_quads(np.empty((0, 8)), np.empty(0), 0.1).tolist() == []


def test_one_box():
    assert nms_quads([SQUARE], [0.3], 0.1).tolist() == [0]


@pytest.mark.parametrize(("qboxes", "scores"), [([SQUARE], [0.1, 0.2]), ([SQUARE], 0.1)])
def test_a_score_for_each_box(qboxes, scores):
    with pytest.raises(ValueError, match="a score for each box"):
        nms_quads(qboxes, scores, 0.1)


@pytest.mark.parametrize("qboxes", [[], SQUARE])
def test_other_shapes_are_refused(qboxes):
    with pytest.raises(ValueError, match=r"qboxes of shape \(n, 8\)"):
        nms_quads(qboxes, [], 0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_scores_of_any_type(dtype):
    assert nms_quads([SQUARE] * 3, np.array([0, 1, 2], dtype), 0.1).tolist() == [2]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_impossible_thresholds(threshold):
    with pytest.raises(ValueError, match="from 0 to 1"):
        nms_quads([SQUARE], [0.1], threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    ("count", "width", "sides"),
    [
        (80, 20, (1, 30)),  # crowded
        (150, 400, (5, 40)),  # sparse
        (100, 300, (1, 300)),  # small and very large
        (60, 0, (5, 40)),  # all at one point
        (60, 1e5, (5, 4000)),
    ],
)
def test_as_brute_force(threshold, count, width, sides):
    qboxes = scene(count, count, width, sides)
    scores = np.random.default_rng(1).integers(0, 20, count) / 20  # with ties
    assert nms_quads(qboxes, scores, threshold).tolist() == brute_force(qboxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_boxes_of_very_different_sizes(threshold):
    """From 1 to 4,000 pixels, including thin ones: small and large boxes meet in all levels of the grid."""
    rng = np.random.default_rng(5)
    rboxes = np.c_[
        rng.uniform(0, 900, (300, 2)), 10 ** rng.uniform(0, 3.6, (300, 2)), rng.uniform(-4, 4, 300)
    ]
    qboxes, scores = rbox_to_qbox(rboxes), rng.random(300)
    assert nms_quads(qboxes, scores, threshold).tolist() == brute_force(qboxes, scores, threshold)


@pytest.mark.parametrize("away", [(1e7, 0), (0, -1e7), (3e11, 2e11), (1e90, 1e90)])
def test_boxes_far_from_the_others(away):
    """The grid repeats over the scene, so boxes that share a cell need not be near each other."""
    qboxes = scene(4, 300, 300, (5, 40))
    far = scene(5, 6, 0, (5, 40)) + np.tile(away, 4)
    scores = np.random.default_rng(1).random(306)
    near = nms_quads(qboxes, scores[:300], 0.1)
    assert near.tolist() == brute_force(qboxes, scores[:300], 0.1)
    kept = nms_quads(np.r_[qboxes, far], scores, 0.1)
    assert kept[kept < 300].tolist() == near.tolist()
    assert kept[kept >= 300].tolist() == (300 + nms_quads(far, scores[300:], 0.1)).tolist()


@pytest.mark.parametrize("origin", [2.0**40, 2.0**50, 2.0**52])
def test_coordinates_that_are_large(origin):
    """Boxes with odd sides overlap by a pixel, which is the resolution of their coordinates."""
    side = np.array([0, 0, 1, 0, 1, 1, 0, 1])
    here = origin + 7 * side
    boxes = [here, *[here] * 300, here + np.tile((6, 0), 4), here + np.tile((0, 6), 4)]
    boxes += [origin + 7 * side + np.tile((300 * k, 300), 4) for k in range(1, 40)]
    kept = nms_quads(boxes, np.linspace(0.9, 0.1, len(boxes)), 0.0).tolist()
    assert kept == [0, *range(303, 342)]


def test_a_row_and_a_column_of_boxes():
    """Grids of one cell in one direction."""
    squares = np.tile(SQUARE, (30, 1)) + np.arange(30)[:, None] * np.tile([3, 0], 4)
    for qboxes in (squares, squares[:, [1, 0, 3, 2, 5, 4, 7, 6]]):
        scores = np.random.default_rng(2).random(30)
        assert nms_quads(qboxes, scores, 0.1).tolist() == brute_force(qboxes, scores, 0.1)


def test_equal_scores_are_taken_in_input_order():
    shifted = np.add(SQUARE, (1, 0) * 4)
    assert nms_quads([SQUARE, shifted], [0.5, 0.5], 0.1).tolist() == [0]
    assert nms_quads([shifted, SQUARE], [0.5, 0.5], 0.1).tolist() == [0]


def test_an_iou_equal_to_the_threshold_stays():
    half = (0, 0, 4, 0, 4, 2, 0, 2)  # IoU 8/16, exact in floating point
    assert nms_quads([SQUARE, half], [0.9, 0.8], 0.5).tolist() == [0, 1]
    assert nms_quads([SQUARE, half], [0.9, 0.8], np.nextafter(0.5, 0)).tolist() == [0]
    assert nms_quads([SQUARE, SQUARE], [0.9, 0.8], 1.0).tolist() == [0, 1]


def test_a_dropped_box_drops_none():
    chain = [np.add(SQUARE, (3 * step, 0) * 4) for step in range(3)]  # IoU 1/7 with the next one only
    assert nms_quads(chain, [0.9, 0.8, 0.7], 0.1).tolist() == [0, 2]


def test_boxes_without_area_and_not_finite_ones_stay_and_suppress_nothing():
    point, line = (1,) * 8, (0, 0, 4, 4, 4, 4, 0, 0)
    broken = (0, 0, 4, 0, 4, np.nan, 0, 4)
    endless = (0, 0, np.inf, 0, np.inf, 4, 0, 4)
    boxes = [point, line, broken, endless, point, line, broken, SQUARE, SQUARE]
    assert nms_quads(boxes, np.arange(9, 0, -1), 0.1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_crossed_boxes_follow_the_signed_iou():
    hourglass, top = (0, 0, 4, 0, 0, 4, 4, 4), (0, 0, 4, 0, 4, 1, 0, 1)  # IoU 3
    assert nms_quads([hourglass, top], [0.9, 0.7], 0.1).tolist() == [0]
    assert nms_quads([hourglass, SQUARE], [0.9, 0.7], 0.1).tolist() == [0, 1]  # its halves cancel


def test_boxes_that_overlap_are_found_wherever_the_cells_of_the_grid_end():
    """Two boxes almost as far apart as overlapping boxes can be, among many that keep the cells small."""
    for at in np.arange(4, 12, 0.1):
        here, there = np.add(SQUARE, (at, 0) * 4), np.add(SQUARE, (at + 3.9, 0) * 4)
        boxes = [SQUARE, here, *[here] * 300, there]
        assert nms_quads(boxes, np.linspace(0.9, 0.1, len(boxes)), 0.0).tolist() == [0, 1]


def test_either_way_round():
    boxes = scene(9, 60, 20, (5, 30)).reshape(-1, 4, 2)
    mixed = boxes.copy()
    mixed[::2] = boxes[::2, ::-1]
    scores = np.random.default_rng(3).random(60)
    kept = nms_quads(boxes.reshape(-1, 8), scores, 0.1)
    assert nms_quads(mixed.reshape(-1, 8), scores, 0.1).tolist() == kept.tolist()


def test_groups_are_apart():
    """The result is as for one group at a time, in order; some groups are empty."""
    rng = np.random.default_rng(3)
    qboxes = np.repeat(rng.uniform(0, 40, (300, 1, 2)), 4, axis=1) + SQUARE_CORNERS * rng.uniform(
        1, 3, (300, 1, 1)
    )
    qboxes, scores, groups = qboxes.reshape(-1, 8), rng.integers(0, 5, 300) / 5, rng.integers(0, 6, 300) * 2
    expected = []
    for group in range(13):
        rows = np.flatnonzero(groups == group)
        expected += rows[nms_quads(qboxes[rows], scores[rows], 0.1)].tolist()
    assert nms_quads_in_groups(qboxes, scores, groups, 13, 0.1).tolist() == expected
    assert 20 < len(expected) < 280


def test_no_groups():
    nothing = np.empty((0, 8)), np.empty(0), np.empty(0, np.int64)
    assert nms_quads_in_groups(*nothing, 0, 0.1).tolist() == []
