"""Compiled float64 kernels on quads: IoU and suppression.

If edges cross, the intersection of two quads is what the DOTA devkit's ``iou_poly`` computes by summing over
signed triangles: the integral, over the plane, of the product of both winding numbers. For convex quads that
is the area they share. Clipping a closed polygon at the edges of a convex one (Sutherland and Hodgman) keeps
the winding numbers inside, whatever the clipped polygon looks like, so only a second quad that is not convex
has to be split, into two signed triangles.
"""

from __future__ import annotations

import numpy as np

from tiltbox.compiled import compiled

ZERO_AREA = 1e-6  # square pixels; above the rounding error of areas at image coordinates
ROUNDING = 1e-9  # of an IoU
USUAL = 95  # percentile of sizes up to which boxes share the lowest level of the grid
MOST_CELLS = 1e9  # in one direction, so that an integer can count them
FEW = 30  # boxes; with so few a grid costs more than it saves
_MOST_CORNERS = 20  # four cuts turn 4 corners into at most 6, 9, 13, 19

Boxes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # what ``prepare`` returns


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
def prepare(qboxes: np.ndarray) -> Boxes:
    """For qboxes (n, 8): corners (n, 4, 2), positively oriented; areas (n,); whether convex (n,); horizontal
    boxes x0 y0 x1 y1 (n, 4).
    """
    count = len(qboxes)
    quads, areas = np.empty((count, 4, 2)), np.empty(count)
    convex, horizontal = np.empty(count, np.bool_), np.empty((count, 4))
    for i in range(count):
        for k in range(4):
            quads[i, k, 0], quads[i, k, 1] = qboxes[i, 2 * k], qboxes[i, 2 * k + 1]
        if _runs_backwards(quads[i]):
            quads[i] = quads[i, ::-1].copy()
        areas[i] = abs(_signed_area(quads[i], 4))
        convex[i] = _is_convex(quads[i])
        horizontal[i, 0], horizontal[i, 1] = quads[i, :, 0].min(), quads[i, :, 1].min()
        horizontal[i, 2], horizontal[i, 3] = quads[i, :, 0].max(), quads[i, :, 1].max()
    return quads, areas, convex, horizontal


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
def _pair_iou(first: Boxes, i: int, second: Boxes, j: int, work: np.ndarray) -> float:
    """IoU of quad ``i`` of ``first`` and quad ``j`` of ``second``, both from ``prepare``."""
    a, b = first[3][i], second[3][j]
    if not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]):
        return 0.0
    both_convex = first[2][i] and second[2][j]
    if both_convex and not (first[1][i] > ZERO_AREA and second[1][j] > ZERO_AREA):
        return 0.0
    shared = _shared_area(first[0][i], second[0][j], second[2][j], work)
    union = first[1][i] + second[1][j] - shared
    if not ZERO_AREA < union < np.inf:  # also where a coordinate is not finite
        return 0.0
    return min(shared / union, 1.0) if both_convex else shared / union


@compiled
def _scratch() -> np.ndarray:
    return np.empty((3, _MOST_CORNERS, 2))


@compiled
def iou_matrix(first: Boxes, second: Boxes) -> np.ndarray:
    work = _scratch()
    result = np.empty((len(first[1]), len(second[1])))
    for i in range(len(first[1])):
        for j in range(len(second[1])):
            result[i, j] = _pair_iou(first, i, second, j, work)
    return result


@compiled
def iou_aligned(first: Boxes, second: Boxes) -> np.ndarray:
    work = _scratch()
    result = np.empty(len(first[1]))
    for i in range(len(result)):
        result[i] = _pair_iou(first, i, second, i, work)
    return result


