from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from tiltbox.dota import windows as module
from tiltbox.dota.labels import Labels, read_labels
from tiltbox.dota.windows import (
    TOLERANCE,
    Cutting,
    objects_in_window,
    scaled_windows,
    scales,
    sliding_windows,
    uncrossed,
    window_iofs,
    without_area,
)
from tiltbox.errors import SettingsError
from tiltbox.geometry import kernels

SAMPLE = Path(__file__).resolve().parents[2] / "../shared/dota-sample"
SQUARE = [0.0, 0, 10, 0, 10, 10, 0, 10]
BOW_TIE = [0.0, 0, 10, 10, 10, 0, 0, 10]  # the square with two corners swapped


def ships(*qboxes, difficult=0) -> Labels:
    return Labels(np.array(qboxes), ("ship",) * len(qboxes), np.full(len(qboxes), difficult))


@pytest.mark.parametrize(
    ("width", "height", "starts"),
    [
        (1, 1, [(0, 0)]),
        (1024, 1024, [(0, 0)]),
        (1025, 1024, [(0, 0), (1, 0)]),
        (1848, 100, [(0, 0), (824, 0)]),
        (1849, 100, [(0, 0), (824, 0), (825, 0)]),
        (1100, 1200, [(0, 0), (0, 176), (76, 0), (76, 176)]),
        (100, 4000, [(0, 0), (0, 824), (0, 1648), (0, 2472), (0, 2976)]),
    ],
)
def test_window_starts_counted_by_hand(width, height, starts):
    windows = sliding_windows(width, height, 1024, 200)
    assert [window[:2] for window in windows] == starts
    assert all((x1 - x0, y1 - y0) == (1024, 1024) for x0, y0, x1, y1 in windows)


@pytest.mark.parametrize("overlap", [0, 3, 9])
@pytest.mark.parametrize("length", range(1, 45))
def test_every_pixel_is_covered_and_no_window_occurs_twice(length, overlap):
    windows = sliding_windows(length, 5, 10, overlap)
    assert len(set(windows)) == len(windows)
    covered = np.zeros(max(length, 10), bool)
    for x0, _, x1, _ in windows:
        covered[x0:x1] = True
    assert covered.all()
    steps = np.diff([window[0] for window in windows])
    assert (steps[:-1] == 10 - overlap).all() and (steps > 0).all()


def test_scales_are_rounded_down():
    assert scales(1024, 500, (0.5, 1.0, 1.5)) == [(2048, 1000), (1024, 500), (682, 333)]


@pytest.mark.parametrize(
    ("width", "height", "sizes"),
    [
        (2048, 2048, {2048, 1024, 682}),
        (2048, 1229, {2048, 1024, 682}),  # 0.6001 of the largest window
        (2048, 1228, {1024, 682}),  # 0.5996 of it
        (900, 700, {1024, 682}),  # 0.6008 of the middle one
        (900, 600, {682}),
        (100, 100, {682}),  # none is filled enough; the smallest window is filled best
    ],
)
def test_scales_that_the_image_does_not_fill_are_left_out(width, height, sizes):
    windows = scaled_windows(width, height, 1024, 200, (0.5, 1.0, 1.5))
    assert {x1 - x0 for x0, _, x1, _ in windows} == sizes


def test_scales_filled_almost_alike_all_stay():
    sizes = {x1 - x0 for x0, _, x1, _ in scaled_windows(500, 500, 1024, 200, (1.0, 1.005))}
    assert sizes == {1024, 1018}


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 5000), (3000, 2000)])
def test_one_scale_always_stays(width, height):
    assert scaled_windows(width, height, 1024, 200, (1.0,)) == sliding_windows(width, height, 1024, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": ()}, "rates: no rate is given; give at least one"),
        ({"rates": (1.0, 0.5, 1)}, "rates: rate 1.0 is given twice; remove one"),
        ({"rates": (0.0,)}, "rates: rate 0.0 is not above 0"),
        ({"rates": (-1.0,)}, "rates: rate -1.0 is not above 0"),
        ({"rates": (float("nan"),)}, "rates: rate nan is not above 0"),
        ({"rates": (float("inf"),)}, "rates: rate inf makes windows of 0 pixels; give one that makes 32 to"),
        ({"rates": (1.0, 32.1)}, "rates: rate 32.1 makes windows of 31.9003 pixels"),
        ({"rates": (1e-320,)}, "rates: rate 1e-320 makes windows of inf pixels"),
        ({"rates": (0.0009,)}, "rates: rate 0.0009 makes windows of 1.13778e.06 pixels"),
        ({"size": 31}, "size: size 31 makes windows of 31 pixels"),
        ({"size": 2**20 + 1}, "size: size 1048577 makes windows of 1.04858e.06 pixels"),
        ({"overlap": 1024}, "overlap: overlap 1024 makes windows of 1024 pixels share 1024; give one from 0"),
        ({"overlap": 1023, "rates": (1.5,)}, "overlap: overlap 1023 makes windows of 682 pixels share 682"),
        ({"overlap": -1}, "overlap: overlap -1 makes windows of 1024 pixels share -1"),
        ({"iof": 0}, "iof: iof 0 is out of range; give a share above 0 and at most 1"),
        ({"iof": 1.1}, "iof: iof 1.1 is out of range"),
        ({"iof": float("nan")}, "iof: iof nan is out of range"),
    ],
)
def test_impossible_cuttings(changes, message):
    with pytest.raises(SettingsError, match=f"^{message}"):
        Cutting(**{"size": 1024, "overlap": 200, "rates": (1.0,), "iof": 0.7} | changes)


