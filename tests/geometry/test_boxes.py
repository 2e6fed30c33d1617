from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tiltbox.geometry.boxes import le90, polygon_area, qbox_to_rbox, rbox_to_qbox

HALF_PI = np.pi / 2


def outline(qbox) -> shapely.Polygon:
    return shapely.Polygon(np.reshape(qbox, (4, 2)))


@pytest.mark.parametrize(
    ("convert", "width", "result"), [(rbox_to_qbox, 5, 8), (qbox_to_rbox, 8, 5), (le90, 5, 5)]
)
def test_nothing(convert, width, result):
    converted = convert(np.empty((0, width)))
    assert converted.shape == (0, result) and converted.dtype == np.float64
    assert polygon_area(np.empty((0, 8))).shape == (0,)


@pytest.mark.parametrize("shape", [(5,), (2, 7), (1, 2, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"of shape \(n, "):
        rbox_to_qbox(np.zeros(shape))


@pytest.mark.parametrize(
    ("rbox", "qbox"),
    [
        ((5, 5, 4, 2, 0), (3, 4, 7, 4, 7, 6, 3, 6)),
        ((5, 5, 4, 2, HALF_PI), (6, 3, 6, 7, 4, 7, 4, 3)),
        ((5, 5, 4, 2, np.pi), (7, 6, 3, 6, 3, 4, 7, 4)),
        ((0, 0, 2**1.5, 2**0.5, np.pi / 4), (-0.5, -1.5, 1.5, 0.5, 0.5, 1.5, -1.5, -0.5)),
    ],
)
def test_corners(rbox, qbox):
    assert rbox_to_qbox([rbox])[0] == pytest.approx(qbox)


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_not_finite_in_and_out(column, number):
    rbox = np.array([[5, 5, 4, 2, 0.0]])
    rbox[0, column] = number
    assert not np.isfinite(rbox_to_qbox(rbox)).all()


@pytest.mark.parametrize(
    ("qbox", "rbox"),
    [
        ((3, 4, 7, 4, 7, 6, 3, 6), (5, 5, 4, 2, 0)),
        ((7, 6, 3, 6, 3, 4, 7, 4), (5, 5, 4, 2, 0)),  # half a turn
        ((3, 6, 7, 6, 7, 4, 3, 4), (5, 5, 4, 2, 0)),  # the other way round
        ((3, 4, 7, 6, 7, 4, 3, 6), (5, 5, 4, 2, 0)),  # crossed
        ((4, 3, 6, 3, 6, 7, 4, 7), (5, 5, 4, 2, -HALF_PI)),  # upright: -90°, never +90°
        ((1, 1, 4, 1, 1, 1, 4, 1), (2.5, 1, 3, 0, 0)),  # a line
        ((2, 3, 2, 3, 2, 3, 2, 3), (2, 3, 0, 0, 0)),  # a point
    ],
)
def test_smallest_rectangles(qbox, rbox):
    assert qbox_to_rbox([qbox])[0] == pytest.approx(rbox)


@given(
    st.tuples(
        st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(1, 500), st.floats(1, 500), st.floats(-10, 10)
    )
)
def test_a_rectangle_is_its_own_smallest_one(rbox):
    qbox = rbox_to_qbox([rbox])
    back = qbox_to_rbox(qbox)
    assert back[0, 2] >= back[0, 3] and -HALF_PI <= back[0, 4] < HALF_PI
    assert outline(rbox_to_qbox(back)).symmetric_difference(outline(qbox)).area < 1e-6 * rbox[2] * rbox[3]


def test_of_any_quad_as_shapely_has_it():
    quads = np.random.default_rng(0).uniform(1000, 1040, (200, 8))
    for quad, rbox in zip(quads, qbox_to_rbox(quads), strict=True):
        expected = shapely.oriented_envelope(shapely.MultiPoint(quad.reshape(4, 2)))
        assert rbox[2] * rbox[3] == pytest.approx(expected.area)
        assert outline(rbox_to_qbox([rbox])).buffer(1e-6).covers(shapely.MultiPoint(quad.reshape(4, 2)))


@pytest.mark.parametrize("theta", [-HALF_PI, HALF_PI, -1e-17, 3 * HALF_PI, -9.0, 1e3])
@pytest.mark.parametrize("sides", [(4, 2), (2, 4)])
def test_le90_names_the_same_box(theta, sides):
    rbox = le90([(5, 5, *sides, theta)])
    assert (rbox[0, 2], rbox[0, 3]) == (4, 2) and -HALF_PI <= rbox[0, 4] < HALF_PI
    before = outline(rbox_to_qbox([(5, 5, *sides, theta)]))
    assert outline(rbox_to_qbox(rbox)).symmetric_difference(before).area < 1e-9


@pytest.mark.parametrize(
    ("polygon", "area"),
    [
        ((0, 0, 4, 0, 4, 2, 0, 2), 8),
        ((0, 0, 0, 2, 4, 2, 4, 0), 8),
        ((0, 0, 4, 0, 0, 3), 6),
        ((0, 0, 4, 0, 1, 1, 0, 4), 4),  # with a dent
        ((0, 0, 4, 0, 0, 2, 4, 2), 0),  # crossed: one half minus the other
        ((1, 1, 1, 1, 1, 1, 1, 1), 0),
    ],
)
def test_areas(polygon, area):
    assert polygon_area([polygon])[0] == area


def test_areas_far_from_the_origin_are_exact():
    assert polygon_area([np.array([0, 0, 0.1, 0, 0.1, 0.1, 0, 0.1]) + 1e6])[0] == pytest.approx(
        0.01, rel=1e-8
    )
