"""Task1 files: oriented boxes as the DOTA server takes them, one ``Task1_<class>.txt`` per class.

A line is ``image score x1 y1 x2 y2 x3 y3 x4 y4``. The image column names a whole image or, in the raw output
of a detector, a patch; the corners are in pixels of whichever it names.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from tiltbox.dota.reading import (
    MAX_COORDINATE,
    decoded,
    is_file_or_lost,
    plain_name,
    read_bytes,
    require_class,
)
from tiltbox.dota.task1_text import Rows, format_rows, parse_plain
from tiltbox.errors import DataError
from tiltbox.files.archives import CORRUPT
from tiltbox.files.zips import written_zip

log = logging.getLogger("tiltbox")

WORDS = 10
_GIVE = "give a folder or zip of Task1_<class>.txt"


@dataclass(frozen=True)
class ClassDetections:
    """The detections of one class, n rows.

    Attributes:
        names: Names of images or patches, each once.
        image: For each row an index into ``names``, shape (n,).
        scores: Shape (n,), float64.
        qboxes: Shape (n, 8), float64, pixels of the image or patch.
        source: Where they were read, as it precedes the number of a row: ``path:``.
        lines: The line of each row in that file, counted from 1, shape (n,); None if line and row agree.
    """

    names: tuple[str, ...]
    image: np.ndarray
    scores: np.ndarray
    qboxes: np.ndarray
    source: str = ""
    lines: np.ndarray | None = None

    @classmethod
    def of(cls, images: Sequence[str], scores: np.ndarray, qboxes: np.ndarray) -> ClassDetections:
        """Detections from an image name for each row.

        >>> ClassDetections.of(["P2", "P1", "P2"], np.zeros(3), np.zeros((3, 8))).image.tolist()
        [0, 1, 0]
        """
        known: dict[str, int] = {}
        image = np.array([known.setdefault(name, len(known)) for name in images], dtype=np.int32)
        return cls(tuple(known), image, scores, qboxes)

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> ClassDetections:
        """Some of the rows, by index or mask."""
        lines = self.lines
        if self.source or lines is not None:
            lines = (np.arange(1, len(self) + 1) if lines is None else lines)[rows]
        parts = (self.image[rows], self.scores[rows], self.qboxes[rows])
        return ClassDetections(self.names, *parts, self.source, lines)

    @property
    def images(self) -> list[str]:
        """The name of each row's image."""
        return [self.names[index] for index in self.image.tolist()]

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.source}{row + 1 if self.lines is None else self.lines[row]}"


def no_detections() -> ClassDetections:
    return ClassDetections.of((), np.empty(0), np.empty((0, 8)))


def task1_name(name: str) -> str:
    """The file name of a class.

    >>> task1_name("ship")
    'Task1_ship.txt'
    """
    return f"Task1_{name}.txt"


def write_task1(folder: Path, detections: Iterable[tuple[str, ClassDetections]]) -> None:
    """Write ``Task1_<class>.txt`` for every class given, even an empty one, and ``Task1.zip`` with all.

    Scores get nine decimals, coordinates two; rows keep their order. The same detections give the same bytes.
    Files are written in place: stages write into a folder that appears only when complete.
    """
    with written_zip(Path(folder) / "Task1.zip") as archive:
        for name, found in detections:
            with open(Path(folder) / task1_name(name), "wb") as file:
                archive.add(task1_name(name), _written(format_task1(found), file))


def _written(pieces: Iterable[bytes], file: BinaryIO) -> Iterator[bytes]:
    """The pieces, each written to ``file`` as it passes."""
    for piece in pieces:
        file.write(piece)
        yield piece


def format_task1(detections: ClassDetections) -> Iterator[bytes]:
    """The content of a Task1 file, in pieces.

    >>> corners = np.array([[-0.001, 0, 4, 0, 4, 2.555, 0, 2]])
    >>> b"".join(format_task1(ClassDetections.of(["P0006"], np.array([0.5]), corners)))
    b'P0006 0.500000000 0.00 0.00 4.00 0.00 4.00 2.56 0.00 2.00\\n'
    """
    return format_rows(detections.names, detections.image, detections.scores, detections.qboxes)