@pytest.mark.parametrize(
    "changes", [{"size": 32, "overlap": 31}, {"size": 2**20}, {"rates": (32.0, 2**-10)}, {"iof": 1}]
)
def test_extreme_cuttings(changes):
    cutting = Cutting(**{"size": 1024, "overlap": 0, "rates": (1.0,), "iof": 1e-9} | changes)
    assert cutting.windows(40, 40) == scaled_windows(40, 40, cutting.size, cutting.overlap, cutting.rates)


def test_no_objects():
    window = (0, 0, 10, 10)
    assert window_iofs(np.empty((0, 8)), window).shape == (0,)
    nothing = Labels(np.empty((0, 8)), (), np.empty(0, dtype=int))
    assert len(objects_in_window(nothing, window, 0.7)) == 0


@pytest.mark.parametrize(
    ("window", "iof"),
    [
        ((0, 0, 10, 10), 1),
        ((-5, -5, 20, 20), 1),
        ((0, 0, 7, 10), 0.7),
        ((5, 5, 15, 15), 0.25),
        ((2, 3, 4, 5), 0.04),  # the window is inside the object
        ((10, 0, 20, 10), 0),  # they share a side
        ((20, 20, 30, 30), 0),
    ],
)
@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("backward", [False, True])
def test_iof_of_a_square_counted_by_hand(window, iof, turn, backward):
    corners = np.roll(np.array(SQUARE).reshape(4, 2), turn, axis=0)
    corners = corners[::-1] if backward else corners
    assert window_iofs(corners.reshape(1, 8), window) == pytest.approx(iof, abs=1e-12)


def shapely_iofs(qboxes, window):
    quads = shapely.polygons(qboxes.reshape(-1, 4, 2))
    quads = np.where(shapely.is_valid(quads), quads, shapely.convex_hull(quads))
    return shapely.area(shapely.intersection(quads, shapely.box(*window))) / shapely.area(quads)


@pytest.mark.parametrize("grid", [None, 1])  # on the grid, corners and sides fall on those of the window
@pytest.mark.parametrize("window", [(0, 0, 10, 10), (3, 1, 7, 9), (-20, -20, 40, 40)])
def test_iof_of_any_quad_is_that_of_shapely(window, grid):
    qboxes = np.random.default_rng(0).uniform(-4, 14, (3000, 8))
    qboxes = qboxes if grid is None else np.round(qboxes)
    qboxes = qboxes[~without_area(qboxes)]
    # Quads that touch themselves are invalid to shapely, but their sides do not cross.
    valid = shapely.is_valid(shapely.polygons(qboxes.reshape(-1, 4, 2)))
    crossed = (uncrossed(qboxes.reshape(-1, 4, 2)) != qboxes.reshape(-1, 4, 2)).any(axis=(1, 2))
    assert not (valid & crossed).any()
    qboxes = qboxes[valid | crossed]
    assert np.abs(window_iofs(qboxes, window) - shapely_iofs(qboxes, window)).max() < 1e-12


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0), (3, 2, 1, 0)])
def test_crossing_quad_counts_as_its_hull(order):
    corners = np.array(BOW_TIE).reshape(4, 2)[list(order)]
    assert window_iofs(corners.reshape(1, 8), (0, 0, 10, 10)) == pytest.approx(1)
    assert window_iofs(corners.reshape(1, 8), (0, 0, 10, 3)) == pytest.approx(0.3)
    assert not without_area(corners.reshape(1, 8))


@pytest.mark.parametrize(
    "qbox",
    [[5.0] * 8, [0.0, 0, 10, 0, 10, 0, 0, 0], [0.0, 0, 3, 3, 9, 9, 1, 1], [1.0, 1, 5, 5, 1, 1, 5, 5]],
)
def test_object_without_area_is_in_no_window(qbox):
    assert without_area(np.array([qbox]))
    assert window_iofs(np.array([qbox]), (-10, -10, 20, 20)) == 0
    assert len(objects_in_window(ships(qbox, SQUARE), (-10, -10, 20, 20), 0.7)) == 1


