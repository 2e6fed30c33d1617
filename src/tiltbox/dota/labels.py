"""The labelTxt format of DOTA: one object per line, ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult``.

Files in the wild come with header lines (``imagesource:``, ``gsd:``, ``acquisition dates:``), LF or CRLF, a
byte order mark, tabs and stray spaces; all of that is read. A line that cannot be read is an error that names
it; no object is lost silently.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiltbox.dota.reading import (
    MAX_COORDINATE,
    decoded,
    list_files,
    plain_name,
    read_bytes,
    require_class,
)
from tiltbox.errors import DataError

EXTENSIONS = (".txt",)

#: Parts of the names of folders in which DOTA's archives keep horizontal boxes beside the oriented ones.
HORIZONTAL = ("reclabeltxt", "hbb", "horizontal")

HEADER_KEYS = ("imagesource:", "gsd:", "acquisition dates:")
_DIFFICULTIES = {"0": 0, "1": 1, "2": 2}  # some files have 01
DECIMALS = 4  # of a written coordinate; more would only show rounding errors of the shift to a window


@dataclass(frozen=True)
class Labels:
    """The objects of one image or patch.

    Attributes:
        qboxes: Corners ``x1 y1 ... x4 y4`` in pixels of that image or patch, shape (n, 8), float64.
        classes: The class names, n of them.
        difficult: 0 for an ordinary object, 1 for a difficult one, 2 for one that a window cuts; (n,), int.
        header: The header lines as they are in the file.
    """

    qboxes: np.ndarray
    classes: tuple[str, ...]
    difficult: np.ndarray
    header: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: np.ndarray) -> Labels:
        """The objects at ``rows``, a mask of shape (n,) or an array of indices, without the header."""
        rows = np.arange(len(self))[rows]
        return Labels(self.qboxes[rows], tuple(self.classes[i] for i in rows), self.difficult[rows])


def list_labels(folder: Path) -> list[Path]:
    """The label files of a folder, sorted by name; other files and hidden ones are skipped.

    Raises:
        DataError: The folder does not exist, or two label files differ only in their extension.
    """
    return list_files(folder, EXTENSIONS, "label file")


def read_labels(path: Path, classes: Collection[str] | None = None) -> Labels:
    """Read a labelTxt file.

    A line of nine words has difficulty 0. Where ``classes`` is given, any other class name is an error.

    Raises:
        DataError: The file does not exist, it is not text, or a line cannot be read (with its number).
    """
    return parse_labels(decoded(read_bytes(path), path), path, classes)


def parse_labels(text: str, where: Path | str, classes: Collection[str] | None = None) -> Labels:
    """Read the text of a labelTxt file; ``where`` is its name for error messages.

    >>> labels = parse_labels("gsd:0.5\\n0 0 9 0 9 5.5 0 5.5 ship 1\\n", "P0001.txt")
    >>> labels.qboxes.tolist(), labels.classes, labels.difficult.tolist()
    ([[0.0, 0.0, 9.0, 0.0, 9.0, 5.5, 0.0, 5.5]], ('ship',), [1])
    """
    classes = None if classes is None else dict.fromkeys(classes)  # fast, and in order for messages
    header, objects = [], []
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # splitlines() knows more line ends
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words and words[0][0].isalpha() and line.strip().lower().startswith(HEADER_KEYS):
            header.append(line.strip())
        elif words:
            objects.append(_object(words, where, number, classes))
    corners, names, difficult, numbers = zip(*objects, strict=True) if objects else ((), (), (), ())
    qboxes = _coordinates(corners, where, numbers)
    return Labels(qboxes, names, np.array(difficult, dtype=int), tuple(header))


def format_labels(labels: Labels) -> str:
    """The text of a labelTxt file: header, then one object per line, LF.

    Coordinates have as many decimals as they need, at least one (as mmrotate writes them) and at most four.

    >>> format_labels(Labels(np.array([[0, 0, 9, 0, 9, 5.25, 0, 5.25]]), ("ship",), np.array([2])))
    '0.0 0.0 9.0 0.0 9.0 5.25 0.0 5.25 ship 2\\n'
    """
    lines = list(labels.header)
    coordinates = np.round(labels.qboxes, DECIMALS) + 0.0  # adding 0.0 turns -0.0 into 0.0
    for row, name, difficult in zip(
        coordinates.tolist(), labels.classes, labels.difficult.tolist(), strict=True
    ):
        lines.append(f"{' '.join(map(repr, row))} {name} {difficult}")
    return "".join(f"{line}\n" for line in lines)


def write_labels(path: Path, labels: Labels) -> None:
    """Write a labelTxt file in place: stages write into a folder that appears only when complete."""
    Path(path).write_bytes(format_labels(labels).encode())


def _object(
    words: list[str], where: Path | str, number: int, classes: Collection[str] | None
) -> tuple[list[str], str, int, int]:
    """The coordinates as they are written, the class, the difficulty and, for messages, the line."""
    if len(words) not in (9, 10):
        problem = f"has {len(words)} words, not the 10 of 'x1 y1 x2 y2 x3 y3 x4 y4 class difficult'"
        raise DataError(f"{where}:{number}", problem, "correct the line")
    name = plain_name(words[8])
    if classes is not None and name not in classes:
        require_class(name, classes, f"{where}:{number}")
    difficult = _DIFFICULTIES.get(words[9]) if len(words) == 10 else 0
    if difficult is None:
        difficult = _difficulty(words[9], f"{where}:{number}")
    return words[:8], name, difficult, number


def _coordinates(corners: Sequence[list[str]], where: Path | str, lines: Sequence[int]) -> np.ndarray:
    """Numbers of shape (n, 8), converted all at once or, if that fails, word by word."""
    try:
        qboxes = np.array(corners, dtype=np.float64).reshape(-1, 8)
        right = bool((np.abs(qboxes) <= MAX_COORDINATE).all())  # false for NaN
    except ValueError:
        right = False
    if not right or any("_" in "".join(words) for words in corners):  # float() reads 1_0 as 10
        for words, number in zip(corners, lines, strict=True):
            for word in words:
                _require_coordinate(word, f"{where}:{number}")
    return qboxes


def _require_coordinate(word: str, where: str) -> None:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise DataError(where, f"the coordinate '{word}' is not a finite number", "correct the line")
    if abs(value) > MAX_COORDINATE:
        problem = f"the coordinate '{word}' is beyond {MAX_COORDINATE:,.0f} pixels"
        raise DataError(where, problem, "correct the line")


def _difficulty(word: str, where: str) -> int:
    digit = word.lstrip("0")
    if digit not in ("", "1", "2"):
        raise DataError(where, f"the difficulty '{word}' is not 0, 1 or 2", "correct the line")
    return int(digit or 0)