def read_task1(source: Path, classes: Collection[str]) -> dict[str, ClassDetections]:
    """Read the Task1 files of a folder or a zip, for every one of ``classes`` in that order.

    Blank lines, extra whitespace and CRLF are accepted; numbers may be ``nan`` or ``inf``. A barely trained
    detector draws boxes of any size: coordinates beyond 1e7 pixels count as infinite. A class without a file
    has no detections.

    Raises:
        DataError: The source does not exist or contains no Task1 file, a file is of an unknown class or
            cannot be read, or a line is malformed (with its number).
    """
    found = {}
    for where, file_name, content in _files(Path(source)):
        name = plain_name(file_name.removeprefix("Task1_").removesuffix(".txt"))
        require_class(name, classes, where)
        if name in found:
            raise DataError(where, f"{file_name} occurs twice", "keep one of them")
        found[name] = parse_task1(content, where)
    if not found:
        raise DataError(source, "contains no Task1_<class>.txt", _GIVE)
    if lost := [name for name in classes if name not in found]:
        known = f"{len(lost)} of {len(classes)} classes have no Task1 file, so no detections"
        log.warning("%s: %s: %s", source, known, ", ".join(lost))
    return {name: found.get(name, no_detections()) for name in classes}


def parse_task1(content: bytes, where: str | Path) -> ClassDetections:
    """Read the content of a Task1 file; ``where`` is its name for messages.

    >>> parse_task1(b"P0006 0.5 0 0 4 0 4 2 0 2\\r\\n", "Task1_ship.txt").images
    ['P0006']
    """
    rows = parse_plain(content) or _parse_any(decoded(content, where), where)
    numbers = rows.numbers
    qboxes = np.ascontiguousarray(numbers[:, 1:])
    qboxes[np.abs(qboxes) > MAX_COORDINATE] *= np.inf
    return ClassDetections(
        tuple(map(plain_name, rows.names)), rows.image, numbers[:, 0].copy(), qboxes, f"{where}:", rows.lines
    )


def _parse_any(text: str, where: str | Path) -> Rows:
    """Read lines of any layout, one by one; a malformed line is an error."""
    rows = [(number, line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    rows = [(number, words) for number, words in rows if words]
    try:
        numbers = np.array([words[1:] for _, words in rows], dtype=np.float64).reshape(len(rows), WORDS - 1)
    except ValueError:
        raise _malformed(rows, where) from None
    if text.count("_") > sum(words[0].count("_") for _, words in rows):  # NumPy reads 1_0 as 10
        raise _malformed(rows, where)
    known: dict[str, int] = {}
    image = np.array([known.setdefault(words[0], len(known)) for _, words in rows], dtype=np.int32)
    return Rows(tuple(known), image, numbers, np.array([number for number, _ in rows], dtype=np.int64))


def _files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    """Path for messages, bare name and content of each Task1 file."""
    if source.is_dir():
        for path in sorted(filter(is_file_or_lost, source.glob("Task1_*.txt"))):
            yield str(path), path.name, read_bytes(path)
    elif not source.is_file():
        raise DataError(source, "folder or zip not found", _GIVE)
    elif not zipfile.is_zipfile(source):
        raise DataError(source, "is neither a folder nor a zip of Task1 files", _GIVE)
    else:
        yield from _zipped_files(source)


def _zipped_files(source: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename.replace("\\", "/")).name  # some have backslashes
                if name.startswith("Task1_") and name.endswith(".txt") and not member.is_dir():
                    yield f"{source}/{member.filename}", name, archive.read(member)
    except CORRUPT as error:
        problem = f"cannot be read ({error or type(error).__name__})"
        raise DataError(source, problem, "write it again, without a password") from None


def _malformed(rows: list[tuple[int, list[str]]], where: str | Path) -> DataError:
    """The error for the first line that cannot be read."""
    for number, words in rows:
        if len(words) != WORDS:
            problem = f"has {len(words)} words, not the {WORDS} of 'image score x1 y1 x2 y2 x3 y3 x4 y4'"
            return DataError(f"{where}:{number}", problem, "correct the line")
        for word in words[1:]:
            if not _is_number(word):
                return DataError(f"{where}:{number}", f"'{word}' is not a number", "correct the line")
    raise AssertionError("every line can be read")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