def test_objects_without_area_far_from_the_origin():
    """Products of unshifted coordinates would have rounding errors above the least area."""
    rng = np.random.default_rng(0)
    starts, ways = rng.uniform(5e4, 1e6, (100, 1, 2)), rng.uniform(-300, 300, (100, 1, 2))
    flat = starts + ways * np.array([0, 0.3, 1, 0.6])[:, None]
    assert without_area(flat.reshape(-1, 8)).all()


def test_least_area_is_that_of_the_kernels():
    assert module.ZERO_AREA == kernels.ZERO_AREA


def test_object_stays_from_the_threshold_on():
    qboxes = [[x, 0.0, x + 10, 0, x + 10, 10, x, 10] for x in (3, 3.001, 2.999, -3, -3.001)]
    kept = objects_in_window(ships(*qboxes), (0, 0, 10, 10), 0.7)
    assert kept.qboxes[:, 0].tolist() == [3, 2.999, -3]


def test_objects_elsewhere_are_in_no_window_however_little_is_asked_for():
    window = (20, 20, 30, 30)
    touching = [10.0, 20, 20, 20, 20, 30, 10, 30]
    assert len(objects_in_window(ships(SQUARE, touching), window, 1e-12)) == 0


@pytest.mark.parametrize("iof", [1e-9, 0.3, 0.7, 1])
def test_objects_near_the_window_decide(monkeypatch, iof):
    """Each window keeps the same as if all objects were checked one by one, though only few are checked."""
    rng = np.random.default_rng(0)
    centres, sizes = rng.uniform(0, 1000, (2000, 1, 2)), 10 ** rng.uniform(0, 3, (2000, 1, 1))
    labels = ships(*(centres + sizes * rng.uniform(-1, 1, (2000, 4, 2))).reshape(-1, 8).round(1))
    looked_at = []
    monkeypatch.setattr(module, "window_iofs", lambda q, w: looked_at.append(len(q)) or window_iofs(q, w))
    for window in sliding_windows(1000, 1000, 150, 20):
        shares = window_iofs(labels.qboxes, window)
        inside = (shares >= iof - TOLERANCE) & (shares > 0)
        kept = objects_in_window(labels, window, iof)
        assert np.array_equal(kept.qboxes, labels.qboxes[inside] - np.tile(window[:2], 4))
        assert np.array_equal(kept.difficult == 2, shares[inside] < 1 - TOLERANCE)
    assert np.mean(looked_at) < 1000


def test_corners_are_shifted_and_neither_rounded_nor_clipped():
    kept = objects_in_window(
        ships([102.25, 50, 112.25, 50, 112.25, 60.5, 102.25, 60.5]), (104, 50, 110, 150), 0.5
    )
    assert kept.qboxes.tolist() == [[-1.75, 0, 8.25, 0, 8.25, 10.5, -1.75, 10.5]]
    assert kept.difficult.tolist() == [2]


@pytest.mark.parametrize(("window", "difficult"), [((0, 0, 10, 10), 1), ((0, 0, 9, 10), 2)])
def test_difficulty_of_whole_and_cut_objects(window, difficult):
    assert objects_in_window(ships(SQUARE, difficult=1), window, 0.7).difficult.tolist() == [difficult]


@pytest.mark.parametrize("corner", [(0, 0), (20_000, 10_000)])
def test_no_object_wholly_inside_counts_as_cut(corner):
    rng = np.random.default_rng(1)
    angles, sides = rng.uniform(0, 2 * np.pi, (5000, 1)), rng.uniform(1, 200, (5000, 2, 1))
    along, across = sides[:, 0] * np.hstack([np.cos(angles), np.sin(angles)]), sides[:, 1] / 2
    across = across * np.hstack([-np.sin(angles), np.cos(angles)])
    centers = rng.uniform(210, 810, (5000, 2)) + np.array(corner)
    quads = np.stack(
        [centers - across, centers + along - across, centers + along + across, centers + across], 1
    )
    window = (*corner, corner[0] + 1024, corner[1] + 1024)
    labels = objects_in_window(ships(*quads.reshape(-1, 8).tolist()), window, 0.7)
    assert len(labels) == 5000
    assert not labels.difficult.any()


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the DOTA sample is not beside the repository")
def test_real_objects_against_shapely():
    for path in sorted(SAMPLE.glob("*/labelTxt/*.txt")):
        qboxes = read_labels(path).qboxes
        for window in sliding_windows(2304, 1903, 1024, 200):
            assert np.abs(window_iofs(qboxes, window) - shapely_iofs(qboxes, window)).max() < 1e-12
