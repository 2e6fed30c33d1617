from __future__ import annotations

import numpy as np
import pytest
import shapely

from tiltbox.geometry.boxes import rbox_to_qbox
from tiltbox.geometry.polygons import aligned_quad_iou, best_overlaps, quad_iou

SQUARE = (0, 0, 4, 0, 4, 4, 0, 4)
NOTHING = np.empty((0, 8))
ONE, NONE = np.zeros(1, int), np.zeros(0, int)  # the groups of one quad and of nothing


def shapely_iou(first, second) -> np.ndarray:
    first, second = (shapely.polygons(np.reshape(quads, (-1, 4, 2))) for quads in (first, second))
    shared = shapely.area(shapely.intersection(first[:, None], second[None]))
    return shared / (shapely.area(first)[:, None] + shapely.area(second)[None] - shared)


def random_boxes(count: int, seed: int, side: float = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sizes, theta = rng.uniform(2, side, (count, 2)), rng.uniform(-4, 4, count)
    return rbox_to_qbox(np.c_[rng.uniform(0, 100, (count, 2)), sizes, theta])


def around(qbox, steps: int) -> np.ndarray:
    """The same corners, starting ``steps`` later."""
    return np.roll(np.reshape(qbox, (4, 2)), -steps, axis=0).ravel()


def reversed_quad(qbox) -> np.ndarray:
    return np.reshape(qbox, (4, 2))[::-1].ravel()


def test_nothing():
    assert quad_iou(NOTHING, NOTHING).shape == (0, 0)
    assert quad_iou([SQUARE], NOTHING).shape == (1, 0)
    assert aligned_quad_iou(NOTHING, NOTHING).shape == (0,)
    ious, rows = best_overlaps([SQUARE], ONE, NOTHING, NONE)
    assert ious.tolist() == [0] and rows.tolist() == [-1]


@pytest.mark.parametrize("steps", range(4))
def test_rounding_does_not_make_an_iou_above_1(steps):
    boxes = random_boxes(2000, seed=3)
    ious = aligned_quad_iou(boxes, [around(box, steps) for box in boxes])
    assert ious.max() == 1 and ious.min() > 1 - 1e-12


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Expected qboxes of shape \(n, 8\), but got \(8,\)"):
        quad_iou(SQUARE, [SQUARE])
    with pytest.raises(ValueError, match="got 1 and 0"):
        aligned_quad_iou([SQUARE], NOTHING)


@pytest.mark.parametrize(
    ("second", "iou"),
    [
        (SQUARE, 1),
        ((2, 0, 6, 0, 6, 4, 2, 4), 1 / 3),
        ((1, 1, 3, 1, 3, 3, 1, 3), 1 / 4),  # inside
        ((4, 0, 8, 0, 8, 4, 4, 4), 0),  # a shared side
        ((4, 4, 8, 4, 8, 8, 4, 8), 0),  # a shared corner
        ((9, 9, 10, 9, 10, 10, 9, 10), 0),
        ((2, 0, 4, 2, 2, 4, 0, 2), 1 / 2),  # a diamond
        ((0, 0, 4, 0, 4, 4, 4, 4), 1 / 2),  # a triangle
        ((0, 0, 4, 0, 2, 2, 0, 4), 1 / 2),  # a dent down to the diagonal
        ((0, 0, 4, 0, 1, 1, 0, 4), 1 / 4),  # a deeper one
    ],
)
def test_by_hand(second, iou):
    for steps in range(4):
        for quad in (around(second, steps), reversed_quad(around(second, steps))):
            assert quad_iou([SQUARE], [quad])[0, 0] == pytest.approx(iou, abs=1e-15)
            assert quad_iou([quad], [SQUARE])[0, 0] == pytest.approx(iou, abs=1e-15)


@pytest.mark.parametrize("offset", [0, 20_000])
def test_convex_quads_as_shapely_has_them(offset):
    first, second = random_boxes(60, 0) + offset, random_boxes(80, 1) + offset
    hull = np.array([shapely.MultiPoint(q.reshape(4, 2)).convex_hull.exterior.coords[:4] for q in first])
    sheared = (hull * [1.0, 0.7] + hull[..., ::-1] * [0.3, 0]).reshape(-1, 8)
    for quads in (first, sheared):
        assert quad_iou(quads, second) == pytest.approx(shapely_iou(quads, second), abs=1e-10)


def test_quads_with_a_dent_as_shapely_has_them():
    quads = np.random.default_rng(2).uniform(0, 50, (400, 8))
    quads = quads[shapely.is_valid(shapely.polygons(quads.reshape(-1, 4, 2)))][:80]
    assert quad_iou(quads, quads) == pytest.approx(shapely_iou(quads, quads), abs=1e-12)


def test_almost_equal_boxes():
    """Edges that coincide up to rounding must be counted once."""
    boxes = random_boxes(200, 3)
    for shift in (0, 1e-14, 1e-12, 1e-9):
        assert aligned_quad_iou(boxes, boxes + shift) == pytest.approx(np.ones(200), abs=1e-8)
    rng = np.random.default_rng(4)
    rboxes = np.c_[rng.uniform(0, 900, (500, 2)), rng.uniform(5, 90, (500, 2)), rng.uniform(-2, 2, 500)]
    along = rboxes.copy()  # moved along its own side by a third of it
    along[:, :2] += (rboxes[:, 2] / 3)[:, None] * np.stack([np.cos(rboxes[:, 4]), np.sin(rboxes[:, 4])], 1)
    ious = aligned_quad_iou(rbox_to_qbox(rboxes), rbox_to_qbox(along))
    assert ious == pytest.approx(np.full(500, 1 / 2), abs=1e-10)


@pytest.mark.parametrize(
    "odd",
    [
        (1, 1, 3, 1, 3, 1, 1, 1),  # a line
        (1, 1, 2, 2, 3, 3, 1.5, 1.5),
        (0.1, 0.1, 0.4, 0.7, 0.1, 0.1, 0.4, 0.7),
        (2,) * 8,  # a point
        (0, 0, 4, 0, 4, 4, 0, np.nan),
        (0, 0, np.inf, 0, np.inf, 4, 0, 4),
        (-np.inf, 0, 4, 0, 4, 4, 0, 4),
        (np.nan,) * 8,
    ],
)
def test_without_area_or_not_finite(odd):
    assert quad_iou([odd, SQUARE], [odd, SQUARE]).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("quad", "other", "iou"),
    [
        # Two triangles, of areas 16/3 and 4/3, that meet in (8/3, 4/3): the net area is 4.
        ((0, 0, 4, 0, 2, 2, 4, 4), SQUARE, None),
        # An hourglass in a square: both halves cancel.
        ((0, 0, 4, 0, 0, 4, 4, 4), SQUARE, 0),
        ((0, 0, 4, 0, 0, 4, 4, 4), (0, 0, 4, 0, 4, 1, 0, 1), 3 / (0 + 4 - 3)),
        ((0, 0, 4, 0, 0, 4, 4, 4), (0, 3, 4, 3, 4, 4, 0, 4), -3 / (0 + 4 + 3)),
        # Union 0 + 4 - 4.
        ((0, 0, 4, 0, 0, 4, 4, 4), (0, 0, 4, 0, 2, 2, 2, 2), 0),
    ],
)
def test_crossed_quads_as_the_devkit_has_them(quad, other, iou):
    expected = winding_iou(quad, other) if iou is None else iou
    assert quad_iou([quad], [other])[0, 0] == pytest.approx(expected, abs=1e-12)
    assert quad_iou([other], [quad])[0, 0] == pytest.approx(expected, abs=1e-12)


