"""The text of Task1 files, millions of lines at a time: Arrow reads it, a compiled loop writes it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

from tiltbox.compiled import compiled
from tiltbox.dota.arrow import as_numpy, as_strings

NUMBERS = ("score", "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")
SCORE_DECIMALS, DECIMALS = 9, 2  # nine decimals tell all float32 scores above 1/64 apart

_LINE = f"%s %.{SCORE_DECIMALS}f" + f" %.{DECIMALS}f" * 8 + "\n"
_ROWS = 2**14  # at a time
_LONGEST = 22  # bytes of a space and a number
_LARGEST = 1e15  # a scaled number up to which int64 and float64 are both exact

_TYPES = {"image": pa.dictionary(pa.int32(), pa.string()), **dict.fromkeys(NUMBERS, pa.float64())}
_READ = csv.ReadOptions(column_names=list(_TYPES))
_PARSE = csv.ParseOptions(delimiter=" ", quote_char=False, escape_char=False)
_CONVERT = csv.ConvertOptions(column_types=_TYPES, null_values=[])


class Rows(NamedTuple):
    """Lines of a Task1 file: names, each once; an index into them for each row; numbers (n, 9), float64; the
    line of each row, None if rows and lines agree.
    """

    names: tuple[str, ...]
    image: np.ndarray
    numbers: np.ndarray
    lines: np.ndarray | None


def parse_plain(content: bytes) -> Rows | None:
    """Lines whose words are separated by single spaces; None for anything else, or for nothing."""
    try:
        table = csv.read_csv(io.BytesIO(content), _READ, _PARSE, _CONVERT).unify_dictionaries()
    except pa.ArrowException:
        return None
    column = table["image"].combine_chunks()
    assert isinstance(column, pa.DictionaryArray)  # as _TYPES asks for
    names, image = as_strings(column)
    lines = _lines(content, len(table))
    if " ".join(names).split() != list(names) or (lines is not None and len(lines) != len(table)):
        return None  # some name is not a word, or lines and rows do not match
    numbers = np.empty((len(table), len(NUMBERS)))
    for i, name in enumerate(NUMBERS):
        numbers[:, i] = as_numpy(table[name], np.float64)
    return Rows(names, image, numbers, lines)


def _lines(content: bytes, count: int) -> np.ndarray | None:
    """The numbers of the lines that are not empty; None if none of the ``count`` lines is empty."""
    if content.count(b"\n") + (not content.endswith(b"\n")) == count:
        return None
    numbers = [number for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    return np.array(numbers, dtype=np.int64)


def format_rows(
    names: Sequence[str], image: np.ndarray, scores: np.ndarray, qboxes: np.ndarray
) -> Iterator[bytes]:
    """The lines of a Task1 file, in pieces: scores with nine decimals, coordinates with two, no ``-0.00``.

    Args:
        names: Names of images.
        image: For each row an index into ``names``, shape (n,).
        scores: Shape (n,).
        qboxes: Shape (n, 8).
    """
    encoded = [name.encode() for name in names]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    starts = np.cumsum([0, *map(len, encoded)])
    longest = max(map(len, encoded), default=0) + len(NUMBERS) * _LONGEST + 1
    buffer = np.empty(min(_ROWS, len(image)) * longest, np.uint8)
    for first in range(0, len(image), _ROWS):
        rows = slice(first, first + _ROWS)
        scaled = np.empty((len(image[rows]), len(NUMBERS)))
        scaled[:, 0] = scores[rows] * 10.0**SCORE_DECIMALS
        scaled[:, 1:] = qboxes[rows] * 10.0**DECIMALS
        np.rint(scaled, out=scaled)
        if np.abs(scaled).max() <= _LARGEST:  # false for NaN
            yield buffer[: _put_rows(buffer, text, starts, image[rows], scaled)].tobytes()
        else:
            yield _formatted(names, image[rows], scaled)


def _formatted(names: Sequence[str], image: np.ndarray, scaled: np.ndarray) -> bytes:
    """The same for numbers of any size, line by line."""
    numbers = scaled / [10.0**SCORE_DECIMALS, *[10.0**DECIMALS] * 8] + 0.0  # which turns -0.0 into 0.0
    rows = zip(image.tolist(), numbers.tolist(), strict=True)
    return "".join(_LINE % (names[index], *row) for index, row in rows).encode()


@compiled
def _put_rows(
    buffer: np.ndarray, names: np.ndarray, starts: np.ndarray, image: np.ndarray, scaled: np.ndarray
) -> int:
    """Write lines to ``buffer``; returns its new end. ``scaled`` are the numbers without their points."""
    at = 0
    for row in range(len(image)):
        for k in range(starts[image[row]], starts[image[row] + 1]):
            buffer[at] = names[k]
            at += 1
        at = _put(buffer, at, int(scaled[row, 0]), SCORE_DECIMALS)
        for k in range(1, scaled.shape[1]):
            at = _put(buffer, at, int(scaled[row, k]), DECIMALS)
        buffer[at] = ord("\n")
        at += 1
    return at


@compiled
def _put(buffer: np.ndarray, at: int, number: int, decimals: int) -> int:
    """Write a space and ``number / 10**decimals``; returns the new end."""
    buffer[at] = ord(" ")
    at += 1
    if number < 0:
        buffer[at] = ord("-")
        at, number = at + 1, -number
    digits, rest = decimals + 1, number // 10 ** (decimals + 1)
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    point, end = at + digits - decimals, at + digits + 1
    for place in range(end - 1, at - 1, -1):
        if place == point:
            buffer[place] = ord(".")
        else:
            buffer[place] = ord("0") + number % 10
            number //= 10
    return end
