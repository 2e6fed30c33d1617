"""Compiled float64 kernels on quads: IoU and suppression.

If edges cross, the intersection of two quads is what the DOTA devkit's ``iou_poly`` computes by summing over
signed triangles: the integral, over the plane, of the product of both winding numbers. For convex quads that
is the area they share. Clipping a closed polygon at the edges of a convex one (Sutherland and Hodgman) keeps
the winding numbers inside, whatever the clipped polygon looks like, so only a second quad that is not convex
has to be split, into two signed triangles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiltbox.compiled import compiled

ZERO_AREA = 1e-6  # square pixels; above the rounding error of areas at image coordinates
ROUNDING = 1e-9  # of an IoU
USUAL = 95  # percentile of sizes up to which boxes share the lowest level of the grid
MOST_CELLS = 1e9  # in one direction, so that an integer can count them
FEW = 30  # boxes; with so few a grid costs more than it saves
_MOST_CORNERS = 20  # four cuts turn 4 corners into at most 6, 9, 13, 19


class Quads(NamedTuple):
    """Quads with what is known of each; n of them.

    Attributes:
        corners: Positively oriented, shape (n, 4, 2).
        areas: Shape (n,).
        convex: Shape (n,), bool.
        horizontal: The horizontal boxes around them, x0 y0 x1 y1, shape (n, 4).
    """

    corners: np.ndarray
    areas: np.ndarray
    convex: np.ndarray
    horizontal: np.ndarray


class _Levels(NamedTuple):
    """Boxes of about the same size, k levels of them.

    Attributes:
        low, high: The least and the largest x and y of their centres, shape (k, 2).
        side: Their largest side, shape (k,).
        least_area, largest_area: Shape (k,); 0 and infinite where crossing edges may share more than the
            areas suggest.
    """

    low: np.ndarray
    high: np.ndarray
    side: np.ndarray
    least_area: np.ndarray
    largest_area: np.ndarray


class _Grids(NamedTuple):
    """A grid for each of k levels.

    Attributes:
        size: The side of its cells, shape (k,).
        columns, rows: Its numbers of cells, shape (k,).
        begin: Where its cells begin in one long array, shape (k + 1,).
    """

    size: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    begin: np.ndarray


@compiled
def _signed_area(polygon: np.ndarray, count: int) -> float:
    total = 0.0
    for i in range(1, count - 1):  # a fan from the first corner, so that only differences count
        ax, ay = polygon[i, 0] - polygon[0, 0], polygon[i, 1] - polygon[0, 1]
        bx, by = polygon[i + 1, 0] - polygon[0, 0], polygon[i + 1, 1] - polygon[0, 1]
        total += ax * by - ay * bx
    return total / 2


@compiled
def _runs_backwards(quad: np.ndarray) -> bool:
    """Whether the devkit reverses a quad, by the sign of its area as summed in image coordinates.

    If the halves of a crossed quad cancel, rounding decides which half counts as negative. Only the same sum
    gives the same answer.
    """
    total = 0.0
    for i in range(4):
        total += quad[i, 0] * quad[(i + 1) % 4, 1] - quad[i, 1] * quad[(i + 1) % 4, 0]
    return total < 0


@compiled
def _is_convex(quad: np.ndarray) -> bool:
    """Whether a quad of positive orientation turns left, or straight on, at every corner."""
    for i in range(4):
        a, b, c = quad[i], quad[(i + 1) % 4], quad[(i + 2) % 4]
        if (b[0] - a[0]) * (c[1] - b[1]) < (b[1] - a[1]) * (c[0] - b[0]):
            return False
    return True


@compiled
def prepare(qboxes: np.ndarray) -> Quads:
    """The quads of qboxes (n, 8)."""
    count = len(qboxes)
    corners, areas = np.empty((count, 4, 2)), np.empty(count)
    convex, horizontal = np.empty(count, np.bool_), np.empty((count, 4))
    for i in range(count):
        for k in range(4):
            corners[i, k, 0], corners[i, k, 1] = qboxes[i, 2 * k], qboxes[i, 2 * k + 1]
        if _runs_backwards(corners[i]):
            corners[i] = corners[i, ::-1].copy()
        areas[i] = abs(_signed_area(corners[i], 4))
        convex[i] = _is_convex(corners[i])
        horizontal[i, 0], horizontal[i, 1] = corners[i, :, 0].min(), corners[i, :, 1].min()
        horizontal[i, 2], horizontal[i, 3] = corners[i, :, 0].max(), corners[i, :, 1].max()
    return Quads(corners, areas, convex, horizontal)


@compiled
def _cut(polygon: np.ndarray, count: int, start: np.ndarray, end: np.ndarray, result: np.ndarray) -> int:
    """Write the part of ``polygon`` left of the line from ``start`` to ``end``; returns its corner count."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = polygon[count - 1, 0], polygon[count - 1, 1]
    p_side = dx * (py - start[1]) - dy * (px - start[0])
    kept = 0
    for i in range(count):
        qx, qy = polygon[i, 0], polygon[i, 1]
        q_side = dx * (qy - start[1]) - dy * (qx - start[0])
        if p_side * q_side < 0:
            share = p_side / (p_side - q_side)
            result[kept, 0], result[kept, 1] = px + share * (qx - px), py + share * (qy - py)
            kept += 1
        if q_side >= 0:
            result[kept, 0], result[kept, 1] = qx, qy
            kept += 1
        px, py, p_side = qx, qy, q_side
    return kept