def test_a_crossed_quad_without_net_area_turns_as_the_devkit_has_it():
    """Rounding decides which half counts as negative; the value is what the devkit's iou_poly gives."""
    crossed, box = (62, 96.6, 113, 96.6, 62, 139.7, 113, 139.7), (62, 96.6, 113, 96.6, 113, 98.6, 62, 98.6)
    assert quad_iou([crossed], [box])[0, 0] == pytest.approx(-0.48812352, abs=1e-8)


def winding_iou(first, second) -> float:
    """The devkit's definition, from shapely: all pairs of signed triangles to the origin."""
    shared = sum(
        sign_a * sign_b * shapely.intersection(a, b).area
        for a, sign_a in signed_triangles(first)
        for b, sign_b in signed_triangles(second)
    )
    return shared / (abs(net_area(first)) + abs(net_area(second)) - shared)


def signed_triangles(quad) -> list[tuple[shapely.Polygon, float]]:
    corners = np.reshape(quad, (4, 2))
    turn = -1 if net_area(quad) < 0 else 1
    triangles = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        triangles.append((shapely.Polygon([(0, 0), a, b]), turn * np.sign(a[0] * b[1] - a[1] * b[0])))
    return triangles


def net_area(quad) -> float:
    x, y = np.reshape(quad, (4, 2)).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_any_quads_as_the_devkit_has_them():
    quads = np.random.default_rng(5).uniform(0, 40, (40, 8))
    ious = quad_iou(quads, quads)
    for i, j in np.ndindex(ious.shape):
        expected = winding_iou(quads[i], quads[j])
        # With a negative union the ratio is below -1; with a positive one it never is.
        assert ious[i, j] == pytest.approx(expected if expected > -1 else 0, rel=1e-6, abs=1e-9)


def test_best_overlaps():
    boxes, candidates = random_boxes(50, 6), random_boxes(30, 7)
    groups, candidate_groups = np.arange(50) % 3, np.arange(30) % 4
    ious, rows = best_overlaps(boxes, groups, candidates, candidate_groups)
    expected = shapely_iou(boxes, candidates) * (groups[:, None] == candidate_groups)
    assert ious == pytest.approx(expected.max(axis=1))
    assert rows.tolist() == np.where(expected.max(axis=1) > 0, expected.argmax(axis=1), -1).tolist()
    above, rows_above = best_overlaps(boxes, groups, candidates, candidate_groups, above=0.1)
    assert 0 < (ious > 0.1).sum() < (ious > 0).sum()
    assert np.array_equal(above[ious > 0.1], ious[ious > 0.1]) and (above[ious <= 0.1] <= 0.1).all()
    assert np.array_equal(rows_above[ious > 0.1], rows[ious > 0.1])


def test_the_first_of_equal_candidates_is_best():
    candidates = [(9, 9, 10, 9, 10, 10, 9, 10), SQUARE, SQUARE]
    assert best_overlaps([SQUARE], ONE, candidates, np.zeros(3, int))[1].tolist() == [1]