@compiled
def _may_exceed(first: Boxes, i: int, second: Boxes, j: int, threshold: float) -> bool:
    """Whether the horizontal boxes and the areas leave room for an IoU above ``threshold``."""
    a, b = first[3][i], second[3][j]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return False
    if not (first[2][i] and second[2][j]):  # crossing edges may share more than the areas suggest
        return True
    most = min(width * height, first[1][i], second[1][j])
    return most > (threshold - ROUNDING) * (first[1][i] + second[1][j] - most)


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
    first: Boxes,
    first_group: np.ndarray,
    second: Boxes,
    second_group: np.ndarray,
    count: int,
    above: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each quad of ``first`` with a quad of ``second`` in its group, and that quad's row.

    Groups are numbers from 0 to ``count`` - 1. If no IoU is above ``above``, it may come out smaller.
    """
    work = _scratch()
    rows, begin = _grouped(second_group, count)
    best, index = np.zeros(len(first[1])), np.full(len(first[1]), -1)
    for i in range(len(best)):
        for k in range(begin[first_group[i]], begin[first_group[i] + 1]):
            j = rows[k]
            if _may_exceed(first, i, second, j, max(best[i], above)):
                iou = _pair_iou(first, i, second, j, work)
                if iou > best[i]:
                    best[i], index[i] = iou, j
    return best, index


@compiled
def _levels(sides: np.ndarray) -> np.ndarray:
    """The level of each box by its size: each holds boxes up to twice as large as the one below.

    So a few huge boxes, as a barely trained detector draws them, do not coarsen the cells of all others.
    """
    usual = max(np.percentile(sides, USUAL), ZERO_AREA)
    if sides.max() < 2 * usual:
        return np.zeros(len(sides), np.int64)
    return np.ceil(np.log2(np.maximum(sides, usual) / usual)).astype(np.int64)


@compiled
def _bounds(boxes: Boxes, centres: np.ndarray, sides: np.ndarray, level: np.ndarray) -> np.ndarray:
    """For each level: least x, least y, largest x, largest y of its centres; its largest side; its least and
    largest area, 0 and infinite where crossing edges may share more than the areas suggest.
    """
    bounds = np.empty((level.max() + 1, 7))
    bounds[:] = np.array([np.inf, np.inf, -np.inf, -np.inf, ZERO_AREA, np.inf, 0.0])
    for i in range(len(level)):
        row, known = bounds[level[i]], boxes[2][i]
        for k in range(2):
            row[k], row[k + 2] = min(row[k], centres[i, k]), max(row[k + 2], centres[i, k])
        row[4] = max(row[4], sides[i])
        row[5] = min(row[5], boxes[1][i] if known else 0.0)
        row[6] = max(row[6], boxes[1][i] if known else np.inf)
    return bounds


@compiled
def _grids(bounds: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each level: the size of its cells, its columns and rows, and where they begin in one long array.

    Cells are as large as the largest box of the level. If they would outnumber its boxes, the grid is smaller
    than the scene and repeats over it, so that boxes far apart may share a cell. That costs a comparison;
    larger cells, for the sake of one distant box, would crowd all others.
    """
    size, shape = np.ones(len(bounds)), np.ones((len(bounds), 2), np.int64)
    begin = np.zeros(len(bounds) + 1, np.int64)
    for k in range(len(bounds)):
        begin[k + 1] = begin[k]
        if members[k]:
            width, height = bounds[k, 2] - bounds[k, 0], bounds[k, 3] - bounds[k, 1]
            size[k] = max(bounds[k, 4], max(width, height) / MOST_CELLS)
            most = int(np.ceil(np.sqrt(members[k])))
            shape[k, 0] = min(int(width / size[k]) + 1, most)
            shape[k, 1] = min(int(height / size[k]) + 1, most)
            begin[k + 1] += shape[k, 0] * shape[k, 1]
    return size, shape, begin


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
def suppress(boxes: Boxes, threshold: float) -> np.ndarray:
    """Greedy NMS of prepared finite quads, best first: whether each is kept, (n,) bool."""
    count, horizontal = len(boxes[1]), boxes[3]
    kept = np.ones(count, np.bool_)
    if count == 0:
        return kept
    work = _scratch()
    centres = (horizontal[:, :2] + horizontal[:, 2:]) / 2
    sides = np.maximum(horizontal[:, 2] - horizontal[:, 0], horizontal[:, 3] - horizontal[:, 1])
    level = _levels(sides)
    bounds = _bounds(boxes, centres, sides, level)
    size, shape, begin = _grids(bounds, np.bincount(level))
    # The centre of an overlapping box is within half of its level's largest side of the horizontal box.
    # However coarse the coordinates are, rounding keeps the order of what is compared.
    reach = bounds[:, 4] * (0.5 + ROUNDING)
    newest = np.full(begin[-1], -1)  # in each cell, the last box kept
    older = np.empty(count, np.int64)  # the one kept before it in the same cell
    least_iou = threshold - ROUNDING
    for i in range(count):
        area = boxes[1][i] if boxes[2][i] else np.nan  # compares as false: all levels are searched
        x0, y0, x1, y1 = horizontal[i]
        for k in range(len(bounds)):
            if bounds[k, 6] <= least_iou * area or area <= least_iou * bounds[k, 5]:
                continue  # the areas alone keep the IoU below the threshold
            columns, rows = shape[k]
            left, right = _span(x0 - reach[k], x1 + reach[k], bounds[k, 0], bounds[k, 2], size[k], columns)
            top, bottom = _span(y0 - reach[k], y1 + reach[k], bounds[k, 1], bounds[k, 3], size[k], rows)
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    j = newest[begin[k] + row % rows * columns + column % columns]
                    while j >= 0 and kept[i]:
                        if (
                            _may_exceed(boxes, i, boxes, j, threshold)
                            and _pair_iou(boxes, i, boxes, j, work) > threshold
                        ):
                            kept[i] = False
                        j = older[j]
        if kept[i]:
            k = level[i]
            row = int((centres[i, 1] - bounds[k, 1]) / size[k]) % shape[k, 1]
            column = int((centres[i, 0] - bounds[k, 0]) / size[k]) % shape[k, 0]
            cell = begin[k] + row * shape[k, 0] + column
            older[i] = newest[cell]
            newest[cell] = i
    return kept


@compiled
def _suppress_few(boxes: Boxes, threshold: float) -> np.ndarray:
    """Like ``suppress``, without a grid: each box is compared with all kept ones."""
    kept, work = np.ones(len(boxes[1]), np.bool_), _scratch()
    for i in range(len(kept)):
        for j in range(i):
            if (
                kept[j]
                and _may_exceed(boxes, i, boxes, j, threshold)
                and _pair_iou(boxes, i, boxes, j, work) > threshold
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
        boxes = prepare(qboxes[mine])
        stays = _suppress_few(boxes, threshold) if len(mine) <= FEW else suppress(boxes, threshold)
        for i in range(len(mine)):
            if stays[i]:
                kept[total] = mine[i]
                total += 1
    return kept[:total]