@compiled
def _area_within(quad: np.ndarray, corners: np.ndarray, work: np.ndarray) -> float:
    """Signed area of the part of ``quad`` within the convex polygon ``corners`` of positive orientation."""
    source, target, count = work[0], work[1], 4
    for i in range(4):
        source[i, 0], source[i, 1] = quad[i, 0], quad[i, 1]
    for i in range(len(corners)):
        count = _cut(source, count, corners[i], corners[(i + 1) % len(corners)], target)
        if count < 3:
            return 0.0
        source, target = target, source
    return _signed_area(source, count)


@compiled
def _area_within_triangle(
    quad: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, work: np.ndarray
) -> float:
    triangle = work[2, :3]
    triangle[0], triangle[1], triangle[2] = a, b, c
    if _signed_area(triangle, 3) >= 0:
        return _area_within(quad, triangle, work)
    triangle[1], triangle[2] = c, b
    return -_area_within(quad, triangle, work)


@compiled
def _shared_area(first: np.ndarray, second: np.ndarray, second_convex: bool, work: np.ndarray) -> float:
    if second_convex:
        return _area_within(first, second, work)
    return _area_within_triangle(first, second[0], second[1], second[2], work) + _area_within_triangle(
        first, second[0], second[2], second[3], work
    )


@compiled
def _pair_iou(first: Quads, i: int, second: Quads, j: int, work: np.ndarray) -> float:
    """IoU of quad ``i`` of ``first`` and quad ``j`` of ``second``."""
    a, b = first.horizontal[i], second.horizontal[j]
    if not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]):
        return 0.0
    both_convex = first.convex[i] and second.convex[j]
    if both_convex and not (first.areas[i] > ZERO_AREA and second.areas[j] > ZERO_AREA):
        return 0.0
    shared = _shared_area(first.corners[i], second.corners[j], second.convex[j], work)
    union = first.areas[i] + second.areas[j] - shared
    if not ZERO_AREA < union < np.inf:  # also where a coordinate is not finite
        return 0.0
    return min(shared / union, 1.0) if both_convex else shared / union


@compiled
def _scratch() -> np.ndarray:
    return np.empty((3, _MOST_CORNERS, 2))


@compiled
def iou_matrix(first: Quads, second: Quads) -> np.ndarray:
    work = _scratch()
    result = np.empty((len(first.areas), len(second.areas)))
    for i in range(len(first.areas)):
        for j in range(len(second.areas)):
            result[i, j] = _pair_iou(first, i, second, j, work)
    return result


@compiled
def iou_aligned(first: Quads, second: Quads) -> np.ndarray:
    work = _scratch()
    result = np.empty(len(first.areas))
    for i in range(len(result)):
        result[i] = _pair_iou(first, i, second, i, work)
    return result


