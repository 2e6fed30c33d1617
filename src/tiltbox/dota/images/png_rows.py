"""Undoes PNG filters, which store a row as its difference from a guess, in a compiled loop."""

from __future__ import annotations

import numpy as np

from tiltbox.compiled import compiled

_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)


@compiled
def undo_filters(rows: np.ndarray, above: np.ndarray, image: np.ndarray) -> bool:
    """Write the pixels of filtered 8-bit RGB rows as BGR; returns whether all filters are known.

    Args:
        rows: Shape (n, 1 + 3w): the filter, then red, green and blue of each pixel.
        above: The row of pixels above them, BGR, shape (w, 3); zeros for the first.
        image: Shape (n, w, 3), to be written.
    """
    for y in range(len(rows)):
        row, line = rows[y], image[y]
        kind = row[0]
        if kind > _PAETH:
            return False
        red = green = blue = corner_red = corner_green = corner_blue = np.int32(0)
        for x in range(len(line)):
            up_blue, up_green, up_red = np.int32(above[x, 0]), np.int32(above[x, 1]), np.int32(above[x, 2])
            # All three are kept in registers: reading the left pixel from memory again would be too slow.
            red = np.int32((row[3 * x + 1] + _guess(kind, red, up_red, corner_red)) & 255)
            green = np.int32((row[3 * x + 2] + _guess(kind, green, up_green, corner_green)) & 255)
            blue = np.int32((row[3 * x + 3] + _guess(kind, blue, up_blue, corner_blue)) & 255)
            line[x, 0], line[x, 1], line[x, 2] = blue, green, red
            corner_red, corner_green, corner_blue = up_red, up_green, up_blue
        above = line
    return True


@compiled
def _guess(kind: int, left: np.int32, up: np.int32, corner: np.int32) -> np.int32:
    if kind == _NONE:
        return np.int32(0)
    if kind == _SUB:
        return left
    if kind == _UP:
        return up
    if kind == _AVERAGE:
        return np.int32((left + up) >> 1)
    # Paeth: whichever of left, up and corner is nearest to left + up - corner; the first of these if tied.
    from_left, from_up = np.int32(abs(up - corner)), np.int32(abs(left - corner))
    from_corner = np.int32(abs(left + up - corner - corner))
    nearest, distance = (left, from_left) if from_left <= from_up else (up, from_up)
    return nearest if distance <= from_corner else corner