@compiled
def _may_exceed(first: Quads, i: int, second: Quads, j: int, threshold: float) -> bool:
    """Whether the horizontal boxes and the areas leave room for an IoU above ``threshold``."""
    a, b = first.horizontal[i], second.horizontal[j]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return False
    if not (first.convex[i] and second.convex[j]):  # crossing edges may share more than the areas suggest
        return True
    most = min(width * height, first.areas[i], second.areas[j])
    return most > (threshold - ROUNDING) * (first.areas[i] + second.areas[j] - most)


@compiled
def _grouped(group: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by group, otherwise in their order; and where each group begins, (count + 1,)."""
    begin = np.zeros(count + 1, np.int64)
    for row in range(len(group)):
        begin[group[row] + 1] += 1
    begin = np.cumsum(begin)
    place, rows = begin[:-1].copy(), np.empty(len(group), np.int64)
    for row in range(len(group)):
        rows[place[group[row]]] = row
        place[group[row]] += 1
    return rows, begin


@compiled
def best_match_in_groups(
    first: Quads,
    first_group: np.ndarray,
    second: Quads,
    second_group: np.ndarray,
    count: int,
    above: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each quad of ``first`` with a quad of ``second`` in its group, and that quad's row.

    Groups are numbers from 0 to ``count`` - 1. If no IoU is above ``above``, it may come out smaller.
    """
    work = _scratch()
    rows, begin = _grouped(second_group, count)
    best, index = np.zeros(len(first.areas)), np.full(len(first.areas), -1)
    for i in range(len(best)):
        for k in range(begin[first_group[i]], begin[first_group[i] + 1]):
            j = rows[k]
            if _may_exceed(first, i, second, j, max(best[i], above)):
                iou = _pair_iou(first, i, second, j, work)
                if iou > best[i]:
                    best[i], index[i] = iou, j
    return best, index


@compiled
def _level_of_each(sides: np.ndarray) -> np.ndarray:
    """The level of each box by its size: each holds boxes up to twice as large as the one below.

    So a few huge boxes, as a barely trained detector draws them, do not coarsen the cells of all others.
    """
    usual = max(np.percentile(sides, USUAL), ZERO_AREA)
    if sides.max() < 2 * usual:
        return np.zeros(len(sides), np.int64)
    return np.ceil(np.log2(np.maximum(sides, usual) / usual)).astype(np.int64)


@compiled
def _levels(quads: Quads, centres: np.ndarray, sides: np.ndarray, level: np.ndarray) -> _Levels:
    count = level.max() + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    side = np.full(count, ZERO_AREA)
    least, largest = np.full(count, np.inf), np.zeros(count)
    for i in range(len(level)):
        at = level[i]
        for k in range(2):
            low[at, k], high[at, k] = min(low[at, k], centres[i, k]), max(high[at, k], centres[i, k])
        side[at] = max(side[at], sides[i])
        least[at] = min(least[at], quads.areas[i] if quads.convex[i] else 0.0)
        largest[at] = max(largest[at], quads.areas[i] if quads.convex[i] else np.inf)
    return _Levels(low, high, side, least, largest)


@compiled
def _grids(levels: _Levels, members: np.ndarray) -> _Grids:
    """A grid for each level, whose cells are as large as the largest box of the level.

    If they would outnumber its boxes, the grid is smaller than the scene and repeats over it, so that boxes
    far apart may share a cell. That costs a comparison; larger cells, for the sake of one distant box, would
    crowd all others.
    """
    count = len(members)
    size, begin = np.ones(count), np.zeros(count + 1, np.int64)
    columns, rows = np.ones(count, np.int64), np.ones(count, np.int64)
    for k in range(count):
        begin[k + 1] = begin[k]
        if members[k]:
            width, height = levels.high[k] - levels.low[k]
            size[k] = max(levels.side[k], max(width, height) / MOST_CELLS)
            most = int(np.ceil(np.sqrt(members[k])))
            columns[k] = min(int(width / size[k]) + 1, most)
            rows[k] = min(int(height / size[k]) + 1, most)
            begin[k + 1] += columns[k] * rows[k]
    return _Grids(size, columns, rows, begin)


@compiled
def _span(low: float, high: float, least: float, largest: float, size: float, count: int) -> tuple[int, int]:
    """First and last of the cells, in one direction, from ``low`` to ``high``; at most ``count`` of them.

    Empty (the last before the first) if none of the level's centres can be there.
    """
    low, high = max(low, least), min(high, largest)
    if high < low:
        return 0, -1
    first, last = int((low - least) / size), int((high - least) / size)
    return first, min(last, first + count - 1)


@compiled
def suppress(quads: Quads, threshold: float) -> np.ndarray:
    """Greedy NMS of finite quads, best first: whether each is kept, (n,) bool."""
    count, horizontal = len(quads.areas), quads.horizontal
    kept = np.ones(count, np.bool_)
    if count == 0:
        return kept
    work = _scratch()
    centres = (horizontal[:, :2] + horizontal[:, 2:]) / 2
    sides = np.maximum(horizontal[:, 2] - horizontal[:, 0], horizontal[:, 3] - horizontal[:, 1])
    level = _level_of_each(sides)
    levels = _levels(quads, centres, sides, level)
    grids = _grids(levels, np.bincount(level))
    # The centre of an overlapping box is within half of its level's largest side of the horizontal box.
    # However coarse the coordinates are, rounding keeps the order of what is compared.
    reach = levels.side * (0.5 + ROUNDING)
    newest = np.full(grids.begin[-1], -1)  # in each cell, the last box kept
    older = np.empty(count, np.int64)  # the one kept before it in the same cell
    least_iou = threshold - ROUNDING
    for i in range(count):
        area = quads.areas[i] if quads.convex[i] else np.nan  # compares as false: all levels are searched
        x0, y0, x1, y1 = horizontal[i]
        for k in range(len(reach)):
            if levels.largest_area[k] <= least_iou * area or area <= least_iou * levels.least_area[k]:
                continue  # the areas alone keep the IoU below the threshold
            (x_low, y_low), (x_high, y_high) = levels.low[k], levels.high[k]
            size, columns, rows = grids.size[k], grids.columns[k], grids.rows[k]
            left, right = _span(x0 - reach[k], x1 + reach[k], x_low, x_high, size, columns)
            top, bottom = _span(y0 - reach[k], y1 + reach[k], y_low, y_high, size, rows)
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    j = newest[grids.begin[k] + row % rows * columns + column % columns]
                    while j >= 0 and kept[i]:
                        if (
                            _may_exceed(quads, i, quads, j, threshold)
                            and _pair_iou(quads, i, quads, j, work) > threshold
                        ):
                            kept[i] = False
                        j = older[j]
        if kept[i]:
            k = level[i]
            row = int((centres[i, 1] - levels.low[k, 1]) / grids.size[k]) % grids.rows[k]
            column = int((centres[i, 0] - levels.low[k, 0]) / grids.size[k]) % grids.columns[k]
            cell = grids.begin[k] + row * grids.columns[k] + column
            older[i] = newest[cell]
            newest[cell] = i
    return kept


@compiled
def _suppress_few(quads: Quads, threshold: float) -> np.ndarray:
    """Like ``suppress``, without a grid: each quad is compared with all kept ones."""
    kept, work = np.ones(len(quads.areas), np.bool_), _scratch()
    for i in range(len(kept)):
        for j in range(i):
            if (
                kept[j]
                and _may_exceed(quads, i, quads, j, threshold)
                and _pair_iou(quads, i, quads, j, work) > threshold
            ):
                kept[i] = False
                break
    return kept


@compiled
def keep_in_groups(
    qboxes: np.ndarray, scores: np.ndarray, group: np.ndarray, count: int, threshold: float
) -> np.ndarray:
    """Rows of finite qboxes (n, 8) that greedy NMS within each group keeps: by group, then falling score.

    Equal scores are taken in the order of the rows; groups are numbers from 0 to ``count`` - 1.
    """
    rows, begin = _grouped(group, count)
    kept, total = np.empty(len(rows), np.int64), 0
    for k in range(count):
        mine = rows[begin[k] : begin[k + 1]]
        mine = mine[np.argsort(-scores[mine], kind="mergesort")]
        quads = prepare(qboxes[mine])
        stays = _suppress_few(quads, threshold) if len(mine) <= FEW else suppress(quads, threshold)
        for i in range(len(mine)):
            if stays[i]:
                kept[total] = mine[i]
                total += 1
    return kept[:total]
